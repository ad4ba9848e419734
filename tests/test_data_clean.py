from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from data_support import QUIET, InProcess, decisions, folder_corpus, run_collect, snapshot, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data.clean import clean
from kringle.data.contamination import SHORTEST, BenchmarkString, Finder, inner_words, last_docstring, load_strings
from kringle.data.decisions import decision_files
from kringle.data.table import read_table
from kringle.data.text_statistics import text_statistics
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.settings import CleanSettings, NearDedupSettings
from kringle.workspace import ShardStore

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "shared" / "benchmarks"


def run_clean(
    tmp_path: Path,
    files: dict[str, str],
    settings: CleanSettings | None = None,
    benchmarks: dict[str, Path] | None = None,
    engine: Engine | None = None,
    fidelity: Any = "corrected",
) -> dict[str, Any]:
    settings = settings or CleanSettings(decontaminate=())
    root = write_tree(tmp_path / "in", {f"r/{name}": text for name, text in files.items()})
    run_collect(folder_corpus(root), tmp_path)
    out = tmp_path / "clean"
    out.mkdir(exist_ok=True)
    shards = ShardStore(tmp_path / "clean-shards", "test")
    return clean(
        settings, tmp_path / "out/documents", out, shards, engine or InProcess(), QUIET, benchmarks or {}, fidelity
    )


def survivors(tmp_path: Path) -> list[str]:
    paths: list[str] = read_table(tmp_path / "clean/survivors.parquet")["path"].to_pylist()
    return paths


# -- the basic filter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "longest", "mean", "alphanumeric"),
    [
        ("abc\n", 3, 3.0, 0.75),
        ("abc", 3, 3.0, 1.0),
        ("ab\r\ncd\r\n", 2, 2.0, 0.5),
        ("\n", 0, 0.0, 0.0),
        ("a\n\nbbb\n", 3, 4 / 3, 4 / 7),
        ("é𝄞x_", 4, 4.0, 0.5),
        ("²½٣", 3, 3.0, 1.0),  # str.isalnum counts them
        ("a\u2028b", 1, 1.0, 2 / 3),  # str.splitlines cuts there
        ("a\x0cb", 1, 1.0, 2 / 3),
        (" \t!", 3, 3.0, 0.0),
    ],
)
def test_values_of_the_basic_filter(text: str, longest: int, mean: float, alphanumeric: float) -> None:
    assert text_statistics(text) == pytest.approx((longest, mean, alphanumeric))


@settings(deadline=None)
@given(st.text(min_size=1))
def test_values_agree_with_their_definition(text: str) -> None:
    lines = [len(line) for line in text.splitlines()]
    expected = (max(lines), sum(lines) / len(lines), sum(c.isalnum() for c in text) / len(text))
    assert text_statistics(text) == pytest.approx(expected)


def test_equal_values_stay_and_each_reason_is_told(tmp_path: Path) -> None:
    files = {
        "line1000.py": "x" * 1000 + "\n" + "y\n" * 100,
        "line1001.py": "x" * 1001 + "\n" + "y\n" * 100,
        "mean100.py": ("x" * 100 + "\n") * 5,
        "mean101.py": ("x" * 101 + "\n") * 5,
        "alnum25.py": "x___",
        "alnum24.py": "x___" * 5 + "_",
        "minified.js": "var x=1;" * 300,
    }
    summary = run_clean(tmp_path, files)
    assert survivors(tmp_path) == ["alnum25.py", "line1000.py", "mean100.py"]
    rows = {(d.path, d.step): d for d in decisions(tmp_path / "clean")}
    assert len(rows) == 4 * len(files)
    assert (rows["line1001.py", "max-line"].value, rows["line1001.py", "max-line"].kept) == (1001, False)
    assert rows["line1001.py", "mean-line"].kept
    assert (rows["mean100.py", "mean-line"].value, rows["mean100.py", "mean-line"].kept) == (100, True)
    assert rows["alnum24.py", "alphanumeric"].value == pytest.approx(5 / 21)
    assert rows["alnum24.py", "alphanumeric"].threshold == ">= 0.25"
    assert not rows["minified.js", "max-line"].kept
    assert not rows["minified.js", "mean-line"].kept
    assert [(step["name"], step["files"]) for step in summary["funnel"]] == [
        ("max-line", 5),
        ("mean-line", 4),
        ("alphanumeric", 3),
        ("contamination", 3),
    ]
    assert summary["funnel"][0]["dropped"][0]["files"] == 2


def test_the_same_from_worker_processes_and_nothing_twice(tmp_path: Path) -> None:
    files = {f"f{i}.py": f"value_{i} = {i}\n" * (i + 1) for i in range(30)}
    run_clean(tmp_path, files)
    first = snapshot(tmp_path / "clean")
    again = InProcess()
    run_clean(tmp_path, files, engine=again)
    assert again.ran == []
    run_clean(tmp_path / "other", files, engine=Engine(1))
    assert snapshot(tmp_path / "other/clean") == first
    changed = InProcess()
    run_clean(tmp_path, files, CleanSettings(max_line=500, decontaminate=()), engine=changed)
    assert len(changed.ran) == 1


def test_nothing_left_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no document of 1 passes"):
        run_clean(tmp_path, {"a.py": "x" * 2000})


# -- decontamination ---------------------------------------------------------------------------------------------------


def suite(path: Path, rows: list[dict[str, str]]) -> Path:
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


PROBLEM = {
    "task_id": "mine/0",
    "prompt": 'def f(x):\n    """Return twice the value of X,\n    rounded.\n    """\n',
    "canonical_solution": "    y = round(2 * x)\n    return y + 0\n",
}


@pytest.mark.parametrize("fidelity", ["faithful", "corrected"])
def test_a_copy_of_docstring_or_solution_drops_the_document_with_the_witness(tmp_path: Path, fidelity: Any) -> None:
    mine = suite(tmp_path / "mine.jsonl", [PROBLEM])
    files = {
        "docstring.py": 'z = """return TWICE the value of x,\n    rounded."""\n',
        "solution.py": "def g(x):\n    y = round(2 * x)\n    return y + 0  # why\n",
        "inside_words.py": "if 1:\n    yy = round(2 * x)\n    return y + 0123\n",
        "reindented.py": "y = round(2 * x)\nreturn y + 0\n",
        "clean.py": "y = round(3 * x)\n",
    }
    settings = CleanSettings(decontaminate=("mine",))
    summary = run_clean(tmp_path, files, settings, {"mine": mine}, fidelity=fidelity)
    if fidelity == "corrected":
        assert survivors(tmp_path) == ["clean.py", "inside_words.py"]
        witnesses = {d.path: d.witness for d in decisions(tmp_path / "clean") if not d.kept}
        assert witnesses == {
            "docstring.py": "mine/0 docstring: return TWICE the value of x, rounded.",
            "solution.py": "mine/0 solution: y = round(2 * x) return y + 0",
            "reindented.py": "mine/0 solution: y = round(2 * x) return y + 0",
        }
        return
    assert survivors(tmp_path) == ["clean.py", "reindented.py"]
    witnesses = {d.path: d.witness for d in decisions(tmp_path / "clean") if not d.kept}
    assert witnesses == {
        "docstring.py": "mine/0 docstring: Return twice the value of X,\n    rounded.",
        "solution.py": "mine/0 solution: y = round(2 * x)\n    return y + 0",
        "inside_words.py": "mine/0 solution: y = round(2 * x)\n    return y + 0",
    }
    assert summary["funnel"][-1]["dropped"][0]["files"] == 3
    assert "contaminated: 2 x mine/0 solution" in summary["notes"]


def test_short_and_trivial_strings_are_listed_as_not_used(tmp_path: Path) -> None:
    rows = [
        PROBLEM | {"task_id": "mine/0", "canonical_solution": "    return n + 1\n"},
        PROBLEM | {"task_id": "mine/1", "canonical_solution": "    return len(string)\n"},
        PROBLEM | {"task_id": "mine/2", "canonical_solution": "    return a * h / 2.0\n", "prompt": "def f():\n"},
    ]
    strings = load_strings(["mine"], {"mine": suite(tmp_path / "mine.jsonl", rows)})
    assert [s.text for s in strings.unused] == ["return n + 1", "return len(string)"]
    assert [(s.task, s.kind) for s in strings.used] == [("mine/0", "docstring"), ("mine/2", "solution")]
    assert len(strings.used[1].text) == SHORTEST
    settings = CleanSettings(decontaminate=("mine",))
    summary = run_clean(tmp_path, {"a.py": "return n + 1\n"}, settings, {"mine": tmp_path / "mine.jsonl"})
    assert survivors(tmp_path) == ["a.py"]
    assert [s["text"] for s in summary["unused_strings"]] == ["return n + 1", "return len(string)"]
    assert any("2 of 4 benchmark strings are too short" in note for note in summary["notes"])


def test_docstrings_of_prompts() -> None:
    assert last_docstring('"""module"""\ndef f():\n    """ Body. """\n') == "Body."
    assert last_docstring("def f():\n    ''' One\n    two '''\n") == "One\n    two"
    assert last_docstring("def f():\n    # none\n") == ""


def test_suites_in_multipl_es_format_and_compressed(tmp_path: Path) -> None:
    rows = [{"name": "HumanEval_0", "prompt": "//Check something.\nfunction f(x){\n", "tests": "x"}]
    strings = load_strings(["js"], {"js": suite(tmp_path / "js.jsonl.gz", rows)})
    assert strings.used == (BenchmarkString("js", "HumanEval_0", "prompt", "//Check something.\nfunction f(x){"),)


def test_mistakes_in_benchmarks(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"task_id": "x"}\n')
    (tmp_path / "text.jsonl").write_text("hello\n")
    (tmp_path / "zipped.jsonl.gz").write_bytes(b"hello")
    for name, message in (
        ("unknown", "unknown benchmark 'unknown'; known: bad"),
        ("bad", "bad.jsonl, line 1: expected prompt"),
        ("text", "text.jsonl, line 1: expected a JSON object"),
        ("zipped", "cannot be read"),
        ("absent", "cannot be read"),
    ):
        known = {"bad": "bad.jsonl", "text": "text.jsonl", "zipped": "zipped.jsonl.gz", "absent": "absent.jsonl"}
        with pytest.raises(UserError, match=message):
            load_strings([name], {n: tmp_path / file for n, file in known.items()})


def strings_of(*texts: str) -> list[BenchmarkString]:
    return [BenchmarkString("s", f"s/{i}", "solution", text) for i, text in enumerate(texts)]


_texts = st.text(alphabet="ab_. \nÉéİ", min_size=1, max_size=8)


@settings(deadline=None)
@given(st.lists(_texts, min_size=1, max_size=6), st.text(alphabet="abAB_. \nÉéİ", max_size=60), st.integers(0, 5))
def test_the_search_finds_what_a_plain_loop_finds(texts: list[str], content: str, plant: int) -> None:
    content = content + texts[plant % len(texts)] if plant else content
    plain = next((t for t in texts if t.lower() in content.lower()), None)
    found = Finder(strings_of(*texts)).find(content)
    assert (found.text if found else None) == plain


def test_inner_words_touch_neither_end() -> None:
    assert inner_words("return a + b.c") == {"a", "b"}
    assert inner_words("(x)") == {"x"}
    assert inner_words("x") == frozenset()
    assert Finder([]).find("anything") is None


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the public benchmarks are not beside the repository")
def test_all_of_humaneval_is_searched_for_but_the_three_trivial_solutions(tmp_path: Path) -> None:
    strings = load_strings(["humaneval"], {"humaneval": BENCHMARKS / "HumanEval.jsonl.gz"})
    assert sorted(s.text for s in strings.unused) == ["return len(string)", "return n**2", "return x + y"]
    assert len(strings.used) == 2 * 164 - 3
    finder = Finder(strings.used)
    with gzip.open(BENCHMARKS / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            assert finder.find(row["prompt"] + row["canonical_solution"]) is not None
    assert finder.find("def f(x):\n    return x + y\n") is None


# -- near-duplicates ---------------------------------------------------------------------------------------------------

_LONG = "\n".join(f"def f{i}(argument):\n    return argument + {i}\n" for i in range(40))


def _near(tmp_path: Path, files: dict[str, str], fidelity: Any) -> dict[str, Any]:
    settings = CleanSettings(decontaminate=(), near_dedup=NearDedupSettings(1, 0.85), max_line=200)
    root = write_tree(tmp_path / "in", {f"r/{name}": text for name, text in files.items()})
    run_collect(folder_corpus(root), tmp_path)
    (tmp_path / "clean").mkdir()
    store = ShardStore(tmp_path / "shards", "test")
    return clean(settings, tmp_path / "out/documents", tmp_path / "clean", store, InProcess(), QUIET, {}, fidelity)


def test_a_near_duplicate_gives_way_and_tells_to_whom(tmp_path: Path) -> None:
    files = {"tests/copy.py": _LONG + "# copy\n", "real.py": _LONG, "other.py": "print('hello')\n"}
    told = _near(tmp_path, files, "corrected")
    assert survivors(tmp_path) == ["other.py", "real.py"]
    (row,) = [d for d in decisions(tmp_path / "clean") if d.step == "near-duplicate" and not d.kept]
    assert row.path == "tests/copy.py"
    assert row.value is not None
    assert 0.85 <= row.value < 1
    assert row.threshold == "similarity < 0.85"
    assert row.witness is not None
    assert row.witness.startswith("r/real.py (")
    assert row.witness.endswith("of its words")
    assert told["funnel"][-1]["name"] == "near-duplicate"
    assert told["funnel"][-1]["dropped"] == [
        {"reason": "a near-duplicate of another file", "files": 1, "bytes": len(_LONG) + 7}
    ]
    assert json.loads((tmp_path / "clean/near-duplicates.json").read_text())["dropped"] == 1


def test_only_the_original_lets_a_file_give_way_to_one_that_goes_itself(tmp_path: Path) -> None:
    """The better copy has a line that is too long. SantaCoder looked for near-duplicates first, and lost both."""
    files = {"a.py": f"{_LONG}x = [{'1, ' * 100}]\n", "tests/b.py": _LONG}
    _near(tmp_path / "corrected", files, "corrected")
    assert survivors(tmp_path / "corrected") == ["tests/b.py"]
    with pytest.raises(UserError, match="no document of 2 passes"):
        _near(tmp_path / "faithful", files, "faithful")


def test_a_file_that_two_steps_drop_counts_where_the_first_of_them_drops_it(tmp_path: Path) -> None:
    both = f"{_LONG}x = [{'1, ' * 100}]\n"  # has a long line and a near-copy
    files = {"real.py": _LONG, "tests/both.py": both, "long.py": "y" * 300 + "\n", "other.py": "print('hello')\n"}
    near = {"reason": "a near-duplicate of another file", "files": 1, "bytes": len(both)}
    told = _near(tmp_path / "faithful", files, "faithful")["funnel"]
    dropped = {step["name"]: step["dropped"] for step in told}
    assert told[0]["name"] == "near-duplicate"
    assert dropped["near-duplicate"] == [near]
    assert dropped["max-line"] == [{"reason": "a line of more than 200 characters", "files": 1, "bytes": 301}]
    assert (told[-1]["files"], told[-1]["bytes"]) == (2, len(_LONG) + len(files["other.py"]))
    told = _near(tmp_path / "corrected", files, "corrected")["funnel"]
    dropped = {step["name"]: step["dropped"] for step in told}
    assert dropped["near-duplicate"] == []
    assert [(entry["files"], entry["bytes"]) for entry in dropped["max-line"]] == [(2, len(both) + 301)]


def test_decisions_stay_in_the_files_of_their_shards(tmp_path: Path) -> None:
    files = {f"f{i}.py": f"value_{i} = {i}\n" * (i + 1) for i in range(30)}
    run_clean(tmp_path, files)
    shards = {path.stat().st_ino for path in tmp_path.rglob("decisions.parquet")}
    assert {path.stat().st_ino for path in decision_files(tmp_path / "clean")} <= shards
    assert len({path.stat().st_ino for path in decision_files(tmp_path / "out")} & shards) == 1
    assert len(decision_files(tmp_path / "out")) == 3  # before the shard those on names, after it those on duplicates
    assert len(decisions(tmp_path / "clean")) == 30 * 4
