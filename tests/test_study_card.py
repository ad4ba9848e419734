"""The data card: true to the workspace, the same in all its forms, offline, and comparable with another."""

from __future__ import annotations

import html.parser
import itertools
import json
import re
from pathlib import Path

import pytest
from run_fixtures import kringle, write_corpus

from kringle.errors import UserError
from kringle.study.card import Card, Section, Table, read_card
from kringle.study.card_diff import compare
from kringle.study.card_page import to_html, to_markdown
from kringle.study.last_run import recall
from kringle.workspace import Workspace

RECIPE = """
name: carded
corpus: {{sources: [{{folder: {root}}}], licenses: permissive}}
tokenizer: {{vocab_size: 300}}
model: {{layers: 1, width: 32, heads: 2, context: 128}}
training: {{tokens: 2k, batch_tokens: 256}}
ablations: {{base: {{}}}}
evaluation: {{suites: [], held_out: 10%}}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("card")
    root = write_corpus(place / "in", files=4, functions=5)
    recipe = place / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    kringle("run", recipe, "--until", "split", "--work", place / "work").succeeded()
    kringle("card", "--work", place / "work").succeeded()
    return place / "work"


def section(card: Card, title: str) -> Section:
    return next(s for s in card.sections if s.title == title)


def test_its_numbers_are_those_of_the_stages(work: Path) -> None:
    card = read_card(work)
    _, plan = recall(Workspace.open(work, create=False))
    manifest = plan.collect.manifest()
    assert manifest is not None
    collected = manifest["summary"]
    facts = dict(section(card, "What is in it").facts)
    assert facts["Bytes"] == f"{collected['bytes']:,}"
    licenses = section(card, "What is in it").tables[2]
    assert sum(row[1] for row in licenses.rows) == collected["files"]
    assert sum(row[3] for row in licenses.rows) == pytest.approx(1)
    (funnel,) = section(card, "The funnel").tables
    left = [row for row in funnel.rows if row[1] == "left"]
    dropped = {step: sum(row[2] for row in funnel.rows if row[0] == step and row[1] != "left") for step, *_ in left}
    for before, after in itertools.pairwise(left):
        assert before[2] - after[2] == dropped[after[0]], after[0]


def test_three_forms_say_the_same(work: Path) -> None:
    markdown = (work / "card/data-card.md").read_text()
    page = (work / "card/data-card.html").read_text()
    card = Card.from_json((work / "card/card.json").read_text(), "card.json")
    assert to_markdown(card) == markdown
    assert to_html(card) == page
    for part in card.sections:
        assert f"## {part.title}" in markdown
        assert part.title in page


def test_the_page_needs_nothing_from_outside(work: Path) -> None:
    page = (work / "card/data-card.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "prefers-color-scheme:dark" in page
    html.parser.HTMLParser().feed(page)


def test_text_from_the_corpus_is_no_markup() -> None:
    evil = "<script>alert(1)</script> | `x` [a](b)"
    table = Table("T", ("Name", "Files"), ("text", "count"), ((evil, 1),))
    card = Card("n", "t", "v", "s", (Section("S", (("F", evil),), (table,), (evil,)),))
    assert "<script>" not in to_html(card)
    row = next(line for line in to_markdown(card).splitlines() if line.startswith("| \\<script"))
    assert row.count("|") - row.count("\\|") == 3


def test_two_cards_are_compared_by_what_they_say(work: Path, tmp_path: Path) -> None:
    card = read_card(work)
    assert compare(card, card) == []
    raw = json.loads(card.to_json())
    languages = next(t for t in raw["sections"][0]["tables"] if t["title"] == "Languages")
    languages["rows"][0][1] += 5
    raw["sections"][0]["facts"][1][1] = "7"
    (tmp_path / "card.json").write_text(json.dumps(raw))
    lines = compare(read_card(tmp_path), card)
    assert any("(-5)" in line for line in lines), lines
    assert any(line.startswith("What is in it: Bytes: 7 -> ") for line in lines), lines
    done = kringle("card", "--work", work, "--diff", tmp_path, "--json").succeeded()
    assert done.result["differences"] == lines


def test_mistakes(tmp_path: Path, work: Path) -> None:
    assert "holds no data card" in kringle("card", "--work", work, "--diff", tmp_path).err
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as a data card"):
        read_card(tmp_path)
