"""The survey: every candidate of a corpus, and which of them will be read, decided without reading any source code.

File sizes, licences and the random sample of `max_bytes` are settled here, so a mistake (an empty folder, nothing under
a permissive licence) is told before anything is written, and a rerun learns within a second or two from the fingerprint
that nothing has changed. A file whose content changes while its size and time of change stay the same goes unnoticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from kringle.data.languages import TITLES, describe_extensions
from kringle.data.licenses import Allowed, LicenseSyntaxError, leaves, normalise, parse
from kringle.data.sources.candidates import Candidate, Found, Skipped, printable
from kringle.data.sources.folder import folder
from kringle.data.sources.git import git
from kringle.data.sources.installed import installed
from kringle.data.table import Decision
from kringle.errors import UserError
from kringle.randomness import uniform
from kringle.recipe import CorpusSettings, Source
from kringle.workspace import fingerprint

SAMPLE_SEED = 0  # the corpus is the same for every training seed
NO_LICENSE = "no licence found"


@dataclass(frozen=True)
class Survey:
    """What a corpus' sources hold now.

    `selected` are the candidates to read, in canonical order (repo, path). `decisions` has a row for every candidate
    and step so far. `funnel` has a step with what is left after it and what it dropped, as JSON-able values.
    """

    candidates: tuple[Candidate, ...]
    selected: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    decisions: tuple[Decision, ...]
    funnel: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    fingerprint: str


def survey(corpus: CorpusSettings) -> Survey:
    """List what the sources hold and select what will be read. Raises `UserError` when nothing can come of it."""
    found = Found()
    for source in corpus.sources:
        one = _find(source, corpus)
        if source.kind != "installed":
            _require_candidates(one, corpus, printable(str(source.path)))
        found.extend(one)
    _require_candidates(found, corpus, "sources")
    candidates = canonical(found.candidates)
    selected, decisions, funnel, notes = select(candidates, corpus)
    skipped = sorted(found.skipped)
    decisions += [Decision(None, s.repo, s.path, "survey", None, "a file of its own", False, s.reason) for s in skipped]
    rows = [
        (c.source, c.repo, c.path, c.language, c.size, c.mtime_ns, c.licenses, c.revision, c.member) for c in candidates
    ]
    return Survey(
        candidates=tuple(candidates),
        selected=tuple(selected),
        skipped=tuple(skipped),
        decisions=tuple(decisions),
        funnel=tuple(funnel),
        notes=(*found.notes, *_skipped_notes(skipped), *notes),
        fingerprint=fingerprint(rows, skipped),
    )


def canonical(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates in order of (repo, path), each place on disk once: sources may overlap."""
    places: dict[tuple[str, str], Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: (c.repo, c.path, c.source, c.container, c.member)):
        places.setdefault((candidate.container, _place(candidate)), candidate)
    return list(places.values())


def _place(candidate: Candidate) -> str:
    # One blob may be at several paths of a tree, and each of them is a file of its own.
    return candidate.path if candidate.reader == "git" else candidate.member


def _find(source: Source, corpus: CorpusSettings) -> Found:
    if source.kind == "installed":
        return installed(corpus.languages)
    if source.path is None:
        raise UserError("needs a path", where=f"source {source.kind}")
    return (folder if source.kind == "folder" else git)(source.path, corpus.languages)


def _require_candidates(found: Found, corpus: CorpusSettings, where: str) -> None:
    if found.candidates:
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
    candidates: Sequence[Candidate], corpus: CorpusSettings
) -> tuple[list[Candidate], list[Decision], list[dict[str, Any]], list[str]]:
    """The candidates to read, with the decisions, the funnel and notes for the reader; independent of their order.

    In this order: a file must not be empty nor larger than `max_file_bytes`; its licences must be allowed; and if
    `max_bytes` is set, files are taken in an order drawn from (repo, path) until the next would exceed it.
    """
    decisions: list[Decision] = []
    funnel = [_step("found", candidates, {})]

    limit = f"1 to {corpus.max_file_bytes:,} bytes"
    sized: list[Candidate] = []
    dropped: list[Candidate] = []
    for c in candidates:
        fits = 0 < c.size <= corpus.max_file_bytes
        (sized if fits else dropped).append(c)
        decisions.append(Decision(None, c.repo, c.path, "size", c.size, limit, fits))
    reasons = {"empty": [c for c in dropped if not c.size], "too large": [c for c in dropped if c.size]}
    funnel.append(_step("size", sized, reasons))
    if not sized:
        raise UserError(
            f"none of {len(candidates):,} files has {limit}", where="corpus", hint="raise corpus.max_file_bytes"
        )

    licensed, more, notes = _licensed(sized, corpus, funnel)
    decisions += more
    selected = licensed
    if corpus.max_bytes is not None:
        selected, more = _sample(licensed, corpus.max_bytes)
        decisions += more
        taken = {id(c) for c in selected}
        funnel.append(_step("sample", selected, {"not drawn": [c for c in licensed if id(c) not in taken]}))
    notes += _language_notes(candidates, selected, corpus)
    return selected, decisions, funnel, notes


def _licensed(
    candidates: Sequence[Candidate], corpus: CorpusSettings, funnel: list[dict[str, Any]]
) -> tuple[list[Candidate], list[Decision], list[str]]:
    try:
        extra = [normalise(e) for e in corpus.allow_licenses]
        allowed = Allowed(extra)
    except LicenseSyntaxError as error:
        raise UserError(str(error), where="allow-license", hint="write it as SPDX does, such as MPL-2.0") from None
    rule = "any" if corpus.licenses == "any" else " or ".join(["permissive", *extra])
    verdicts = {
        licenses: corpus.licenses == "any" or allowed.permits(licenses) for licenses in {c.licenses for c in candidates}
    }
    kept = [c for c in candidates if verdicts[c.licenses]]
    dropped: dict[str, list[Candidate]] = {}
    decisions = []
    for c in candidates:
        label = license_label(c.licenses)
        if not verdicts[c.licenses]:
            dropped.setdefault(label, []).append(c)
        decisions.append(Decision(None, c.repo, c.path, "licence", None, rule, verdicts[c.licenses], label))
    funnel.append(_step("licence", kept, dropped))
    notes = _license_notes(dropped)
    present = {name for licenses in verdicts for e in licenses for name in (e, *_bases(e))}
    for name in extra:
        if corpus.licenses == "any":
            notes.append(f"allowed licence {name} changes nothing, because the recipe keeps any licence")
        elif name not in present:
            notes.append(f"allowed licence {name} matches no file; licences are written as SPDX writes them")
    if not kept:
        counts = ", ".join(f"{len(files):,} under {label}" for label, files in _by_size(dropped)[:5])
        raise UserError(
            f"all {len(candidates):,} files are left out by licence: {counts}",
            where="corpus.licenses",
            hint="set licenses: any in the recipe, or --allow-license with one of these names",
        )
    return kept, decisions, notes


def _bases(expression: str) -> list[str]:
    try:
        return [part for leaf in leaves(parse(expression)) for part in (leaf, leaf.partition(" WITH ")[0])]
    except LicenseSyntaxError:
        return []


def license_label(licenses: Sequence[str]) -> str:
    """A document's licences in one line: `MIT`, `MIT + BSD-3-Clause` (both apply), or that there is none."""
    return " + ".join(licenses) or NO_LICENSE


def _sample(candidates: Sequence[Candidate], max_bytes: int) -> tuple[list[Candidate], list[Decision]]:
    """As many candidates as fit, in an order drawn from (repo, path); at least one."""
    draws = [uniform(SAMPLE_SEED, "corpus-sample", c.repo, c.path) for c in candidates]
    order = sorted(range(len(candidates)), key=lambda i: (draws[i], i))  # candidates are in canonical order already
    totals = list(accumulate(candidates[i].size for i in order))
    count = max(1, sum(total <= max_bytes for total in totals))
    taken = set(order[:count])
    bound = draws[order[count]] if count < len(order) else 1.0
    rule = f"drawn before {bound:.6f} ({max_bytes:,} bytes)"
    decisions = [Decision(None, c.repo, c.path, "sample", draws[i], rule, i in taken) for i, c in enumerate(candidates)]
    return [c for i, c in enumerate(candidates) if i in taken], decisions


# -- what the reader is told -------------------------------------------------------------------------------------------


def _step(name: str, kept: Sequence[Candidate], dropped: dict[str, list[Candidate]]) -> dict[str, Any]:
    return {
        "name": name,
        "files": len(kept),
        "bytes": sum(c.size for c in kept),
        "dropped": [
            {"reason": reason, "files": len(files), "bytes": sum(c.size for c in files)}
            for reason, files in _by_size(dropped)
            if files
        ],
    }


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
