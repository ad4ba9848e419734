"""The report's part on filters: what each would keep at other thresholds, what it removes beside SantaCoder's, and how
near-duplicates met."""

from __future__ import annotations

from collections.abc import Sequence

from kringle.study import charts, figures, published, tables, units
from kringle.study.figures import Figure
from kringle.study.filter_results import ALL, Filtering, Signal, setting_name
from kringle.study.page import Part, heading, paragraph, present
from kringle.study.results import Results
from kringle.study.tables import Column, Table

# Signal: the figure's title, and what its x axis counts.
_TITLES: dict[Signal, tuple[str, str]] = {
    "stars": ("Kept by stars", "at least so many stars"),
    "comments: floor": ("Kept by comments: floor", "more than this share of the text is comments"),
    "comments: ceiling": ("Kept by comments: ceiling", "less than this share of the text is comments"),
    "near-duplicates": ("Kept by near-deduplication", "no kept document that similar or more"),
    "fertility": ("Kept by characters a token", "at least so many characters a token"),
}


def parts(results: Results) -> tuple[Part, ...]:
    """Nothing where no arm has a filter, or the results are of a version that did not look."""
    found = results.filtering
    if found is None:
        return ()
    pictures = [figure for signal in _TITLES if (figure := _kept(found, signal)) is not None]
    return present(
        heading("What the filters keep"),
        paragraph(
            "Shares of the bytes that this study trains on. The dotted lines are where the ablations' filters stand; "
            "a percentile stands where it comes to in this corpus."
        ),
        *[tuple(pictures[i : i + 2]) for i in range(0, len(pictures), 2)],
        _removed_table(found) if found.removed else None,
        *_near_duplicates(found),
    )


def _kept(found: Filtering, signal: Signal) -> Figure | None:
    curves = [curve for curve in found.curves if curve.signal == signal]
    if not curves:
        return None
    near = signal == "near-duplicates"
    lines = [
        charts.Curve(
            curve.name if near else curve.language,
            number,
            curve.language == ALL and not near,
            tuple((point.threshold, 100 * point.share) for point in curve.points),
        )
        for number, curve in enumerate(curves)
    ]
    places: dict[float, list[str]] = {}
    for one in found.used:
        if one.signal == signal:
            name = one.arm if one.language == ALL else f"{one.arm}, {one.language}"
            places.setdefault(one.threshold, []).append(name)
    marks = [(at, ", ".join(names)) for at, names in sorted(places.items())]
    title, axis = _TITLES[signal]
    first = min(point.threshold for curve in curves for point in curve.points)
    told = "; ".join(f"{name} at {at:.3g}" for at, name in marks)
    return Figure(
        f"kept-{figures.slug(signal)}",
        title,
        "Percent of the bytes." + (" Of what was compared at the setting that a line is named after." if near else ""),
        f"Line chart, {title}: percent of bytes kept by threshold." + (f" Filters: {told}." if told else ""),
        lambda width: charts.curves(lines, width, 100.0, 1, lambda x: f"{x:.3g}", axis, first, marks),
        (figures.HALF, figures.NARROW),
    )


def _removed_table(found: Filtering) -> Table:
    languages = list(dict.fromkeys(one.language for one in found.removed))
    shares = {(one.arm, one.language): one for one in found.removed}
    rows = []
    for arm in dict.fromkeys(one.arm for one in found.removed):
        cells = [tables.words(arm)]
        for language in languages:
            one = shares[arm, language]
            cells.append(tables.decimal(100 * one.share, 1))
            cells.append(tables.missing() if one.published is None else tables.decimal(100 * one.published, 1))
        rows.append(tuple(cells))
    columns = [Column("Ablation", number=False)]
    for language in languages:
        columns += [Column(f"{language}, %"), Column(f"{language}, SantaCoder, %")]
    caption = (
        f"Bytes that each filter removes, beside what SantaCoder's removed of its data ({published.DATA_SOURCE}); "
        "its combinations were not published"
    )
    return Table("removed", caption, tuple(columns), tuple(rows), central=True)


def _near_duplicates(found: Filtering) -> list[Part]:
    if not found.near_duplicates:
        return []
    lines, marks = [], []
    for number, one in enumerate(found.near_duplicates):
        name = setting_name(one.ngram, one.threshold)
        points = tuple((point.similarity, 100 * point.probability) for point in one.collision)
        lines.append(charts.Curve(f"{one.bands} x {one.rows}", number, number == 0, points))
        marks.append((one.threshold, name))
    title = "Probability that two documents are compared"
    return [
        Figure(
            "collision",
            title,
            "Percent, by the documents' similarity: the chance that they share one of so many bands of so many rows.",
            f"Line chart, {title}: "
            + "; ".join(f"{one.bands} bands of {one.rows} rows" for one in found.near_duplicates),
            lambda width: charts.curves(lines, width, 100.0, 1, lambda x: f"{x:.3g}", "similarity", 0.0, marks),
        ),
        _clusters_table(found),
    ]


def _clusters_table(found: Filtering) -> Table:
    rows: list[tuple[tables.Cell, ...]] = []
    for one in found.near_duplicates:
        name = setting_name(one.ngram, one.threshold)
        for members, groups, documents in _grouped([(c.members, c.groups) for c in one.clusters]):
            rows.append((tables.words(name), tables.words(members), tables.count(groups), tables.count(documents)))
        dropped = f"{units.count(one.dropped)} of {units.count(one.documents)} documents dropped"
        size = tables.size(one.bytes_dropped)
        rows.append((tables.words(name), tables.words(f"in all: {dropped}, {size.shown}"), *[tables.missing()] * 2))
    columns = (
        Column("Setting", number=False),
        Column("Members of a group", number=False, wide=True),
        Column("Groups"),
        Column("Documents in them"),
    )
    caption = "Groups of near-duplicates: one document that stays, and those that gave way to it"
    return Table("clusters", caption, columns, tuple(rows))


def _grouped(clusters: Sequence[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Sizes 2 and 3 alone, then in doublings: (members, groups, documents)."""
    found: dict[str, list[int]] = {}
    for members, groups in sorted(clusters):
        low = members if members < 4 else 1 << (members.bit_length() - 1)
        name = str(members) if members < 4 else f"{low} to {2 * low - 1}"
        entry = found.setdefault(name, [0, 0])
        entry[0] += groups
        entry[1] += groups * members
    return [(name, groups, documents) for name, (groups, documents) in found.items()]
