"""Mistakes that a user can mend: each is answered with one line that names it, and nothing is left half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_fixtures import (
    MIT,
    Running,
    kringle,
    manifests,
    shared_corpus,
    shared_recipe,
    stages,
    unfinished,
    write_recipe,
)

from kringle.evaluation.suites import SHIPPED
from kringle.workspace import Workspace

GOOD = "def add(first, second):\n    return first + second\n"


@pytest.fixture(scope="module")
def good() -> Path:
    """A recipe without a mistake."""
    return shared_recipe()


def small_folder(root: Path, *, files: int = 6) -> Path:
    """A few short files: enough to be found, too few for most of what follows."""
    for number in range(files):
        path = root / f"repo-{number}/module.py"
        path.parent.mkdir(parents=True)
        path.write_text(f"VALUE_{number} = {number}\n\n\n" + GOOD.replace("add", f"add_{number}"))
        (path.parent / "LICENSE").write_text(MIT)
    return root


def edited(recipe: Path, change: Callable[[str], str], to: Path) -> Path:
    before = recipe.read_text()
    to.write_text(change(before))
    assert to.read_text() != before
    return to


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("vocab_size: 512", "vocab_sice: 512", r"tokenizer: unknown key 'vocab_sice'; did you mean vocab_size\?"),
        ("layers: 2", "layers: -2", r"model\.layers: .*-2"),
        ("max_bytes: 5MB", "max_bytes: -5MB", r"corpus\.max_bytes: expected a size such as 60MB, got '-5MB'"),
        ("batch_tokens: 512", "batch_tokens: 500", r"training\.batch_tokens: .* not a multiple .*; use 384"),
        ("heads: 2", "heads: 3", r"model: width 64 is not divisible by 3 heads"),
        ("context: 128", "context: 64", r"ablations\.fim: model\.context: .* no room .*; use at least \d+"),
        ("  mha: ", "  fim: ", r"recipe.yaml, line \d+: .*'fim' comes twice"),
        ("name: tiny", "name: tiny: tiny", r"recipe.yaml, line 1: not valid YAML"),
        ("suites: [starter]", "suites: [nonesuch]", r"nonesuch"),
        ("held_out: 10%", "held_out: 0", r"evaluation\.held_out: must be above 0 and below 1"),
    ],
)
def test_a_recipe_that_cannot_be_followed(good: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    recipe = edited(good, lambda text: text.replace(old, new), tmp_path / "recipe.yaml")
    line = kringle("run", recipe, "--work", tmp_path / "work").refused()
    assert re.search(said, line), line
    assert not (tmp_path / "work/stages").exists()
    if "context" not in old:  # what the plan refuses comes before the workspace is made
        assert not (tmp_path / "work").exists()


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    folder, binary, latin, missing = (tmp_path / name for name in ("folder.yaml", "binary", "latin.yaml", "none.yaml"))
    folder.mkdir()
    binary.write_bytes(bytes(range(256)))
    latin.write_bytes("name: größe\n".encode("latin-1"))
    for path, said in (
        (folder, "cannot be read: Is a directory"),
        (binary, "cannot be read: 'utf-8' codec can't decode byte 0x80"),
        (latin, "cannot be read: 'utf-8' codec can't decode byte"),
        (missing, "cannot be read: No such file or directory"),
    ):
        line = kringle("run", path, "--work", tmp_path / "work").refused()
        assert line.startswith(f"{path}: {said}"), line
    assert "unknown recipe 'lapdog'; did you mean laptop?" in kringle("run", "lapdog").refused()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "nofim"), r"--only: unknown ablation 'nofim'; did you mean no-fim\?"),
        (("--only", "stars"), r"--only: unknown ablation 'stars'; known: fim, no-fim, mha, comments"),
        (("--only", ","), r"--only: names no ablation; known: fim,"),
        (("--until", "training"), r"--until: unknown stage 'training'; did you mean train\?"),
        (("--from", "x"), r"--from: unknown stage 'x'; known: collect, clean,"),
        (("--from", "score", "--until", "split"), r"--from: 'score' comes after the last stage, 'split'"),
        (("--workers", "0"), r"--workers: needs at least one worker, got 0"),
        (("--allow-license", "GPL 2"), r"allow-license: not an SPDX licence expression: 'GPL 2'"),
    ],
)
def test_an_option_that_names_nothing(good: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    line = kringle("run", good, "--work", tmp_path / "work", *arguments).refused()
    assert re.match(said, line), line
    assert not (tmp_path / "work").exists()


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_source_without_anything_to_train_on(tmp_path: Path) -> None:
    empty, other, files, work = (tmp_path / name for name in ("empty", "other", "file.py", "work"))
    empty.mkdir()
    other.mkdir()
    (other / "main.rs").write_text("fn main() {}\n")
    (other / "Main.java").write_text("class Main {}\n")
    files.write_text(GOOD)
    recipe = write_recipe(tmp_path / "recipe.yaml", empty)
    for source, said in (
        (empty, "holds no files"),
        (other, "holds no file in .*found instead: 1 Java, 1 .rs"),
        (files, "is a file, not a folder"),
        (tmp_path / "nowhere", "no such folder"),
    ):
        line = kringle("run", recipe, "--source", source, "--work", work).refused()
        assert line.startswith(f"{source}: "), line
        assert re.search(said, line), line
    assert kringle("run", recipe, "--work", work).refused().startswith(f"{empty}: holds no files")
    assert not work.exists()


def without_root() -> list[str]:
    """A prefix under which files of mode 000 cannot be read, whoever runs the tests."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("NOT CHECKED: unreadable files, because root reads everything and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: unreadable files, outside Linux")
def test_a_source_that_may_not_be_read(tmp_path: Path) -> None:
    source = small_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path / "recipe.yaml", source)
    for file in source.rglob("*.py"):
        file.chmod(0)
    line = kringle("run", recipe, "--source", source, "--work", tmp_path / "work", prefix=without_root()).refused()
    assert line.startswith(f"{source}: holds no file in Python")
    assert "6 unreadable" in line
    assert not (tmp_path / "work").exists()
    source.chmod(0)
    line = kringle("run", recipe, "--source", source, "--work", tmp_path / "new", prefix=without_root()).refused()
    assert line.startswith(f"{source}: cannot be read: Permission denied")
    source.chmod(0o700)
    recipe.chmod(0)
    line = kringle("run", recipe, "--work", tmp_path / "new", prefix=without_root()).refused()
    assert line == f"{recipe}: cannot be read: Permission denied"
    assert not (tmp_path / "new").exists()


def test_a_corpus_that_is_too_small(tmp_path: Path) -> None:
    source, work = small_folder(tmp_path / "source"), tmp_path / "work"
    arguments = ("--source", source, "--work", work)
    recipe = write_recipe(tmp_path / "recipe.yaml", source, held_out="0.1%", vocab_size=262)
    line = kringle("run", recipe, *arguments).refused(notes=True)
    assert re.search(r"evaluation\.held_out.*: (only 1 held-out file is left|nothing can be held out)", line), line
    recipe = write_recipe(tmp_path / "recipe.yaml", source, held_out="40%")
    line = kringle("run", recipe, *arguments).refused(notes=True)
    assert re.match(r"tokenizer\.vocab_size: the corpus fills a vocabulary of only 2\d\d tokens, 512 were", line), line
    recipe = write_recipe(tmp_path / "recipe.yaml", source, held_out="40%", vocab_size=262, batch_tokens=16384)
    line = kringle("run", recipe, *arguments).refused(notes=True)
    assert re.match(r"training\.batch_tokens: the corpus fills \d+ rows .*; use at most \d+", line), line
    assert unfinished(work) == []
    assert not (work / "report").exists()
    assert {manifest["stage"] for manifest in manifests(work).values()} == {
        *("collect", "clean", "split", "annotate", "tokenizer", "encode", "attribution"),
    }


def test_a_suite_that_a_study_cannot_measure(tmp_path: Path) -> None:
    row = {
        "task_id": "T/0",
        "prompt": "def one():\n",
        "entry_point": "one",
        "canonical_solution": "    return 1\n",
        "test": "def check(candidate):\n    assert candidate() == 1\n",
    }
    infill = {**row, "prompt": "def one():\n    return", "canonical_solution": " 1", "suffix": "\n"}
    docstring = {"code": "def one():\n    return 1\n", "docstring_tokens": ["One"]}
    for file, rows in (("infill", [infill]), ("docs", [docstring, {**docstring, "url": "two"}]), ("single", [row])):
        (tmp_path / f"{file}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    rules = (SHIPPED / "codexglue-docstrings.yaml").read_text()
    rules = re.sub(r"^prompt_hash:.*\n", "", rules, flags=re.M)
    rules = re.sub(r"^name:.*", "name: docs", rules, flags=re.M)
    (tmp_path / "docs.yaml").write_text(re.sub(r"^source:.*", "source: docs.jsonl", rules, flags=re.M))
    source, work = small_folder(tmp_path / "source"), tmp_path / "work"
    for suite, said in (
        ("infill.jsonl", r"asks to fill in the middle of programs, and a study runs .* kringle evaluate MODEL --suite"),
        ("docs.yaml", r"is measured by bleu, and a study runs .* kringle evaluate MODEL --suite docs"),
        ("single.jsonl", "single has a single problem, and an interval needs at least two"),
    ):
        recipe = write_recipe(tmp_path / "recipe.yaml", source, suites=f"[{suite}]")
        line = kringle("run", recipe, "--work", work, cwd=tmp_path).refused()
        assert re.match(rf"evaluation\.suites: .*{said}", line), line
        assert not work.exists()


def test_lines_of_one_file_alone_are_too_few_to_fill_in(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", shared_corpus(), lines=1)
    line = kringle("run", recipe, "--work", tmp_path / "work", "--until", "train").refused(notes=True)
    assert line.startswith("evaluation.infilling_lines: fewer than two held-out files would have a line to fill in")
    assert "annotate" not in stages(tmp_path / "work")


def test_a_filter_that_leaves_nothing_is_named_with_its_ablation(tmp_path: Path) -> None:
    source = small_folder(tmp_path / "source", files=12)
    ablations = {"fim": "{}", "chatty": "{filter: {comments: {above: 0.9, below: 1.0}}}"}
    recipe = write_recipe(
        tmp_path / "recipe.yaml", source, ablations=ablations, held_out="30%", vocab_size=262, batch_tokens=128, steps=2
    )
    line = kringle("run", recipe, "--work", tmp_path / "work").refused(notes=True)
    assert line.startswith("ablations.chatty.filter: no documents to train on")


# -- workspaces --------------------------------------------------------------------------------------------------------


def test_a_place_that_is_no_workspace(good: Path, tmp_path: Path) -> None:
    file, other, newer, broken = (tmp_path / name for name in ("file", "other", "newer", "broken"))
    file.write_text("precious\n")
    for folder, name, text in (
        (other, "precious.txt", "precious\n"),
        (newer, "workspace.json", json.dumps({"format": 99, "kringle": "9.0"})),
        (broken, "workspace.json", "{"),
    ):
        folder.mkdir()
        (folder / name).write_text(text)
    for work, said in (
        (file, "is a file, not a folder"),
        (file / "below", "cannot be used as a workspace: Not a directory"),
        (other, "is a folder with other things in it"),
        (newer, "is a workspace of format 99, made by Kringle 9.0; this version reads format 1"),
        (broken / "workspace.json", "is a file, not a folder"),
    ):
        line = kringle("run", good, "--work", work).refused()
        assert line.startswith(f"{work}: {said}"), line
    line = kringle("run", good, "--work", broken).refused()
    assert line.startswith(f"{broken}/workspace.json: cannot be read as a workspace"), line
    for name, arguments in (("report", ()), ("why", ("main.py",))):
        assert "is not a workspace" in kringle(name, *arguments, "--work", tmp_path / "nowhere").refused()
    assert file.read_text() == "precious\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("broken", "file", "newer", "other", "precious.txt", "workspace.json", "workspace.json"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: unreadable folders, outside Linux")
def test_a_workspace_that_may_not_be_written(good: Path, tmp_path: Path) -> None:
    closed, sealed = tmp_path / "closed", tmp_path / "sealed"
    closed.mkdir(mode=0)
    line = kringle("run", good, "--work", closed / "work", prefix=without_root()).refused()
    assert line.startswith(f"{closed}/work: cannot be used as a workspace: Permission denied")
    line = kringle("run", good, "--work", closed, prefix=without_root()).refused()
    assert line.startswith(f"{closed}: cannot be used as a workspace: Permission denied")
    sealed.mkdir(mode=0o500)
    line = kringle("run", good, "--work", sealed, prefix=without_root()).refused()
    assert line.startswith(f"{sealed}: cannot be used as a workspace: Permission denied")
    assert not list(sealed.iterdir())
    closed.chmod(0o700)
    assert not list(closed.iterdir())


def test_a_file_in_the_place_of_a_folder_is_one_line(good: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    Workspace.open(work)
    (work / "stages").touch()
    done = kringle("run", good, "--work", work, "--until", "collect")
    assert done.code == 1
    (said,) = [line for line in done.err.splitlines() if not line.startswith("note: ")]
    assert said.startswith(f"kringle: {work}/stages/collect-")
    assert said.endswith(": Not a directory; choose another name or move what is there and run again")


def test_a_workspace_without_a_run_has_nothing_to_tell(tmp_path: Path) -> None:
    work = tmp_path / "work"
    Workspace.open(work)
    for name, arguments in (("report", ()), ("why", ("main.py",))):
        assert "no run has been made in this workspace yet" in kringle(name, *arguments, "--work", work).refused()


def test_two_runs_at_once_in_one_workspace(good: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    first = Running("run", good, "--work", work, "--until", "encode")
    assert first.wait_for(work, "last-run.json")
    second = kringle("run", good, "--work", work, "--until", "encode")
    if first.process.poll() is None:
        assert "another run is using this workspace; wait for it" in second.refused()
    assert first.wait().code == 0
    third = kringle("run", good, "--work", work, "--until", "encode").succeeded()
    assert "Nothing to do: all 6 stages are up to date." in third.err
