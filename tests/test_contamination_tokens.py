from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data.contamination import BenchmarkString, benchmark_file, load_strings
from kringle.data.contamination_tokens import COMMON, RUN, WINDOW, TokenFinder, tokenize

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "shared" / "benchmarks"


def strings_of(*texts: str, suite: str = "s") -> list[BenchmarkString]:
    return [BenchmarkString(suite, f"s/{i}", "solution", text) for i, text in enumerate(texts)]


def plain_tokens(text: str) -> list[str]:
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    return re.findall(r"(?:[a-z0-9_]|[^\x00-\x7f])+|[^\sa-z0-9_]", lowered, re.ASCII)


def plain_find(strings: list[BenchmarkString], content: str) -> int | None:
    """The definition, with loops: the first string that is there as a whole, or RUN telling tokens of it in a row."""
    tokens = [plain_tokens(s.text) for s in strings]
    tasks: dict[tuple[str, ...], set[str]] = {}
    for string, own in zip(strings, tokens, strict=True):
        for i in range(len(own) - WINDOW + 1):
            tasks.setdefault(tuple(own[i : i + WINDOW]), set()).add(string.task)
    document = plain_tokens(content)
    for number, own in enumerate(tokens):
        if own and any(document[i : i + len(own)] == own for i in range(len(document) - len(own) + 1)):
            return number
        for begin in range(len(own)):
            for place in range(len(document)):
                run = 0
                while (
                    begin + run < len(own) and place + run < len(document) and own[begin + run] == document[place + run]
                ):
                    run += 1
                windows = [tuple(own[i : i + WINDOW]) for i in range(begin, begin + run - WINDOW + 1)]
                telling = sum(len(tasks[w]) < COMMON for w in windows)
                if run >= RUN and len(own) > RUN and telling > RUN - WINDOW:
                    return number
    return None


@given(st.text(max_size=60))
@settings(deadline=None)
def test_tokens(text: str) -> None:
    hashes, places = tokenize(text)
    data = text.encode()
    spans = [data[a:b].decode() for a, b in places.T.tolist()]
    assert ["".join(c.lower() if c.isascii() else c for c in span) for span in spans] == plain_tokens(text)
    assert len(hashes) == len(spans)


_words = st.lists(st.sampled_from(["a", "b", "c", "(", ")", "+"]), min_size=1, max_size=45)


@given(
    st.lists(_words, min_size=1, max_size=5), _words, _words, st.integers(0, 4), st.integers(0, 20), st.integers(1, 45)
)
@settings(deadline=None, max_examples=200)
def test_finds_what_the_definition_finds(
    strings: list[list[str]], before: list[str], after: list[str], chosen: int, first: int, length: int
) -> None:
    known = strings_of(*(" ".join(words) for words in strings))
    planted = strings[chosen % len(strings)][first : first + length]
    content = "\n".join([*before, *planted, *after])
    found = TokenFinder(known).find(content)
    expected = plain_find(known, content)
    assert (None if found is None else int(found.task[2:])) == expected


def test_indentation_line_breaks_and_case_do_not_matter_and_the_document_is_quoted() -> None:
    finder = TokenFinder(strings_of("for i in range(len(x)):\n    total += x[i]"))
    content = "class A:\n\tdef f(x):\n\t\tfor  I in range( len(x) ):\n\n\t\t\ttotal+=x[i]\n"
    found = finder.find(content)
    assert found is not None
    assert found.text == "for I in range( len(x) ): total+=x[i]"
    assert finder.find(content.replace("total", "sum")) is None
    assert finder.find(content.replace("x[i]", "xx[i]")) is None


def test_part_of_a_long_string_is_enough() -> None:
    words = [f"w{i}" for i in range(100)]
    finder = TokenFinder(strings_of(" ".join(words)))
    for first in range(100 - RUN):
        assert finder.find("x " + " ".join(words[first : first + RUN]) + " y") is not None
        assert finder.find("x " + " ".join(words[first : first + RUN - 1]) + " y") is None


def test_boilerplate_of_many_tasks_is_no_evidence() -> None:
    imports = " ".join(f"import java.util.w{i};" for i in range(10))
    finder = TokenFinder(strings_of(*(f"{imports} class Problem {{ // task {i} {'x ' * i}" for i in range(COMMON + 2))))
    assert finder.find(imports + " class Mine {}") is None
    assert finder.find(f"{imports} class Problem {{ // task 3 x x x") is not None


def test_formats(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "mbpp": [{"task_id": 11, "text": "Write a function to remove x.", "code": "def f(a):\r\n  return a.strip()"}],
        "apps": [{"problem_id": 7, "question": "You are given a string of letters. "}],
        "fim": [
            {"name": "n-L2", "prompt": "def f(x):\n", "canonical_solution": "  return x", "suffix": "\n# end of it"}
        ],
    }
    for name, contents in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in contents))
        pq.write_table(pa.Table.from_pylist(contents), tmp_path / f"{name}.parquet")
        lines = load_strings([str(tmp_path / f"{name}.jsonl")], {})
        table = load_strings([str(tmp_path / f"{name}.parquet")], {})
        assert lines == table
    kinds = [s.kind for name in rows for s in load_strings([name], {name: tmp_path / f"{name}.jsonl"}).used]
    assert kinds == ["text", "code", "question", "program"]
    assert benchmark_file("humaneval") is None
    assert benchmark_file("~/x/mbpp.jsonl") == Path("~/x/mbpp.jsonl").expanduser()


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the public benchmarks are not beside the repository")
def test_every_public_benchmark_is_found_in_itself_reindented() -> None:
    files = {p.name: p for p in sorted(BENCHMARKS.iterdir()) if p.suffix in (".gz", ".jsonl", ".parquet")}
    strings = load_strings(list(files), files).used
    assert len(strings) > 1000
    finder = TokenFinder(strings)
    with gzip.open(BENCHMARKS / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    texts = [p["prompt"] + p["canonical_solution"] for p in problems]
    for name in ("java", "js"):
        lines = (BENCHMARKS / f"multipl-e-humaneval-{name}.jsonl").read_text().splitlines()
        texts += [json.loads(line)["prompt"] for line in lines]
    for text in texts:
        moved = "".join("        " + " ".join(line.split()) + "\n\n" for line in text.split("\n"))
        assert finder.find(moved) is not None
    assert finder.find(Path(json.__file__).read_text()) is None
    assert (
        finder.find("import java.util.*;\nimport java.io.*;\nimport java.math.*;\nclass Problem { int x; }\n") is None
    )
