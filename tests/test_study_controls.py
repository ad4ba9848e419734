"""Controls: which arms a study adds, what their documents are, and that a study whose controls fail has no verdicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_fixtures import kringle, results, shared_corpus, write_recipe
from training_fixtures import tokenizer, write_store

from kringle.errors import UserError
from kringle.recipe import parse_recipe
from kringle.settings import Margins, Recipe
from kringle.study import altered
from kringle.study.altered import training_seed
from kringle.study.assemble import command_of
from kringle.study.controls import REFUSED, check_controls, control_arms, pairs, refuse
from kringle.study.findings import findings
from kringle.study.judgements import Measurements, compare_arms, resamples_for, seed_variances
from kringle.study.pipeline import share_cores
from kringle.study.plan import Options, resolve
from kringle.study.statistics import RESAMPLES
from kringle.tokens.store import TokenStore

RECIPE = """\
name: grid
corpus:    {sources: [{installed: {}}]}
tokenizer: {vocab_size: 512}
model:     {layers: 2, width: 64, heads: 2, context: 128}
training:  {tokens: 100k, batch_tokens: 512, seeds: [0, 1, 2]}
controls:  CONTROLS
ablations:
  fim:      {}
  no-fim:   {training: {fim: {rate: 0}}}
  comments: {filter: {comments: {above: 0.01, below: 0.80}}}
  fim-2x:   {training: {tokens: 200k}}
  final:    {filter: {comments: {above: 0.01, below: 0.80}}, training: {tokens: 200k}}
"""


def recipe(controls: str = "true") -> Recipe:
    return parse_recipe(RECIPE.replace("CONTROLS", controls))


def with_controls(controls: str = "true") -> Recipe:
    made = recipe(controls)
    assert made.controls is not None
    return replace(made, arms=(*made.arms, *control_arms(made.arms, made.controls)))


# -- the arms ----------------------------------------------------------------------------------------------------------


def test_a_study_gets_its_controls() -> None:
    arms = {arm.name: arm for arm in with_controls("{harm: 10%}").arms}
    assert list(arms)[5:] == ["control-seed", "control-harm", "control-size-comments", "control-size-final"]
    assert arms["control-harm"].control is not None
    assert arms["control-harm"].control.share == 0.1
    assert arms["control-size-final"].training.tokens == 200_000
    assert training_seed(arms["control-seed"], 1) not in {training_seed(arms["fim"], s) for s in (0, 1, 2)}
    assert all(training_seed(arms[name], 1) == 1 for name in arms if name != "control-seed")


def test_the_command_behind_every_arm_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(RECIPE.replace("CONTROLS", "true"))
    options = Options(recipe=str(path), work=tmp_path / "work")
    for arm in resolve(options).arms:
        only = command_of(arm, options).partition(" --only ")[2]
        assert arm.name in {made.name for made in resolve(replace(options, only=(only,))).arms}


def test_every_difference_has_the_right_other_side() -> None:
    found = pairs(with_controls().arms)
    assert found[:3] == [("no-fim", "fim"), ("comments", "fim"), ("comments", "control-size-comments")]
    assert ("final", "fim-2x") in found  # at equal tokens
    assert ("final", "control-size-final") in found
    assert [pair for pair in found if pair[0] == "fim-2x"] == [("fim-2x", "fim")]
    assert [base for arm, base in found if arm.startswith("control-")] == ["fim"] * 4


def test_the_command_line_adds_controls_to_a_recipe_without(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(RECIPE.replace("CONTROLS", "false"))
    plain = resolve(Options(str(path)))
    assert [arm for arm in plain.arms if arm.control] == []
    asked = resolve(Options(str(path), controls=True, only=("comments",)))
    assert [arm.name for arm in asked.arms] == [
        "fim",
        "comments",
        "control-seed",
        "control-harm",
        "control-size-comments",
    ]
    assert Options(controls=True).command().endswith("--controls")


@pytest.mark.parametrize(
    ("controls", "what"), [("yes please", "mapping"), ("{harm: 2}", "harm"), ("{harms: 1%}", "harms")]
)
def test_what_is_no_setting_of_controls_is_refused(controls: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        recipe(controls)


def test_no_pair_without_a_common_seed_and_no_controls_unless_asked() -> None:
    made = parse_recipe(RECIPE.replace("CONTROLS", ""))
    assert made.controls is None
    longer = next(arm for arm in made.arms if arm.name == "fim-2x")
    others = replace(longer, training=replace(longer.training, seeds=(7,)))
    arms = [others if arm is longer else arm for arm in made.arms]
    assert ("final", "fim-2x") in pairs(made.arms)
    assert ("final", "fim-2x") not in pairs(arms)
    assert ("final", "fim") in pairs(arms)


def test_a_name_of_a_control_is_taken() -> None:
    made = parse_recipe(RECIPE.replace("CONTROLS", "true").replace("no-fim:", "control-harm:"))
    assert made.controls is not None
    with pytest.raises(UserError, match="control-harm"):
        control_arms(made.arms, made.controls)


# -- documents ---------------------------------------------------------------------------------------------------------


class Sized:
    """As much of a store as choosing by size looks at."""

    def __init__(self, sizes: list[int], languages: list[str]) -> None:
        self.sizes, self.languages = np.array(sizes, dtype=np.int64), languages
        self.ids = [f"{i:04x}" for i in range(len(sizes))]


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.sampled_from(["python", "java"])), min_size=1, max_size=60),
    st.data(),
)
def test_matched_size_is_as_near_as_whole_documents_allow(
    documents: list[tuple[int, str]], data: st.DataObject
) -> None:
    store: Any = Sized([size for size, _ in documents], [language for _, language in documents])
    pool = np.arange(len(documents))
    kept = np.array(sorted(data.draw(st.sets(st.sampled_from(list(pool))))), dtype=np.int64)
    chosen = altered.matched_size(store, pool, kept)
    assert set(chosen) <= set(pool)
    languages = np.array(store.languages)
    for language in set(store.languages):
        wanted, got = (int(store.sizes[x][languages[x] == language].sum()) for x in (kept, chosen))
        largest = max(int(store.sizes[i]) for i in pool if languages[i] == language)
        count = int((languages[chosen] == language).sum())
        assert (count > 0) is (wanted > 0)
        if count > 1:  # one document is taken however large it is
            assert abs(wanted - got) <= largest / 2
    half = altered.matched_size(store, pool, kept[: len(kept) // 2])
    for language in set(store.languages):  # a smaller set lies inside a larger one
        small, large = ({int(i) for i in x if languages[i] == language} for x in (half, chosen))
        assert small <= large or large <= small


def test_the_planted_harm_shuffles_lines_and_nothing_else(tmp_path: Path) -> None:
    contents = [f"# file {i}\n" + "".join(f"x{j} = {j * i}\n" for j in range(12)) + "end" for i in range(200)]
    store = write_store(tmp_path / "store", contents)
    harmed = altered.harmed(store, tokenizer(), 0.30, tmp_path / "harmed")
    assert harmed.ids == store.ids
    assert (harmed.sizes == store.sizes).all()
    assert harmed.tokenizer == store.tokenizer
    changed = 0
    for i, text in enumerate(contents):
        now = tokenizer().decode_bytes(harmed.document(i)).decode()
        assert Counter(now.split("\n")) == Counter(text.split("\n"))
        changed += now != text
        if now == text:
            assert (harmed.document(i) == store.document(i)).all()
    assert 40 < changed < 80  # 60 are expected; 3 standard deviations are 19
    again = altered.harmed(store, tokenizer(), 0.30, tmp_path / "again")
    assert again.checksum == harmed.checksum
    more = altered.harmed(store, tokenizer(), 0.60, tmp_path / "more")
    of = [
        [
            i
            for i in range(200)
            if len(x.document(i)) != len(store.document(i)) or (x.document(i) != store.document(i)).any()
        ]
        for x in (harmed, more)
    ]
    assert set(of[0]) < set(of[1])
    assert altered.harmed(store, tokenizer(), 0.0, tmp_path / "none").checksum == store.checksum


def test_a_header_stands_before_every_document(tmp_path: Path) -> None:
    contents = ["x = 1\n", "def f():\n    return 2\n"]
    store = write_store(tmp_path / "store", contents)
    headers = {id: altered.header("python", f"a b/{i}.py") for i, id in enumerate(store.ids)}
    headed: TokenStore = altered.with_headers(store, headers, tokenizer(), tmp_path / "headed")
    for i, text in enumerate(contents):
        assert tokenizer().decode_bytes(headed.document(i)).decode() == f"python a b/{i}.py\n{text}"
    assert altered.header("java", "src/\nA.java") == "java src/ A.java\n"
    assert altered.file_name("javascript") == "solution.js"


# -- the outcome -------------------------------------------------------------------------------------------------------


def measured(level: float, seed: int, key: str, files: int = 60) -> Measurements:
    """A run with this many bits per byte, give or take what a seed changes."""
    draw = np.random.default_rng([seed, sum(map(ord, key))])
    sizes = np.random.default_rng(1).integers(500, 4000, files)
    rates = (
        np.random.default_rng(2).normal(2.5, 0.3, files) + level + draw.normal(0, 0.004) + draw.normal(0, 0.01, files)
    )
    bits = [{"language": "python", "bytes": int(n), "model": float(n * r)} for n, r in zip(sizes, rates, strict=True)]
    lines = [{"task": f"f{i}:1", "exact": bool(draw.random() < 0.3)} for i in range(200)]
    return Measurements(bits, lines, {}, {}, "psm")


def outcome(levels: Mapping[str, float], seeds: tuple[int, ...] = (0, 1, 2)) -> tuple[Any, ...]:
    """(checks, comparisons as told, findings) of a study whose arms have these levels beside the base."""
    arms = with_controls().arms
    runs = {arm.name: {s: measured(levels.get(arm.name, 0.0), s, arm.name) for s in seeds} for arm in arms}
    before = compare_arms(runs, pairs(arms), Margins(), [], unpaired=["control-seed"])
    checks = check_controls(arms, before)
    told = refuse(before, checks)
    return checks, told, findings((), told, checks)


def test_controls_that_pass_leave_the_verdicts_alone() -> None:
    checks, told, said = outcome({"control-harm": 0.1, "no-fim": 0.2})
    assert [check.outcome for check in checks] == ["passed", "passed"]
    verdicts = {(c.arm, c.base): c.verdict for c in told if c.measure == "bits per byte"}
    assert verdicts["no-fim", "fim"] == verdicts["control-harm", "fim"] == "worse"
    assert "no-fim is worse on bits per byte" in said[0]


def test_a_harm_that_is_switched_off_takes_all_verdicts_away() -> None:
    checks, told, said = outcome({"no-fim": 0.2})
    assert [check.outcome for check in checks] == ["passed", "failed"]
    assert "could not see" in checks[1].why
    assert {c.verdict for c in told} == {"undecided"}
    assert {c.remark for c in told} == {REFUSED}
    assert said[0].startswith("No verdicts: a control failed")
    assert any(line.startswith("control-harm, expected worse on bits per byte: failed") for line in said)


def test_a_control_that_broke_off_takes_all_verdicts_away() -> None:
    arms = with_controls().arms
    found = compare_arms({arm.name: {s: measured(0.0, s, arm.name) for s in (0, 1, 2)} for arm in arms}, pairs(arms),
                         Margins(), [], unpaired=["control-seed"])  # fmt: skip
    without = [c for c in found if c.arm != "control-seed"]
    check = next(check for check in check_controls(arms, without) if check.arm == "control-seed")
    assert (check.outcome, "not measured" in check.why) == ("failed", True)


def test_runs_that_went_well_show_an_arm_worse_and_nothing_else() -> None:
    """Those that broke off are not among them."""
    seeds = {"fim": 0.0, "up": -0.2, "down": 0.2, "same": 0.0}
    runs = {name: {s: measured(level, s, name) for s in (0, 1, 2)} for name, level in seeds.items()}
    asked = [(name, "fim") for name in ("up", "down", "same")]

    def verdicts(broken: dict[str, list[int]]) -> dict[str, str]:
        found = compare_arms(runs, asked, Margins(bits_per_byte=0.03), [], broken=broken)
        assert all(("broke off with seed 7" in c.reservation) == (c.arm in broken or c.base in broken) for c in found)
        return {c.arm: c.verdict for c in found if c.measure == "bits per byte"}

    assert verdicts({}) == {"up": "better", "down": "worse", "same": "no difference"}
    every = {name: [7] for name in ("up", "down", "same")}
    assert verdicts(every) == {"up": "undecided", "down": "worse", "same": "undecided"}
    assert verdicts({"fim": [7]}) == {"up": "better", "down": "undecided", "same": "undecided"}


def test_two_arms_that_never_succeed_are_not_called_equal() -> None:
    def never(seed: int, arm: str) -> Measurements:
        own = measured(0.0, seed, arm)
        return replace(own, lines=[{"task": f"f{i}:1", "exact": False} for i in range(2000)])

    runs = {arm: {s: never(s, arm) for s in (0, 1)} for arm in ("fim", "mha")}
    found = next(c for c in compare_arms(runs, [("mha", "fim")], Margins(), []) if c.measure == "infilling")
    assert found.margin is not None
    assert -found.margin < found.low <= found.high < found.margin
    assert found.verdict == "undecided"
    assert "neither succeeded once" in found.reservation


def test_large_families_get_resamples_enough_to_decide_anything() -> None:
    assert resamples_for(1) == resamples_for(44) == RESAMPLES
    for family in (105, 600):
        assert family * 2 / (resamples_for(family) + 1) < 0.1 / 5


@pytest.mark.parametrize("level", [0.1, -0.1])
def test_a_base_that_differs_from_itself_takes_all_verdicts_away(level: float) -> None:
    """A control broken on purpose: its other seed is trained on something else."""
    checks, told, _ = outcome({"control-harm": 0.1, "control-seed": level})
    assert [check.outcome for check in checks] == ["failed", "passed"]
    assert ("worse" if level > 0 else "better") in checks[0].why
    assert {c.verdict for c in told} == {"undecided"}


def test_one_seed_judges_what_it_can() -> None:
    checks, told, _ = outcome({"control-harm": 0.1}, seeds=(0,))
    assert [check.outcome for check in checks] == ["not judged", "passed"]
    assert "for this pair of runs" in checks[1].why
    assert {c.verdict for c in told} == {"undecided"}
    checks, told, _ = outcome({"control-harm": -0.1}, seeds=(0,))
    assert checks[1].outcome == "failed"
    assert {c.remark for c in told} == {REFUSED}


def test_another_seed_is_judged_by_the_spread_of_whole_runs() -> None:
    """The seed's own part does not cancel between the base and its control: paired arms must not lend their spread."""
    arms = with_controls().arms
    luck = {s: float(np.random.default_rng(s).normal(0, 0.2)) for s in (0, 1, 2, 10, 11, 12)}
    runs = {
        arm.name: {
            s: measured(luck[s + 10 * (arm.name == "control-seed")] + 0.5 * (arm.name == "control-harm"), s, arm.name)
            for s in (0, 1, 2)
        }
        for arm in arms
    }
    for unpaired, wide in (([], False), (["control-seed"], True)):
        found = compare_arms(runs, pairs(arms), Margins(), [], unpaired=unpaired)
        (c,) = [c for c in found if c.arm == "control-seed" and c.measure == "bits per byte"]
        assert (c.high - c.low > 0.3) is wide
        (c,) = [c for c in found if c.arm == "no-fim" and c.measure == "bits per byte"]
        assert (c.high - c.low < 0.05) is wide  # the pool without the control is as narrow as pairs are
    shared = {name: by_seed for name, by_seed in runs.items() if name != "control-seed"}
    variances = seed_variances(shared, Margins(), [])
    assert variances["bits per byte"].degrees_of_freedom == 14  # 8 arms, 3 seeds
    assert variances["bits per byte"].run < 1e-3


def test_a_whole_study_without_harm_refuses_its_verdicts(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "harmless.yaml", shared_corpus(), ablations={"fim": "{}"}, steps=12, seeds=(0, 1))
    path.write_text(path.read_text() + "controls: {harm: 0%}\n")
    done = kringle("run", path, "--work", tmp_path / "work", "--json").succeeded()
    found = results(tmp_path / "work")
    assert [(check["arm"], check["outcome"]) for check in found["controls"]][1] == ("control-harm", "failed")
    assert {c["verdict"] for c in found["comparisons"]} == {"undecided"}
    (bits,) = [c for c in found["comparisons"] if c["arm"] == "control-harm" and c["measure"] == "bits per byte"]
    assert bits["difference"] == 0  # the same documents, the same seed, the same model
    assert "No verdicts: a control failed" in done.err
    assert "No verdicts" in (tmp_path / "work/report/report.html").read_text()
    stored = json.loads((tmp_path / "work/report/seed-variance.json").read_text())
    assert stored["measures"]["bits per byte"]["degrees_of_freedom"] == 1


@pytest.mark.parametrize(
    ("seeds", "controls", "cores", "shared"),
    [
        ("[0]", "false", 2, (1, 2)),  # five arms
        ("[0]", "false", 16, (3, 5)),
        ("[0]", "true", 16, (1, 16)),  # and four controls
        ("[0, 1, 2]", "true", 64, (2, 32)),
    ],
)
def test_trainings_side_by_side_never_have_more_threads_than_there_are_cores(
    seeds: str, controls: str, cores: int, shared: tuple[int, int]
) -> None:
    written = parse_recipe(RECIPE.replace("[0, 1, 2]", seeds).replace("CONTROLS", controls))
    assert share_cores(written, cores) == shared


def test_arms_that_controls_are_added_to_on_the_command_line_wait_for_one_another() -> None:
    """One arm has both cores, so the controls that `--controls` adds are trained after it and not beside it."""
    alone = RECIPE[: RECIPE.index("  no-fim")].replace("[0, 1, 2]", "[0]").replace("CONTROLS", "false")
    assert share_cores(parse_recipe(alone), 2) == (2, 1)
