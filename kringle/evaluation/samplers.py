"""Models that complete the prompts of a suite: ours, or any causal language model that `transformers` loads.

A `Sampler` is all that an evaluation needs of a model. Which of the two it is, and how it is loaded, is decided by
`kringle.evaluation.sampling.open_model`, as for `kringle sample`. Prompts longer than the context lose what lies
furthest from the place where the model writes, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from kringle.errors import UserError

if TYPE_CHECKING:
    from kringle.evaluation.foreign import ForeignModel
    from kringle.evaluation.sampling import OwnModel
    from kringle.generation.requests import Completion, Request

Mode = Literal["left-to-right", "psm", "spm"]
PRECISION = "fp32"  # of every model here: published numbers are held beside each other, and speed is not the point


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: the text before the gap, the text after it, and how far it may go.

    new_tokens counts the completion alone unless `count_prompt`; `key` names it for the drawing of samples.
    """

    key: str
    prefix: str
    suffix: str = ""
    mode: Mode = "left-to-right"
    samples: int = 1
    new_tokens: int = 64
    count_prompt: bool = False
    temperature: float = 0.2
    top_p: float = 0.95
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """Sample `number` of prompt `prompt` (its place in the list), cut at its stop. The others tell of the prompt:
    `truncated`, that it lost a part; `spent`, that it alone has as many tokens as the protocol allows prompt and
    completion together, so that the completion got a single one."""

    prompt: int
    number: int
    text: str
    truncated: bool
    spent: bool


class Sampler(Protocol):
    """A model that can be asked. Samples are functions of the model, the prompt's key and their number."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> str:
        """What computes it."""

    def begin(self, mode: Mode) -> str:
        """The special tokens that stand before a prompt that is whole; of the sentinels, none."""

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        """Every sample of every prompt, in any order."""

    def bits(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float | None]:
        """Bits of the second text of each pair where it follows the first at the beginning of a file; None for a text
        that the tokenizer does not keep as it is."""

    def fills_gaps(self) -> bool:
        """Whether it has the sentinels of fill-in-the-middle, and is not known to have been trained without them."""


def open_sampler(path: Path) -> Sampler:
    """The sampler for a model's folder: our own engine for models that it computes, else `transformers`.

    UserError where there is no model, or it needs `transformers` and that is not installed.
    """
    from kringle.evaluation.sampling import OtherModel, OwnModel, open_model

    model = open_model(path, PRECISION)
    if isinstance(model, OwnModel):
        return KringleSampler(path, model)
    assert isinstance(model, OtherModel), "there are two kinds"
    return ForeignSampler(path, model.foreign)


class _Encoded(NamedTuple):
    """A prompt's ids, whether a part was left out, whether it spent the budget, and how many tokens may follow."""

    ids: list[int]
    truncated: bool
    spent: bool
    new_tokens: int


def _sampled(
    prompts: Sequence[Prompt],
    encode: Callable[[Prompt], _Encoded],
    complete: Callable[[Sequence[Request]], Iterator[Completion]],
) -> Iterator[Sampled]:
    from kringle.generation.requests import Request

    encoded = [encode(prompt) for prompt in prompts]
    requests = [
        Request(
            prompt=one.ids,
            samples=prompt.samples,
            max_new_tokens=one.new_tokens,
            temperature=prompt.temperature,
            top_p=prompt.top_p,
            key=prompt.key,
            stops=tuple(stop.encode() for stop in prompt.stops),
        )
        for prompt, one in zip(prompts, encoded, strict=True)
    ]
    for done in complete(requests):
        one = encoded[done.request]
        yield Sampled(done.request, done.sample, done.text.decode("utf-8", "replace"), one.truncated, one.spent)


def _budget(prompt: Prompt, length: int) -> tuple[int, bool]:
    """Tokens that may follow a prompt of this length, at least one, and whether the prompt left none."""
    left = prompt.new_tokens - (length if prompt.count_prompt else 0)
    return max(1, left), left < 1


class KringleSampler:
    """A model that our engine computes: trained here, or imported."""

    engine = "kringle"

    def __init__(self, path: Path, model: OwnModel) -> None:
        from kringle.model.exchange import fim_training
        from kringle.model.shape import model_name
        from kringle.training.batches import taught_positions

        self.name = model_name(path)
        self._own = model
        self._fim = fim_training(path)
        self._context = taught_positions(model.context)

    def fills_gaps(self) -> bool:
        return self._fim is None or self._fim.rate > 0

    def begin(self, mode: Mode) -> str:
        """A whole prompt is the beginning of a file, and follows an end-of-text token as files do in our training. A
        checkpoint that was imported (SantaCoder, StarCoder) says nothing of its training in `config.json`, where every
        training here writes how it was done; its published numbers come from the harnesses of BigCode and MultiPL-E,
        which put nothing before the prompt, and to be held beside them it is asked as there."""
        ours = self._own.trained_here and mode == "left-to-right"
        return self._own.tokenizer.special_tokens[0] if ours else ""

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        return _sampled(prompts, self._encode, self._own.sample)

    def _encode(self, prompt: Prompt) -> _Encoded:
        from kringle.generation.fim import infilling_prompt, left_to_right_prompt

        tokenizer, context = self._own.tokenizer, self._context
        before, after = len(tokenizer.encode(prompt.prefix)), len(tokenizer.encode(prompt.suffix))
        if prompt.mode == "left-to-right":
            budget, spent = _budget(prompt, before)
            room = min(budget, context // 4)  # a quarter of the context is kept for the completion
            ids = left_to_right_prompt(tokenizer, prompt.prefix, context=context - 1, new_tokens=room)
            whole = len(ids) == before
            if whole:
                ids = self._own.beginning(ids)
            return _Encoded(ids, not whole, spent, min(budget, context - len(ids)))
        room = min(prompt.new_tokens, context // 4)
        ids = infilling_prompt(
            tokenizer, prompt.prefix, prompt.suffix, mode=prompt.mode, context=context, new_tokens=room
        )
        return _Encoded(ids, len(ids) < before + after + 3, False, min(prompt.new_tokens, context - len(ids)))

    def bits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        from kringle.evaluation.bits_per_byte import bits_after

        return bits_after(self._own.model, self._own.tokenizer, pairs)


class ForeignSampler:
    """Any other causal language model in a folder, through `transformers`, with its tokenizer's own defaults."""

    engine = "transformers"

    def __init__(self, path: Path, model: ForeignModel) -> None:
        from kringle.model.shape import model_name

        self.name = model_name(path)
        self._foreign = model

    def fills_gaps(self) -> bool:
        return self._foreign.format is not None

    def begin(self, mode: Mode) -> str:
        foreign = self._foreign
        if mode == "left-to-right":
            return "".join(foreign.tokenizer.convert_ids_to_tokens(foreign.front))
        return "".join(foreign.format.begin) if foreign.format is not None else ""

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        return _sampled(prompts, self._encode, self._foreign.sample)

    def _encode(self, prompt: Prompt) -> _Encoded:
        foreign = self._foreign
        if prompt.mode == "left-to-right":
            budget, spent = _budget(prompt, len(foreign.prompt(prompt.prefix)))
            ids, cut = foreign.prompt_within(prompt.prefix, foreign.context - min(budget, foreign.context // 4))
            return _Encoded(ids, cut, spent, min(budget, foreign.context - len(ids)))
        if foreign.format is None:
            raise UserError("the model has no tokens for filling in", where=self.name)
        room = min(prompt.new_tokens, foreign.context // 4)
        ids = foreign.infilling_prompt(prompt.prefix, prompt.suffix, room, prompt.mode)
        texts = len(foreign.encode(prompt.prefix)) + len(foreign.encode(prompt.suffix))
        special = len(foreign.format.begin) + len(foreign.format.psm) - 2  # all but PREFIX and SUFFIX
        return _Encoded(ids, len(ids) < texts + special, False, min(prompt.new_tokens, foreign.context - len(ids)))

    def bits(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        return [self._foreign.bits(first, second) for first, second in pairs]
