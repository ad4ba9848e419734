"""The report's chart types: bars, dots, curves, forest plot and funnel, each from plain rows to a drawing.

Names stand beside what they name; no chart has a legend or needs colour to be read. Every estimate carries its
interval. Rows are drawn in the order given. A long name loses its middle here; the tables beside the figures hold it in
full. Nothing in this file knows about studies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from kringle.study.svg import Drawing, Scale, fit, spread, text_width, ticks
from kringle.study.theme import SERIES

LABEL, SMALL = 13.0, 11.5  # font sizes, pixels
_PAD = 10.0


class Span(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


def fill(series: int) -> str:
    return f"fill-{series % SERIES}"


def stroke(series: int) -> str:
    return f"stroke-{series % SERIES}"


def dashes(series: int) -> str:
    """Beyond six lines, colours are no longer far enough apart on their own."""
    return ("", "7 3", "2 3.5", "9 3 2 3")[series // 6 % 4]


def _column(labels: Sequence[str], most: float, size: float = LABEL, bold: bool = False) -> float:
    """Width of a column that holds these labels, at most `most`."""
    return min(most, max((text_width(label, size, bold) for label in labels), default=0.0))


def _labelled(scale: Scale, marks: Sequence[float], text: Callable[[float], str]) -> list[float]:
    """The marks whose labels have room: all, or every second, fourth ... counted from 0 (or from the first)."""
    middle = marks.index(0.0) if 0.0 in marks else 0
    every = 1
    while True:
        kept = sorted(marks[middle % every :: every], key=lambda mark: scale(mark))
        halves = [text_width(text(mark), SMALL) / 2 + 3 for mark in kept]
        apart = pairwise(zip(kept, halves, strict=True))
        if all(scale(right) - scale(left) >= a + b for (left, a), (right, b) in apart):
            return kept
        every *= 2


def _axis(d: Drawing, scale: Scale, marks: Sequence[float], text: Callable[[float], str], top: float, y: float) -> None:
    """Grid lines from top to y, labels below."""
    for mark in marks:
        d.line(scale(mark), top, scale(mark), y, "grid")
    for mark in _labelled(scale, marks, text):
        half = text_width(text(mark), SMALL) / 2
        centre = min(max(scale(mark), half), d.width - half)
        d.text(centre, y + 16, text(mark), size=SMALL, anchor="middle", class_="muted")


# -- bars --------------------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One bar: `name` tells it from its neighbours in the row, `text` is its value as written, `tip` all of it."""

    name: str
    span: Span
    text: str
    tip: str


@dataclass(frozen=True)
class BarRow:
    """The bars of one arm; without bars, `note` says why."""

    label: str
    series: int
    bold: bool
    bars: tuple[Bar, ...]
    note: str = ""


def bars(rows: Sequence[BarRow], width: float, axis_text: Callable[[float], str]) -> Drawing:
    """Horizontal bars of shares from 0, each with its interval; a bar of length 0 still shows its interval."""
    d = Drawing(width)
    several = any(len(row.bars) > 1 for row in rows)
    thick, gap = (11.0, 4.0) if several else (16.0, 0.0)
    every = [bar for row in rows for bar in row.bars]
    names = _column([bar.name for bar in every], width * 0.2, SMALL) + 8 if several else 0.0
    labels = _column([row.label for row in rows], width * 0.34, bold=True)
    left = labels + 12 + names
    right = width - _column([bar.text for bar in every], width * 0.2, SMALL) - _PAD
    most = max((bar.span.high for bar in every), default=1.0) or 1.0
    marks = ticks(0, most, 4)
    if marks[-1] < most:
        marks.append(marks[-1] + (marks[1] - marks[0] if len(marks) > 1 else most))
    marks = [mark for mark in marks if mark <= 1 + 1e-9]
    scale = Scale(0, max(most, marks[-1]), left, right)
    heights = [max(1, len(row.bars)) * (thick + gap) - gap for row in rows]
    bottom = 6 + sum(heights) + 14 * (len(rows) - 1) + 8
    _axis(d, scale, marks, axis_text, 2, bottom)
    y = 6.0
    for row, height in zip(rows, heights, strict=True):
        label = fit(row.label, labels, LABEL, row.bold)
        d.text(labels, y + height / 2 + 4.5, label, anchor="end", bold=row.bold)
        if not row.bars:
            d.text(left + 8, y + height / 2 + 4, fit(row.note, width - left - 8, SMALL), size=SMALL, class_="muted")
        for index, bar in enumerate(row.bars):
            top = y + index * (thick + gap)
            middle = top + thick / 2
            if several:
                d.text(left - 8, middle + 4, fit(bar.name, names, SMALL), size=SMALL, anchor="end", class_="muted")
            length = max(scale(bar.span.value) - left, 1.5)  # a bar of length 0 leaves a trace at the axis
            d.rect(left, top, length, thick, fill(row.series), title=bar.tip, opacity=1 if index == 0 else 0.55)
            low, high = (min(max(end, 0.0), scale.high) for end in (bar.span.low, bar.span.high))
            d.whisker(scale(low), scale(high), middle, cap=3.5)
            d.text(width, middle + 4, bar.text, size=SMALL, anchor="end")
        y += height + 14
    d.line(left, 2, left, bottom, "axis")
    d.height = bottom + 24
    return d


# -- dots --------------------------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """A point of reference in a row of dots."""

    name: str
    value: float
    tip: str


@dataclass(frozen=True)
class DotRow:
    """One estimate and its points of reference; without an estimate, `note` says why."""

    label: str
    series: int
    bold: bool
    span: Span | None
    text: str
    tip: str
    marks: tuple[Mark, ...] = ()
    note: str = ""


def _shape(d: Drawing, kind: int, x: float, y: float) -> None:
    """Hollow diamond, square, triangle: told apart without colour."""
    outlines = (
        [(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)],
        [(x - 4.5, y - 4.5), (x + 4.5, y - 4.5), (x + 4.5, y + 4.5), (x - 4.5, y + 4.5)],
        [(x, y - 5.5), (x + 5.5, y + 4.5), (x - 5.5, y + 4.5)],
    )
    d.polygon(outlines[kind % len(outlines)], "hollow", stroke_width=1.5)


def dots(rows: Sequence[DotRow], width: float, axis_text: Callable[[float], str], own_name: str) -> Drawing:
    """A dot with its interval per row, beside its points of reference; these are named above the first row."""
    d = Drawing(width)
    labels = _column([row.label for row in rows], width * 0.3, bold=True)
    values = _column([row.text for row in rows], width * 0.4)
    left, right = labels + 24, width - values - 20
    seen = [v for row in rows if row.span for v in (*row.span, *(mark.value for mark in row.marks))] or [0.0, 1.0]
    reach = (max(seen) - min(seen)) or abs(max(seen)) or 1.0
    scale = Scale(min(seen) - 0.04 * reach, max(seen) + 0.04 * reach, left, right)
    kinds = list(dict.fromkeys(mark.name for row in rows for mark in row.marks))
    top, step = 34.0, 30.0
    bottom = top + step * len(rows)
    _axis(d, scale, ticks(scale.low, scale.high, 6 if width > 600 else 4), axis_text, top, bottom)
    named: set[str] = set()
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        d.text(labels, y + 4.5, fit(row.label, labels, LABEL, row.bold), anchor="end", bold=row.bold)
        if row.span is None:
            d.text(left, y + 4, fit(row.note, width - left, SMALL), size=SMALL, class_="muted")
            continue
        for mark in row.marks:
            _shape(d, kinds.index(mark.name), scale(mark.value), y)
        d.whisker(scale(row.span.low), scale(row.span.high), y)
        d.circle(scale(row.span.value), y, 5.5, fill(row.series))
        d.text(width, y + 4.5, row.text, anchor="end", class_="ink")
        d.rect(left, y - step / 2, right - left, step, "strip", title=row.tip)
        if not named:
            pairs = [(own_name, row.span.value), *((mark.name, mark.value) for mark in row.marks)]
            _name_above(d, [(name, scale(value)) for name, value in pairs], y - 9)
            named.update(name for name, _ in pairs)
    d.height = bottom + 24
    return d


def _name_above(d: Drawing, named: list[tuple[str, float]], to: float) -> None:
    """Names in one line at the top, each tied to its x by a thin line that ends at height `to`."""
    crowded = sum(text_width(name, SMALL) + 14 for name, _ in named) > d.width
    texts = [fit(name, d.width / len(named) - 14, SMALL) if crowded else name for name, _ in named]
    sizes = [text_width(text, SMALL) + 14 for text in texts]
    for text, (_, x), place in zip(texts, named, spread([x for _, x in named], sizes, 0, d.width), strict=True):
        d.text(place, 12, text, size=SMALL, anchor="middle", class_="muted")
        d.polyline([(place, 17), (x, 27), (x, to)], "leader", width=1)


# -- curves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Points by increasing x; y is None where there is no finite value, which breaks the line."""

    label: str
    series: int
    bold: bool
    points: tuple[tuple[float, float | None], ...]


def _pieces(points: Sequence[tuple[float, float | None]], top: float) -> list[list[tuple[float, float]]]:
    """Connected runs at or below `top`; a line that crosses `top` is cut there."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 is None or y1 is None or (y0 > top and y1 > top):
            pieces.append([])
            continue
        cut = x0 + (top - y0) / (y1 - y0) * (x1 - x0) if (y0 > top) != (y1 > top) else 0.0
        a, b = ((cut, top) if y0 > top else (x0, y0)), ((cut, top) if y1 > top else (x1, y1))
        if not pieces[-1] or pieces[-1][-1] != a:
            pieces.append([a])
        pieces[-1].append(b)
    return [piece for piece in pieces if len(piece) > 1]


def _apart(marks: Sequence[float]) -> dict[float, str]:
    """Marks as text, with as many digits as tell them apart."""
    texts: dict[float, str] = {}
    for digits in range(4, 13):
        texts = {mark: f"{mark:.{digits}g}" for mark in marks}
        if len(set(texts.values())) == len(texts):
            break
    return texts


def curves(
    lines: Sequence[Curve],
    width: float,
    top: float,
    digits: int,
    x_text: Callable[[float], str],
    x_name: str,
    first: float = 0.0,
    marks: Sequence[tuple[float, str]] = (),
) -> Drawing:
    """Lines over a common x from `first` on, cut off above `top`, each named at its end; hovering tells all values at
    one x. Values are written with `digits` decimals. `marks` are places on the x axis that have a name."""
    height = 300.0 if width > 600 else 240.0
    d = Drawing(width, height + 44)
    finite = [(line, [(x, y) for x, y in line.points if y is not None]) for line in lines]
    ends = [(line, points[-1]) for line, points in finite if points]
    texts = [fit(f"{line.label}  {y:.{digits}f}", width * 0.34, LABEL, line.bold) for line, (_, y) in ends]
    lowest = min((y for _, points in finite for _, y in points), default=0.0)
    reach = (top - lowest) or abs(top) or 1.0
    y_scale = Scale(lowest - 0.06 * reach, lowest + reach, height, 8)
    y_marks = ticks(y_scale.low, y_scale.high, 5)
    y_text = _apart(y_marks)
    left = _column(list(y_text.values()), width * 0.2, SMALL) + 8
    right = width - _column(texts, width * 0.34, bold=True) - 24
    xs = [x for line in lines for x, _ in line.points]
    last = max((x for x in xs if x > first), default=first + 1.0)
    x_scale = Scale(first, last, left, right)
    for mark in y_marks:
        d.line(left, y_scale(mark), right, y_scale(mark), "grid")
        d.text(left - 8, y_scale(mark) + 4, y_text[mark], size=SMALL, anchor="end", class_="muted")
    _axis(d, x_scale, ticks(first, x_scale.high, 5 if width > 600 else 3), x_text, height, height + 4)
    half = text_width(x_name, SMALL) / 2
    middle = min(max((left + right) / 2, half), width - half)
    d.text(middle, height + 38, x_name, size=SMALL, anchor="middle", class_="muted")
    d.line(left, height, right, height, "axis")
    for row, (x, name) in enumerate(sorted(marks)):
        at = min(max(x_scale(x), left), right)
        d.polyline([(at, 8), (at, height)], "unseen", width=1.25, dashes="2.5 2.5")
        room = fit(name, right - left - 8, SMALL)
        beside = at + 4 + text_width(room, SMALL) <= right
        height_of_row = height - 8 - 14 * (row % 4)
        if beside:
            d.text(at + 4, height_of_row, room, size=SMALL, class_="muted")
        else:
            d.text(at - 4, height_of_row, room, size=SMALL, anchor="end", class_="muted")
    for line in sorted(lines, key=lambda line: line.bold):  # the bold one last, on top
        for piece in _pieces(line.points, y_scale.high):
            points = [(x_scale(x), y_scale(y)) for x, y in piece]
            d.polyline(points, stroke(line.series), width=2.5 if line.bold else 1.75, dashes=dashes(line.series))
    tips = [(min(x_scale(x), right), max(y_scale(y), 8.0)) for _, (x, y) in ends]
    places = spread([y for _, y in tips], [17.0] * len(tips), 4, height + 4)
    for (line, _), text, (x, y), place in zip(ends, texts, tips, places, strict=True):
        d.circle(x, y, 2.5, fill(line.series))
        d.polyline([(x + 3, y), (right + 10, place)], "leader", width=1)
        d.line(right + 10, place, right + 18, place, stroke(line.series), 3)
        d.text(right + 23, place + 4.5, text, bold=line.bold)
    _strips(d, lines, x_scale, height, digits, x_text)
    return d


def _strips(
    d: Drawing,
    lines: Sequence[Curve],
    scale: Scale,
    height: float,
    digits: int,
    x_text: Callable[[float], str],
) -> None:
    """Invisible columns over the plot, each telling every line's value nearest to its middle."""
    many = 60
    step = (scale.last - scale.first) / many
    for index in range(many):
        x = scale.low + (index + 0.5) / many * (scale.high - scale.low)
        told = [f"at {x_text(x)}"]
        for line in lines:
            near = min((p for p in line.points if p[1] is not None), key=lambda p: abs(p[0] - x), default=None)
            if near is not None and near[1] is not None and abs(near[0] - x) <= (scale.high - scale.low) / 10:
                told.append(f"{line.label} {near[1]:.{digits}f}")
        d.rect(scale.first + index * step, 8, step, height - 8, "strip", title="\n".join(told))


# -- forest ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForestRow:
    """A difference with its interval; `tone` is "better", "worse" or "muted", `verdict` the word for it. `beside` is
    another's number for the same, `detectable` the smallest difference that would have been found."""

    label: str
    series: int
    span: Span
    margin: float | None
    text: str
    verdict: str
    tone: str
    tip: str
    beside: float | None = None
    detectable: float | None = None

    @property
    def reach(self) -> float:
        """How far from zero its marks lie."""
        return max(abs(v) for v in (*self.span, self.margin or 0.0, self.beside or 0.0, self.detectable or 0.0))


@dataclass(frozen=True)
class ForestPanel:
    """Differences on one measure. `backwards` flips the axis, so that better is to the right on every measure."""

    title: str
    backwards: bool
    rows: tuple[ForestRow, ...]
    axis_text: Callable[[float], str]


def forest(panels: Sequence[ForestPanel], width: float) -> Drawing:
    """Differences against the base, better to the right; the shaded band holds differences too small to matter."""
    d = Drawing(width)
    rows = [row for panel in panels for row in panel.rows]
    labels = _column([row.label for row in rows], width * 0.28)
    told = LABEL if width > 600 else SMALL
    verdicts = _column([row.verdict for row in rows], width * 0.3, told, bold=True)
    estimates = _column([row.text for row in rows], width * 0.4) + 20 if width > 600 else 0.0
    left, right = labels + 16, width - verdicts - estimates - 16
    y = 0.0
    for panel in panels:
        reach = max(row.reach for row in panel.rows) * 1.08 or 1.0
        ends = (right, left) if panel.backwards else (left, right)
        scale = Scale(-reach, reach, *ends)
        towards = "better →"
        d.text(0, y + 15, fit(panel.title, right - text_width(towards, SMALL) - 12, LABEL, True), bold=True)
        d.text(right, y + 15, towards, size=SMALL, anchor="end", class_="muted")
        top, step = y + 24, 26.0
        bottom = top + step * len(panel.rows)
        start = top
        for margin, run in groupby(panel.rows, key=lambda row: row.margin):
            tall = step * len(list(run))
            if margin:
                a, b = sorted((scale(-margin), scale(margin)))
                d.rect(a, start, b - a, tall, "band")
            start += tall
        _axis(d, scale, ticks(-reach, reach, 6 if width > 600 else 4), panel.axis_text, top, bottom)
        d.line(scale(0), top, scale(0), bottom, "axis")
        for index, row in enumerate(panel.rows):
            middle = top + step * (index + 0.5)
            d.text(labels, middle + 4.5, fit(row.label, labels, LABEL), anchor="end")
            low, high = sorted((scale(row.span.low), scale(row.span.high)))
            if row.detectable:
                for end in (-row.detectable, row.detectable):
                    d.polyline(
                        [(scale(end), middle - 9), (scale(end), middle + 9)], "unseen", width=1.25, dashes="2.5 2.5"
                    )
            if row.beside is not None:
                _shape(d, 0, scale(row.beside), middle)
            d.whisker(low, high, middle)
            d.circle(scale(row.span.value), middle, 4.5, fill(row.series))
            if estimates:
                d.text(width - verdicts - 16, middle + 4.5, row.text, anchor="end")
            verdict = fit(row.verdict, verdicts, told, True)
            d.text(width - verdicts, middle + 4.5, verdict, size=told, class_=row.tone, bold=True)
            d.rect(left, middle - step / 2, right - left, step, "strip", title=row.tip)
        y = bottom + 40
    d.height = max(y - 14, 1)
    return d


# -- funnel ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FunnelRow:
    """What is left (`kept`) after a step out of what came in; `text` is written beside, `details` below."""

    label: str
    kept: float
    came_in: float
    text: str
    details: tuple[str, ...]
    tip: str


def _wrap(parts: Sequence[str], width: float) -> list[str]:
    """Parts joined by middle dots into lines of at most `width`."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]} · {part}" if lines else ""
        if longer and text_width(longer, SMALL) <= width:
            lines[-1] = longer
        else:
            lines.append(fit(part, width, SMALL))
    return lines


def funnel(rows: Sequence[FunnelRow], width: float) -> Drawing:
    """One bar per step, the part that the step dropped in outline; widths are proportional to what is left."""
    d = Drawing(width)
    most = max((max(row.came_in, row.kept) for row in rows), default=1.0) or 1.0
    y = 14.0
    for row in rows:
        d.text(0, y, fit(row.label, width, LABEL, True), bold=True)
        if text_width(row.label, LABEL, True) + text_width(row.text, LABEL) + 16 > width:
            y += 17
        d.text(width, y, row.text, anchor="end")
        kept, came_in = row.kept / most * width, row.came_in / most * width
        if came_in > kept:
            d.rect(kept, y + 7.5, max(came_in - kept - 0.5, 0.0), 11, "dropped", title=row.tip)
        d.rect(0, y + 7, max(kept, 1.5), 12, fill(0), title=row.tip)
        y += 35
        for line in _wrap(row.details, width):
            d.text(0, y, line, size=SMALL, class_="muted")
            y += 15
        y += 16
    d.height = max(y - 26, 1)
    return d
