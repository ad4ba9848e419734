"""Which infilling prompt a model is asked with."""

from __future__ import annotations

import pytest
import training_fixtures as shared

from kringle.evaluation import prompt_choice
from kringle.evaluation.infilling import Task, make_tasks, run
from kringle.evaluation.prompt_choice import CHOOSING, choose_format, formats
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


def test_the_choice_is_made_on_other_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(shared.model_config(context=160))
    model.initialise(0)
    documents = [(str(i), "python", f"a = {i}\nbb = {i + 1}\nccc = {i + 2}\n") for i in range(60)]
    measured = make_tasks(documents, 40)
    asked: dict[str, list[Task]] = {}

    def watched(*given: object) -> object:
        asked[given[3]] = list(given[2])  # type: ignore[index, call-overload]
        return run(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(prompt_choice, "run", watched)
    chosen, hits = choose_format(model, shared.tokenizer(), documents, measured, ("psm", "spm"))
    assert asked["psm"] == asked["spm"]
    assert len(asked["psm"]) == CHOOSING
    assert not {task.name for task in asked["psm"]} & {task.name for task in measured}
    assert hits == {"psm": 0, "spm": 0}  # it has learned nothing
    assert chosen == "psm"
    assert choose_format(model, shared.tokenizer(), documents, measured, ("spm",)) == ("spm", {})
