"""Any causal language model of `transformers`, sampled as ours are: an adapter, so that users compare like with like.

The forward pass is the library's; everything else is this engine's rule: one pass over a prompt for all its samples,
finished rows dropped, tokens chosen by `kringle.generation.selection` at uniforms that are a function of (seed, key,
sample, position), stop strings matched on bytes; bits in the windows of `kringle.evaluation.bits_per_byte`. Needs the
extra `transformers`. Does not cover: encoder-decoder models, models that need code of their own (`trust_remote_code` is
never set).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F

from kringle.errors import UserError
from kringle.evaluation.bits_per_byte import scoring_windows
from kringle.generation.fim_formats import FimFormat, infilling_ids, recognise
from kringle.generation.requests import Completion, Finish, Request
from kringle.generation.selection import Truncation, select
from kringle.generation.stops import first_stop
from kringle.randomness import stream

ROWS = 64  # samples of one prompt that advance together
UNKNOWN_CONTEXT = 2048  # for prompts, where the configuration names no limit
_LETTER = "a"  # ordinary text, to hold other text against


class Step(NamedTuple):
    """One token of each of R samples; logits are (R, V), or (1, V) after the prompt."""

    tokens: np.ndarray  # (R,)
    log_probabilities: np.ndarray  # (R,)
    logits: torch.Tensor


class ForeignModel:
    """A `transformers` directory: encodes prompts, samples completions, measures bits.

    `positions` is how many the configuration allows, None where it does not say, as BLOOM's does not: it has no
    embeddings of positions.
    """

    def __init__(self, folder: Path, precision: str = "fp32") -> None:
        try:
            import transformers
        except ImportError as error:
            raise UserError(
                "this model needs the package transformers",
                where=str(folder),
                hint="pip install 'kringle[transformers]'",
            ) from error
        if precision not in ("fp32", "bf16"):
            raise UserError(f"other libraries' models run in fp32 or bf16, not {precision}", where="--precision")
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            auto: Any = transformers.AutoModelForCausalLM
            loaded = auto.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
            self.model, told = cast("tuple[Any, dict[str, Any]]", loaded)
            self.model.eval()
        except Exception as error:  # the library raises many kinds for a directory that is none of its models
            raise UserError(
                f"transformers cannot load this ({type(error).__name__}: {error})", where=str(folder)
            ) from None
        if missing := sorted(told["missing_keys"]):  # the library would draw them at random and go on
            raise UserError(
                f"transformers finds no weights for {missing[0]} ({len(missing)} tensors are missing)",
                where=str(folder),
                hint="it may be a model with code of its own, which is not run",
            )
        if torch.cuda.is_available():
            self.model = self.model.cuda()
        config = self.model.config
        said = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        self.positions = int(said) if said else None
        self.context = self.positions or UNKNOWN_CONTEXT

    @cached_property
    def format(self) -> FimFormat | None:
        """How this model is asked to fill in, if its vocabulary says so. It begins with what the tokenizer puts before
        any text, unless the family's own format begins otherwise: DeepSeek's examples leave that to the tokenizer."""
        known = self.tokenizer.get_vocab()
        found = recognise(known.__contains__)
        if found is None or found.begin:
            return found
        return replace(found, begin=tuple(self.tokenizer.convert_ids_to_tokens(self.front)))

    @cached_property
    def front(self) -> list[int]:
        """What the tokenizer puts before a text by default: <s> in Llama's family, nothing in most others. The harness
        that published numbers come from, BigCode's, leaves that default on."""
        bare, whole = self.encode(_LETTER), list(self.tokenizer(_LETTER)["input_ids"])
        for place in range(len(whole) - len(bare) + 1):
            if whole[place : place + len(bare)] == bare:
                return whole[:place]
        raise UserError("the tokenizer encodes a text otherwise where it adds special tokens", where="tokenizer")

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone, however long: who asks cuts it to the context."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def prompt(self, text: str) -> list[int]:
        """Ids of a text that stands at the beginning, with what the tokenizer puts in front by default. What some put
        behind by default is left out: it would end the text."""
        return [*self.front, *self.encode(text)] or [self._begin]

    def prompt_within(self, text: str, room: int) -> tuple[list[int], bool]:
        """As `prompt`, in `room` tokens at most, and whether the text lost its beginning for that."""
        ids = self.prompt(text)
        if len(ids) <= room:
            return ids, False
        return [*self.front, *ids[len(ids) - room + len(self.front) :]], True

    @property
    def _begin(self) -> int:
        for name in ("bos_token_id", "eos_token_id"):
            if (found := getattr(self.tokenizer, name)) is not None:
                return int(found)
        raise UserError("an empty prompt, and the tokenizer has no token for a beginning", where="sampling")

    def infilling_prompt(
        self, prefix: str, suffix: str, new_tokens: int, mode: Literal["psm", "spm"] = "psm"
    ) -> list[int]:
        """Ids that ask for the middle in this family's format."""
        if self.format is None:
            raise UserError("its vocabulary has no known fill-in-the-middle tokens", where="fill-in-the-middle")
        before, after = self.encode(prefix), self.encode(suffix)
        to_id = self.tokenizer.convert_tokens_to_ids
        return infilling_ids(self.format, to_id, before, after, mode=mode, room=self.context - new_tokens)

    @cached_property
    def ends(self) -> np.ndarray:
        """Ids that end a text: nothing after a special token is text, as in our own models."""
        wanted = {self.tokenizer.eos_token_id, *self.tokenizer.all_special_ids}
        configured = self.model.generation_config.eos_token_id
        wanted |= set(configured if isinstance(configured, list) else [configured])
        if self.format is not None:
            known = self.tokenizer.get_vocab()
            wanted |= {known[token] for token in {*self.format.end, *self.format.special} if token in known}
        return np.array(sorted(token for token in wanted if token is not None), dtype=np.int64)

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Completions as they end; `Completion.request` is the position in the list."""
        for number, request in enumerate(requests):
            limit = min(request.max_new_tokens, self.context - len(request.prompt))
            if limit < 1:
                raise UserError(
                    f"the prompt has {len(request.prompt)} tokens, the context {self.context}", where=request.label
                )
            for start in range(0, request.samples, ROWS):
                count = min(ROWS, request.samples - start)
                yield from self._rows(number, request, request.first + start, count, limit)

    def _rows(self, number: int, request: Request, first: int, count: int, limit: int) -> Iterator[Completion]:
        samples = np.arange(first, first + count)
        drawn = np.zeros((count, 0), np.int64)
        scores = np.zeros((count, 0), np.float32)
        steps = self.steps(request, samples, limit)
        step = next(steps)
        while True:
            drawn = np.concatenate([drawn, step.tokens[:, None]], axis=1)
            scores = np.concatenate([scores, step.log_probabilities[:, None]], axis=1)
            texts = [self._bytes(row) for row in drawn]
            ended = np.isin(step.tokens, self.ends) | (drawn.shape[1] == limit)
            for i, text in enumerate(texts):
                ended[i] |= first_stop(text, request.stops) >= 0
            for i in np.flatnonzero(ended).tolist():
                yield self._completion(number, request, int(samples[i]), drawn[i], scores[i], texts[i], limit)
            going = np.flatnonzero(~ended)
            if not len(going):
                return
            samples, drawn, scores = samples[going], drawn[going], scores[going]
            step = steps.send(going)

    def steps(self, request: Request, samples: np.ndarray, limit: int) -> Generator[Step, np.ndarray, None]:
        """Draw a token of each sample at a time, without an end: `send` says which of the rows go on (their places in
        the last step)."""
        uniforms = np.stack([stream(request.seed, "sample", request.key, int(i)).random(limit) for i in samples])
        ids = torch.tensor([list(request.prompt)], device=self.model.device)
        cache: Any = None
        position = drawn = 0
        while True:
            places = torch.arange(position, position + ids.shape[1], device=self.model.device)
            with torch.inference_mode():
                out = self.model(
                    input_ids=ids,
                    past_key_values=cache,
                    use_cache=True,
                    cache_position=places,
                    position_ids=places[None],
                )
            position += ids.shape[1]
            cache, logits = out.past_key_values, out.logits[:, -1].float()
            rows = len(uniforms)
            shape = Truncation(
                np.full(rows, request.temperature), np.full(rows, request.top_p), np.full(rows, request.top_k or 0)
            )
            tokens, log_probabilities = select(logits.clone(), shape, uniforms[:, drawn].copy())
            drawn += 1
            going = yield Step(tokens, log_probabilities, logits)
            if cache is not None and (rows != len(going) or logits.shape[0] != rows):
                cache = self._choose(cache, logits.shape[0], going)
            uniforms = uniforms[going]
            ids = torch.from_numpy(tokens[going][:, None].copy()).to(self.model.device)

    @staticmethod
    def _choose(cache: Any, held: int, rows: np.ndarray) -> Any:
        """Keep the keys and values of some rows; the prompt's single row is first repeated for all samples."""
        if held == 1:
            cache.batch_repeat_interleave(len(rows))
        else:
            cache.batch_select_indices(torch.from_numpy(rows))
        return cache

    def bits(self, first: str, second: str) -> float | None:
        """Bits of the second text where it follows the first at the beginning of a file: each token scored once, in
        windows of the context, as ours are. None where the tokenizer does not give the second text back."""
        parts = self.split(first, second)
        if parts is None:
            return None
        head, tail = parts
        start = self.front or [self._begin]  # something must predict the first token
        ids = [*start, *head, *tail]
        given = len(start) + len(head) - 1
        nats = 0.0
        for _, begin, scored, end in scoring_windows([len(ids)], self.positions or len(ids)):
            scored = max(scored, given)
            if scored >= end:
                continue
            tokens = torch.tensor([ids[begin : end + 1]], device=self.model.device)
            with torch.inference_mode():
                logits = self.model(input_ids=tokens[:, :-1]).logits[0, scored - begin :].float()
            nats += float(F.cross_entropy(logits, tokens[0, scored - begin + 1 :], reduction="sum"))
        return nats / math.log(2)

    def split(self, first: str, second: str) -> tuple[list[int], list[int]] | None:
        """Ids of both texts encoded together, cut at the token that begins the second or straddles its beginning: the
        rule of `bits_per_byte.split_joint`, for tokenizers that do not tell the bytes of their tokens. None where no
        cut has the second text behind it, since it was changed when it was encoded."""
        ids = self.encode(first + second)
        for cut in range(len(ids), -1, -1):
            if self.text(ids[cut:]).endswith(second):
                return ids[:cut], ids[cut:]
        return None

    def text(self, tokens: Sequence[int]) -> str:
        """Text of tokens that follow others. Decoders of Llama's family take one space away from the beginning of what
        they are given, which is no beginning here: a letter stands there while they decode."""
        letter, length = self._letter
        whole: str = self.tokenizer.decode([*letter, *tokens], clean_up_tokenization_spaces=False)
        return whole[length:]

    @cached_property
    def _letter(self) -> tuple[list[int], int]:
        """Ids of a letter, and the length of what they are decoded to."""
        ids = self.encode(_LETTER)
        return ids, len(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _bytes(self, tokens: np.ndarray) -> bytes:
        return self.text([token for token in tokens.tolist() if token not in self._ends]).encode()

    @cached_property
    def _ends(self) -> frozenset[int]:
        return frozenset(self.ends.tolist())

    def _completion(
        self,
        number: int,
        request: Request,
        sample: int,
        tokens: np.ndarray,
        scores: np.ndarray,
        text: bytes,
        limit: int,
    ) -> Completion:
        stop = first_stop(text, request.stops)
        finish: Finish
        if stop >= 0:
            text, finish = text[:stop], "stop"
        elif tokens[-1] in self.ends:
            finish = "end"
        else:
            finish = "length" if limit == request.max_new_tokens else "context"
        return Completion(number, sample, tokens.tolist(), text, finish, scores.tolist())
