"""Figures: nothing leaves its frame, nothing lies on something else, and the marks are where the numbers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import variants, wilson

from kringle.study import charts, figures
from kringle.study.charts import Bar, BarRow, Curve, DotRow, ForestPanel, ForestRow, FunnelRow, Mark, Span
from kringle.study.figures import Figure
from kringle.study.results import Results
from kringle.study.svg import Drawing, Scale, fit, spread, text_width, ticks

VARIANTS = variants()
SVG = "{http://www.w3.org/2000/svg}"


def all_figures(results: Results) -> list[Figure]:
    drawn = [
        *(figures.suite_bars(results, name) for name in figures.suites_of(results)),
        figures.infilling_bars(results),
        figures.bits_per_byte_dots(results),
        figures.forest(results),
        figures.loss_curves(results),
        figures.held_out_curves(results),
        figures.funnel(results),
    ]
    return [figure for figure in drawn if figure is not None]


def check(drawing: Drawing, width: float) -> None:
    assert drawing.width == width
    for box in (*drawing.texts, *drawing.shapes):
        assert box.left >= -0.01, box
        assert box.right <= drawing.width + 0.01, box
        assert box.top >= -0.01, box
        assert box.bottom <= drawing.height + 0.01, box
    for a, b in combinations(drawing.texts, 2):
        apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top + 0.5 or b.bottom <= a.top + 0.5
        assert apart, (a, b)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_nothing_leaves_its_frame_and_no_label_covers_another(name: str) -> None:
    for figure in all_figures(VARIANTS[name]):
        for width in figure.widths:
            check(figure.draw(width), width)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_svg_is_well_formed_and_tells_its_story_in_words(name: str) -> None:
    for figure in all_figures(VARIANTS[name]):
        root = ET.fromstring(figure.draw(figure.widths[0]).svg(figure.alt, standalone=True))
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        assert root.get("aria-label") == figure.alt
        numbers = [float(number) for number in (root.get("viewBox") or "").split()]
        assert numbers[2:] == [float(root.get("width") or 0), float(root.get("height") or 0)]
        assert not [e for e in root.iter() if e.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}use")]


def test_which_figures_there_are() -> None:
    def keys(name: str) -> set[str]:
        return {figure.key for figure in all_figures(VARIANTS[name])}

    everything = {"pass-at-k-starter", "infilling", "bits-per-byte", "differences", "loss", "held-out-curve", "funnel"}
    assert keys("sample") == everything
    assert keys("suite not run") == everything - {"pass-at-k-starter"}
    assert keys("no infilling") == everything - {"infilling"}
    assert keys("one arm") == everything - {"differences", "held-out-curve"}
    assert "funnel" not in keys("bare")


# -- marks against numbers ---------------------------------------------------------------------------------------------


def shares(hits: int) -> Span:
    e = wilson(hits, 500)
    return Span(e.value, e.low, e.high)


def bar(hits: int) -> BarRow:
    span = shares(hits)
    return BarRow(f"arm {hits}", 0, False, (Bar("exact match", span, f"{span.value:.1%}", "tip"),))


def geometry(drawing: Drawing) -> tuple[list[tuple[float, float]], list[tuple[float, float]], float]:
    """Bars and intervals as (left, right), and the axis' x."""
    bars = [(b.left, b.right) for b in drawing.shapes if b.what == "fill-0"]
    lines = [(b.left, b.right) for b in drawing.shapes if b.what == "whisker" and b.right > b.left]
    axis = next(b.left for b in drawing.shapes if b.what == "axis")
    return bars, lines, axis


def test_a_bar_of_nothing_still_has_its_interval_and_a_full_one_keeps_inside() -> None:
    drawing = charts.bars([bar(0), bar(250), bar(500)], 400, str)
    bars, lines, axis = geometry(drawing)
    assert bars[0] == (axis, axis + 1.5)
    full = bars[2][1] - axis
    for (left, right), (low, high), hits in zip(bars, lines, (0, 250, 500), strict=True):
        span = shares(hits)
        assert left == axis
        assert right - left == pytest.approx(max(span.value * full, 1.5))
        assert low == pytest.approx(axis + max(span.low, 0) * full)
        assert high == pytest.approx(axis + min(span.high, 1) * full)
    assert lines[0][0] == axis
    assert lines[0][1] > axis + 1
    assert lines[2][1] == pytest.approx(bars[2][1])
    assert lines[2][0] < bars[2][1] - 0.5


def test_bars_of_zero_alone_have_a_scale() -> None:
    drawing = charts.bars([bar(0)], 400, lambda share: f"{share:.1%}")
    _, lines, axis = geometry(drawing)
    assert lines[0][0] == axis
    assert lines[0][1] - axis > 100


def test_an_interval_that_runs_below_zero_stops_at_the_axis() -> None:
    row = BarRow("a", 0, False, (Bar("exact match", Span(0.01, -0.05, 0.07), "1.0%", "tip"),))
    _, lines, axis = geometry(charts.bars([row], 400, str))
    assert lines[0][0] == axis


def test_better_is_to_the_right_on_every_measure() -> None:
    row = ForestRow("a", 0, Span(-0.02, -0.03, -0.01), 0.005, "-0.02", "better", "better", "tip")
    for backwards in (False, True):
        drawing = charts.forest([ForestPanel("measure", backwards, (row,), str)], 880)
        zero = next(b.left for b in drawing.shapes if b.what == "axis")
        dot = next(b for b in drawing.shapes if b.what == "fill-0")
        band = next(b for b in drawing.shapes if b.what == "band")
        assert ((dot.left + dot.right) / 2 > zero) == backwards
        assert (band.left + band.right) / 2 == pytest.approx(zero)
        low, high = next((b.left, b.right) for b in drawing.shapes if b.what == "whisker" and b.right > b.left)
        assert high - low == pytest.approx(2 * (band.right - band.left))


def test_dots_lie_between_their_marks() -> None:
    row = DotRow("a", 0, True, Span(2.2, 2.1, 2.3), "2.200", "tip", (Mark("below", 2.0, ""), Mark("above", 2.4, "")))
    drawing = charts.dots([row], 880, str, "model")
    dot = next(b for b in drawing.shapes if b.what == "fill-0")
    below, above = [b for b in drawing.shapes if b.what == "hollow"]
    middles = [(b.left + b.right) / 2 for b in (below, dot, above)]
    assert middles[1] - middles[0] == pytest.approx(middles[2] - middles[1])


def test_a_funnel_is_as_wide_as_its_bytes() -> None:
    rows = [FunnelRow("a", 50, 100, "50 B", (), ""), FunnelRow("b", 0, 50, "0 B", ("dropped: all",), "")]
    drawing = charts.funnel(rows, 400)
    assert [b.right for b in drawing.shapes if b.what == "fill-0"] == [200, 1.5]
    check(drawing, 400)


def points(drawing: Drawing) -> list[list[tuple[float, float]]]:
    """The curves' corners, in pixels."""
    root = ET.fromstring(drawing.svg("alt"))
    lines = [e for e in root.iter(f"{SVG}polyline") if "stroke-" in (e.get("class") or "")]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", e.get("points") or "")] for e in lines]


def test_a_curve_breaks_where_it_diverged_and_is_cut_at_the_top() -> None:
    line = Curve("a", 0, True, ((0, 9.0), (1, 3.0), (2, 2.0), (3, None), (4, 1.5), (5, 1.0)))
    drawing = charts.curves([line], 880, 3.0, 2, str, "tokens")
    first, second = points(drawing)
    assert len(first) == 2 or first[0][1] == pytest.approx(8)
    assert len(second) == 2
    assert min(y for piece in (first, second) for _, y in piece) >= 8
    crossing = charts.curves([Curve("a", 0, True, ((0, 5.0), (2, 1.0)))], 880, 3.0, 2, str, "tokens")
    ((start, end),) = points(crossing)
    assert start[1] == pytest.approx(8)
    left, right = next((b.left, b.right) for b in crossing.shapes if b.what == "axis")
    assert start[0] == pytest.approx((left + right) / 2, abs=0.02)
    assert end[0] == pytest.approx(right, abs=0.02)


@given(
    st.lists(st.tuples(st.text(max_size=60), st.floats(1.0, 9.0)), min_size=1, max_size=14),
    st.sampled_from([figures.NARROW, figures.WIDE]),
)
def test_names_of_curves_never_meet(ends: list[tuple[str, float]], width: int) -> None:
    lines = [Curve(name, i, i == 0, ((0, 9.0), (10, end))) for i, (name, end) in enumerate(ends)]
    drawing = charts.curves(lines, width, 9.0, 3, lambda value: f"{value:g}", "tokens seen")
    check(drawing, width)


def test_smoothing_is_a_running_mean_that_keeps_the_ends() -> None:
    raw: list[tuple[float, float | None]] = [(float(x), float(x % 2)) for x in range(1000)]
    smoothed = figures.smooth(raw, 11)
    assert smoothed[0][0] == 0
    assert smoothed[-1][0] == 999
    assert len(smoothed) <= 202
    assert all(y is not None and abs(y - 0.5) <= 0.1 for _, y in smoothed)
    assert figures.smooth([(0.0, 1.0), (1.0, None), (2.0, 4.0)], 3) == [(0.0, 1.0), (1.0, None), (2.0, 4.0)]
    assert figures.smooth([], 3) == []


# -- layout ------------------------------------------------------------------------------------------------------------

BOXES = st.lists(st.tuples(st.floats(-50, 500), st.floats(1, 40)), min_size=1, max_size=12)


@given(BOXES, st.floats(100, 600))
def test_spread_keeps_apart_in_order_and_inside(boxes: list[tuple[float, float]], room: float) -> None:
    wanted, sizes = [w for w, _ in boxes], [s for _, s in boxes]
    placed = spread(wanted, sizes, 0, room)
    shrink = min(1.0, room / sum(sizes))
    order = sorted(range(len(boxes)), key=lambda i: wanted[i])
    for a, b in pairwise(order):
        assert placed[b] - placed[a] >= shrink * (sizes[a] + sizes[b]) / 2 - 1e-6
    for centre, size in zip(placed, sizes, strict=True):
        assert centre - shrink * size / 2 >= -1e-6
        assert centre + shrink * size / 2 <= room + 1e-6


def test_spread_leaves_alone_what_does_not_collide() -> None:
    assert spread([10, 200, 100], [20, 20, 20], 0, 300) == [10, 200, 100]
    assert spread([100, 100], [20, 20], 0, 300) == [90, 110]
    assert spread([], [], 0, 300) == []


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_inside_even_and_not_too_many(low: float, reach: float, wanted: int) -> None:
    marks = ticks(low, low + reach, wanted)
    assert len(marks) <= 2 * wanted + 2
    assert all(low - 1e-6 * reach - 1e-9 <= mark <= low + reach * (1 + 1e-6) + 1e-9 for mark in marks)


def test_ticks_are_round() -> None:
    assert ticks(0, 1, 4) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.05, 0.05, 4) == [-0.04, -0.02, 0.0, 0.02, 0.04]
    assert ticks(0, 1_048_576, 5) == [0, 200_000, 400_000, 600_000, 800_000, 1_000_000]


@given(st.text(max_size=80), st.floats(20, 300))
def test_fitted_text_fits(text: str, width: float) -> None:
    fitted = fit(text, width, 13)
    assert text_width(fitted, 13) <= width
    assert "\n" not in fitted


def test_fitted_text_keeps_both_ends() -> None:
    fitted = fit("near-dedup-with-a-long-name", 100, 13)
    assert fitted.startswith("near")
    assert fitted.endswith("name")
    assert fit("short", 100, 13) == "short"


def test_a_scale_runs_both_ways() -> None:
    assert Scale(0, 10, 100, 200)(5) == 150
    assert Scale(0, 10, 200, 100)(0) == 200
