"""Any causal language model of `transformers`, sampled as ours are: an adapter, so that users compare like with like.

The forward pass is the library's; everything else is this engine's rule: one pass over a prompt for all its samples,
finished rows dropped, tokens chosen by `kringle.generation.selection` at uniforms that are a function of (seed, key,
sample, position), stop strings matched on bytes. Needs the extra `transformers`. Does not cover: encoder-decoder
models, models that need code of their own (`trust_remote_code` is never set).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch

from kringle.errors import UserError
from kringle.generation.fim_formats import FimFormat, infilling_ids, recognise
from kringle.generation.requests import Completion, Finish, Request
from kringle.generation.selection import Truncation, select
from kringle.generation.stops import first_stop
from kringle.randomness import stream

ROWS = 64  # samples of one prompt that advance together


class Step(NamedTuple):
    """One token of each of R samples; logits are (R, V), or (1, V) after the prompt."""

    tokens: np.ndarray  # (R,)
    log_probabilities: np.ndarray  # (R,)
    logits: torch.Tensor


class ForeignModel:
    """A `transformers` directory: encodes prompts, samples completions."""

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
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
            auto: Any = transformers.AutoModelForCausalLM
            self.model = cast("Any", auto.from_pretrained(folder, dtype=dtype))
            self.model.eval()
        except Exception as error:  # the library raises many kinds for a directory that is none of its models
            raise UserError(
                f"transformers cannot load this ({type(error).__name__}: {error})", where=str(folder)
            ) from None
        if torch.cuda.is_available():
            self.model = self.model.cuda()
        config = self.model.config
        self.context = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 2048)

    @cached_property
    def format(self) -> FimFormat | None:
        """How this model is asked to fill in, if its vocabulary says so."""
        known = self.tokenizer.get_vocab()
        return recognise(known.__contains__)

    def prompt(self, text: str) -> list[int]:
        """Ids of a text that stands at the beginning, with what the tokenizer puts in front by default."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids or [self._begin]

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
        before, after = (self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prefix, suffix))
        to_id = self.tokenizer.convert_tokens_to_ids
        return infilling_ids(self.format, to_id, before, after, mode=mode, room=self.context - new_tokens)

    @cached_property
    def ends(self) -> np.ndarray:
        """Ids that end a text."""
        wanted = {self.tokenizer.eos_token_id}
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

    def _bytes(self, tokens: np.ndarray) -> bytes:
        text: str = self.tokenizer.decode(
            [t for t in tokens.tolist() if t not in self.ends], clean_up_tokenization_spaces=False
        )
        return text.encode()

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
