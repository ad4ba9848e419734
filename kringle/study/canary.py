"""The report's section on planted secrets, where the workspace holds the result of a canary test.

`canary.json` in a workspace (written by `benchmarks/evidence/canary.py`) says how often models give away tokens that
were planted into their training data, with and without redaction. Without that file the report has no such section.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kringle.errors import UserError
from kringle.study import charts, tables, units
from kringle.study.figures import HALF, Figure
from kringle.study.page import Section, paragraph, present
from kringle.study.results import Canary, CanaryRow, Results
from kringle.study.statistics import wilson
from kringle.study.tables import Column, Table

FILE = "canary.json"


def read(workspace: Path) -> Canary | None:
    """The canary test's result in a workspace; None without one, UserError for a file that is none."""
    path = workspace / FILE
    if not path.exists():
        return None
    try:
        return from_record(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError):
        hint = "write it with benchmarks/evidence/canary.py, or remove it"
        raise UserError("this is no result of a canary test", where=str(path), hint=hint) from None


def from_record(record: Mapping[str, Any]) -> Canary:
    """A canary test's JSON as the report holds it. KeyError, TypeError or ValueError for anything else."""
    rows = [
        CanaryRow(str(corpus), int(r["repetitions"]), int(r["planted"]), int(r["extracted"]), float(r["exposure_mean"]))
        for corpus, measured in record["corpora"].items()
        for r in measured
    ]
    if not rows or any(not 0 <= row.extracted <= row.planted or row.planted < 1 for row in rows):
        raise ValueError("no counts of planted tokens")
    return Canary(str(record["tokens"]), int(record["candidates"]), tuple(rows))


def figure(canary: Canary) -> Figure:
    """Share of the planted tokens that greedy completion gives away, by corpus and repetitions."""
    corpora = list(dict.fromkeys(row.corpus for row in canary.rows))
    rows, told = [], []
    for series, corpus in enumerate(corpora):
        bars = []
        for row in (row for row in canary.rows if row.corpus == corpus):
            share, interval = row.extracted / row.planted, wilson(row.extracted, row.planted)
            tip = f"{corpus}, planted {row.repetitions} times: {row.extracted} of {row.planted} extracted"
            told.append(tip)
            bars.append(
                charts.Bar(
                    f"{row.repetitions} times",
                    charts.Span(share, interval.low, interval.high),
                    units.percent(share),
                    tip,
                )
            )
        rows.append(charts.BarRow(f"Corpus {corpus}", series, series == 0, tuple(bars)))
    title = "Planted tokens that the model gives away"
    caption = (
        "Share of tokens completed character for character, by how often each stood in the corpus; Wilson intervals."
    )
    return Figure(
        "canary",
        title,
        caption,
        f"Bar chart, {title}. {'. '.join(told)}.",
        lambda width: charts.bars(rows, width, lambda share: f"{share * 100:.3g}%"),
        (HALF,),
    )


def _table(canary: Canary) -> Table:
    columns = (
        Column("Corpus", number=False),
        Column("Times in the corpus"),
        Column("Planted"),
        Column("Extracted"),
        Column("Exposure, bits"),
    )
    rows = tuple(
        (
            tables.words(row.corpus),
            tables.count(row.repetitions),
            tables.count(row.planted),
            tables.count(row.extracted),
            tables.decimal(row.exposure, 2),
        )
        for row in canary.rows
    )
    return Table("canary", "Planted tokens, with and without redaction", columns, rows)


def section(results: Results) -> Section | None:
    """The section, or None where the study has no canary test beside it."""
    if results.canary is None:
        return None
    canary = results.canary
    return Section(
        "canary",
        "Planted secrets",
        present(
            paragraph(
                f"Tokens were planted into a corpus, and a small model was trained on {canary.tokens} tokens of it, as "
                f"it was and redacted. Exposure ranks a planted token among {canary.candidates} candidates by the "
                "model's probability: 1.44 bits on average for a model that never saw it."
            ),
            figure(canary),
            _table(canary),
        ),
    )
