"""Files that no pipeline expects, among enough that it does: each is used or left out, counted, and explained."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from run_fixtures import MIT, Done, kringle, manifests, models, results, write_corpus, write_recipe

from kringle.data.table import iter_documents
from kringle.study.story import story, told

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: odd files; macOS refuses some names")

GOOD = "def area_{n}(width_{n}, height_{n}):\n    return width_{n} * height_{n} + {n}\n"
REPO = "odd files\nand names"

# name -> content, and how its story ends: kept or dropped, by which step, in which words.
KEPT: dict[bytes, bytes] = {
    b"name with spaces.py": GOOD.format(n=1).encode(),
    b"new\nline.py": GOOD.format(n=2).encode(),
    b"caf\xe9.py": GOOD.format(n=3).encode(),
    "größe-大小.py".encode(): GOOD.format(n=4).encode(),
    b"-rf.py": GOOD.format(n=5).encode(),
    b"byte-order-mark.py": b"\xef\xbb\xbf" + GOOD.format(n=6).encode(),
    b"carriage-returns.py": GOOD.format(n=7).replace("\n", "\r\n").encode(),
    b"no-newline-at-the-end.py": GOOD.format(n=8).strip().encode(),
    b"specials.py": b"MARK = '<fim_prefix><|endoftext|><fim_suffix>'\n" + GOOD.format(n=9).encode(),
    b"not-python-3.py": b"print 'x', 0777\n" + GOOD.format(n=10).encode(),
}
DROPPED: dict[bytes, tuple[bytes, str, str]] = {
    b"latin-1.py": (b"# gr\xf6\xdfe\n" + GOOD.format(n=11).encode(), "read", "not UTF-8: byte 0xf6 at offset 4"),
    b"nul.js": (b"let x = 1;\n\x00\n", "read", "binary: a NUL byte at offset 11"),
    b"utf-16.js": (("let größe = 1;\n" * 9).encode("utf-16"), "read", "UTF-16 text"),
    b"lfs.js": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "read", "a Git LFS pointer"),
    b"ten-megabytes.js": (b"x" * 10_000_000 + b"\n", "size", "10,000,001 (1 to 1,000,000 bytes)"),
    b"one-long-line.js": (b"let x = '" + b"y" * 900_000 + b"';\n", "max-line", "900,011 (<= 1000)"),
    b"symbols.py": (b"{[(<>)]}\n" * 50, "alphanumeric", "0"),
    b"empty.py": (b"", "size", "0"),
}
SKIPPED = {
    b"loop.py": "symbolic link, not followed",
    b"elsewhere.py": "symbolic link, not followed",
    b"pipe.py": "not a regular file",
    b"socket.js": "not a regular file",
}


@dataclass(frozen=True)
class Odd:
    work: Path
    recipe: Path
    folder: bytes
    done: Done


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    place = tmp_path_factory.mktemp("odd")
    corpus = write_corpus(place / "my own code", files=2, functions=6)
    (corpus / REPO).mkdir()
    folder = os.fsencode(corpus / REPO)
    (corpus / REPO / "LICENSE").write_text(MIT)
    for name, content in KEPT.items():
        _write(folder, name, content)
    for name, (content, _, _) in DROPPED.items():
        _write(folder, name, content)
    here = corpus / REPO
    (here / "loop.py").symlink_to("loop.py")
    (here / "elsewhere.py").symlink_to(next(corpus.glob("repo-00/lib/*.py")))
    (here / "up").symlink_to("..")
    (here / "folder.py").mkdir()
    os.mkfifo(here / "pipe.py")
    os.mknod(here / "socket.js", stat.S_IFSOCK | 0o600)
    recipe = write_recipe(place / "my recipe.yaml", corpus, steps=6, lines=8, ablations=("fim", "mha"), vocab_size=400)
    done = kringle("run", recipe, "--work", place / "my work").succeeded()
    return Odd(place / "my work", recipe, folder, done)


def _write(folder: bytes, name: bytes, content: bytes) -> None:
    with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 (a path that is no text)
        file.write(content)


def story_of(odd: Odd, name: bytes) -> list[str]:
    """What `kringle why` tells of a file that is named as it is on disk, without the heading."""
    lines = told(story(odd.work, os.fsdecode(odd.folder + b"/" + name)))
    assert len([line for line in lines if not line.startswith("  ")]) == 1, lines
    return lines[1:]


@pytest.mark.parametrize("name", KEPT)
def test_odd_names_and_odd_texts_are_used_as_they_are(odd: Odd, name: bytes) -> None:
    lines = story_of(odd, name)
    assert all(line.split()[0] == "kept" for line in lines), lines
    assert lines[-1].split()[1] == "split"
    (folder,) = odd.work.glob("stages/collect-*")
    contents = [document["content"].encode() for document in iter_documents(folder / "documents", ["content"])]
    assert contents.count(KEPT[name]) == 1


@pytest.mark.parametrize("name", DROPPED)
def test_what_cannot_be_used_is_left_out_for_a_reason(odd: Odd, name: bytes) -> None:
    _, step, words = DROPPED[name]
    dropped = [line for line in story_of(odd, name) if line.split()[0] == "dropped"]
    assert dropped[0].split()[1] == step
    assert words in dropped[0]


@pytest.mark.parametrize("name", SKIPPED)
def test_links_and_what_is_no_file_are_not_followed(odd: Odd, name: bytes) -> None:
    (line,) = story_of(odd, name)
    assert line.split()[:2] == ["dropped", "survey"]
    assert line.endswith(SKIPPED[name])
    assert any(SKIPPED[name] in note for note in results(odd.work)["corpus"]["notes"])


@pytest.mark.parametrize("name", [b"new\nline.py", b"caf\xe9.py"])
def test_the_command_line_takes_odd_names_as_well(odd: Odd, name: bytes) -> None:
    file = os.fsdecode(odd.folder + b"/" + name)
    heading, *lines = kringle("why", file, "--work", odd.work).succeeded().out.splitlines()
    assert heading.startswith("odd files\\nand names/")
    assert lines == story_of(odd, name)


def test_what_is_left_out_is_counted_in_the_funnel(odd: Odd) -> None:
    found = results(odd.work)
    steps = {step["name"]: step for step in found["funnel"]}
    expected = Counter(step for _, step, _ in DROPPED.values())
    for name, step in (("size", "size"), ("read", "read"), ("max-line", "max-line"), ("alphanumeric", "alphanumeric")):
        assert sum(dropped["files"] for dropped in steps[name]["dropped"]) == expected[step], name
    assert {dropped["reason"] for dropped in steps["size"]["dropped"]} == {"empty", "too large"}
    for reason in ("not UTF-8", "binary", "UTF-16 text", "a Git LFS pointer"):
        assert any(reason in dropped["reason"] for dropped in steps["read"]["dropped"]), reason
    assert (odd.work / "report/report.html").stat().st_size > 50_000
    assert models(odd.work).keys() == {"fim-s0", "mha-s0"}
    assert "Traceback" not in odd.done.err


def test_the_commands_in_the_report_can_be_typed_as_they_stand(odd: Odd) -> None:
    found = results(odd.work)
    kringle_, *arguments = shlex.split(found["command_line"])
    assert kringle_ == "kringle"
    assert kringle(*arguments).succeeded().err.startswith("Nothing to do: all ")
    before = manifests(odd.work)
    (command,) = [row["command"] for row in found["commands"] if row["section"] == "held-out"]
    kringle(*shlex.split(command)[1:]).succeeded()
    after = manifests(odd.work)
    assert before.keys() == after.keys()
    assert {name.partition("-")[0] for name in after if after[name] != before[name]} == {"split"}


def test_a_workspace_inside_the_source_does_not_become_part_of_it(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "code", files=2, functions=6)
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, steps=4, lines=8, ablations=("fim", "mha"), vocab_size=400)
    kringle("run", recipe, "--source", ".", cwd=corpus).succeeded()
    assert (corpus / "kringle-work/report/report.html").exists()
    again = kringle("run", recipe, "--source", ".", cwd=corpus).succeeded()
    assert again.err.startswith("Nothing to do: all ")
    assert (
        "kringle-work" not in kringle("why", "LICENSE", "--work", corpus / "kringle-work").refused().partition(":")[2]
    )
