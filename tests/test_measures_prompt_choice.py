"""Which infilling prompt a model is asked with."""

from __future__ import annotations

import pytest
import training_fixtures as shared

from kringle.evaluation.infilling import make_tasks
from kringle.evaluation.prompt_choice import CHOOSING, count_hits, divide_tasks, formats
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
    measured, others = divide_tasks(documents, 40)
    assert measured == make_tasks(documents, 40)
    assert len({task.name for task in others}) == CHOOSING
    assert not {task.name for task in others} & {task.name for task in measured}


@pytest.mark.parametrize(
    ("files", "asked", "choosing"), [(10, 20, 10), (10, 30, 6), (60, 180, 36), (200, 600, 64), (1, 3, 0)]
)
def test_where_lines_are_few_a_fifth_is_kept_for_the_choice(files: int, asked: int, choosing: int) -> None:
    documents = [(str(i), "python", f"a = {i}\nbb = {i + 1}\nccc = {i + 2}\n") for i in range(files)]
    measured, others = divide_tasks(documents, asked)
    assert len(others) == choosing
    assert len({task.name for task in measured + others}) == 3 * files
    assert measured == make_tasks(documents, asked)[: len(measured)]  # each arm of a study is asked the same


def test_hits_are_counted_by_format() -> None:
    model = Transformer(shared.model_config(context=160))
    model.initialise(0)
    tasks = make_tasks([("1", "python", "a = 1\nbb = 2\nccc = 3\n")], 3)
    assert count_hits(model, shared.tokenizer(), tasks, ("psm", "spm")) == {
        "psm": 0,
        "spm": 0,
    }  # it has learned nothing
