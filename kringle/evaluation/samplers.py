"""Models that complete the prompts of a suite: ours, or any causal language model that `transformers` loads.

A `Sampler` is all that an evaluation needs of a model. Prompts longer than the context lose what lies furthest from the
place where the model writes (`Protocol.truncate`), and say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from kringle.errors import UserError

Mode = Literal["left-to-right", "psm", "spm"]
# The spellings of the three sentinels in models of this family: StarCoder's and ours, SantaCoder's.
_SENTINELS = (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"))


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
    """Sample `number` of prompt `prompt` (its place in the list), cut at its stop; `truncated` tells of the prompt."""

    prompt: int
    number: int
    text: str
    truncated: bool


class Sampler(Protocol):
    """A model that can be asked. Samples are functions of the model, the prompt's key and their number."""

    @property
    def name(self) -> str: ...

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        """Every sample of every prompt, in any order."""

    def bits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Bits of the second text of each pair where it follows the first."""

    def fills_gaps(self) -> bool:
        """Whether it has the sentinels of fill-in-the-middle, and is not known to have been trained without them."""


def open_sampler(path: Path) -> Sampler:
    """The sampler for a model's folder: our own engine for models that it computes, else `transformers`.

    UserError where there is no model, or it needs `transformers` and that is not installed.
    """
    from kringle.model.exchange import configuration

    return KringleSampler(path) if _is_ours(configuration(path), path) else TransformersSampler(path)


def _is_ours(settings: dict[str, Any], path: Path) -> bool:
    from kringle.model.exchange import read_config

    try:
        read_config(settings, str(path))
    except UserError:
        return False
    return (path / "model.safetensors").is_file() and (path / "tokenizer.json").is_file()


class KringleSampler:
    """Our own models and engine."""

    def __init__(self, path: Path) -> None:
        from kringle.model.exchange import fim_training, load
        from kringle.model.shape import model_name

        self.name = model_name(path)
        self._model, self._tokenizer = load(path)
        self._fim = fim_training(path)

    def fills_gaps(self) -> bool:
        return self._fim is None or self._fim.rate > 0

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        from kringle.generation.engine import generate
        from kringle.generation.requests import Request
        from kringle.training.batches import taught_positions

        context = taught_positions(self._model.config.context)
        requests, truncated = [], []
        for prompt in prompts:
            ids, cut, budget = self._encode(prompt, context)
            truncated.append(cut)
            requests.append(
                Request(
                    prompt=ids,
                    samples=prompt.samples,
                    max_new_tokens=budget,
                    temperature=prompt.temperature,
                    top_p=prompt.top_p,
                    key=prompt.key,
                    stops=tuple(stop.encode() for stop in prompt.stops),
                )
            )
        for one in generate(self._model, self._tokenizer, requests):
            yield Sampled(one.request, one.sample, one.text.decode("utf-8", "replace"), truncated[one.request])

    def _encode(self, prompt: Prompt, context: int) -> tuple[list[int], bool, int]:
        """Ids, whether something was left out, and the tokens that the completion may have."""
        from kringle.generation.fim import infilling_prompt, left_to_right_prompt

        tokenizer = self._tokenizer
        before, after = len(tokenizer.encode(prompt.prefix)), len(tokenizer.encode(prompt.suffix))
        if prompt.mode == "left-to-right":
            budget = max(1, prompt.new_tokens - (before if prompt.count_prompt else 0))
            room = min(budget, context // 4)  # a quarter of the context is kept for the completion
            ids = left_to_right_prompt(tokenizer, prompt.prefix, context=context - 1, new_tokens=room)
            whole = len(ids) == before
            # A whole prompt is the beginning of a file, and follows an end-of-text token as files do in training.
            return ([tokenizer.specials.end_of_text] if whole else []) + ids, not whole, budget
        room = min(prompt.new_tokens, context // 4)
        ids = infilling_prompt(
            tokenizer, prompt.prefix, prompt.suffix, mode=prompt.mode, context=context, new_tokens=room
        )
        return ids, len(ids) < before + after + 3, prompt.new_tokens

    def bits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        from kringle.evaluation.bits_per_byte import token_bits
        from kringle.training.batches import taught_positions

        end = self._tokenizer.specials.end_of_text
        starts, sequences = [], []
        for first, second in pairs:
            head = self._tokenizer.encode(first)
            starts.append(len(head))
            sequences.append(np.array([end, *head, *self._tokenizer.encode(second)]))
        found = token_bits(self._model, sequences, taught_positions(self._model.config.context))
        return [float(bits[start:].sum()) for bits, start in zip(found, starts, strict=True)]


class TransformersSampler:
    """Any causal language model in a folder, through `transformers`: one prompt at a time, its samples as one batch."""

    def __init__(self, path: Path) -> None:
        try:
            import transformers
        except ImportError:
            raise UserError(
                "this model is not one that Kringle computes itself",
                where=str(path),
                hint="install transformers to evaluate it all the same",
            ) from None
        from kringle.model.shape import model_name

        self.name = model_name(path)
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            self._model = cast("Any", transformers.AutoModelForCausalLM.from_pretrained(path, local_files_only=True))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"transformers cannot load it: {error}", where=str(path)) from None
        self._model.train(False)
        settings = self._model.config
        # 0 where the model does not say, as BLOOM does not: it has no embeddings of positions.
        said = getattr(settings, "max_position_embeddings", None) or getattr(settings, "n_positions", None) or 0
        self._positions = max(0, int(said))
        self._context = self._positions or 2048
        vocabulary = self._tokenizer.get_vocab()
        self._sentinels = next((three for three in _SENTINELS if all(word in vocabulary for word in three)), None)

    def fills_gaps(self) -> bool:
        return self._sentinels is not None

    def sample(self, prompts: Sequence[Prompt]) -> Iterator[Sampled]:
        import torch

        from kringle.randomness import torch_seed

        for place, prompt in enumerate(prompts):
            ids, truncated, budget = self._encode(prompt)
            torch.manual_seed(torch_seed(0, "transformers-sample", prompt.key))
            options: dict[str, Any] = {"do_sample": prompt.temperature > 0, "pad_token_id": self._pad()}
            if prompt.temperature > 0:
                options |= {"temperature": prompt.temperature, "top_p": prompt.top_p, "top_k": 0}
            tokens = torch.tensor([ids])
            with torch.inference_mode():
                made = self._model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=budget,
                    num_return_sequences=prompt.samples if prompt.temperature > 0 else 1,
                    **options,
                )
            for number, row in enumerate(made.expand(prompt.samples, -1)):  # greedily, all samples are one
                text = self._tokenizer.decode(self._until_special(row[len(ids) :].tolist()))
                yield Sampled(place, number, _cut(text, prompt.stops), truncated)

    def _encode(self, prompt: Prompt) -> tuple[list[int], bool, int]:
        from kringle.generation.fim import share

        before: list[int] = self._tokenizer(prompt.prefix, add_special_tokens=False)["input_ids"]
        budget = max(1, prompt.new_tokens - (len(before) if prompt.count_prompt else 0))
        kept = min(budget, self._context // 4)
        if prompt.mode == "left-to-right":
            room = self._context - kept
            return before[-room:], len(before) > room, min(budget, self._context - min(len(before), room))
        if self._sentinels is None:
            raise UserError("the model has no tokens for filling in", where=self.name)
        after: list[int] = self._tokenizer(prompt.suffix, add_special_tokens=False)["input_ids"]
        first, last, middle = self._tokenizer.convert_tokens_to_ids(list(self._sentinels))
        prefix_room, suffix_room = share(len(before), len(after), self._context - kept - 3)
        whole = len(before) + len(after)
        before, after = before[max(0, len(before) - prefix_room) :], after[:suffix_room]
        ids = [first, *before, last, *after, middle] if prompt.mode == "psm" else [first, last, *after, middle, *before]
        return ids, len(before) + len(after) < whole, kept

    def _pad(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad if pad is not None else self._tokenizer.eos_token_id or 0)

    def _until_special(self, ids: list[int]) -> list[int]:
        special = set(self._tokenizer.all_special_ids)
        if self._sentinels is not None:
            special |= set(self._tokenizer.convert_tokens_to_ids(list(self._sentinels)))
        end = next((place for place, one in enumerate(ids) if one in special), len(ids))
        return ids[:end]

    def bits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        found = []
        for first, second in pairs:
            head = self._tokenizer(first, add_special_tokens=False)["input_ids"]
            tail = self._tokenizer(second, add_special_tokens=False)["input_ids"]
            start = self._tokenizer.bos_token_id if self._tokenizer.bos_token_id is not None else self._pad()
            found.append(self._bits_after([start, *head, *tail], len(head)))
        return found

    def _bits_after(self, ids: list[int], given: int) -> float:
        """Bits of all tokens after the first `given` + 1, each scored once: in windows of the context, as ours are."""
        import torch
        import torch.nn.functional as F

        from kringle.evaluation.bits_per_byte import scoring_windows

        nats = 0.0
        for _, start, first, end in scoring_windows([len(ids)], self._positions or len(ids)):
            first = max(first, given)
            if first >= end:
                continue
            with torch.inference_mode():
                logits = self._model(torch.tensor([ids[start:end]])).logits[0, first - start :].float()
            nats += float(F.cross_entropy(logits, torch.tensor(ids[first + 1 : end + 1]), reduction="sum"))
        return nats / math.log(2)


def _cut(text: str, stops: Sequence[str]) -> str:
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
