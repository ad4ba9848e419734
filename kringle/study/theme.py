"""Colours and type of the report, light and dark, and the style rules that figures share with it.

Figures get literal colours, not custom properties, because a figure is also written as a file of its own and many SVG
readers (librsvg, Inkscape) know no `var()`. The first six series colours stay apart for protanopia, deuteranopia and
tritanopia (full strength, Machado et al. 2009): at least 0.08 in OKLab; later ones also differ by dashes, and every
line, dot and bar carries its name. Printing is always light.
"""

from __future__ import annotations

from dataclasses import dataclass

SANS = '-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,"DejaVu Sans",sans-serif'
SERIF = (
    '"Iowan Old Style",Charter,"Bitstream Charter","Sitka Text",Cambria,Georgia,"Noto Serif","Liberation Serif",serif'
)
MONO = 'ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono","DejaVu Sans Mono",monospace'


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb. `ink` and `muted` are text; `line` rules and borders; `band` the margin in a forest plot."""

    paper: str
    raised: str
    ink: str
    muted: str
    line: str
    grid: str
    band: str
    accent: str
    better: str
    worse: str
    prefix: str
    suffix: str
    middle: str
    middle_line: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#fcfcfa",
    raised="#f3f3ef",
    ink="#1a1d21",
    muted="#575f69",
    line="#d9dad4",
    grid="#e7e8e3",
    band="#e9ebe4",
    accent="#1f5fa8",
    better="#0b6b4f",
    worse="#a5361f",
    prefix="#35536f",
    suffix="#74407e",
    middle="#ffe7ae",
    middle_line="#b86a12",
    series=(
        *("#1f5fa8", "#cc7722", "#14503f", "#8e2f72", "#7a6a10"),
        *("#7d84d4", "#c0556f", "#3f4f1f", "#2a7d92", "#6d7280"),
    ),
)
DARK = Theme(
    paper="#14171b",
    raised="#1d2126",
    ink="#e7e9eb",
    muted="#a0a8b1",
    line="#333940",
    grid="#262b31",
    band="#262c30",
    accent="#7fb5ee",
    better="#6fcfa9",
    worse="#f0907a",
    prefix="#a9c4e4",
    suffix="#d9b3e4",
    middle="#48370f",
    middle_line="#dd9632",
    series=(
        *("#6aa9ea", "#dd9632", "#8fd9c4", "#9c5f8e", "#f7dd78"),
        *("#6f76dc", "#c25a34", "#9db78f", "#4fc8ec", "#8d949d"),
    ),
)
SERIES = len(LIGHT.series)


def _variables(theme: Theme) -> str:
    names = [name for name in theme.__dataclass_fields__ if name != "series"]
    return "".join(f"--{name.replace('_', '-')}:{getattr(theme, name)};" for name in names)


def _figure_rules(theme: Theme) -> str:
    rules = [
        f".figure .ink{{fill:{theme.ink}}}",
        f".figure .muted{{fill:{theme.muted}}}",
        f".figure .axis{{stroke:{theme.muted}}}",
        f".figure .grid{{stroke:{theme.grid}}}",
        f".figure .whisker{{stroke:{theme.ink}}}",
        f".figure .halo{{stroke:{theme.paper}}}",
        f".figure .band{{fill:{theme.band}}}",
        f".figure .dropped{{fill:{theme.grid};stroke:{theme.line}}}",
        f".figure .hollow{{fill:{theme.paper};stroke:{theme.muted}}}",
        f".figure .leader{{stroke:{theme.line}}}",
        f".figure .unseen{{stroke:{theme.muted}}}",
        f".figure .better{{fill:{theme.better}}}",
        f".figure .worse{{fill:{theme.worse}}}",
        f".figure .paper{{fill:{theme.paper}}}",
        f".figure .strip{{fill:{theme.muted};fill-opacity:0}}.figure .strip:hover{{fill-opacity:.14}}",
    ]
    for index, colour in enumerate(theme.series):
        rules.append(f".figure .fill-{index}{{fill:{colour}}}.figure .stroke-{index}{{stroke:{colour}}}")
    return "".join(rules)


def figure_css() -> str:
    """Rules for figures alone: type, then colours by theme."""
    return (
        f".figure text{{font-family:{SANS};font-variant-numeric:tabular-nums}}"
        + _figure_rules(LIGHT)
        + f"@media screen and (prefers-color-scheme:dark){{{_figure_rules(DARK)}}}"
    )


def page_css() -> str:
    """Custom properties for the page's own rules, followed by the figures' rules."""
    return (
        f":root{{color-scheme:light;--sans:{SANS};--serif:{SERIF};--mono:{MONO};{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}" + figure_css()
    )
