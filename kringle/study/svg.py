"""A small drawing surface: shapes and text on a canvas that knows how wide its text is.

A figure must not let a label leave its frame or run into another, whatever fonts the reader has, so widths are those of
the wider of DejaVu Sans 2.37 and Liberation Sans 2.1 (measured advances, rounded up to 1/50 em): an upper bound for the
usual system fonts. Units are pixels; the origin is top left. No clipping, no gradients, no ids, no scripts: a drawing
is readable as it stands and can be repeated on a page.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from kringle.study.markup import Markup, tag, visible
from kringle.study.theme import figure_css

_ADVANCES = (  # hundredths of an em, characters
    (28, "'ijl"), (30, "I"), (32, " ,."), (34, "/:;\\|"), (36, "f"), (38, "-"), (40, "()[]t"), (42, "!r"),
    (46, '"'), (50, "*J`"), (54, "sz"), (56, "?L_c"), (58, "k"), (60, "vxy"), (62, "FTaeo"),
    (64, "$0123456789bdghnpqu{}"), (68, "EKPSY"), (70, "ABVXZ"), (74, "CRU"), (76, "HN"), (78, "&DG"),
    (80, "OQ"), (82, "w"), (84, "#+<=>^~"), (88, "M"), (96, "%"), (98, "m"), (100, "W"), (102, "@"),
)  # fmt: skip
_ADVANCE = {character: width / 100 for width, characters in _ADVANCES for character in characters}
_BOLD = 1.15  # DejaVu Sans Bold against the regular, over running text
_ASCENT, _DESCENT = 0.76, 0.24  # em; what a line of text covers above and below its baseline

_MARGIN = 16  # pixels around a drawing that stands alone

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
Anchor = Literal["start", "middle", "end"]


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Upper bound of the width of one line of text, pixels. Characters outside ASCII count as a full em."""
    return size * (_BOLD if bold else 1.0) * sum(_ADVANCE.get(character, 1.0) for character in text)


def fit(text: str, width: float, size: float, bold: bool = False) -> str:
    """`text` on one line, or with its middle left out so that it is at most `width` pixels wide."""
    line = " ".join(visible(text).split())
    if text_width(line, size, bold) <= width:
        return line
    for kept in range(len(line) - 1, 0, -1):
        shorter = line[: (kept + 1) // 2].rstrip() + ELLIPSIS + line[len(line) - kept // 2 :].lstrip()
        if text_width(shorter, size, bold) <= width:
            return shorter
    return ELLIPSIS


class Box(NamedTuple):
    """What an element covers."""

    left: float
    top: float
    right: float
    bottom: float
    what: str


class Drawing:
    """Shapes in the order of painting. Set `height` once the layout is known; `texts` and `shapes` keep the extents."""

    def __init__(self, width: float, height: float = 0) -> None:
        self.width, self.height = width, height
        self.texts: list[Box] = []
        self.shapes: list[Box] = []
        self._painted: list[Markup] = []

    def text(
        self,
        x: float,
        y: float,
        content: str,
        *,
        size: float = 13,
        anchor: Anchor = "start",
        class_: str = "ink",
        bold: bool = False,
    ) -> None:
        """One line of text with its baseline at y."""
        content = " ".join(visible(content).split())
        wide = text_width(content, size, bold)
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        self.texts.append(Box(left, y - _ASCENT * size, left + wide, y + _DESCENT * size, content))
        self._painted.append(
            tag(
                "text",
                content,
                class_=class_,
                x=x,
                y=y,
                font_size=size,
                font_weight=600 if bold else None,
                text_anchor=None if anchor == "start" else anchor,
            )
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str, width: float = 1) -> None:
        self.shapes.append(Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), class_))
        self._painted.append(tag("line", class_=class_, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width))

    def rect(
        self, x: float, y: float, width: float, height: float, class_: str, *, title: str = "", opacity: float = 1
    ) -> None:
        self.shapes.append(Box(x, y, x + width, y + height, class_))
        self._painted.append(
            tag(
                "rect",
                *_title(title),
                class_=class_,
                x=x,
                y=y,
                width=width,
                height=height,
                fill_opacity=None if opacity == 1 else opacity,
            )
        )

    def polygon(self, points: list[tuple[float, float]], class_: str, *, stroke_width: float = 0) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.shapes.append(Box(min(xs), min(ys), max(xs), max(ys), class_))
        written = " ".join(f"{x:.6g},{y:.6g}" for x, y in points)
        self._painted.append(tag("polygon", class_=class_, points=written, stroke_width=stroke_width or None))

    def circle(self, x: float, y: float, radius: float, class_: str, *, stroke_width: float = 0) -> None:
        self.shapes.append(Box(x - radius, y - radius, x + radius, y + radius, class_))
        self._painted.append(tag("circle", class_=class_, cx=x, cy=y, r=radius, stroke_width=stroke_width or None))

    def polyline(
        self, points: list[tuple[float, float]], class_: str, *, width: float = 1.75, dashes: str = ""
    ) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.shapes.append(Box(min(xs), min(ys), max(xs), max(ys), class_))
        written = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        self._painted.append(
            tag(
                "polyline",
                class_=class_,
                points=written,
                fill="none",
                stroke_width=width,
                stroke_linejoin="round",
                stroke_linecap="round",
                stroke_dasharray=dashes or None,
            )
        )

    def whisker(self, low: float, high: float, y: float, class_: str = "whisker", cap: float = 4) -> None:
        """A horizontal interval with end caps over a halo, so that it shows on any fill."""
        for stroke, wide in (("halo", 3.5), (class_, 1.5)):
            self.line(low, y, high, y, stroke, wide)
            for end in (low, high):
                self.line(end, y - cap, end, y + cap, stroke, wide)

    def svg(self, alt: str, *, class_: str = "", standalone: bool = False) -> Markup:
        """The drawing as an `svg` element; `alt` says in words what it shows. A standalone one is a file of its own:
        it carries its style, its background and a margin."""
        margin = _MARGIN if standalone else 0
        wide, high = self.width + 2 * margin, self.height + 2 * margin
        size: dict[str, str | float] = {"width": wide, "height": high} if standalone else {}
        paper = tag("rect", class_="paper", x=-margin, y=-margin, width=wide, height=high)
        own = [tag("style", Markup(figure_css())), paper] if standalone else []
        return tag(
            "svg",
            *own,
            *self._painted,
            class_=f"figure {class_}".strip(),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"{-margin} {-margin} {wide:.6g} {high:.6g}",
            role="img",
            aria_label=alt,
            **size,
        )


def _title(title: str) -> list[Markup]:
    return [tag("title", title)] if title else []


class Scale(NamedTuple):
    """Linear map from data to pixels; `first` may lie right of `last` to run backwards."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    power = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step = min((power * multiple for multiple in (1, 2, 5, 10)), key=lambda step: abs((high - low) / step - wanted))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def spread(wanted: list[float], sizes: list[float], low: float, high: float) -> list[float]:
    """Centres for boxes of the given sizes: in the same order, without overlap, inside [low, high], near those wanted.

    Pools neighbours that collide and centres each pool on the mean of what its members want (isotonic regression by
    pool-adjacent-violators). Where not even the whole room suffices, all sizes shrink alike.
    """
    shrink = min(1.0, (high - low) / max(sum(sizes), 1e-9))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    offsets: list[float] = []  # how far behind the first centre a centre must at least lie
    for rank, index in enumerate(order):
        step = shrink * (sizes[order[rank - 1]] + sizes[index]) / 2 if rank else 0.0
        offsets.append(offsets[-1] + step if rank else 0.0)
    pools: list[tuple[float, int]] = []  # (where the first centre would be, members)
    for index, offset in zip(order, offsets, strict=True):
        pools.append((wanted[index] - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, m), (a, n) = pools.pop(), pools.pop()
            pools.append(((a * n + b * m) / (n + m), n + m))
    starts = [start for start, members in pools for _ in range(members)]
    placed = [0.0] * len(wanted)
    if order:
        first = low + shrink * sizes[order[0]] / 2
        last = high - shrink * sizes[order[-1]] / 2 - offsets[-1]
        for index, offset, start in zip(order, offsets, starts, strict=True):
            placed[index] = min(max(start, first), last) + offset
    return placed
