from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_support import QUIET, InProcess, documents, folder_corpus, run_collect, write_tree

from kringle.data.comments import comment_ratio
from kringle.data.signals import NotApplicable, Rows, Signals, annotate, near_file, passes, why_not
from kringle.data.table import SPLIT, SURVIVOR, read_table, write_rows
from kringle.engine import Engine
from kringle.settings import CommentsFilter, FertilityFilter, FilterSettings, NearDedupSettings, StarsFilter
from kringle.workspace import ShardStore

NEAR = NearDedupSettings(5, 0.7)


def rows(**columns: Any) -> Rows:
    count = len(next(iter(columns.values())))
    empty = {
        "ids": [f"d{i}" for i in range(count)],
        "comment_ratio": np.zeros(count),
        "characters": np.ones(count, dtype=np.int64),
        "stars": np.full(count, np.nan),
    }
    return Rows(Path("nowhere"), **(empty | columns))


def kept(settings: FilterSettings, given: Rows, tokens: list[int] | None = None, languages: Any = None) -> list[bool]:
    count = len(given.ids)
    counts = np.array(tokens if tokens is not None else [1] * count)
    return passes(settings, given, languages or ["python"] * count, counts).tolist()


def test_comment_bounds_are_strict() -> None:
    ratios = np.array([0.0, 0.01, 0.010001, 0.5, 0.799999, 0.8, 1.0])
    bounds = FilterSettings(comments=CommentsFilter(above=0.01, below=0.8))
    assert kept(bounds, rows(comment_ratio=ratios)) == [False, False, True, True, True, False, False]
    assert all(kept(FilterSettings(), rows(comment_ratio=ratios)))


def test_stars_of_the_paper_and_of_the_code() -> None:
    stars = rows(stars=np.array([0, 4, 5, 6, np.nan]))
    assert kept(FilterSettings(stars=StarsFilter(at_least=5)), stars) == [False, False, True, True, False]
    assert kept(FilterSettings(stars=StarsFilter(above=5)), stars) == [False, False, False, True, False]
    assert kept(FilterSettings(stars=StarsFilter(quantile=0.5)), stars) == [False, False, True, True, False]
    assert kept(FilterSettings(stars=StarsFilter(above=0)), stars) == [False, True, True, True, False]


def test_without_any_star_count_the_filter_says_why_it_cannot_be_applied() -> None:
    unknown = rows(stars=np.full(3, np.nan))
    settings = FilterSettings(stars=StarsFilter(at_least=5))
    assert why_not(settings, unknown) == "no document of this corpus has a star count; give them with --stars FILE"
    with pytest.raises(NotApplicable):
        kept(settings, unknown)
    assert why_not(FilterSettings(), unknown) is None
    reason = why_not(FilterSettings(near_dedup=NEAR), unknown)
    assert reason == "near-duplicates at ngram 5, 0.7 were not computed"


def test_fertility_by_threshold_and_by_percentile_of_each_language() -> None:
    given = rows(characters=np.array([249, 250, 251, 100]))
    languages = ["python", "python", "python", "java"]
    own = FilterSettings(fertility=FertilityFilter(python=2.5))
    assert kept(own, given, [100, 100, 100, 100], languages) == [False, True, True, True]
    many = rows(characters=np.arange(1, 101))
    five = FilterSettings(fertility=FertilityFilter(percentile=5))
    assert kept(five, many, [1] * 100) == [False] * 5 + [True] * 95


def test_all_filters_must_let_a_document_pass() -> None:
    given = rows(stars=np.array([9.0, 9.0, 0.0]), comment_ratio=np.array([0.5, 0.0, 0.5]))
    both = FilterSettings(stars=StarsFilter(at_least=5), comments=CommentsFilter(above=0.01, below=0.8))
    assert kept(both, given) == [True, False, False]


def write_survivors(path: Path, ids: list[str]) -> None:
    write_rows(path, SURVIVOR, [(id, "r", "p", "python", 1) for id in ids])


def test_the_stage_annotates_survivors_only_and_in_parallel(tmp_path: Path) -> None:
    text = "\n".join(f"def f{i}(argument):\n    return argument + {i}\n" for i in range(40))
    files = {f"r/f{i}.py": f"# {'c' * i}\nx = {i}\n" for i in range(18)}
    files |= {"r/A.java": "// a\n", "r/one.py": text, "r/two.py": text + "# end\n", "r/three.py": text + "# 3\n"}
    run_collect(folder_corpus(write_tree(tmp_path / "in", files)), tmp_path)
    collected = documents(tmp_path)
    path_of = {d["id"]: d["path"] for d in collected}
    chosen = [d["id"] for d in collected if d["path"] != "f3.py"]
    write_survivors(tmp_path / "survivors.parquet", chosen)
    training = {id for id in chosen if path_of[id] != "three.py"}  # held out: nobody's witness
    sides = [(id, "train" if id in training else "held-out") for id in chosen]
    write_rows(tmp_path / "split.parquet", SPLIT, sides)
    for name, engine in (("one", InProcess()), ("two", Engine(2))):
        out = tmp_path / name
        out.mkdir()
        summary = annotate(
            tmp_path / "out/documents",
            tmp_path / "survivors.parquet",
            tmp_path / "split.parquet",
            [NEAR],
            "corrected",
            out,
            ShardStore(out / "s", "x"),
            engine,
            QUIET,
        )
        assert summary["files"] == 21
        assert summary["stars_unknown"] == 21
        assert summary["comments_by_parser"] == 0
        assert summary["near_duplicates"][0]["dropped"] == 1
    signals = read_table(tmp_path / "two/signals.parquet").to_pylist()
    assert signals == read_table(tmp_path / "one/signals.parquet").to_pylist()
    expected = [(d["id"], comment_ratio(d["content"], d["language"]), len(d["content"])) for d in collected]
    assert [(s["id"], s["comment_ratio"], s["characters"]) for s in signals] == [e for e in expected if e[0] in chosen]
    table = read_table(tmp_path / "one" / near_file(NEAR)).to_pylist()
    assert {path_of[r["id"]] for r in table} == {path_of[id] for id in training}
    (gone,) = [r for r in table if not r["kept"]]
    assert {path_of[gone["id"]], path_of[gone["cluster"]]} == {"one.py", "two.py"}
    assert 0.7 <= gone["similarity"] < 1
    charts = json.loads((tmp_path / "one" / near_file(NEAR)).with_suffix(".json").read_text())
    assert charts["cluster_sizes"] == [[2, 1]]
    seen = Signals(tmp_path / "one").rows(sorted(training))
    assert passes(FilterSettings(near_dedup=NEAR), seen, ["python"] * 20, np.ones(20, dtype=np.int64)).sum() == 19


def test_settings_of_near_duplicates_name_their_own_tables() -> None:
    assert near_file(NEAR) == "near-duplicates-n5-t0.7.parquet"
    assert near_file(NearDedupSettings(1, 0.85)) == "near-duplicates-n1-t0.85.parquet"
