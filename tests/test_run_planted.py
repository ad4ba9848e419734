"""Whether a study can see an effect: a corpus in which a line can be known from what follows it, and from nothing else.

Each file has two lines. The first is one of 16 capital letters, drawn evenly. The second has words that go with this
letter alone. Who sees the second line knows the first; who does not is right once in 16 times. Half of all lines are
such first lines; no model can know the other half.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_fixtures import Done, kringle, results, shared_folder, write_recipe

from kringle.study.verdicts import compare

LETTERS = "ABCDEFGHIJKLMNOP"
WORDS_EACH = 3
WORDS_A_FILE = 8
FILES = 2500
SEEDS = (0, 1)


def write_planted(root: Path) -> Path:
    draw = random.Random(0)
    words = [consonant + vowel for consonant in "bcdfghjklmnpqrstvwxz" for vowel in "aeiou"]
    draw.shuffle(words)
    of_letter = {letter: [words.pop() for _ in range(WORDS_EACH)] for letter in LETTERS}
    for number in range(FILES):
        letter = draw.choice(LETTERS)
        path = root / f"repo-{number % 60:02d}/{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{letter}\n{' '.join(draw.choices(of_letter[letter], k=WORDS_A_FILE))}\n")
    return root


@dataclass(frozen=True)
class Planted:
    work: Path
    done: Done

    def lines(self, arm: str, seed: int) -> list[dict[str, Any]]:
        (folder,) = self.work.glob(f"stages/evaluate@{arm}-s{seed}-*")
        return [json.loads(line) for line in (folder / "infilling.jsonl").read_text().splitlines()]

    def exact(self, arm: str, seed: int, *, planted: bool) -> float:
        return float(np.mean([row["exact"] for row in self.lines(arm, seed) if (row["line"] == 1) is planted]))


@pytest.fixture(scope="module")
def study() -> Planted:
    folder = shared_folder() / "planted"
    corpus = write_planted(folder / "corpus")
    recipe = write_recipe(
        folder / "planted.yaml",
        corpus,
        ablations=("fim", "no-fim"),
        fim="{rate: 0.8}",
        licenses="any",
        decontaminate="[]",
        vocab_size=300,
        context=80,
        batch_tokens=560,
        steps=700,
        learning_rate=5e-3,
        seeds=SEEDS,
        lines=500,
    )
    return Planted(folder / "work", kringle("run", recipe, "--work", folder / "work").succeeded())


def test_what_follows_a_line_helps_the_model_that_sees_it(study: Planted) -> None:
    for seed in SEEDS:
        assert study.exact("fim", seed, planted=True) > 0.8
        assert study.exact("no-fim", seed, planted=True) < 0.2  # a guess is right in 1 of 16
        assert study.exact("fim", seed, planted=False) < 0.05  # nothing tells these lines
    found = results(study.work)
    for arm in found["arms"]:  # both orders were tried, and one is said
        tried = arm["name"] == "fim"
        assert arm["infilling"]["prompt_format"].startswith(
            ("prefix-suffix", "suffix-prefix") if tried else "prefix only"
        )
        assert ("hits among 64 other lines" in arm["infilling"]["prompt_format"]) is tried
    (infilling,) = [c for c in found["comparisons"] if c["measure"] == "infilling"]
    assert infilling["verdict"] == "worse"
    assert infilling["high"] < -0.25
    assert -infilling["difference"] > 2 * (infilling["high"] - infilling["low"])
    assert re.search(r"^no-fim against fim: .*infilling -[34]\d\.\d points \([^)]*\), worse", study.done.err, re.M)
    # The left-to-right models are as well trained as the others: the prompt is what they lack.
    bits = {(arm["name"], arm["seed"]): arm["bits_per_byte"]["total"]["value"] for arm in found["arms"]}
    assert all(bits["no-fim", seed] < 1.1 * bits["fim", seed] for seed in SEEDS)


@pytest.mark.parametrize("arm", ["fim", "no-fim"])
def test_two_seeds_of_one_ablation_hardly_differ(study: Planted, arm: str) -> None:
    one, other = (study.lines(arm, seed) for seed in SEEDS)
    assert [row["task"] for row in one] == [row["task"] for row in other]
    assert [row["completion"] for row in one] != [row["completion"] for row in other]
    first, second = (np.array([float(row["exact"]) for row in lines]) for lines in (one, other))
    difference = compare(
        {"one": {0: first}, "other": {0: second}},
        "one",
        higher_is_better=True,
        clusters=[row["task"].partition(":")[0] for row in one],
        largest=1.0,
        level=0.99,
    )["other"]
    # The interval is about the lines alone: another seed is another model, and moves a few of them for good. What must
    # hold is that seeds move far less than the ablation does, which is more than 25 points.
    assert max(-difference.low, difference.high) < 0.1
