"""The proof that intervals and verdicts keep their promises: simulated studies with known truth, per number of seeds.

    python benchmarks/evidence/calibration.py                   all scenarios, 4,000 studies each; 10 minutes of a core
    python benchmarks/evidence/calibration.py --scenario 2      one of them; its rows are replaced in the results
    python benchmarks/evidence/calibration.py --studies 400     a quick look; written nowhere

Writes benchmarks/results/calibration.json and docs/images/calibration.svg. What is simulated is told in
`kringle/study/calibration.py`; the tests hold a short version.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kringle.engine import Engine
from kringle.machine import machine, versions
from kringle.study.calibration import SCENARIOS, Tally, run_studies
from kringle.study.svg import Drawing, Scale

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "calibration.json"
FIGURE = ROOT / "docs" / "images" / "calibration.svg"
CONDITIONS = ((1, False), (1, True), (3, False), (5, False))  # seeds, with a stored between-seed variance
AT_ONCE = 250  # studies a job


def work(job: tuple[int, int, bool, int, int]) -> Tally:
    scenario, seeds, stored, first, count = job
    return run_studies(SCENARIOS[scenario], seeds, first, count, stored=stored)


def measure(scenario: int, studies: int, engine: Engine) -> list[dict[str, Any]]:
    rows = []
    for seeds, stored in CONDITIONS:
        firsts = range(0, studies, AT_ONCE)
        jobs = [(scenario, seeds, stored, first, min(AT_ONCE, studies - first)) for first in firsts]
        tally = Tally()
        for part in engine.map(work, jobs):
            tally.add(part)
        row = {"scenario": SCENARIOS[scenario].name, "seeds": seeds, "stored_variance": stored, "studies": studies}
        for name, (value, error) in {
            "coverage": tally.coverage,
            "false_better_or_worse": tally.rate(tally.false_claims),
            "false_no_difference": tally.rate(tally.false_equal),
            "found_at_three_margins": tally.rate(tally.found),
            "no_difference_of_equal_arms": tally.rate(tally.equal),
            "false_claims_if_taken_at_its_word": tally.rate(tally.naive_claims),
        }.items():
            row[name] = {"value": round(value, 5), "standard_error": round(error, 5)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def told(row: dict[str, Any]) -> str:
    stored = ", stored variance" if row["stored_variance"] else " alone" if row["seeds"] == 1 else ""
    return f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}{stored}"


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """Coverage on the left, false claims of a study on the right; whiskers are two standard errors each way."""
    d = Drawing(880)
    left, right = Scale(0.3, 1.0, 190, 520), Scale(0.0, 0.7, 600, 870)
    d.text(190, 14, "90% intervals that hold the true difference", bold=True)
    d.text(600, 14, "studies with a false better or worse", bold=True)
    y = 40.0
    for name in dict.fromkeys(row["scenario"] for row in rows):
        d.text(0, y, name, size=11.5, bold=True)
        y += 20
        for row in (r for r in rows if r["scenario"] == name):
            d.text(178, y + 4, told(row), size=11.5, anchor="end")
            claims = "false_claims_if_taken_at_its_word" if told(row).endswith("alone") else "false_better_or_worse"
            for scale, key in ((left, "coverage"), (right, claims)):
                value, error = row[key]["value"], row[key]["standard_error"]
                ends = [scale(min(max(value + side * 2 * error, scale.low), scale.high)) for side in (-1, 1)]
                d.whisker(ends[0], ends[1], y, cap=3)
                d.circle(scale(value), y, 3.5, "fill-1" if told(row).endswith("alone") else "fill-0")
                line = scale(0.9 if key == "coverage" else 0.1)
                late = ends[1] + 50 > scale.last or ends[1] - 2 <= line <= ends[1] + 50
                place, anchor = (ends[0] - 8, "end") if late else (ends[1] + 8, "start")
                d.text(place, y + 4, f"{value:.1%}", size=11.5, anchor=anchor)
            y += 18
        y += 14
    for scale, nominal in ((left, 0.9), (right, 0.1)):
        d.line(scale(nominal), 24, scale(nominal), y - 8, "axis")
        for share in (scale.low, scale.high, nominal):
            d.text(scale(share), y + 8, f"{share:.0%}", size=11.5, anchor="middle", class_="muted")
    d.text(
        0,
        y + 32,
        "Vertical line: what is promised. One seed alone (orange): what it would have claimed; its verdict",
        size=11.5,
    )
    d.text(0, y + 48, "is always undecided. Whiskers: two standard errors of the simulation.", size=11.5)
    d.height = y + 56
    alt = "; ".join(f"{r['scenario']}, {told(r)}: coverage {r['coverage']['value']:.1%}" for r in rows)
    return d.svg(f"Coverage and false claims by scenario and number of seeds. {alt}.", standalone=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", type=int, choices=range(len(SCENARIOS)))
    parser.add_argument("--studies", type=int, default=4000)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    engine = Engine(arguments.workers)
    chosen = range(len(SCENARIOS)) if arguments.scenario is None else [arguments.scenario]
    rows = [row for scenario in chosen for row in measure(scenario, arguments.studies, engine)]
    if arguments.studies < 4000:
        return
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and arguments.scenario is not None else []
    rows += [row for row in kept if row["scenario"] not in {r["scenario"] for r in rows}]
    order = [scenario.name for scenario in SCENARIOS]
    rows = sorted((r for r in rows if r["scenario"] in order), key=lambda row: order.index(row["scenario"]))
    record = {
        "command": "python benchmarks/evidence/calibration.py",
        "level": 0.9,
        "scenarios": [asdict(scenario) for scenario in SCENARIOS],
        "rows": rows,
        "machine": asdict(machine()),
        "versions": versions(),
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    FIGURE.write_text(draw(rows) + "\n")


if __name__ == "__main__":
    main()
