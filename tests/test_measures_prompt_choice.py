"""Which infilling prompt a model is asked with."""

from __future__ import annotations

import pytest
import training_fixtures as shared

from kringle.evaluation.infilling import make_tasks
from kringle.evaluation.prompt_choice import CHOOSING, count_hits, formats, other_tasks
from kringle.model.transformer import Transformer


@pytest.mark.parametrize(
    ("rate", "spm", "expected"),
    [
        (0.0, 0.5, ("left-to-right",)),
        (0.5, 0.0, ("psm",)),
        (0.5, 1.0, ("spm",)),
        (0.5, 0.5, ("psm", "spm")),
    ],
)
def test_a_model_is_asked_as_it_was_trained(rate: float, spm: float, expected: tuple[str, ...]) -> None:
    assert formats(rate, spm) == expected


def test_the_choice_is_made_on_other_tasks() -> None:
    documents = [(str(i), "python", f"a = {i}\nbb = {i + 1}\nccc = {i + 2}\n") for i in range(60)]
    measured = make_tasks(documents, 40)
    others = other_tasks(documents, measured)
    assert len({task.name for task in others}) == CHOOSING
    assert not {task.name for task in others} & {task.name for task in measured}
    assert len(other_tasks(documents[:10], make_tasks(documents[:10], 20))) == 10  # as many as there are


def test_hits_are_counted_by_format() -> None:
    model = Transformer(shared.model_config(context=160))
    model.initialise(0)
    tasks = make_tasks([("1", "python", "a = 1\nbb = 2\nccc = 3\n")], 3)
    assert count_hits(model, shared.tokenizer(), tasks, ("psm", "spm")) == {
        "psm": 0,
        "spm": 0,
    }  # it has learned nothing
