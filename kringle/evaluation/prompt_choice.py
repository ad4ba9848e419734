"""Which infilling prompt a model is asked with: the one that suits it best, chosen on tasks that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kringle.evaluation.infilling import PromptFormat, Task, make_tasks, run
from kringle.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from kringle.model.transformer import Transformer

CHOOSING = 64  # tasks on which a model's format is chosen; none of them is among those that it is measured on


def formats(fim_rate: float, spm: float) -> tuple[PromptFormat, ...]:
    """The prompts that a model was trained for: it saw `spm` of its rearranged pieces with the suffix first."""
    if not fim_rate:
        return ("left-to-right",)
    return (*(("psm",) if spm < 1 else ()), *(("spm",) if spm > 0 else ()))


def divide_tasks(documents: Sequence[tuple[str, str, str]], count: int) -> tuple[list[Task], list[Task]]:
    """Up to `count` tasks to measure models on, and up to `CHOOSING` others to choose their prompts on.

    Documents are (id, language, text). Where they hold too few lines for both, the choice gets a fifth of them at most.
    """
    measured = make_tasks(documents, count)
    taken = {task.name for task in measured}
    others = make_tasks(documents, CHOOSING + count, seed=1)
    others = [task for task in others if task.name not in taken][:CHOOSING]
    keep = len(measured) - max(0, min(CHOOSING, (len(measured) + len(others)) // 5) - len(others))
    return measured[:keep], others + measured[keep:]


def count_hits(
    model: Transformer, tokenizer: Tokenizer, tasks: Sequence[Task], candidates: Sequence[PromptFormat]
) -> dict[PromptFormat, int]:
    """How many tasks the model fills in exactly, by format; the first one of the most is the one to ask it with.

    Small models need the choice: asked in PSM order they have to find the end of the prefix far back, which they learn
    much later than to go on from it, and complete nothing; in SPM order the prefix comes last.
    """
    return {name: sum(result.exact for result in run(model, tokenizer, tasks, name)) for name in candidates}
