"""Which lines become infilling tasks, and where they are cut."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from kringle.evaluation.infilling import PER_DOCUMENT, make_tasks

ODD_TEXT = st.text(st.sampled_from("ab \t\n\r\x0b\u2028\u00a0é;}"), max_size=60)


def files(count: int, lines: int, language: str = "python") -> list[tuple[str, str, str]]:
    return [
        (f"{language}{i:037d}", language, "".join(f"    line_{i}_{j} = {j}\n\n" for j in range(lines)))
        for i in range(count)
    ]


@given(st.lists(ODD_TEXT, max_size=5), st.integers(0, 30))
def test_a_task_is_its_file_cut_at_a_line_that_is_not_blank(texts: list[str], count: int) -> None:
    documents = [(f"{i:040x}", "java", text) for i, text in enumerate(texts)]
    by_id = {id: text for id, _, text in documents}
    tasks = make_tasks(documents, count)
    for task in tasks:
        text = by_id[task.document]
        assert task.prefix + task.middle + task.suffix == text
        line = text.split("\n")[task.line - 1]
        assert task.middle.strip()
        assert "\n" not in task.middle
        assert line.endswith(task.middle)
        assert line.strip() == task.middle.strip()
        assert task.suffix == "" or task.suffix.startswith("\n")
        indentation = line.removesuffix(task.middle)
        assert not indentation.strip()
        assert task.middle.lstrip() == task.middle.removeprefix(" ")
        assert task.middle.startswith(" ") == line.removesuffix(task.middle.lstrip()).endswith(" ")
    possible = sum(min(PER_DOCUMENT, sum(bool(line.strip()) for line in text.split("\n"))) for text in texts)
    assert len(tasks) == min(count, possible)
    assert len({task.name for task in tasks}) == len(tasks)


@given(st.randoms())
def test_the_order_of_the_files_does_not_matter(shuffle: object) -> None:
    documents = files(12, 20) + files(5, 30, "java")
    expected = make_tasks(documents, 40, seed=3)
    shuffle.shuffle(documents)  # type: ignore[attr-defined]
    assert make_tasks(documents, 40, seed=3) == expected


def test_another_seed_chooses_other_lines() -> None:
    documents = files(30, 40)
    first, second = ({task.name for task in make_tasks(documents, 50, seed)} for seed in (0, 1))
    assert len(first) == len(second) == 50
    assert len(first & second) < 15


def test_a_long_file_does_not_decide_the_score() -> None:
    tasks = make_tasks([("long", "python", "x = 1\n" * 5000), *files(20, 10)], 60)
    per_document = Counter(task.document for task in tasks)
    assert per_document["long"] == PER_DOCUMENT
    assert len(tasks) == 60


def test_languages_have_their_share_of_the_lines() -> None:
    documents = files(50, 60) + files(25, 40, "java") + files(20, 50, "javascript")  # 3,000, 1,000 and 1,000 lines
    tasks = make_tasks(documents, 103)
    found = Counter(task.language for task in tasks)
    assert found == {"python": 62, "java": 21, "javascript": 20}  # 61.8, 20.6, 20.6: the largest remainders, by name


def test_where_a_language_is_short_of_files_the_others_fill_up() -> None:
    documents = [("one", "java", "int x;\n" * 400), *files(40, 10)]  # Java has half of the lines, and one file
    tasks = make_tasks(documents, 100)
    assert Counter(task.language for task in tasks) == {"java": PER_DOCUMENT, "python": 95}


def test_nothing_to_ask_is_no_task() -> None:
    assert make_tasks([], 10) == []
    assert make_tasks([("a", "python", " \n\t\n")], 10) == []


def test_lines_are_chosen_uniformly() -> None:
    """Over 300 seeds each of ten lines in each of two files comes up equally often: chi-square on 20 cells."""
    documents = files(2, 10)
    found = Counter(task.name for seed in range(300) for task in make_tasks(documents, 4, seed))
    assert found.total() == 1200
    assert len(found) == 20
    assert sum((count - 60) ** 2 / 60 for count in found.values()) < 45  # 99.9% of chi-square, 19 degrees of freedom


@pytest.mark.parametrize("indentation", ["", "    ", "\t", "  "])
def test_the_cut_is_a_border_of_byte_level_tokens(indentation: str) -> None:
    """In the pre-tokenisation of the whole file, a token starts where the middle starts, and none spans the cut."""
    text = f"if x:\n{indentation}return value\n\n{indentation}done()\n"
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    starts = {start for _, (start, _) in byte_level.pre_tokenize_str(text)}
    tasks = make_tasks([("a", "python", text)], 3)
    assert len(tasks) == 3
    assert {len(task.prefix) for task in tasks} <= starts


def test_real_files_make_tasks() -> None:
    folder = Path(__file__).parent
    documents = [(p.name, "python", p.read_text(encoding="utf-8")) for p in sorted(folder.glob("test_m*.py"))]
    tasks = make_tasks(documents, 15)
    assert len(tasks) == 15
    assert max(Counter(task.document for task in tasks).values()) <= PER_DOCUMENT
