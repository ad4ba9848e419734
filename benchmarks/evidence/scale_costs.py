"""What a corpus costs in core-hours, memory, disk, network and money, from measured rates; the table of docs/scale.md.

    python benchmarks/evidence/scale_costs.py              reads benchmarks/results/{scaling,shuffle}.json

Rates are those of the largest run in `scaling.json`, in processor time, so a faster machine costs less. Prices are
assumptions, named below: put your own in. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).resolve().parent.parent / "results"
CORE_HOUR = 0.045  # dollars; on-demand general-purpose cores at the large providers, late 2024, were 0.04 to 0.05
DISK_GB_MONTH = 0.08  # dollars; network block storage there
RECORD = 16  # bytes of a band's record: key and document number
BANDS = 25
ZSTD = 0.21  # size of source code as Parquet with zstd level 3: 6.35 MB for 30.0 MB of grown corpus


class Corpus(NamedTuple):
    """`files` and `bytes` of text before cleaning."""

    name: str
    bytes: float
    files: float


# Files of The Stack's three languages: 15.1 + 25.1 + 23.7 million (arXiv 2301.03988, table 1) for 268 GB (table 3). For
# 67 TB the same mean size is assumed, which counts more files than there are rather than fewer.
CORPORA = (
    Corpus("SantaCoder's data, 268 GB", 268e9, 63.9e6),
    Corpus("The Stack v2, 67 TB", 67e12, 67e12 / 268e9 * 63.9e6),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    scaling, shuffle = (json.loads((folder / name).read_text()) for name in ("scaling.json", "shuffle.json"))
    rows = [row for row in scaling["rows"] if row["finished"]]
    print("\n".join(table(rows[-1], memory_a_document(rows), shuffle)))


def memory_a_document(rows: list[dict[str, Any]]) -> float:
    """Bytes that the largest process grew by a document, from the smallest to the largest run; NaN if alone."""
    first, last = rows[0], rows[-1]
    if first["documents"] == last["documents"]:
        return math.nan
    peaks = [max(cost["peak_memory"] for cost in row["stages"].values()) for row in (first, last)]
    return max(0.0, (peaks[1] - peaks[0]) / max(1, last["documents"] - first["documents"]))


def table(row: dict[str, Any], growth: float, shuffle: dict[str, Any]) -> list[str]:
    """Markdown rows: per stage core-hours, then what else each corpus asks for."""
    lines = [
        "| | rate, MB/s a core | " + " | ".join(c.name for c in CORPORA) + " |",
        "|---|---|" + "---|" * len(CORPORA),
    ]
    totals = [0.0] * len(CORPORA)
    for stage, cost in row["stages"].items():
        rate = row["bytes"] / cost["cpu_seconds"]
        hours = [corpus.bytes / rate / 3600 for corpus in CORPORA]
        totals = [total + hour for total, hour in zip(totals, hours, strict=True)]
        lines.append(
            f"| {stage}, core-hours | {rate / 1e6:.1f} | " + " | ".join(f"{hour:,.1f}" for hour in hours) + " |"
        )
    hours = [corpus.files * BANDS / shuffle["records_per_second"] / 3600 for corpus in CORPORA]
    totals = [total + hour for total, hour in zip(totals, hours, strict=True)]
    rate = f"{shuffle['records_per_second'] / 1e6:.1f} M records/s"
    lines.append(
        f"| near-duplicate shuffle (simulated), core-hours | {rate} | " + " | ".join(f"{h:,.1f}" for h in hours) + " |"
    )
    lines.append("| **together, core-hours** | | " + " | ".join(f"**{t:,.0f}**" for t in totals) + " |")
    for name, value in (
        (f"dollars at {CORE_HOUR} a core-hour", lambda c, t: f"{t * CORE_HOUR:,.2f}"),
        ("hours on 64 cores", lambda c, t: f"{t / 64:,.1f}"),
        ("document table on disk, GB", lambda c, t: f"{c.bytes * ZSTD / 1e9:,.0f}"),
        ("shards and stages on disk (three times the table, and tokens), GB", lambda c, t: f"{disk(c, row):,.0f}"),
        ("dollars a month for that disk", lambda c, t: f"{disk(c, row) * DISK_GB_MONTH:,.0f}"),
        ("shuffle through disk or network, GB", lambda c, t: f"{c.files * BANDS * RECORD / 1e9:,.0f}"),
        ("read and written over the network in all, GB", lambda c, t: f"{network(c, row):,.0f}"),
        (
            "memory of the largest process, GB, for files in folders (tables: far less, see the last section)",
            lambda c, t: f"{c.files * growth / 1e9:,.0f}",
        ),
    ):
        lines.append(f"| {name} | | " + " | ".join(value(c, t) for c, t in zip(CORPORA, totals, strict=True)) + " |")
    return lines


def disk(corpus: Corpus, row: dict[str, Any]) -> float:
    """GB: shards and published stage of the document table, its filtered copy, and the tokens twice."""
    return (3 * corpus.bytes * ZSTD + 2 * tokens(corpus, row) * 2) / 1e9


def network(corpus: Corpus, row: dict[str, Any]) -> float:
    """GB: the raw text once, the table read by every stage, records and tokens out and in."""
    stages = len(row["stages"])
    return (
        corpus.bytes + stages * corpus.bytes * ZSTD + 2 * corpus.files * BANDS * RECORD + 4 * tokens(corpus, row)
    ) / 1e9


def tokens(corpus: Corpus, row: dict[str, Any]) -> float:
    return float(corpus.bytes / row["bytes"] * row["tokens"])


if __name__ == "__main__":
    main()
