"""The report's study parts: the paper's lessons, published models, controls, problem by problem, two studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_sample import comparison, sample
from test_report_page import Page

from kringle.errors import UserError
from kringle.study import lessons, published
from kringle.study.figures import forest
from kringle.study.ladder import ladder, rungs
from kringle.study.lessons import answer, measure_for
from kringle.study.pipeline import report_difference
from kringle.study.published import CLAIMS, INFILLING, beside
from kringle.study.report import files, render, render_difference, write
from kringle.study.results import Comparison, ControlCheck, Overlap, ProblemResult, Results

HOSTILE = "</pre><script>alert(1)</script>\u202e"


def with_controls() -> Results:
    base = sample()
    arms = (
        *base.arms,
        replace(
            base.arms[2],
            name="stars",
            training=None,
            bits_per_byte=None,
            infilling=None,
            suites=(),
            not_run="no counts",
        ),
    )
    return replace(
        base,
        arms=arms,
        controls=(ControlCheck("mha", "worse on bits per byte", "failed", "It did not <b>show</b>."),),
        problems=(
            ProblemResult("starter", "a/1", "fim", 3, 20, "return 1", HOSTILE),
            ProblemResult("starter", "a/1", "mha", 0, 20, None, "\n".join(map(str, range(99)))),
            ProblemResult("starter", "a/2", "fim", 20, 20, "pass", None),
        ),
        overlaps=(
            Overlap("comments", "comments", 10, 1000),
            Overlap("comments", "mha", 5, 250),
            Overlap("mha", "mha", 8, 500),
        ),
    )


# -- the paper ---------------------------------------------------------------------------------------------------------


def test_published_differences_are_means_of_the_tables() -> None:
    """By hand: stars' pass@100 on HumanEval is 30, 30, 31 beside 35, 33, 36; infilling 54, 57, 37 beside 64, 61, 42."""
    assert published.difference("stars", published.HUMANEVAL) == pytest.approx(-13 / 300)
    assert published.difference("stars", published.MBPP) == pytest.approx((49 + 59 + 63 - 54 - 64 - 67) / 300)
    assert published.difference("stars", INFILLING) == pytest.approx(-19 / 300)
    assert published.difference("final", published.HUMANEVAL, 1) == pytest.approx((15 + 16 + 18 - 10 - 12 - 12) / 300)
    assert published.difference("mha", INFILLING) is None  # not measured in the paper
    assert published.difference("fim", published.HUMANEVAL) is None
    assert published.difference("my-own", published.HUMANEVAL) is None
    assert {model.name: model.parameters for model in published.MODELS}["InCoder"] == 6.7e9


@pytest.mark.parametrize(
    ("verdict", "said"),
    [("better", "disagrees"), ("worse", "agrees"), ("no difference", "disagrees"), ("undecided", "undecided")],
)
def test_a_claim_is_answered_by_the_verdict(verdict: str, said: str) -> None:
    (claim,) = [c for c in CLAIMS if c.arm == "stars" and c.kind == INFILLING]
    results = sample()
    stars = replace(results.arms[2], name="stars")
    made = replace(
        results,
        arms=(*results.arms, stars),
        comparisons=(comparison("stars", "infilling", 0.01, 0.005, verdict=verdict),),
    )
    assert answer(made, claim)[0] == said
    assert answer(results, claim)[0] == "not run"
    assert answer(with_controls(), claim) == ("not run", None, "no counts")


def test_which_measure_answers_depends_on_the_base_alone() -> None:
    claim = next(c for c in CLAIMS if c.arm == "mha")
    results = sample()
    assert measure_for(results, claim) == "bits per byte"  # the base solves 0.3% of the suite
    solutions = comparison("mha", "bits per byte of solutions, starter", 0.0, 0.1, unit="bits per byte")
    results = replace(results, comparisons=(*results.comparisons, solutions))
    assert measure_for(results, claim) == "bits per byte of solutions, starter"
    base = results.arms[0]
    (suite,) = base.suites
    strong = replace(suite, pass_at=tuple(replace(p, estimate=replace(p.estimate, value=0.2)) for p in suite.pass_at))
    results = replace(results, arms=(replace(base, suites=(strong,)), *results.arms[1:]))
    assert measure_for(results, claim) == "pass@1 on starter"


# -- the page ----------------------------------------------------------------------------------------------------------


def test_lessons_models_and_attention_are_on_the_page() -> None:
    page = Page(render(with_controls()))
    for claim in CLAIMS:
        assert claim.claim in page.text
    for model in published.MODELS:
        assert model.name in page.text
    assert "no counts" in page.text
    section = lessons.attention(sample())
    assert section is not None
    assert lessons.attention(replace(sample(), arms=sample().arms[:2], comparisons=(), examples=())) is None


def test_controls_cells_and_overlaps_are_shown_and_escaped() -> None:
    text = render(with_controls())
    assert "<script>alert" not in text
    assert "It did not &lt;b&gt;show" in text
    page = Page(text)
    assert "3 of 20" in page.text
    assert "75 more lines" in page.text
    tables = files(with_controls())
    assert tables["tables/map-starter.csv"] == "Problem,fim,mha\na/1,3,0\na/2,20,\n"
    assert "comments,10,1000,100.0,25.0" in tables["tables/overlap.csv"]
    assert tables["tables/lessons.csv"].count("\n") == len(CLAIMS) + 2  # a header, and the claim about size


def test_the_forest_shows_the_papers_number_and_what_could_not_be_seen() -> None:
    results = sample()
    plain = forest(results)
    mha = replace(results.comparisons[5], measure="pass@1 on humaneval", arm="mha", detectable=0.05)
    figure = forest(replace(results, comparisons=(mha,)))
    assert plain is not None
    assert figure is not None
    svg = figure.draw(880).svg(figure.alt)
    assert svg.count('class="unseen"') == 2
    assert svg.count("hollow") == 1
    assert "SantaCoder's paper" in figure.alt.replace("&#x27;", "'")
    assert "unseen" not in plain.draw(880).svg(plain.alt)
    other = forest(replace(results, comparisons=(replace(mha, measure="pass@1 on starter"),)))
    assert other is not None
    assert "hollow" not in other.draw(880).svg(other.alt)  # the paper knows nothing of other problems


def test_the_papers_numbers_stand_beside_the_same_problems_alone() -> None:
    assert beside("mha", "pass@1 on humaneval") == beside("mha", "pass@1 on multipl-e-js")
    assert beside("mha", "pass@1 on humaneval") == pytest.approx((38 - 34) / 300)
    assert beside("mha", "pass@1 on mbpp") == pytest.approx((80 - 75) / 300)
    assert beside("mha", "pass@1 on starter") is None
    assert beside("mha", "bits per byte") is None
    assert beside("stars", "infilling") == pytest.approx((0.54 + 0.57 + 0.37 - 0.64 - 0.61 - 0.42) / 3)


def test_no_difference_contradicts_the_paper_only_where_both_measured_the_same() -> None:
    results = sample()
    base = next(arm for arm in results.arms if arm.is_base)
    claim = next(claim for claim in CLAIMS if claim.arm == "stars" and claim.kind == "infilling")
    stars = replace(base, name="stars", is_base=False)
    same = comparison("stars", "infilling", 0.0, 0.015, verdict="no difference", margin=0.02, remark="3 seeds")

    def said(c: Comparison) -> tuple[str, str]:
        found = answer(replace(results, arms=(*results.arms, stars), comparisons=(c,)), claim)
        return found[0], found[2]

    assert said(same)[0] == "disagrees"  # the paper lost 6 points
    wide = replace(same, low=-0.08, high=0.015, margin=0.1)
    assert said(wide)[0] == "undecided"
    assert "may be smaller than this study's margin" in said(wide)[1]
    broke = replace(stars, training=None, not_run="diverged", seed=0)
    one_left = replace(results, arms=(*results.arms, broke, replace(stars, seed=1)), comparisons=(same,))
    assert answer(one_left, claim)[0] == "disagrees"


# -- two studies -------------------------------------------------------------------------------------------------------


def test_two_studies_side_by_side(tmp_path: Path) -> None:
    before = sample()
    changed = (replace(before.comparisons[0], verdict="better"), *before.comparisons[1:])
    now = replace(
        before,
        comparisons=tuple(c for c in changed if c.arm != "comments"),
        recipe=replace(before.recipe, text=before.recipe.text.replace("1M", "2M")),
        versions={**before.versions, "numpy": "9.9"},
        arms=before.arms[:3],
        examples=before.examples[:1],
    )
    page = Page(render_difference(before, now))
    assert "1 of the 6 verdicts that both studies have differ" in page.text
    assert "no-fim against fim, bits per byte: undecided before, better now." in page.text
    assert "numpy: 2.3.1 before, 9.9 now." in page.text
    assert "Only before: comments." in page.text
    assert "tokens: 2M" in page.text
    for name, results in (("before", before), ("now", now)):
        write(results, tmp_path / name / "report")
    path = report_difference(tmp_path / "now", tmp_path / "before")
    assert path == tmp_path / "now/report-difference.html"
    assert "verdicts that both studies have differ" in path.read_text()
    with pytest.raises(UserError, match="no report to compare"):
        report_difference(tmp_path / "now", tmp_path / "elsewhere")
    same = Page(render_difference(before, before))
    assert "0 of the 9 verdicts that both studies have differ" in same.text
    assert "The recipes are the same" in same.text


def test_the_ladder_holds_sizes_and_budgets_alone() -> None:
    results = sample()
    assert ladder(results) is None  # no arm of the sample is a larger base
    (base, *rest) = results.arms
    assert base.training is not None
    longer = replace(
        rest[0],
        name="fim-2x",
        changes={"training.tokens": "2M"},
        training=replace(base.training, tokens=2 * base.training.tokens),
    )
    wide = replace(rest[1], name="wide", changes={"model.width": "256", "training.learning_rate": "1e-3"})
    filtered = replace(rest[2], name="final", changes={"training.tokens": "2M", "filter.comments.above": "0.01"})
    made = replace(results, arms=(base, longer, wide, filtered), comparisons=(), examples=())
    assert [arm.name for arm in rungs(made)] == ["fim", "wide", "fim-2x"]
    figure = ladder(made)
    assert figure is not None
    assert "final" not in figure.alt
    assert "2.10M tokens" in figure.alt
    assert f"{6 * base.training.parameters * base.training.tokens:.2g} FLOPs" in figure.alt
    assert figure.draw(360).height > 100
