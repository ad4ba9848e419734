"""Which infilling prompt a model is asked with: the one that suits it best, chosen on tasks that do not count."""

from __future__ import annotations

from collections.abc import Sequence

from kringle.evaluation.infilling import PromptFormat, Task, make_tasks, run
from kringle.model.transformer import Transformer
from kringle.tokens.tokenizer import Tokenizer

CHOOSING = 64  # tasks on which a model's format is chosen; none of them is among those that it is measured on


def formats(fim_rate: float, spm: float) -> tuple[PromptFormat, ...]:
    """The prompts that a model was trained for: it saw `spm` of its rearranged pieces with the suffix first."""
    if not fim_rate:
        return ("left-to-right",)
    return (*(("psm",) if spm < 1 else ()), *(("spm",) if spm > 0 else ()))


def choose_format(
    model: Transformer,
    tokenizer: Tokenizer,
    documents: Sequence[tuple[str, str, str]],
    measured: Sequence[Task],
    candidates: Sequence[PromptFormat],
) -> tuple[PromptFormat, dict[str, int]]:
    """The format with which a model fills in the most of `CHOOSING` other tasks, the first one of equals, and the hits
    of each; no hits where there is nothing to choose.

    Small models need it: asked in PSM order they have to find the end of the prefix far back, which they learn much
    later than to go on from it, and complete nothing; in SPM order the prefix comes last.
    """
    if len(candidates) == 1:
        return candidates[0], {}
    taken = {task.name for task in measured}
    others = make_tasks(documents, CHOOSING + len(measured), seed=1)
    tasks = [task for task in others if task.name not in taken][:CHOOSING]
    hits: dict[str, int] = {
        name: sum(result.exact for result in run(model, tokenizer, tasks, name)) for name in candidates
    }
    return max(candidates, key=lambda name: hits[name]), hits
