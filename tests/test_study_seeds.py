"""A stored between-seed variance: kept, found again, refused where it is another recipe's or no such thing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kringle.errors import UserError
from kringle.recipe import load_recipe
from kringle.settings import Margins, Recipe
from kringle.study import seeds
from kringle.study.judgements import Measurements, compare_arms
from kringle.study.verdicts import SeedVariance

VARIANCES = {"bits per byte": SeedVariance(1e-6, 2e-7, 4), "infilling": SeedVariance(1e-4, 1e-5, 4)}


def recipe() -> Recipe:
    return load_recipe("laptop")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / seeds.FILE
    seeds.write(recipe(), VARIANCES, path)
    assert seeds.load(path, recipe()) == VARIANCES
    other_seeds = replace(recipe().base, training=replace(recipe().base.training, seeds=(7,)))
    assert seeds.load(path, replace(recipe(), arms=(other_seeds, *recipe().arms[1:]))) == VARIANCES
    assert seeds.load(path, replace(recipe(), arms=recipe().arms[:1])) == VARIANCES
    seeds.write(recipe(), {}, tmp_path / "nothing.json")
    assert not (tmp_path / "nothing.json").exists()


@pytest.mark.parametrize("change", ["model", "training", "tokenizer"])
def test_another_recipes_variance_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / seeds.FILE
    seeds.write(recipe(), VARIANCES, path)
    base = recipe().base
    changed = {
        "model": replace(recipe(), arms=(replace(base, model=replace(base.model, layers=5)),)),
        "training": replace(recipe(), arms=(replace(base, training=replace(base.training, tokens=99_000)),)),
        "tokenizer": replace(recipe(), tokenizer=replace(recipe().tokenizer, vocab_size=999)),
    }
    with pytest.raises(UserError, match="another model, tokenizer or training"):
        seeds.load(path, changed[change])


@pytest.mark.parametrize(
    "row",
    [
        {"run": -1.0, "items": 0.0, "degrees_of_freedom": 4},
        {"run": 1.0, "items": 0.0, "degrees_of_freedom": 0},
        {"run": 1.0, "items": 0.0, "degrees_of_freedom": 2.5},
        {"run": True, "items": 0.0, "degrees_of_freedom": 2},
        {"run": 1.0, "items": 0.0},
        3,
    ],
)
def test_what_is_no_variance_is_refused(tmp_path: Path, row: object) -> None:
    path = tmp_path / seeds.FILE
    seeds.write(recipe(), VARIANCES, path)
    body = json.loads(path.read_text())
    body["measures"]["bits per byte"] = row
    path.write_text(json.dumps(body))
    with pytest.raises(UserError):
        seeds.load(path, recipe())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "kringle-seed-variance/1"}', "\x00"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / seeds.FILE
    path.write_text(text)
    with pytest.raises(UserError):
        seeds.load(path, recipe())
    with pytest.raises(UserError, match="cannot be read"):
        seeds.load(tmp_path / "absent.json", recipe())


def test_one_seed_with_a_stored_variance_may_be_judged_and_says_so() -> None:
    sizes = np.random.default_rng(1).integers(500, 4000, 60)

    def measured(level: float) -> Measurements:
        rates = np.random.default_rng(2).normal(2.5, 0.3, 60) + level
        rows = [
            {"language": "python", "bytes": int(n), "model": float(n * r)} for n, r in zip(sizes, rates, strict=True)
        ]
        return Measurements(rows, [{"task": f"f{i}:1", "exact": i % 3 == 0} for i in range(90)], {}, {}, "psm")

    runs = {"fim": {0: measured(0.0)}, "mha": {0: measured(-0.1)}}
    alone = compare_arms(runs, [("mha", "fim")], Margins(), [])[0]
    assert (alone.verdict, alone.remark, alone.this_pair_only) == ("undecided", "this pair of runs only", True)
    known = compare_arms(runs, [("mha", "fim")], Margins(), [], stored=VARIANCES)[0]
    assert (known.verdict, known.this_pair_only) == ("better", False)
    assert "of an earlier study" in known.remark
    assert known.detectable is not None
    assert alone.detectable is None  # nothing is decided, however large it is
    assert known.high - known.low > alone.high - alone.low
    two = {arm: {**by_seed, 1: by_seed[0]} for arm, by_seed in runs.items()}
    own = compare_arms(two, [("mha", "fim")], Margins(), [], stored=VARIANCES)[0]
    assert "earlier" not in own.remark  # a study's own spread comes first
