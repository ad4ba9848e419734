"""The survey: every candidate of a corpus, and which of them will be read, decided without reading any source code.

File sizes, licences and the random sample of `max_bytes` are settled here, so a mistake (an empty folder, nothing under
a permissive licence) is told before anything is written, and a rerun learns within a second or two from the fingerprint
that nothing has changed. A file whose content changes while its size and time of change stay the same goes unnoticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.data import funnel as funnels
from kringle.data import optout, origin, stars
from kringle.data.gather import draw, license_rule
from kringle.data.judged import Judged
from kringle.data.languages import TITLES, describe_extensions
from kringle.data.licenses import (
    NO_LICENSE,
    Allowed,
    LicenseSyntaxError,
    leaves,
    license_label,
    normalise,
    parse,
)
from kringle.data.sources.candidates import Candidate, Found, Skipped, printable
from kringle.data.sources.containers import Container
from kringle.data.sources.debian import debian
from kringle.data.sources.folder import folder
from kringle.data.sources.git import git
from kringle.data.sources.installed import installed
from kringle.data.sources.packages import packages
from kringle.data.sources.stack import stack
from kringle.errors import UserError
from kringle.settings import CorpusSettings, Source
from kringle.workspace import fingerprint_of_rows


@dataclass(frozen=True)
class Survey:
    """What a corpus' sources hold now.

    `selected` are the candidates to read, in canonical order (repo, path), and `containers` what will be opened.
    `decisions` are the steps so far, each with what it decided on every file that it saw. `funnel` has a step with what
    is left after it and what it dropped, as JSON-able values.
    """

    candidates: tuple[Candidate, ...]
    selected: tuple[Candidate, ...]
    containers: tuple[Container, ...]
    skipped: tuple[Skipped, ...]
    decisions: tuple[Judged, ...]
    funnel: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    fingerprint: str


_CHANGES = attrgetter("source", "repo", "path", "language", "size", "mtime_ns", "licenses", "revision", "member")
_CANONICAL = attrgetter("repo", "path", "source", "container", "member")
_SIZE = attrgetter("size")
_BY_TEXT = {"stack": stack, "packages": packages, "debian": debian}


def survey(corpus: CorpusSettings) -> Survey:
    """List what the sources hold and select what will be read. Raises `UserError` when nothing can come of it."""
    counted = None
    if corpus.stars is not None:
        counted = stars.digest(corpus.stars)
        stars.load(corpus.stars, counted)  # a table that cannot be read is a mistake to be told now
    found = Found()
    for source in corpus.sources:
        one = _find(source, corpus)
        if source.kind != "installed":
            _require_candidates(one, corpus, printable(source.location))
        found.extend(one)
    _require_candidates(found, corpus, "sources")
    candidates = canonical(found.candidates)
    containers = sorted(dict.fromkeys(found.containers), key=lambda c: (c.repo, c.prefix, c.place, _part(c)))
    selected, decisions, funnel, notes = select(candidates, corpus, bool(containers))
    skipped = sorted(found.skipped)
    reasons = [s.reason for s in skipped]
    out = np.zeros(len(skipped), dtype=np.bool_)
    decisions.append(Judged("survey", "a file of its own", skipped, out, witnesses=reasons))
    return Survey(
        candidates=tuple(candidates),
        selected=tuple(selected),
        containers=tuple(containers),
        skipped=tuple(skipped),
        decisions=tuple(decisions),
        funnel=tuple(funnel),
        notes=(*found.notes, *_skipped_notes(skipped), *notes),
        fingerprint=fingerprint_of_rows(map(_CHANGES, candidates), skipped, containers, counted),
    )


def _part(container: Container) -> int:
    """Where a part of a container begins, as a number to sort by."""
    return int(container.part.partition("-")[0] or 0)


def canonical(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates in order of (repo, path), each place on disk once: sources may overlap."""
    places: dict[tuple[str, str], Candidate] = {}
    for candidate in sorted(candidates, key=_CANONICAL):
        places.setdefault((candidate.container, _place(candidate)), candidate)
    return list(places.values())


def _place(candidate: Candidate) -> str:
    # One blob may be at several paths of a tree, and each of them is a file of its own.
    return candidate.path if candidate.reader == "git" else candidate.member


def _find(source: Source, corpus: CorpusSettings) -> Found:
    if source.kind == "installed":
        return installed(corpus.languages)
    if source.kind in _BY_TEXT:
        return _BY_TEXT[source.kind](source.text)
    if source.path is None:
        raise UserError("needs a path", where=f"source {source.kind}")
    return (folder if source.kind == "folder" else git)(source.path, corpus.languages)


def _require_candidates(found: Found, corpus: CorpusSettings, where: str) -> None:
    if found.candidates or found.containers:
        return
    instead = [f"{n:,} {TITLES[language]}" for language, n in found.unasked.most_common()]
    instead += [f"{n:,} {extension}" for extension, n in found.other.most_common(5)]
    instead += [f"{n:,} {reason}" for reason, n in Counter(_kind(s.reason) for s in found.skipped).most_common(3)]
    if not instead:
        raise UserError("holds no files", where=where, hint="point to a folder with source code in it")
    raise UserError(
        f"holds no file in {describe_extensions(corpus.languages)}; found instead: {', '.join(instead)}",
        where=where,
        hint="point to a folder with source code in these languages, or change the recipe's languages",
    )


# -- selection ---------------------------------------------------------------------------------------------------------


def select(
    candidates: Sequence[Candidate], corpus: CorpusSettings, containers: bool = False
) -> tuple[list[Candidate], list[Judged], list[dict[str, Any]], list[str]]:
    """The candidates to read, with the decisions, the funnel and notes for the reader; independent of their order.

    In this order: nobody must have opted out; a file must not be empty nor larger than `max_file_bytes`; its licences
    must be allowed; its path must not say that it is vendored, generated or minified; and if `max_bytes` is set, files
    are taken in an order drawn from (repo, path) until the next would exceed it. Where there are `containers` too, the
    sample is left to the collect stage, which knows what they hold, and no candidate at all is no mistake.
    """
    decisions: list[Judged] = []
    funnel = [_step("found", candidates, {})]

    rules = optout.OptOuts(corpus.opt_out)
    willing = list(candidates)
    if rules:
        named = [(c, rules.place(c.repo, c.path)) for c in candidates]
        willing = [c for c, rule in named if rule is None]
        out = [(c, rule) for c, rule in named if rule is not None]
        gone = [c for c, _ in out]
        decisions.append(
            Judged(optout.STEP, optout.THRESHOLD, gone, _none_of(gone), witnesses=[rule for _, rule in out])
        )
        funnel.append(_step(optout.STEP, willing, {"opted out": gone}))

    if candidates and not willing and not containers:
        hint = "kringle optout --work DIR lists the rules of a workspace"
        raise UserError(f"all {len(candidates):,} files are opted out", where="corpus", hint=hint)
    limit = f"1 to {corpus.max_file_bytes:,} bytes"
    sizes = np.array([c.size for c in willing], dtype=np.int64)
    fits = (sizes > 0) & (sizes <= corpus.max_file_bytes)
    sized, dropped = _divided(willing, fits)
    decisions.append(Judged("size", limit, willing, fits, values=sizes.astype(np.float64)))
    reasons = {"empty": [c for c in dropped if not c.size], "too large": [c for c in dropped if c.size]}
    funnel.append(_step("size", sized, reasons))
    if not sized and not containers:
        raise UserError(
            f"none of {len(candidates):,} files has {limit}", where="corpus", hint="raise corpus.max_file_bytes"
        )

    licensed, judged, notes = _licensed(sized, corpus, funnel, containers)
    decisions.append(judged)
    selected, judged = _own(licensed, corpus, funnel)
    decisions.append(judged)
    if corpus.max_bytes is not None and not containers:
        _, selected, judged, step = sample(selected, corpus.max_bytes)
        decisions.append(judged)
        funnel.append(step)
    if not containers:
        notes += _language_notes(candidates, selected, corpus)
    return selected, decisions, funnel, notes


def _divided(candidates: Sequence[Candidate], kept: NDArray[np.bool_]) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates (N,) that are kept, and the others."""
    return list(compress(candidates, kept)), list(compress(candidates, ~kept))


def _none_of(files: Sequence[Candidate]) -> NDArray[np.bool_]:
    return np.zeros(len(files), dtype=np.bool_)


def _own(
    candidates: Sequence[Candidate], corpus: CorpusSettings, funnel: list[dict[str, Any]]
) -> tuple[list[Candidate], Judged]:
    """The candidates whose path does not say that they are vendored, generated or minified."""
    kept: list[Candidate] = []
    gone: list[Candidate] = []
    dropped: dict[str, list[Candidate]] = {}
    witnesses = []
    for c in candidates:
        found = origin.of_path(c.path)
        if found is None or found.kind not in corpus.leave_out:
            kept.append(c)
        else:
            gone.append(c)
            dropped.setdefault(found.kind, []).append(c)
            witnesses.append(str(found))
    if dropped:
        funnel.append(_step(origin.STEP, kept, dropped))
    return kept, Judged(origin.STEP, origin.THRESHOLD, gone, _none_of(gone), witnesses=witnesses)


def _licensed(
    candidates: Sequence[Candidate], corpus: CorpusSettings, funnel: list[dict[str, Any]], containers: bool
) -> tuple[list[Candidate], Judged, list[str]]:
    try:
        extra = [normalise(e) for e in corpus.allow_licenses]
        allowed = Allowed(extra)
    except LicenseSyntaxError as error:
        raise UserError(str(error), where="allow-license", hint="write it as SPDX does, such as MPL-2.0") from None
    rule = license_rule(corpus.licenses, extra)
    verdicts = {
        licenses: corpus.licenses == "any" or allowed.permits(licenses) for licenses in {c.licenses for c in candidates}
    }
    labels = {licenses: license_label(licenses) for licenses in verdicts}
    permitted = np.array([verdicts[c.licenses] for c in candidates], dtype=np.bool_)
    kept, others = _divided(candidates, permitted)
    dropped: dict[str, list[Candidate]] = {}
    for c in others:
        dropped.setdefault(labels[c.licenses], []).append(c)
    judged = Judged("licence", rule, candidates, permitted, witnesses=[labels[c.licenses] for c in candidates])
    funnel.append(_step("licence", kept, dropped))
    notes = _license_notes(dropped)
    present = {name for licenses in verdicts for e in licenses for name in (e, *_bases(e))}
    for name in extra:
        if corpus.licenses == "any":
            notes.append(f"allowed licence {name} changes nothing, because the recipe keeps any licence")
        elif name not in present and not containers:
            notes.append(f"allowed licence {name} matches no file; licences are written as SPDX writes them")
    if not kept and not containers:
        counts = ", ".join(f"{len(files):,} under {label}" for label, files in _by_size(dropped)[:5])
        raise UserError(
            f"all {len(candidates):,} files are left out by licence: {counts}",
            where="corpus.licenses",
            hint="set licenses: any in the recipe, or --allow-license with one of these names",
        )
    return kept, judged, notes


def _bases(expression: str) -> list[str]:
    try:
        return [part for leaf in leaves(parse(expression)) for part in (leaf, leaf.partition(" WITH ")[0])]
    except LicenseSyntaxError:
        return []


def sample(
    candidates: Sequence[Candidate], max_bytes: int, others: np.ndarray | None = None
) -> tuple[float, list[Candidate], Judged, dict[str, Any]]:
    """As many files as fit into `max_bytes`, in an order drawn from (repo, path); at least one.

    `others` (N, 2) are draws and sizes of files in containers that are sampled together with the candidates. Returns
    the draw before which a file is taken, the candidates taken, the decisions, and the funnel's step.
    """
    draws = np.array([draw(c.repo, c.path) for c in candidates])
    sizes = np.array([c.size for c in candidates], dtype=np.float64)
    if others is not None:
        draws, sizes = np.concatenate([draws, others[:, 0]]), np.concatenate([sizes, others[:, 1]])
    order = np.argsort(draws, kind="stable")  # candidates are in canonical order already
    count = max(1, int(np.searchsorted(np.cumsum(sizes[order]), max_bytes, side="right")))
    bound = float(draws[order[count]]) if count < len(order) else 1.0
    rule = f"drawn before {bound:.6f} ({max_bytes:,} bytes)"
    own = draws[: len(candidates)]
    taken, left = _divided(candidates, own < bound)
    judged = Judged("sample", rule, candidates, own < bound, values=own)
    return bound, taken, judged, _step("sample", taken, {"not drawn": left})


# -- what the reader is told -------------------------------------------------------------------------------------------


def _step(name: str, kept: Sequence[Candidate], dropped: dict[str, list[Candidate]]) -> dict[str, Any]:
    counts = {reason: (len(files), sum(map(_SIZE, files))) for reason, files in dropped.items()}
    return funnels.step(name, len(kept), sum(map(_SIZE, kept)), counts)


def _by_size(groups: dict[str, list[Candidate]]) -> list[tuple[str, list[Candidate]]]:
    return sorted(groups.items(), key=lambda item: (-sum(c.size for c in item[1]), item[0]))


def _license_notes(dropped: dict[str, list[Candidate]]) -> list[str]:
    notes = []
    for label, files in _by_size(dropped):
        repos = Counter(c.repo for c in files)
        names = ", ".join(name for name, _ in repos.most_common(3)) + (", ..." if len(repos) > 3 else "")
        what = f"{len(files):,} files ({sum(c.size for c in files) / 1e6:,.1f} MB; {names})"
        if label == NO_LICENSE:
            notes.append(f"left out, because no licence was found: {what}; licenses: any in the recipe keeps them")
        else:
            allow = " ".join(f'--allow-license "{e}"' for e in files[0].licenses)
            notes.append(f"left out by licence {label}: {what}; {allow} includes them")
    return notes


def _language_notes(
    candidates: Sequence[Candidate], selected: Sequence[Candidate], corpus: CorpusSettings
) -> list[str]:
    found, kept = Counter(c.language for c in candidates), Counter(c.language for c in selected)
    return [
        f"no {TITLES[language]}: "
        + (f"all {found[language]:,} files were left out" if found[language] else "the sources hold no such file")
        for language in corpus.languages
        if not kept[language]
    ]


def _kind(reason: str) -> str:
    return reason.partition(":")[0].partition(",")[0]


def _skipped_notes(skipped: Sequence[Skipped]) -> list[str]:
    """One line per reason, with an example."""
    groups: dict[str, list[Skipped]] = {}
    for s in skipped:
        groups.setdefault(s.reason, []).append(s)
    return [
        f"left out: {len(group):,} x {reason} (such as {group[0].repo}/{group[0].path})"
        for reason, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
