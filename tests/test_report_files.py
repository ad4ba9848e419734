"""The folder: all of it or nothing, figures as SVG, tables as CSV with the exact numbers."""

from __future__ import annotations

import csv
import io
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from report_sample import sample, variants

from kringle.errors import UserError
from kringle.study import report
from kringle.study.report import files, render, write
from kringle.study.results import Results, Share
from kringle.study.tables import Cell, Column, Table, to_csv


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_what_is_written(tmp_path: Path) -> None:
    results = sample()
    page = write(results, tmp_path / "deep" / "report")
    folder = page.parent
    assert page == tmp_path / "deep" / "report" / "report.html"
    assert page.read_text(encoding="utf-8") == render(results)
    assert Results.from_json((folder / "results.json").read_text(encoding="utf-8")) == results
    assert {p.stem for p in (folder / "figures").iterdir()} == {
        *("pass-at-k-starter", "infilling", "bits-per-byte", "differences", "loss", "held-out-curve", "funnel"),
        *("kept-comments-floor", "kept-fertility", "kept-near-duplicates", "collision"),
    }
    for figure in (folder / "figures").iterdir():
        ET.parse(figure)
    assert {p.name for p in tmp_path.iterdir()} == {"deep"}
    assert {p.name for p in folder.parent.iterdir()} == {"report"}


@pytest.mark.parametrize("name", list(variants()))
def test_every_file_can_be_made_and_stays_in_the_folder(name: str) -> None:
    made = files(variants()[name])
    for path, text in made.items():
        assert not Path(path).is_absolute()
        assert ".." not in Path(path).parts
        text.encode("utf-8")
        if path.endswith(".svg"):
            ET.fromstring(text)
        if path.endswith(".csv"):
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1


def test_csv_holds_the_exact_numbers() -> None:
    results = sample()
    made = files(results)
    arms = rows(made["tables/arms.csv"])
    for row, arm in zip(arms, results.arms, strict=True):
        assert arm.bits_per_byte is not None
        total = arm.bits_per_byte.total
        assert row["Arm"] == arm.name
        assert [float(row[f"Bits per byte{end}"]) for end in ("", " low", " high")] == [
            total.value,
            total.low,
            total.high,
        ]
        assert float(row["pass@10"]) == arm.suites[0].pass_at[1].estimate.value
    suite = rows(made["tables/suite-starter.csv"])
    assert {row["Jail"] for row in suite} == {"namespaces"}  # told once on the page, in every row here
    curves = rows(made["tables/curves.csv"])
    told = [(row["arm"], int(row["step"]), float(row["loss"])) for row in curves if row["loss"]]
    assert told == [(arm.name, p.step, p.loss) for arm in results.arms if arm.training for p in arm.training.curve]
    held_out = [float(row["held-out bits per byte"]) for row in curves if row["held-out bits per byte"]]
    assert held_out == [p.bits_per_byte for a in results.arms if a.training for p in a.training.held_out_curve]
    compared = rows(made["tables/differences.csv"])
    assert [float(row["Difference low"]) for row in compared] == [c.low for c in results.comparisons]


def test_csv_text_is_no_formula() -> None:
    shares = tuple(Share(name, 1, 1) for name in ("=1+1", "@scope/package", "-x", "+x", "\tx", "plain", "a\x00b"))
    made = files(replace(sample(), corpus=replace(sample().corpus, sources=shares)))
    names = [row["Source"] for row in rows(made["tables/sources.csv"])]
    assert names == ["'=1+1", "'@scope/package", "'-x", "'+x", "'\tx", "plain", "a<U+0000>b"]


def test_a_suite_cannot_name_a_file_elsewhere() -> None:
    first = sample().arms[0]
    arm = replace(first, suites=tuple(replace(suite, suite="../../etc/x y") for suite in first.suites))
    made = files(replace(sample(), arms=(arm,), comparisons=(), examples=()))
    assert "figures/pass-at-k-etc-x-y.svg" in made
    assert "tables/suite-etc-x-y.csv" in made


def test_cells_must_match_their_columns() -> None:
    columns = (Column("a"), Column("b", raw=("b", "b low")))
    with pytest.raises(ValueError, match="table t"):
        Table("t", "caption", columns, ((Cell("1", (1,)), Cell("2", (2,))),))
    assert to_csv(Table("t", "caption", columns, ((Cell("1", (1,)), Cell("2", (2, None))),))) == "a,b,b low\n1,2,\n"


def test_a_new_report_replaces_the_old_one_whole(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write(sample(), folder)
    write(variants()["bare"], folder)
    assert not (folder / "figures" / "funnel.svg").exists()
    assert Results.from_json((folder / "results.json").read_text()) == variants()["bare"]
    assert {p.name for p in tmp_path.iterdir()} == {"report"}


def test_an_interrupted_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "report"
    write(sample(), folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    synced = iter(range(5))
    real = os.fsync

    def full(descriptor: int) -> None:
        if next(synced) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(report.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(variants()["bare"], folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    monkeypatch.undo()
    write(variants()["bare"], folder)
    assert {p.name for p in tmp_path.iterdir()} == {"report"}


def test_what_is_no_report_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "results.json").write_text("mine")
    with pytest.raises(UserError, match="holds no report"):
        write(sample(), folder)
    assert (folder / "results.json").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="holds no report"):
        write(sample(), file)
    assert {p.name for p in tmp_path.iterdir()} == {"thesis", "file"}
    empty = tmp_path / "empty"
    empty.mkdir()
    assert write(sample(), empty).is_file()


def test_the_same_results_give_the_same_bytes() -> None:
    assert files(sample()) == files(Results.from_json(sample().to_json()))
