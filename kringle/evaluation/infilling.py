"""Single-line infilling: hide the rest of one line of a held-out file, and see whether the model writes it again.

The task is an editor's: the cursor stands on a line that is not blank, its indentation is there, the rest of the line
is missing, the rest of the file follows. A completion counts if it equals the missing text after both are stripped of
surrounding white space (SantaCoder's rule; its tasks were lines of solved HumanEval problems instead).

Where the cursor stands decides who wins. A prompt that ends in a bare line break hands a model that was trained from
left to right a token which it never saw there, because byte-level BPE joins a line break with the indentation after it;
models trained with fill-in-the-middle have seen such cuts. So the prefix ends after the indentation, and before its
last space where it ends in one (that space belongs to the first word's token): a place where the tokens of running text
have a border too. Every arm is judged on the same tasks, each with the prompt that it was trained for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from kringle.errors import UserError
from kringle.evaluation.kept import INFILLING_TOKENS
from kringle.generation.fim import infilling_prompt
from kringle.generation.requests import Request
from kringle.randomness import stream
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.batches import taught_positions

if TYPE_CHECKING:
    from kringle.model.transformer import Transformer

PER_DOCUMENT = 5  # tasks from one file at most, so that a single long file does not decide the score
MARGIN = 64  # tokens encoded beyond what a prompt may hold, so that a cut word cannot reach the part that is kept

PromptFormat = Literal["psm", "spm", "left-to-right"]


@dataclass(frozen=True)
class Task:
    """A hidden line end; `prefix + middle + suffix` is the file. `line` counts from 1; `middle` has no line break."""

    document: str
    language: str
    line: int
    prefix: str
    middle: str
    suffix: str

    @property
    def name(self) -> str:
        """`document:line`, unique among tasks."""
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class _Place:
    """A line that could become a task; places are taken in the order of their keys."""

    key: float
    document: str
    line: int
    language: str
    start: int  # where the line starts in the text
    text: str

    @property
    def order(self) -> tuple[float, str, int]:
        return self.key, self.document, self.line


def make_tasks(
    documents: Iterable[tuple[str, str, str]], count: int, seed: int = 0, per_document: int = PER_DOCUMENT
) -> list[Task]:
    """Up to `count` tasks from documents (id, language, text); fewer where the files hold fewer.

    Lines are chosen uniformly among those that are not blank, at most `per_document` in a file, by numbers drawn from
    (seed, document, line): the same tasks in any order of the documents. Each language gets its share of all lines that
    are not blank (largest remainders); where the limit per file leaves a language short, the others fill up.
    """
    lines: Counter[str] = Counter()
    places: list[_Place] = []
    for document, language, text in documents:
        found = _places(document, language, text, seed)
        lines[language] += len(found)
        places += sorted(found, key=lambda place: place.order)[:per_document]
    places.sort(key=lambda place: place.order)
    room = _shares(lines, count)
    chosen: list[_Place] = []
    rest: list[_Place] = []
    for place in places:
        (chosen if room[place.language] > 0 else rest).append(place)
        room[place.language] -= 1
    chosen += rest[: count - len(chosen)]
    return [_task(place) for place in sorted(chosen, key=lambda place: place.order)]


def _places(document: str, language: str, text: str, seed: int) -> list[_Place]:
    """Every line of a text that is not blank."""
    found, start = [], 0
    rows = text.split("\n")
    for number, (row, key) in enumerate(zip(rows, stream(seed, "infilling", document).random(len(rows)), strict=True)):
        if row.strip():
            found.append(_Place(float(key), document, number + 1, language, start, text))
        start += len(row) + 1
    return found


def _shares(weights: Counter[str], count: int) -> Counter[str]:
    """`count` divided in proportion to the weights; what rounding down leaves goes to the largest remainders."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items() if weight}
    shares = Counter({name: int(share) for name, share in exact.items()})
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    shares.update(by_remainder[: count - shares.total()])
    return shares


def _task(place: _Place) -> Task:
    text, start = place.text, place.start
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    cursor = end - len(text[start:end].lstrip())
    if cursor > start and text[cursor - 1] == " ":
        cursor -= 1
    return Task(place.document, place.language, place.line, text[:cursor], text[cursor:end], text[end:])


# -- running -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One completion, cut before the first line break or special token. `shortened`: the prompt holds only part of the
    file, because the context ends. `unfinished`: neither a line break nor a special token came within the limit."""

    task: Task
    completion: str
    exact: bool
    shortened: bool
    unfinished: bool


def run(
    model: Transformer,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    prompt: PromptFormat,
    *,
    new_tokens: int = INFILLING_TOKENS,
    rows: int | None = None,
) -> list[Result]:
    """Complete every task, greedily and once; results in the order of the tasks.

    "psm" and "spm" show prefix and suffix in the orders of fill-in-the-middle training; "left-to-right" shows the
    prefix alone, for a model trained without. The completion ends at a special token or at the first line break: a
    model that breaks the line at once has answered with an empty one, which is wrong. Bytes that are no UTF-8 are shown
    as U+FFFD. UserError where the context leaves no room for a prompt beside `new_tokens`.
    """
    from kringle.generation.engine import ROWS, generate  # needs PyTorch, which choosing tasks does not

    context = taught_positions(model.config.context)
    prompts = [make_prompt(tokenizer, task, prompt, context=context, new_tokens=new_tokens) for task in tasks]
    requests = [
        Request(prompt=ids, max_new_tokens=new_tokens, temperature=0.0, key=task.name, stops=(b"\n",))
        for ids, task in zip(prompts, tasks, strict=True)
    ]
    found: dict[int, Result] = {}
    for completion in generate(model, tokenizer, requests, rows=rows or ROWS):
        task, ids = tasks[completion.request], prompts[completion.request]
        text = completion.text.decode("utf-8", errors="replace")
        shown = sum(len(tokenizer.token_bytes[id]) for id in ids)
        whole = len(task.prefix.encode()) + (0 if prompt == "left-to-right" else len(task.suffix.encode()))
        found[completion.request] = Result(
            task=task,
            completion=text,
            exact=text.strip() == task.middle.strip(),
            shortened=shown < whole,
            unfinished=completion.finish in ("length", "context"),
        )
    return [found[number] for number in range(len(tasks))]


def make_prompt(
    tokenizer: Tokenizer, task: Task, prompt: PromptFormat, *, context: int, new_tokens: int = INFILLING_TOKENS
) -> list[int]:
    """Token ids that ask for the middle of a task, so short that `new_tokens` fit in the context beside them."""
    room = context - new_tokens
    prefix = _end(tokenizer, task.prefix, room)
    if prompt != "left-to-right":
        suffix = _beginning(tokenizer, task.suffix, room)
        return infilling_prompt(tokenizer, prefix, suffix, mode=prompt, context=context, new_tokens=new_tokens)
    if room < 1:
        raise UserError(
            f"a context of {context} tokens leaves no room for a prompt beside {new_tokens} new tokens",
            where="infilling",
            hint=f"ask for at most {context - 1} new tokens",
        )
    ids = [tokenizer.specials.end_of_text] if prefix == task.prefix else []
    ids += _running_tokens(tokenizer, prefix, task.middle)
    return ids[-room:]


def _running_tokens(tokenizer: Tokenizer, prefix: str, middle: str) -> list[int]:
    """The tokens of `prefix` as they are where `middle` follows; encoded apart, two final line breaks would become one.

    Where no token starts with the middle (a line that begins with a digit), those of the prefix alone.
    """
    ids = tokenizer.encode(prefix + middle)
    ends = [0, *accumulate(len(tokenizer.token_bytes[id]) for id in ids)]
    border = len(prefix.encode())
    return ids[: ends.index(border)] if border in ends else tokenizer.encode(prefix)


def _end(tokenizer: Tokenizer, text: str, room: int) -> str:
    """The last characters of a text, at least `room` + `MARGIN` tokens: a prompt needs no more of a long file."""
    characters = 4 * (room + MARGIN)
    while characters < len(text) and len(tokenizer.encode(text[-characters:])) < room + MARGIN:
        characters *= 2
    return text[-characters:]


def _beginning(tokenizer: Tokenizer, text: str, room: int) -> str:
    """The first characters of a text, at least `room` + `MARGIN` tokens of them."""
    characters = 4 * (room + MARGIN)
    while characters < len(text) and len(tokenizer.encode(text[:characters])) < room + MARGIN:
        characters *= 2
    return text[:characters]


def examples(results: Sequence[Result], count: int) -> list[Result]:
    """Up to `count` results to show: right and wrong ones by turns, each in the order of the tasks, which is random."""
    right = [result for result in results if result.exact]
    wrong = [result for result in results if not result.exact]
    half = max(count // 2, count - len(wrong))
    chosen = right[:half]
    return chosen + wrong[: count - len(chosen)]
