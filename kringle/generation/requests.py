"""What to sample, and what comes back.

Covers: one request (a prompt, how many samples, how they are drawn, where they end), one completion, and the checks
that turn a user's mistake into one clear line before any work starts. Does not cover: building prompts
(`kringle.generation.fim`) and running requests (`kringle.generation.engine`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kringle.errors import UserError
from kringle.model.shape import ModelConfig

MOST_ALTERNATIVES = 20  # OpenAI's limit for `top_logprobs`


class SpecialTokens(Protocol):
    """Ids of the five special tokens."""

    @property
    def end_of_text(self) -> int: ...
    @property
    def fim_prefix(self) -> int: ...
    @property
    def fim_middle(self) -> int: ...
    @property
    def fim_suffix(self) -> int: ...
    @property
    def fim_pad(self) -> int: ...


class Vocabulary(Protocol):
    """What sampling needs to know of a tokenizer; `kringle.tokens.tokenizer.Tokenizer` is one."""

    @property
    def token_bytes(self) -> Sequence[bytes]:
        """The exact bytes of each id below `vocab_size`."""

    @property
    def specials(self) -> SpecialTokens: ...

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included; the model may have more rows (padding), which are never drawn."""


def special_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids that end a completion: nothing after a special token is text."""
    specials = vocabulary.specials
    return (specials.end_of_text, specials.fim_prefix, specials.fim_middle, specials.fim_suffix, specials.fim_pad)


def check_temperature(temperature: float, where: str) -> None:
    """Refuse a temperature that nothing can be drawn at; UserError."""
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise UserError(f"temperature must be 0 (greedy) or a positive number, got {temperature}", where=where)


def check_top_p(top_p: float, where: str) -> None:
    """Refuse a nucleus that holds nothing, or more than there is; UserError."""
    if not 0 < top_p <= 1:
        raise UserError(f"top_p must be above 0 and at most 1, got {top_p}", where=where, hint="1 keeps every token")


@dataclass(frozen=True)
class Request:
    """`samples` independent completions of one prompt.

    Samples are numbered from `first`; sample number i is a function of (model, prompt, drawing settings, `seed`, `key`,
    i) alone. `key` names the prompt (say, a problem's id): two requests with the same seed and key draw the same
    uniforms. Truncation applies temperature first, then `top_k`, then `top_p` over what `top_k` left. A completion ends
    at a special token, at the first of `stops`, after `max_new_tokens`, or where it fills the context.
    """

    prompt: Sequence[int]
    samples: int = 1
    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 is greedy: the most probable token, the lowest id among equals
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    key: str = ""
    stops: tuple[bytes, ...] = ()
    first: int = 0  # the number of the first sample
    required: bytes = b""  # what the text must begin with, left out of the completion's: see `generation.healing`
    alternatives: int = 0  # how many of the most probable tokens are told at each position
    speculate: bool = (
        False  # guess tokens ahead where this is the only sample in flight and greedy: the same text sooner
    )

    def __post_init__(self) -> None:
        def refuse(what: str, hint: str = "") -> UserError:
            return UserError(what, where=self.label, hint=hint)

        if len(self.prompt) == 0:
            raise refuse("the prompt is empty", "give at least one token; the end-of-text token starts a new document")
        for name in ("samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise refuse(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.first < 0:
            raise refuse(f"first must be at least 0, got {self.first}")
        check_temperature(self.temperature, self.label)
        check_top_p(self.top_p, self.label)
        if self.top_k is not None and self.top_k < 1:
            raise refuse(f"top_k must be at least 1, got {self.top_k}", "leave it out to keep every token")
        if not 0 <= self.alternatives <= MOST_ALTERNATIVES:
            raise refuse(f"alternatives must be from 0 to {MOST_ALTERNATIVES}, got {self.alternatives}")
        if any(not isinstance(stop, bytes) for stop in self.stops):
            raise refuse("stop strings are bytes")
        if b"" in self.stops:
            raise refuse("a stop string is empty", "it would end every completion at once")

    @property
    def label(self) -> str:
        """How messages name this request."""
        return f"request '{self.key}'"

    def limit(self, context: int) -> int:
        """Tokens that a sample may have: `max_new_tokens`, or what the context leaves."""
        return min(self.max_new_tokens, context - len(self.prompt))

    def check(self, config: ModelConfig, vocab_size: int) -> None:
        """Refuse a prompt that this model cannot continue."""
        length = len(self.prompt)
        if length + 1 > config.context:
            raise UserError(
                f"the prompt has {length} tokens, and the context of {config.context} must also hold one new token",
                where=self.label,
                hint=f"cut the prompt to at most {config.context - 1} tokens",
            )
        lowest, highest = min(self.prompt), max(self.prompt)
        if lowest < 0 or highest >= vocab_size:
            raise UserError(
                f"the prompt holds token {lowest if lowest < 0 else highest}, ids run from 0 to {vocab_size - 1}",
                where=self.label,
                hint="encode it with the tokenizer of this model",
            )


Finish = Literal["stop", "end", "length", "context", "cancelled", "deadline"]
Alternatives = list[tuple[int, float]]  # (token, log-probability), most probable first


@dataclass(frozen=True)
class Completion:
    """One sample.

    `tokens` holds every token drawn, the one that ended the completion included; `text` is cut before the special token
    or the stop string. `log_probabilities` are natural logarithms under the model itself (temperature 1, no
    truncation), one per token. `finish`: a stop string, a special token, `max_new_tokens`, a full context, or that
    somebody or the clock ended it early, with what there was until then.
    """

    request: int  # position in the list of requests, or the number that `Engine.add` returned
    sample: int  # first .. first + samples - 1
    tokens: list[int]
    text: bytes
    finish: Finish
    log_probabilities: list[float]
    alternatives: list[Alternatives] = field(default_factory=list)  # one per token, where the request asked for them
    known: int = 0  # tokens of the prompt that were not run again, because an earlier prompt began with them

    @property
    def log_probability(self) -> float:
        """Of all tokens together, in nats."""
        return math.fsum(self.log_probabilities)


@dataclass(frozen=True)
class Piece:
    """One token of a sample in the making. `text` is what may be shown now: bytes that could still turn out to begin a
    stop string are held back until the next piece, and the completion's text is the pieces' texts together, with what
    was held back last."""

    request: int
    sample: int
    token: int
    text: bytes
    log_probability: float
    alternatives: Alternatives


@dataclass(frozen=True)
class Fault:
    """A request whose prompt could not be run (no memory for it, say); none of its samples had started."""

    request: int
    error: Exception
