"""What a recipe says, as frozen dataclasses: corpus, cleaning, tokenizer, model, training, evaluation and ablations.

Sizes are written as people write them (`60MB`, `1M`, `5%`) and held as plain numbers here: a field's `parse` takes its
YAML value. Every default of a recipe is here; `kringle.recipe` makes them from YAML.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal

from kringle.errors import UserError, unknown
from kringle.quantities import (
    parse_above_zero,
    parse_below_one,
    parse_bytes,
    parse_count,
    parse_flag,
    parse_fraction,
    parse_not_negative,
    parse_positive,
    parse_seeds,
    parse_whole,
)

LANGUAGES = ("python", "java", "javascript")
DEFAULT_FIDELITY: Literal["corrected"] = "corrected"  # of a recipe that does not say
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.IGNORECASE)  # of recipes, ablations and suites


def _parsed(parse: Callable[[Any, str], Any], default: Any = MISSING) -> Any:
    """A dataclass field whose YAML value goes through `parse(value, path)`."""
    return field(metadata={"parse": parse}) if default is MISSING else field(default=default, metadata={"parse": parse})


SOURCES = ("installed", "folder", "git", "stack", "packages", "debian")


@dataclass(frozen=True)
class Source:
    """Where documents come from: `installed: {}`, `folder: PATH`, `git: PATH`, `stack: PATH, PATTERN or URL` (tables),
    `packages: LIST` and `debian: LIST` (pinned lists: a shipped one's name or a file). `text` is the last three's."""

    kind: Literal["installed", "folder", "git", "stack", "packages", "debian"]
    path: Path | None = None
    text: str = ""

    @property
    def location(self) -> str:
        """What the user wrote after the kind."""
        return self.text or str(self.path or "")


def _parse_sources(value: Any, path: str) -> tuple[Source, ...]:
    if not isinstance(value, list) or not value:
        raise UserError("expected a list such as [{installed: {}}] or [{folder: ~/code}]", where=path)
    sources = []
    for number, entry in enumerate(value):
        here = f"{path}[{number}]"
        if not isinstance(entry, dict) or len(entry) != 1:
            raise UserError(f"expected one of {', '.join(SOURCES)} with its path, got {entry!r}", where=here)
        ((kind, detail),) = entry.items()
        if kind not in SOURCES:
            raise unknown(str(kind), SOURCES, here, "source")
        if kind == "installed":
            if detail not in (None, {}):
                raise UserError(
                    f"takes no settings, got {detail!r}", where=f"{here}.installed", hint="write installed: {}"
                )
            sources.append(Source("installed"))
        elif isinstance(detail, str) and detail:
            sources.append(source_of(kind, detail))
        else:
            raise UserError(f"expected a path, got {detail!r}", where=f"{here}.{kind}")
    return tuple(sources)


def source_of(kind: Literal["folder", "git", "stack", "packages", "debian"], text: str) -> Source:
    """A source of this kind from what the user wrote after it."""
    return Source(kind, Path(text).expanduser()) if kind in ("folder", "git") else Source(kind, text=text)


def _parse_opt_outs(value: Any, path: str) -> tuple[str, ...]:
    """Rules from a list, or from the file that is named."""
    from kringle.data.optout import parse_rule, read_rules

    if isinstance(value, str):
        return read_rules(Path(value), path)
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise UserError(f"expected a file's name or a list such as [owner/repo, id:...], got {value!r}", where=path)
    return tuple(str(parse_rule(rule, path)) for rule in value)


def _parse_leave_out(value: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(name in ORIGINS for name in value):
        raise UserError(f"expected a list out of {', '.join(ORIGINS)}, got {value!r}", where=path)
    return tuple(name for name in ORIGINS if name in value)


ORIGINS = ("vendored", "generated", "minified")  # kinds of files that are not their repository's own source


def _parse_languages(value: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"expected a list out of {', '.join(LANGUAGES)}, got {value!r}", where=path)
    for language in value:
        if language not in LANGUAGES:
            raise unknown(str(language), LANGUAGES, path, "language")
    return tuple(sorted(set(value), key=LANGUAGES.index))


def parse_folder(value: Any, path: str) -> Path | None:
    """A path from a string, `~` expanded; None from none."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"expected a path, got {value!r}", where=path)
    return None if value is None else Path(value).expanduser()


def _parse_mixture(value: Any, path: str) -> Mapping[str, float] | None:
    if value is None or value == "natural":
        return None
    if not isinstance(value, dict) or not value:
        raise UserError(f"expected natural, or weights such as {{python: 2, java: 1}}, got {value!r}", where=path)
    weights = {}
    for name, weight in value.items():
        if name not in LANGUAGES:
            raise unknown(str(name), LANGUAGES, path, "language")
        weights[str(name)] = parse_not_negative(weight, f"{path}.{name}")
    if not sum(weights.values()):
        raise UserError("all weights are 0", where=path)
    return weights


def _parse_trackers(value: Any, path: str) -> tuple[str, ...]:
    known = ("tensorboard", "wandb")
    if not isinstance(value, list):
        raise UserError(f"expected a list out of {', '.join(known)}, got {value!r}", where=path)
    for name in value:
        if name not in known:
            raise unknown(str(name), known, path, "tracker")
    return tuple(dict.fromkeys(value))


@dataclass(frozen=True)
class CorpusSettings:
    """What is collected. `max_bytes` caps the candidates' sizes before reading; `max_file_bytes` is The Stack's.

    `leave_out` names kinds of files that are not their repository's own source (minified ones are told too, but long
    lines are the basic filter's business), `opt_out` rules (or a file of them) of
    what must not be in, `stars` a table of repositories and their stars.
    """

    sources: tuple[Source, ...] = _parsed(_parse_sources)
    languages: tuple[str, ...] = _parsed(_parse_languages, LANGUAGES)
    licenses: Literal["permissive", "any"] = "permissive"
    allow_licenses: tuple[str, ...] = ()
    max_bytes: int | None = _parsed(lambda v, p: None if v is None else parse_bytes(v, p), None)
    max_file_bytes: int = _parsed(parse_bytes, 1_000_000)
    leave_out: tuple[str, ...] = _parsed(_parse_leave_out, ORIGINS[:2])
    opt_out: tuple[str, ...] = _parsed(_parse_opt_outs, ())
    stars: Path | None = _parsed(parse_folder, None)  # noqa: RUF009 (a field)


@dataclass(frozen=True)
class NearDedupSettings:
    """Near-duplicates by n-grams of words: {ngram: 1, threshold: 0.85} is SantaCoder's base step, {ngram: 5, threshold:
    0.7} its stronger one (paper, section 5.3). `threshold` is a Jaccard similarity."""

    ngram: int = _parsed(parse_count)
    threshold: float = _parsed(parse_above_zero)


@dataclass(frozen=True)
class CleanSettings:
    """The basic filter from Codex with SantaCoder's thresholds (bigcode-dataset preprocessing/filtering.py), strict
    comparisons: a file is dropped when max_line or mean_line is exceeded (characters) or alphanumeric is undercut."""

    max_line: int = _parsed(parse_count, 1000)
    mean_line: float = _parsed(parse_positive, 100.0)
    alphanumeric: float = _parsed(parse_fraction, 0.25)
    near_dedup: NearDedupSettings | None = None
    decontaminate: tuple[str, ...] = ("starter",)
    pii: bool = False  # replace emails, public IP addresses and keys by stand-ins


@dataclass(frozen=True)
class CommentsFilter:
    """Keep a document iff above < comment-to-code ratio < below, both strict (SantaCoder: 0.01 and 0.80)."""

    above: float = _parsed(parse_fraction, 0.0)
    below: float = _parsed(parse_fraction, 1.0)

    def __post_init__(self) -> None:
        if self.above >= self.below:
            what = f"no ratio is above {self.above:g} and below {self.below:g}"
            raise UserError(what, where="filter.comments", hint="make above smaller than below")


@dataclass(frozen=True)
class StarsFilter:
    """Keep documents of repositories with enough stars: `at_least` 5 is what the paper says, `above` 5 what
    SantaCoder's code did, `quantile` 0.7 keeps the 30% with the most. Unknown counts as none, as in the original."""

    at_least: int | None = _parsed(lambda v, p: None if v is None else parse_count(v, p), None)
    above: int | None = _parsed(lambda v, p: None if v is None else int(parse_not_negative(v, p)), None)
    quantile: float | None = _parsed(lambda v, p: None if v is None else parse_below_one(v, p), None)

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.at_least, self.above, self.quantile)) != 1:
            hint = "write stars: {at_least: 5}"
            raise UserError("expected one of at_least, above, quantile", where="filter.stars", hint=hint)


@dataclass(frozen=True)
class FertilityFilter:
    """Keep documents with enough characters per token. `percentile` 5 drops the lowest 5% of each language; or a
    threshold a language (SantaCoder's, for its own tokenizer: python 2.5, java 2.9, javascript 2.6)."""

    percentile: float | None = _parsed(lambda v, p: None if v is None else parse_positive(v, p), None)
    python: float | None = _parsed(lambda v, p: None if v is None else parse_positive(v, p), None)
    java: float | None = _parsed(lambda v, p: None if v is None else parse_positive(v, p), None)
    javascript: float | None = _parsed(lambda v, p: None if v is None else parse_positive(v, p), None)

    def __post_init__(self) -> None:
        thresholds = [x for x in (self.python, self.java, self.javascript) if x is not None]
        if (self.percentile is None) == (not thresholds):
            hint = "write fertility: {percentile: 5} or fertility: {python: 2.5}"
            raise UserError("expected a percentile or thresholds by language", where="filter.fertility", hint=hint)
        if self.percentile is not None and self.percentile >= 100:
            raise UserError(f"must be below 100, got {self.percentile:g}", where="filter.fertility.percentile")


@dataclass(frozen=True)
class FilterSettings:
    """Which documents an arm sees; None leaves a signal unused."""

    stars: StarsFilter | None = None
    comments: CommentsFilter | None = None
    near_dedup: NearDedupSettings | None = None
    fertility: FertilityFilter | None = None


@dataclass(frozen=True)
class TokenizerSettings:
    """`vocab_size` counts neither the five specials nor the padding to a multiple of 128. `specials` are spelt as in
    `<fim_prefix>`, which editors expect, or as in SantaCoder's `<fim-prefix>`. `folder` names a folder with a
    `tokenizer.json`, such as a model's or an earlier run's, that is taken as it is: a corpus that grows is then encoded
    where it grew. With it both keys are left out; with `model.init`, which brings its own, all three."""

    vocab_size: int = _parsed(parse_count, 0)
    folder: Path | None = _parsed(parse_folder, None)  # noqa: RUF009 (a field)
    specials: Literal["underscore", "hyphen"] = "underscore"


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the transformer (see `kringle.model.transformer.ModelConfig`).

    `init` names a model directory to start from: shape, context and tokenizer are then its own, and `layers`, `width`
    and `heads` are left out of the recipe (0 here until `kringle.study.start` has looked them up).
    """

    layers: int = _parsed(parse_count, 0)
    width: int = _parsed(parse_count, 0)
    heads: int = _parsed(parse_count, 0)
    attention: Literal["mqa", "mha"] = "mqa"
    context: int = _parsed(parse_count, 2048)
    positions: Literal["learned", "rotary"] = "learned"
    dropout: float = _parsed(parse_below_one, 0.0)
    init: Path | None = _parsed(parse_folder, None)  # noqa: RUF009 (a field)


@dataclass(frozen=True)
class FimSettings:
    """Share of pieces rearranged for fill-in-the-middle, and the share of those in suffix-prefix-middle order."""

    rate: float = _parsed(parse_fraction, 0.5)
    spm: float = _parsed(parse_fraction, 0.5)


@dataclass(frozen=True)
class TrainingSettings:
    """One training run. Optimizer defaults are SantaCoder's (Adam 0.9/0.95/1e-8, decay 0.1, clip 1.0, warmup 2%).

    Precision auto is bf16 where the device multiplies it itself, else fp32. `fidelity` chooses how batches are made
    (`kringle.training.batches`, or SantaCoder's `kringle.training.windows`), `mixture` weighs languages. The schedule
    ends after `decay_tokens` (default: `tokens`), of which `warmup` is a share; `decay` is the falling share of
    schedule wsd. `measurements` are taken on the way, `track` adds trackers to the JSON log. `skip` leaves a checkpoint
    (`model.init`) as it is, to be measured beside one that was trained on.
    """

    tokens: int = _parsed(parse_count)
    batch_tokens: int = _parsed(parse_count)
    learning_rate: float = _parsed(parse_positive, 2e-4)
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup: float = _parsed(parse_below_one, 0.02)
    weight_decay: float = _parsed(parse_not_negative, 0.1)
    beta1: float = _parsed(parse_below_one, 0.9)
    beta2: float = _parsed(parse_below_one, 0.95)
    epsilon: float = _parsed(parse_positive, 1e-8)
    clip: float = _parsed(parse_positive, 1.0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    fim: FimSettings = FimSettings()
    fidelity: Literal["corrected", "faithful"] = "corrected"
    mixture: Mapping[str, float] | None = _parsed(_parse_mixture, None)
    optimizer: Literal["adamw", "muon"] = "adamw"
    decay_tokens: int | None = _parsed(lambda v, p: None if v is None else parse_count(v, p), None)
    decay: float = _parsed(parse_above_zero, 0.2)
    micro_batch_tokens: int | None = _parsed(lambda v, p: None if v is None else parse_count(v, p), None)
    recompute: bool = _parsed(parse_flag, False)
    compile: Literal["auto", "never"] = "auto"
    on_divergence: Literal["stop", "skip"] = "stop"
    measurements: int = _parsed(parse_whole, 0)
    track: tuple[str, ...] = _parsed(_parse_trackers, ())
    skip: bool = _parsed(parse_flag, False)
    budget: Literal["tokens", "epochs"] = "tokens"  # "epochs": a filtered arm passes its documents as often as the base
    metadata: bool = _parsed(parse_flag, False)  # each document begins with a line of its language and path
    seeds: tuple[int, ...] = _parsed(parse_seeds, (0,))

    @property
    def steps(self) -> int:
        """Optimizer steps: the tokens, rounded to whole batches; none where training is skipped."""
        return 0 if self.skip else self.shown_steps

    @property
    def shown_steps(self) -> int:
        """Steps whose batches a baseline is made of: where training is skipped, those that it would have had."""
        return max(1, round(self.tokens / self.batch_tokens))

    @property
    def horizon(self) -> int:
        """Steps after which the learning rate's schedule ends."""
        return self.steps if self.decay_tokens is None else round(self.decay_tokens / self.batch_tokens)


@dataclass(frozen=True)
class Margins:
    """Differences too small to matter, fixed before training: a share of the base for bits per byte, else points."""

    bits_per_byte: float = _parsed(parse_fraction, 0.01)
    infilling: float = _parsed(parse_fraction, 0.02)
    pass_at_1: float = _parsed(parse_fraction, 0.02)


def _parse_suites(value: Any, path: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(x, str) and NAME.fullmatch(x) for x in value):
        raise UserError(f"expected a list of suites' names such as [starter], got {value!r}", where=path)
    if len(set(value)) != len(value):
        raise UserError(f"the same suite twice in {value!r}", where=path)
    return tuple(value)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured. `held_out` is the share of bytes per language that no arm trains on; at most `held_out_bytes`
    of it are scored for bits per byte. `continuations` held-out files are cut and continued, to look for memorisation.
    `benchmarks` is the folder of suites whose problems are not shipped (humaneval).
    Sampling is the paper's: top-p 0.95, temperature 0.8 for pass@10 and above."""

    suites: tuple[str, ...] = _parsed(_parse_suites, ("starter",))
    benchmarks: Path | None = _parsed(parse_folder, None)  # noqa: RUF009 (a field)
    samples: int = _parsed(parse_count, 20)
    temperature: float = _parsed(parse_positive, 0.8)
    top_p: float = _parsed(parse_above_zero, 0.95)
    held_out: float = _parsed(parse_fraction, 0.05)
    held_out_bytes: int = _parsed(parse_bytes, 1_000_000)
    infilling_lines: int = _parsed(parse_count, 500)
    continuations: int = _parsed(parse_count, 32)
    margins: Margins = Margins()


@dataclass(frozen=True)
class ControlSettings:
    """`harm`: the share of the files whose lines are shuffled in the planted harm, a model that must come out worse."""

    harm: float = _parsed(parse_fraction, 0.30)


@dataclass(frozen=True)
class Control:
    """What makes an arm a control beside another arm (`kringle.study.controls`).

    seed: the same again with another seed; harm: a share of the files with their lines shuffled; size: as many bytes of
    each language as the filter of `of` keeps, chosen at random.
    """

    kind: Literal["seed", "harm", "size"]
    of: str
    share: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One ablation: the recipe's base with its difference applied. `control` marks what the study adds by itself."""

    name: str
    difference: Mapping[str, Any]
    model: ModelSettings
    training: TrainingSettings
    filter: FilterSettings
    control: Control | None = None


@dataclass(frozen=True)
class Recipe:
    """A whole study. `arms[0]` is the base: the first ablation, which must have no difference. With `controls` the plan
    adds the control arms (`kringle.study.controls`)."""

    name: str
    fidelity: Literal["faithful", "corrected"]
    corpus: CorpusSettings
    clean: CleanSettings
    tokenizer: TokenizerSettings
    evaluation: EvaluationSettings
    arms: tuple[Arm, ...]
    text: str
    controls: ControlSettings | None = None
    seed_variance: Path | None = None  # an earlier study's, for a study with one seed

    @property
    def base(self) -> Arm:
        return self.arms[0]


def check_batch(training: TrainingSettings, context: int, path: str) -> None:
    """Refuse a batch that is not a whole number of rows."""
    if training.batch_tokens % context:
        raise UserError(
            f"batch_tokens {training.batch_tokens} is not a multiple of the context {context}",
            where=f"{path}.batch_tokens",
            hint=f"use {max(1, training.batch_tokens // context) * context}",
        )
    if training.micro_batch_tokens is not None and training.micro_batch_tokens < context:
        raise UserError(
            f"must hold a row of {context} tokens, got {training.micro_batch_tokens}",
            where=f"{path}.micro_batch_tokens",
            hint=f"use at least {context}",
        )


def plain(settings: Any) -> Any:
    """Settings as JSON-able values, for fingerprints and manifests."""
    if is_dataclass(settings) and not isinstance(settings, type):
        return plain(asdict(settings))
    if isinstance(settings, Mapping):
        return {str(k): plain(v) for k, v in settings.items()}
    if isinstance(settings, list | tuple):
        return [plain(v) for v in settings]
    return str(settings) if isinstance(settings, Path) else settings
