"""The results of a study as data: everything that the report shows, and nothing that has to be worked out again.

Frozen dataclasses with a strict JSON form: an unknown key, a missing key, a wrong type, a duplicate key or a number
that is not finite is refused with its path. A field with a default may be left out, so later versions can add fields
and still read this one's files. Amounts are plain numbers in base units (bytes, seconds, fractions between 0 and 1,
bits per byte); rounding and units belong to the report. What this file does not do: compute anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kringle.errors import UserError
from kringle.machine import Machine
from kringle.study import strict_json
from kringle.study.filter_results import Filtering

SCHEMA = "kringle-results/1"

Verdict = Literal["better", "worse", "no difference", "undecided"]
BeatsNgram = Literal["yes", "no", "undecided"]
ExampleKind = Literal["infilling", "left-to-right", "starter"]
ControlOutcome = Literal["passed", "failed", "not judged"]
Unit = Literal["fraction", "bits per byte"]
Section = Literal[
    "study",
    "left-to-right",
    "infilling",
    "bits-per-byte",
    "comparisons",
    "training",
    "examples",
    "corpus",
    "funnel",
    "held-out",
    "tokenizer",
    "memorisation",
]


# -- measurements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval. `level` is the interval's coverage (0.90); `method` names how it was made, as
    in "Wilson score" or "bootstrap over problems". An interval need not contain the value (a percentile bootstrap)."""

    value: float
    low: float
    high: float
    level: float
    method: str

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high}")
        if not 0 < self.level < 1:
            raise ValueError(f"a coverage of {self.level}; expected a share such as 0.90")


@dataclass(frozen=True)
class Baseline:
    """Bits per byte of something that is not a model, over the same bytes as the arm that it stands beside."""

    name: str
    total: float
    languages: dict[str, float]


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of held-out code (lower is better), over `files` files of `bytes` bytes."""

    total: Estimate
    languages: dict[str, Estimate]
    baselines: tuple[Baseline, ...]
    beats_ngram: BeatsNgram
    files: int
    bytes: int


@dataclass(frozen=True)
class InfillingScore:
    """`hits` of `n` held-out lines filled in exactly; `truncated`: completions cut at the token limit."""

    hits: int
    n: int
    exact_match: Estimate
    truncated: int


@dataclass(frozen=True)
class Infilling:
    """Single-line infilling by exact match. Either `total` or the reason in `not_run` is given."""

    prompt_format: str
    total: InfillingScore | None
    languages: dict[str, InfillingScore]
    not_run: str | None = None

    def __post_init__(self) -> None:
        if (self.total is None) == (self.not_run is None):
            raise ValueError("infilling needs either a total or the reason why it was not run")


@dataclass(frozen=True)
class PassAtK:
    k: int
    estimate: Estimate


@dataclass(frozen=True)
class SuiteResult:
    """pass@k on one suite of problems. Either `pass_at` or the reason in `not_run` is given.

    `prompts` is the fingerprint of the prompt set: scores on different prompt sets are not comparable. `sampler` says
    how completions were drawn; `jail` is the isolation level that the programs ran under; `verdicts` counts programs.
    """

    suite: str
    prompts: str
    problems: int
    samples: int
    sampler: str
    jail: str
    pass_at: tuple[PassAtK, ...]
    verdicts: dict[str, int]
    not_run: str | None = None

    def __post_init__(self) -> None:
        if bool(self.pass_at) == (self.not_run is not None):
            raise ValueError(f"suite {self.suite}: needs either pass_at or the reason why it was not run")


# -- arms --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossPoint:
    """Training loss (nats per token) at an optimizer step; None where it was not a finite number (a diverged run)."""

    step: int
    tokens: int
    loss: float | None


@dataclass(frozen=True)
class HeldOutPoint:
    """Bits per byte of held-out code at an optimizer step."""

    step: int
    tokens: int
    bits_per_byte: float


@dataclass(frozen=True)
class Training:
    """One training run. `tokens` were seen, `unique_tokens` were there to be seen; `epochs` is their ratio;
    `key_value_bytes` is the size of the cache per token in 16 bits; `init` names the checkpoint that it went on from,
    None from scratch."""

    parameters: int
    tokens: int
    unique_tokens: int
    epochs: float
    steps: int
    seconds: float
    tokens_per_second: float
    curve: tuple[LossPoint, ...]
    held_out_curve: tuple[HeldOutPoint, ...] = ()
    key_value_bytes: int | None = None
    init: str | None = None


@dataclass(frozen=True)
class Arm:
    """One ablation with one seed. `summary` says in words what differs from the base, `changes` in recipe keys
    (`{"training.fim.rate": "0"}`). An arm that was not trained has only the reason in `not_run`."""

    name: str
    summary: str
    changes: dict[str, str]
    is_base: bool
    seed: int
    command: str
    training: Training | None
    bits_per_byte: BitsPerByte | None
    infilling: Infilling | None
    suites: tuple[SuiteResult, ...]
    not_run: str | None = None

    def __post_init__(self) -> None:
        if (self.training is None) == (self.not_run is None):
            raise ValueError(f"arm {self.name}: needs either its training or the reason why it was not run")


@dataclass(frozen=True)
class Comparison:
    """Arm minus base on one measure, with its interval. `margin` (same unit) is the difference too small to matter, as
    fixed in the recipe before training; `remark` limits what the interval covers ("this pair of runs only"), and
    `reservation` says what else stands against a verdict.
    `p_value` is corrected for the family; `detectable` is the smallest true difference that the study would find four
    times in five."""

    arm: str
    base: str
    measure: str
    unit: Unit
    higher_is_better: bool
    difference: float
    low: float
    high: float
    level: float
    margin: float | None
    verdict: Verdict
    remark: str
    probability_better: float | None = None
    p_value: float | None = None
    detectable: float | None = None
    this_pair_only: bool = False
    reservation: str = ""

    @property
    def words(self) -> str:
        """Remark and reservation as one."""
        return "; ".join(filter(None, (self.remark, self.reservation)))

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high}")
        if self.margin is not None and self.margin < 0:
            raise ValueError(f"a margin of {self.margin}")


@dataclass(frozen=True)
class ProblemResult:
    """How one arm (its first seed) did on one problem, with one completion that passed and one that did not."""

    suite: str
    problem: str
    arm: str
    passed: int
    samples: int
    passing: str | None
    failing: str | None


@dataclass(frozen=True)
class Overlap:
    """Training documents that two arms' filters both keep; with `arm` twice, what the one keeps."""

    arm: str
    other: str
    files: int
    bytes: int


@dataclass(frozen=True)
class ControlCheck:
    """How a control came out. A study with a failed one has no verdicts."""

    arm: str
    expected: str
    outcome: ControlOutcome
    why: str


@dataclass(frozen=True)
class Example:
    """One completion, shown between its prefix and its suffix. `where` is the file or problem. `expected` is None where
    there is no single right answer; `correct` is None where nothing was judged; `remark` may carry the verdict."""

    kind: ExampleKind
    arm: str
    language: str
    where: str
    prefix: str
    completion: str
    suffix: str
    expected: str | None
    correct: bool | None
    remark: str = ""


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """One source, language or licence of the corpus."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """What was collected. `notes` are sentences for the reader (what was left out, and how to include it)."""

    fingerprint: str
    notes: tuple[str, ...]
    sources: tuple[Share, ...]
    languages: tuple[Share, ...]
    licenses: tuple[Share, ...]
    languages_without_data: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """What one step took out, for one reason."""

    reason: str
    files: int
    bytes: int


@dataclass(frozen=True)
class FunnelStep:
    """What is left after one step of the data's way from disk to token store, and what the step took out."""

    name: str
    files: int
    bytes: int
    tokens: int | None
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class HeldOut:
    """Files that no arm trains on; copies of training files among the candidates were dropped and are counted.

    `too_short_dropped`: candidates of too few 5-grams to tell a copy. `exact_copies_folded`: training documents that
    lie in a held-out place too. `grams_seen_in_training`: of the remaining files' 5-grams, one in 32 of which is
    looked for (chosen by its hash), the share that occurs anywhere in training; None where none is among those.
    """

    split_by: str
    files: int
    bytes: int
    exact_copies_dropped: int
    near_copies_dropped: int
    too_short_dropped: int = 0
    exact_copies_folded: int = 0
    grams_seen_in_training: float | None = None


@dataclass(frozen=True)
class TokenizerResult:
    """`vocab_size` is the size of the embedding table (specials and padding included)."""

    fingerprint: str
    vocab_size: int
    bytes_per_token: dict[str, float]


# -- provenance --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecipeText:
    name: str
    fingerprint: str
    text: str


@dataclass(frozen=True)
class Stage:
    """Cost of one stage. `cached`: nothing was computed in this run, and the figures are those of the run that did."""

    name: str
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    cached: bool
    command: str


@dataclass(frozen=True)
class Command:
    """The command that reproduces the numbers of one section of the report."""

    section: Section
    makes: str
    command: str


@dataclass(frozen=True)
class CanaryRow:
    """Tokens planted `repetitions` times each; `extracted` of `planted` were completed; mean `exposure` in bits."""

    corpus: str
    repetitions: int
    planted: int
    extracted: int
    exposure: float


@dataclass(frozen=True)
class Canary:
    """A canary test that lay beside the study; `tokens` of training as written, ranks among `candidates`."""

    tokens: str
    candidates: int
    rows: tuple[CanaryRow, ...]


@dataclass(frozen=True)
class Copied:
    """How much of some texts stands in the training data in stretches of 50 characters or more: shares of the texts and
    of their characters, exactly, and but for white space (what is exact not counted again)."""

    texts: int
    characters: int
    exact: Estimate
    exact_characters: Estimate
    white_space: Estimate
    white_space_characters: Estimate


@dataclass(frozen=True)
class Memorisation:
    """What one run `written` at a temperature, beside `held_out` text that no model saw or wrote. `what`:
    "continuation" of held-out files, "infilling", or the name of a suite."""

    arm: str
    seed: int
    what: str
    temperature: float
    written: Copied
    held_out: Copied


@dataclass(frozen=True)
class MemorisedExample:
    """A stretch that a model `copied`, between what else it wrote, and the first of the `places` where it stands in the
    training data. `kind` is "exact" or "white space"."""

    arm: str
    what: str
    temperature: float
    kind: str
    before: str
    copied: str
    after: str
    repository: str
    path: str
    line: int
    licence: str | None
    places: int


@dataclass(frozen=True)
class Results:
    """One study. `findings` are sentences, the verdict first; `limitations` say what this run cannot tell;
    `release_note` is a stamp such as "Not for permissive release: ..."; `created` is ISO 8601 time with its zone.
    `means` holds every arm once, its measures averaged over its seeds, where there are several."""

    study: str
    created: str
    command_line: str
    kringle_version: str
    fidelity: str
    release_note: str | None
    findings: tuple[str, ...]
    limitations: tuple[str, ...]
    machine: Machine
    versions: dict[str, str]
    recipe: RecipeText
    corpus: Corpus
    funnel: tuple[FunnelStep, ...]
    held_out: HeldOut
    tokenizer: TokenizerResult
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    examples: tuple[Example, ...]
    stages: tuple[Stage, ...]
    commands: tuple[Command, ...]
    controls: tuple[ControlCheck, ...] = ()
    problems: tuple[ProblemResult, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    means: tuple[Arm, ...] = ()
    canary: Canary | None = None
    memorisation: tuple[Memorisation, ...] = ()
    memorised: tuple[MemorisedExample, ...] = ()
    filtering: Filtering | None = None

    def __post_init__(self) -> None:
        if datetime.fromisoformat(self.created).tzinfo is None:
            raise ValueError(f"'{self.created}' has no time zone")
        runs = [(arm.name, arm.seed) for arm in self.arms]
        if len(set(runs)) != len(runs):
            raise ValueError("two arms with the same name and seed")
        known = {arm.name for arm in self.arms}
        for name in [n for c in self.comparisons for n in (c.arm, c.base)] + [e.arm for e in self.examples]:
            if name not in known:
                raise ValueError(f"'{name}' is compared or shown, but is not among the arms")

    def to_json(self) -> str:
        """JSON text, ASCII only, keys in the fields' order; a wrongly typed value is a `TypeError` with its path."""
        body = {"schema": SCHEMA, **strict_json.encode(Results, self, "results")}
        return json.dumps(body, indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "results") -> Results:
        """Results from their JSON text; `UserError` with the path of whatever is wrong. `where` names the file."""
        try:
            raw = json.loads(text, object_pairs_hook=strict_json.no_duplicates)
        except ValueError as error:
            raise UserError(f"not valid JSON: {error}", where=where) from None
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            found = raw.get("schema") if isinstance(raw, dict) else None
            raise UserError(
                f"expected results of schema '{SCHEMA}', got {found!r}",
                where=where,
                hint="make the report again with this version",
            )
        body = {key: value for key, value in raw.items() if key != "schema"}
        decoded: Results = strict_json.decode(Results, body, where)
        return decoded
