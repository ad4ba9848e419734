"""One request of any dialect, from the engine's pieces to the text, tokens and counts that answers are made of.

    generation = Generation(model, [Asked("def f(", suffix=")\n")], settings)
    async for delta in generation.deltas(): ...     # what may be shown, as it comes
    generation.choices                              # everything, once that has ended

Choices are numbered prompt by prompt: choice i is sample i % n of prompt i // n. `cancel` frees the rows.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kringle.errors import UserError
from kringle.generation.requests import Completion, Piece, Request
from kringle.generation.service import Ticket
from kringle.serve.attributing import Attributor, Follower, Span
from kringle.serve.errors import ApiError, ClientGone
from kringle.serve.models import ServedModel
from kringle.serve.prompting import PromptIds, taken_apart
from kringle.serve.settings import Settings
from kringle.serve.writing import Writer

Ending = Literal["stop", "end", "length", "deadline", "cancelled"]


@dataclass(frozen=True)
class Asked:
    """What to complete and how. `prefix` may be ids, which are taken as they are; `suffix` makes it a gap to fill."""

    prefix: str | tuple[int, ...]
    suffix: str = ""
    samples: int = 1
    new_tokens: int = 128  # 0 only reads the prompt
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None  # None: another one each time
    stops: tuple[str, ...] = ()
    alternatives: int | None = None  # None: tokens are not told
    least_indent: int = 0
    line_seconds: float | None = None  # after the first token; ends the text once it has a whole line
    attributed: bool = False
    exact: bool = False  # the text as it stands: no template is looked for and no token healed


@dataclass(frozen=True)
class TokenText:
    """A token of the text: its bytes there, its place in characters, and what else might have stood there."""

    id: int
    raw: bytes
    offset: int
    log_probability: float
    alternatives: list[tuple[str, float]]

    @property
    def text(self) -> str:
        return spelled(self.raw)


@dataclass
class Delta:
    """What has become known of one choice."""

    choice: int
    text: str = ""
    tokens: list[TokenText] = field(default_factory=list)
    ending: Ending | None = None
    spans: Sequence[Span] | None = None


@dataclass
class Choice:
    """One completion. `text` is all the deltas' texts together."""

    prompt: int
    writer: Writer
    follower: Follower | None
    alternatives: int | None
    text: str = ""
    tokens: list[TokenText] = field(default_factory=list)
    ending: Ending | None = None
    stopped_by: str = ""  # the stop string that ended it
    spans: Sequence[Span] = ()
    drawn: int = 0
    started: float | None = None
    waiting: list[tuple[int, int, Piece]] = field(default_factory=list)  # tokens not shown yet, with their bytes
    characters: int = 0  # of the tokens told so far
    spelled: int = 0  # bytes of tokens so far, those that were required included


def spelled(raw: bytes) -> str:
    """A token's text; the bytes of one that is no whole character, as OpenAI writes them."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Generation:
    """Several prompts of one request, running. The constructor starts them all, or none and raises UserError."""

    def __init__(
        self,
        model: ServedModel,
        asked: Sequence[Asked],
        settings: Settings,
        *,
        attributor: Attributor | None = None,
        on_first: Callable[[float], None] | None = None,
    ) -> None:
        self.model, self.asked, self.settings = model, list(asked), settings
        self.prompts = [_prompt(model, one, settings) for one in asked]
        self.began = time.monotonic()
        self.first_token: float | None = None  # seconds
        self.cached = 0  # tokens of the prompt that were known from an earlier one
        self.gone = False  # whether the client has left
        self._on_first = on_first
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._tickets: list[Ticket] = []
        self.choices: list[Choice] = []
        try:
            for number, (one, prompt) in enumerate(zip(self.asked, self.prompts, strict=True)):
                self._tickets.append(self._submit(one, prompt))
                for _ in range(one.samples):
                    follower = attributor.follow() if attributor is not None and one.attributed else None
                    self.choices.append(
                        Choice(number, Writer(prompt.suffix, one.least_indent), follower, one.alternatives)
                    )
        except BaseException:
            self.cancel()
            raise

    def _submit(self, one: Asked, prompt: Prepared) -> Ticket:
        request = Request(
            prompt.ids.ids,
            samples=one.samples,
            max_new_tokens=max(1, prompt.new_tokens),
            temperature=one.temperature,
            top_p=one.top_p,
            top_k=one.top_k,
            seed=secrets.randbits(62) if one.seed is None else one.seed,
            stops=tuple(stop.encode() for stop in one.stops),
            required=prompt.ids.required,
            alternatives=one.alternatives or 0,
            speculate=one.temperature == 0,
        )
        return self.model.submit(request, deadline=self.settings.deadline, woken=self._woken)

    def _woken(self) -> None:
        """Called on the engine's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bell.set)

    @property
    def ended(self) -> bool:
        return all(choice.ending is not None for choice in self.choices)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt.ids.ids) for prompt in self.prompts)

    @property
    def completion_tokens(self) -> int:
        return sum(choice.drawn for choice in self.choices)

    def cancel(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()

    def leave(self) -> None:
        """The client has gone away: nobody needs the rest."""
        self.gone = True
        self.cancel()

    async def run(self) -> None:
        """To the end, without telling."""
        async for _ in self.deltas():
            pass

    async def deltas(self) -> AsyncIterator[Delta]:
        """Everything that is to be shown, in order; cancels what runs if it is left early. ApiError 504 where no
        token came before the deadline, 503 where the server ended it."""
        try:
            while not self.ended:
                await self._bell.wait()
                self._bell.clear()
                for number, ticket in enumerate(self._tickets):
                    for delta in self._take(number, _events(ticket)):
                        await self._attribute(delta)
                        yield delta
        finally:
            if not self.ended:
                self.cancel()

    def _take(self, number: int, events: Sequence[Piece | Completion]) -> list[Delta]:
        """The deltas of one prompt's events, one for each choice that has any."""
        first = sum(one.samples for one in self.asked[:number])
        found: dict[int, Delta] = {}
        for event in events:
            at = first + event.sample
            choice, delta = self.choices[at], found.setdefault(at, Delta(at))
            if choice.ending is not None:
                continue
            if isinstance(event, Completion):
                self._end(choice, event, delta)
            elif self.prompts[number].new_tokens:
                self._write(choice, event, delta)
        mine = self.choices[first : first + self.asked[number].samples]
        if events and all(choice.ending is not None for choice in mine):
            self._tickets[number].cancel()  # a text that was cut here goes on there
        return [delta for delta in found.values() if delta.text or delta.tokens or delta.ending]

    def _write(self, choice: Choice, piece: Piece, delta: Delta) -> None:
        one, now = self.asked[choice.prompt], time.monotonic()
        if choice.started is None:
            choice.started = now
        if self.first_token is None:
            self.first_token = now - self.began
            if self._on_first is not None:
                self._on_first(self.first_token)
        choice.drawn += 1
        start = choice.spelled
        choice.spelled += len(self.model.token(piece.token))
        if one.alternatives is not None:
            choice.waiting.append((start, choice.spelled, piece))
        self._show(choice, delta, choice.writer.feed(piece.text))
        late = one.line_seconds is not None and now - choice.started > one.line_seconds
        if choice.writer.cut:
            self._close(choice, delta, "stop")
        elif late and b"\n" in choice.writer.raw:
            self._close(choice, delta, "deadline")

    def _end(self, choice: Choice, completion: Completion, delta: Delta) -> None:
        """The engine has ended a sample."""
        self.cached = max(self.cached, completion.known)
        if completion.finish == "cancelled" and self.gone:
            raise ClientGone
        if completion.finish == "cancelled":
            raise ApiError(503, "the server is stopping", code="stopping", retry=True)
        if completion.finish == "deadline" and not completion.tokens:
            raise ApiError(504, f"no token within {self.settings.deadline:g} seconds", code="deadline", retry=True)
        if not self.prompts[choice.prompt].new_tokens:
            self._close(choice, delta, "length")
            return
        if completion.finish == "stop":
            choice.stopped_by = self._stop_string(choice, completion)
        self._show(choice, delta, choice.writer.feed(completion.text[len(choice.writer.raw) :]))
        self._close(choice, delta, "length" if completion.finish == "context" else completion.finish)

    def _stop_string(self, choice: Choice, completion: Completion) -> str:
        raw = b"".join(self.model.token(token) for token in completion.tokens)
        after = raw[len(self.prompts[choice.prompt].ids.required) + len(completion.text) :]
        return next((stop for stop in self.asked[choice.prompt].stops if after.startswith(stop.encode())), "")

    def _close(self, choice: Choice, delta: Delta, ending: Ending) -> None:
        self._show(choice, delta, choice.writer.finish(by_model=ending == "end"), last=True)
        choice.ending = delta.ending = ending

    def _show(self, choice: Choice, delta: Delta, text: str, *, last: bool = False) -> None:
        """Add to the text, and tell the tokens that it covers now; the last one may be cut."""
        choice.text += text
        delta.text += text
        spelled_first = self.prompts[choice.prompt].ids.required
        required, end = len(spelled_first), choice.writer.shown
        while choice.waiting and (choice.waiting[0][1] - required <= end or last):
            start, stop, piece = choice.waiting.pop(0)
            raw = bytes(choice.writer.raw[max(0, start - required) : min(end, max(0, stop - required))])
            if raw:
                token = TokenText(
                    piece.token,
                    raw,
                    choice.characters,
                    piece.log_probability,
                    self._others(piece, start, spelled_first),
                )
                choice.characters += sum(byte & 0xC0 != 0x80 for byte in raw)
                choice.tokens.append(token)
                delta.tokens.append(token)

    def _others(self, piece: Piece, start: int, required: bytes) -> list[tuple[str, float]]:
        """The most probable tokens of a place as text. Where a healed cursor stands inside the token, those that do
        not begin with what stands before the cursor are left out, and the others begin at the cursor."""
        before = required[start:]
        found = []
        for token, value in piece.alternatives:
            raw = self.model.token(token)
            if not raw:
                found.append((self.model.special(token), value))
            elif raw.startswith(before):
                found.append((spelled(raw[len(before) :]), value))
        return found

    async def _attribute(self, delta: Delta) -> None:
        choice = self.choices[delta.choice]
        if choice.follower is None:
            return
        if delta.text:
            delta.spans = await asyncio.to_thread(choice.follower.feed, delta.text)
        if delta.ending is not None:
            delta.spans = choice.spans = await asyncio.to_thread(choice.follower.finish)


def _events(ticket: Ticket) -> list[Piece | Completion]:
    """What a ticket tells; what the engine could not do (no memory for the prompt, say) is no fault of the client's."""
    try:
        return ticket.poll()
    except UserError as error:
        raise ApiError(503, error.what, code="engine", retry=True) from None


@dataclass(frozen=True)
class Prepared:
    """A prompt as it is run: ids, the text after the gap, and how many tokens may follow."""

    ids: PromptIds
    suffix: str
    new_tokens: int


def _prompt(model: ServedModel, one: Asked, settings: Settings) -> Prepared:
    wanted = min(one.new_tokens, settings.most_new_tokens)
    if isinstance(one.prefix, tuple):
        if one.suffix:
            raise UserError("a suffix needs a prompt that is text", where="prompt")
        ids, suffix = PromptIds(list(one.prefix)), ""
    else:
        prefix, suffix = one.prefix, one.suffix
        if not suffix and not one.exact:
            prefix, suffix = taken_apart(prefix) or (prefix, suffix)
        if suffix and not model.fills_gaps:
            raise UserError(f"{model.name} was not made to fill in", where="suffix", hint="send the prompt alone")
        ids = model.prompt(prefix, suffix, wanted, heal=settings.heal and not one.exact)
    return Prepared(ids, suffix, min(wanted, max(1, model.context - len(ids.ids))))
