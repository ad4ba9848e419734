from __future__ import annotations

from pathlib import Path

import pytest
from data_support import QUIET, InProcess, documents, folder_corpus, run_collect, write_tree

from kringle.data.clean import clean
from kringle.data.why import why
from kringle.errors import UserError
from kringle.settings import CleanSettings
from kringle.workspace import ShardStore


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    root = write_tree(
        tmp_path / "in",
        {
            "app/main.py": "x = 1\n",
            "app/util/main.py": "y = 2\n",
            "lib/copy.py": "x = 1\n",
            "lib/wide.py": "z" * 2000 + "\n",
            "lib/binary.py": b"\0",
            "lib/new\nline.py": "n = 1\n",
        },
    )
    (root / "lib/link.py").symlink_to("copy.py")
    run_collect(folder_corpus(root), tmp_path)
    (tmp_path / "clean").mkdir()
    shards = ShardStore(tmp_path / "s", "x")
    clean(
        CleanSettings(decontaminate=()), tmp_path / "out/documents", tmp_path / "clean", shards, InProcess(), QUIET, {}
    )
    return [tmp_path / "out", tmp_path / "clean"]


def test_the_story_of_a_file_by_path(folders: list[Path]) -> None:
    story = why(folders, "lib/wide.py")
    steps = [
        "size",
        "licence",
        "read",
        "origin",
        "exact-duplicate",
        "max-line",
        "mean-line",
        "alphanumeric",
        "contamination",
    ]
    assert [d.step for d in story] == steps
    assert {d.path for d in story} == {"wide.py"}
    assert [d.step for d in story if not d.kept] == ["max-line", "mean-line"]
    assert why(folders, "wide.py") == story


def test_a_path_matches_whole_components_and_several_files_may(folders: list[Path]) -> None:
    assert {f"{d.repo}/{d.path}" for d in why(folders, "util/main.py")} == {"app/util/main.py"}
    assert {f"{d.repo}/{d.path}" for d in why(folders, "main.py")} >= {"app/util/main.py", "app/main.py"}
    with pytest.raises(UserError, match="no decision was taken"):
        why(folders, "ain.py")


def test_a_copys_story_goes_on_with_the_file_that_stands_for_it(folders: list[Path]) -> None:
    story = why(folders, "lib/copy.py")
    twin = next(d for d in story if d.step == "exact-duplicate" and d.path == "copy.py")
    assert twin.witness == "the same as app/main.py"
    assert any(d.path == "main.py" and d.step == "contamination" and d.kept for d in story)


def test_by_absolute_path_and_by_what_was_never_read(folders: list[Path], tmp_path: Path) -> None:
    assert {d.path for d in why(folders, str(tmp_path / "in/app/util/main.py"))} == {"util/main.py"}
    assert [(d.step, d.witness) for d in why(folders, str(tmp_path / "in/lib/link.py"))] == [
        ("survey", "symbolic link, not followed")
    ]
    assert [d.witness for d in why(folders, "binary.py") if not d.kept] == ["binary: a NUL byte at offset 0"]
    assert {d.path for d in why(folders, "lib/new\nline.py")} == {"new\\nline.py"}
    assert {d.path for d in why(folders, "lib/new\\nline.py")} == {"new\\nline.py"}


def test_by_id_and_its_first_digits(folders: list[Path], tmp_path: Path) -> None:
    document = next(d for d in documents(tmp_path) if d["path"] == "util/main.py")
    story = why(folders, document["id"])
    assert {d.path for d in story} == {"util/main.py"}
    assert story[0].step == "read"
    assert why(folders, document["id"][:8].upper()) == story


def test_no_match_is_a_mistake(folders: list[Path]) -> None:
    for key in ("nothing.py", "f" * 40, "", "/"):
        with pytest.raises(UserError, match="no decision was taken"):
            why(folders, key)
    with pytest.raises(UserError):
        why([], "main.py")
