"""Models that can be served: ours by the engine, with continuous batching; others by `kringle.serve.foreign`.

`open_models` loads what the command line names, `NAME=FOLDER` or a folder, which then is the name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from kringle.errors import UserError
from kringle.generation.healing import Vocabulary as Healer
from kringle.generation.requests import Alternatives, Request
from kringle.generation.service import SERVICE_ROWS, Service, Ticket
from kringle.model.shape import FimTraining
from kringle.model.transformer import Transformer
from kringle.serve.prompting import STEPS, Order, PromptIds, cut, room_for_prompt
from kringle.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

DEFAULT_WORK = Path("kringle-work")  # of the command line: where `kringle run` keeps its models
PREFIX_BYTES = 256_000_000  # of prompts that were run before


@dataclass(frozen=True)
class Load:
    """How busy a model is, as of now."""

    rows: int  # samples that can advance together
    busy: int
    requests: int  # that have not ended
    tokens: int  # drawn since the start


class ServedModel(Protocol):
    """What the endpoints need of a model."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int:
        """Tokens that prompt and completion share."""

    @property
    def engine(self) -> str:
        """What computes it, for people."""

    @property
    def parameters(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def fills_gaps(self) -> bool:
        """Whether it can be asked for the text between a prefix and a suffix."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without anything in front."""

    def token(self, id: int) -> bytes:
        """The bytes behind one id; none for a special token."""

    def special(self, id: int) -> str:
        """How a special token is spelled; empty for any other."""

    def prompt(self, prefix: str, suffix: str, new_tokens: int, *, heal: bool) -> PromptIds:
        """Ids for the text after `prefix` and, if that is not empty, before `suffix`."""

    def submit(self, request: Request, *, deadline: float, woken: Callable[[], None]) -> Ticket:
        """Start a request; `Busy` where too many wait, UserError where it cannot be run."""

    def score(self, ids: Sequence[int], alternatives: int) -> tuple[list[float], list[Alternatives]]:
        """Log-probability of each of ids[1:] after those before it, and the most probable ids there."""

    @property
    def load(self) -> Load: ...

    def close(self) -> None:
        """End what is in flight and let the memory go."""


@dataclass(frozen=True)
class ModelOptions:
    """How models are run. Sizes in bytes."""

    rows: int = SERVICE_ROWS  # samples that advance together
    waiting: int = 64  # requests that may wait for a row
    precision: str = "auto"
    invariant: bool = False  # the same bits whatever else is in flight
    order: Order | None = None  # how the middle is asked for; None: suffix first where the model saw that
    prefix_bytes: int = PREFIX_BYTES  # of prompts kept; 0 keeps none
    memory_limit: int | None = None  # for keys, values and logits; None: what is free

    def __post_init__(self) -> None:
        if self.order is not None and self.order not in get_args(Order):
            raise UserError(f"the order is psm or spm, not '{self.order}'", where="--fim-order")


class NativeModel:
    """A model that our engine runs."""

    engine = "kringle"

    def __init__(
        self,
        name: str,
        model: Transformer,
        tokenizer: Tokenizer,
        options: ModelOptions,
        fim: FimTraining | None = None,
    ) -> None:
        """`fim` is how it was trained to fill in; a model of which nobody knows is taken to do so in both orders."""
        from kringle.generation.weights import choose_precision
        from kringle.training.batches import taught_positions

        self.name, self._tokenizer, self._model = name, tokenizer, model.eval()
        self.fills_gaps = fim is None or fim.rate > 0
        self._order: Order = options.order or ("spm" if fim is None or fim.spm > 0 else "psm")
        self._rows = options.rows
        device = model.transformer.wte.weight.device
        precision = "fp32" if options.invariant else choose_precision(options.precision, device)
        self.context = taught_positions(model.config.context)
        self.parameters, self.vocab_size = model.config.parameters, tokenizer.vocab_size
        self._healer = Healer(tokenizer.token_bytes)
        self._service = Service(
            model,
            tokenizer,
            rows=options.rows,
            memory_limit=options.memory_limit,
            precision=precision,
            waiting=options.waiting,
            invariant=options.invariant,
            prefix_bytes=options.prefix_bytes,
        )

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def token(self, id: int) -> bytes:
        return self._tokenizer.token_bytes[id] if 0 <= id < self.vocab_size else b""

    def special(self, id: int) -> str:
        specials = self._tokenizer.specials
        ids = (specials.end_of_text, specials.fim_prefix, specials.fim_middle, specials.fim_suffix, specials.fim_pad)
        return dict(zip(ids, SPECIAL_TOKENS, strict=True)).get(id, "")

    def prompt(self, prefix: str, suffix: str, new_tokens: int, *, heal: bool) -> PromptIds:
        special, required = self._tokenizer.specials, b""
        before, after = self.encode(prefix), self.encode(suffix)
        length = len(before) + len(after)
        step = max(1, self.context // STEPS)
        room = room_for_prompt(self.context, new_tokens) - (3 if suffix else 1)
        if room < 1:
            raise UserError(f"a context of {self.context} tokens leaves no room for a prompt", where="prompt")
        kept, after = cut(before, after, room, step)
        truncated = len(kept) + len(after) < length
        if heal:
            (_, *kept), required = self._healer.heal([special.end_of_text, *kept])
        if not suffix:
            # A whole prompt is the beginning of a file, and follows an end-of-text token as files do in training.
            ids = kept if truncated and kept else [special.end_of_text, *kept]
        elif self._order == "psm":
            ids = [special.fim_prefix, *kept, special.fim_suffix, *after, special.fim_middle]
        else:
            ids = [special.fim_prefix, special.fim_suffix, *after, special.fim_middle, *kept]
        return PromptIds(ids, required, truncated)

    def submit(self, request: Request, *, deadline: float, woken: Callable[[], None]) -> Ticket:
        return self._service.submit(request, deadline=deadline, woken=woken)

    def score(self, ids: Sequence[int], alternatives: int) -> tuple[list[float], list[Alternatives]]:
        import torch

        with torch.inference_mode():
            device = self._model.transformer.wte.weight.device
            tokens = torch.tensor([list(ids)], device=device)
            logits = self._model(tokens)[0, :-1, : self.vocab_size].float()
            return scored(torch.log_softmax(logits, -1), tokens[0, 1:], alternatives)

    @property
    def load(self) -> Load:
        busy, requests, tokens = self._service.load
        return Load(self._rows, busy, requests, tokens)

    def close(self) -> None:
        self._service.close()


def scored(scores: Any, following: Any, alternatives: int) -> tuple[list[float], list[Alternatives]]:
    """From log-probabilities (T, V) and the ids that followed (T,): theirs, and the best at each place."""
    own: list[float] = scores.gather(1, following[:, None])[:, 0].tolist()
    if not alternatives:
        return own, [[] for _ in own]
    best = scores.topk(min(alternatives, scores.shape[1]), dim=-1)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return own, [list(zip(ids, values, strict=True)) for ids, values in pairs]


def open_models(names: Sequence[str], options: ModelOptions, work: Path | None = None) -> list[ServedModel]:
    """Load every model, in order: a folder, or the name of a trained model of the workspace `work`. UserError, with
    none left open, for a missing folder, one that is no model, or a name that is given twice."""
    from kringle.model.shape import model_name

    folders: dict[str, Path] = {}
    for entry in names:
        name, separator, folder = entry.partition("=")
        path = _find(folder if separator else entry, work)
        name = name if separator else model_name(path)
        if not name or len(name) > 200 or not name.isprintable():
            raise UserError("is no name for a model", where=f"'{entry}'", hint="write NAME=FOLDER")
        if name in folders:
            raise UserError(f"two models are called '{name}'", where=entry, hint="write NAME=FOLDER")
        folders[name] = path
    opened: list[ServedModel] = []
    try:
        for name, path in folders.items():
            opened.append(_open(name, path, options))
    except BaseException:
        for model in opened:
            model.close()
        raise
    return opened


def _find(text: str, work: Path | None) -> Path:
    """The folder that `text` names; a workspace's model is found by its name, with or without its seed."""
    path = Path(text).expanduser()
    if not path.exists() and work is not None and "/" not in text:
        trained = [work / "models" / name for name in (text, f"{text}-s0")]
        path = next((one for one in trained if one.is_dir()), path)
    if not path.is_dir():
        raise UserError(
            "is not a folder" if path.exists() else "is not there",
            where=str(path),
            hint=f"give the folder of a saved model{_trained(work)}",
        )
    if not (path / "config.json").is_file():
        from kringle.model.exchange import nearby

        hint = nearby(path) or "give the folder of a saved model"
        raise UserError("no model here (a model is a folder with config.json)", where=str(path), hint=hint)
    return path


def _trained(work: Path | None) -> str:
    """The names of a workspace's models, for whoever gave none of them."""
    found = sorted(config.parent.name for config in work.glob("models/*/config.json")) if work is not None else []
    return f", or one of {', '.join(found)}" if found else ""


def _open(name: str, path: Path, options: ModelOptions) -> ServedModel:
    """Ours by our engine, whatever else is a causal language model by `transformers`."""
    import torch

    from kringle.evaluation.sampling import belongs_to_us
    from kringle.model.exchange import fim_training, load

    try:
        model, tokenizer = load(path)
    except UserError as ours:
        if belongs_to_us(path) or options.invariant:
            raise
        from kringle.serve.foreign import ForeignServed

        try:
            return ForeignServed(name, path, options)
        except UserError as theirs:
            raise UserError(f"{theirs.what}; and as one of ours: {ours.what}", where=str(path)) from None
    if torch.cuda.is_available():
        model = model.cuda()
    return NativeModel(name, model, tokenizer, options, fim_training(path))
