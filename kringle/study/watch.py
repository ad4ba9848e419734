"""What is measured while an arm trains: bits per byte by language and infilling on a small part of the held-out code.

These figures show a run that goes wrong early. They choose nothing: the study's verdicts come from the whole held-out
part, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kringle.evaluation.measure import HeldOutFile
    from kringle.model.transformer import Transformer
    from kringle.settings import FimSettings
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer

BYTES = 64_000  # of held-out code, about five seconds of a 10M-parameter model on two cores
TASKS = 40  # of infilling


def watcher(
    files: Sequence[HeldOutFile], store: TokenStore, tokenizer: Tokenizer, fim: FimSettings, headed: bool = False
) -> Callable[[Transformer], dict[str, float]]:
    """A function from a model to its figures by name; infilling only for a model that is trained for it. `headed`: the
    model expects language and path before each file."""
    from kringle.evaluation import infilling, measure, prompt_choice
    from kringle.evaluation.bits_per_byte import bits_per_byte, score_documents
    from kringle.study import altered
    from kringle.training.batches import taught_positions

    chosen = measure.scored_files(files, store, BYTES)
    documents = [(f.id, f.language, int(store.sizes[f.number]), np.asarray(store.document(f.number))) for f in chosen]
    headers = {f.id: altered.header(f.language, f.path) if headed else "" for f in files}
    before = tokenizer.encode_batch([headers[f.id] for f in chosen]) if headed else None
    tasks = infilling.make_tasks(((f.id, f.language, f.content) for f in files), TASKS) if fim.rate else []
    tasks = [replace(task, prefix=headers[task.document] + task.prefix) for task in tasks]
    prompt = prompt_choice.formats(fim.rate, fim.spm)[
        -1
    ]  # suffix first, if it has seen that: it shows something earlier

    def look(model: Transformer) -> dict[str, float]:
        end, taught = tokenizer.specials.end_of_text, taught_positions(model.config.context)
        found = bits_per_byte(score_documents(model, end, documents, taught, before))
        figures = {"bits_per_byte": found.total}
        figures |= {f"bits_per_byte.{language}": value for language, value in found.languages.items()}
        if tasks:
            results = infilling.run(model, tokenizer, tasks, prompt)
            figures["infilling"] = sum(result.exact for result in results) / len(results)
        return figures

    return look
