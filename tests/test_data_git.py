from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from data_support import decisions, documents, folder_corpus, run_collect, write_tree

from kringle.data.collect import terms_of
from kringle.data.gather import gather_candidates
from kringle.data.sources.git import git
from kringle.errors import UserError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
ALL = ("python", "java", "javascript")


def run(*arguments: str, at: Path) -> str:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    settings += ["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *settings, *arguments], cwd=at, env=environment, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = write_tree(
        tmp_path / "project",
        {
            "LICENSE": "Licensed under the MIT license.",
            "src/a.py": "print('committed')\n",
            "src/vendor/LICENSE": "GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007",
            "src/vendor/b.js": "var b;\n",
            "third/c.py": "x = 1\n",
            "gen/d.java": "class D {}\n",
            "gen/kept.java": "class Kept {}\n",
            "bin/tool": "#!/usr/bin/env python3\n",
            "bin/data": "#!/usr/bin/env python3\n",
            "odd/new\nline.py": "y = 2\n",
            "docs/readme.md": "text",
            ".gitattributes": "third/** linguist-vendored\ngen/*.java linguist-generated=true\n",
            "gen/.gitattributes": "kept.java -linguist-generated\n",
        },
    )
    (root / "bin/tool").chmod(0o755)
    (root / "link.py").symlink_to("src/a.py")
    Path(os.fsdecode(os.fsencode(root) + b"/odd/caf\xe9.py")).write_bytes(b"z = 3\n")
    run("init", "-q", at=root)
    run("add", "-A", at=root)
    run("commit", "-qm", "first", at=root)
    return root


def test_files_of_head_with_licence_language_and_commit(repository: Path) -> None:
    found = git(repository, ALL)
    commit = run("rev-parse", "HEAD", at=repository)
    assert {(c.path, c.language, c.licenses) for c in found.candidates} == {
        ("src/a.py", "python", ("MIT",)),
        ("src/vendor/b.js", "javascript", ("GPL-3.0-only",)),
        ("gen/kept.java", "java", ("MIT",)),
        ("bin/tool", "python", ("MIT",)),
        ("odd/new\\nline.py", "python", ("MIT",)),
        ("odd/caf\\udce9.py", "python", ("MIT",)),
    }
    assert {c.revision for c in found.candidates} == {commit}
    assert {(s.path, s.reason) for s in found.skipped} == {
        ("link.py", "symbolic link, not followed"),
        ("third/c.py", "marked linguist-vendored in .gitattributes"),
        ("gen/d.java", "marked linguist-generated in .gitattributes"),
    }


def test_the_working_tree_does_not_count_and_is_not_touched(repository: Path, tmp_path: Path) -> None:
    (repository / "src/a.py").write_text("print('not committed')\n")
    (repository / "untracked.py").write_text("u = 1\n")
    before = {p: p.stat().st_mtime_ns for p in repository.rglob("*") if p.is_file() and not p.is_symlink()}
    run_collect(folder_corpus(repository, kind="git"), tmp_path / "work")
    contents = {d["path"]: d["content"] for d in documents(tmp_path / "work")}
    assert contents["src/a.py"] == "print('committed')\n"
    assert "untracked.py" not in contents
    after = {p: p.stat().st_mtime_ns for p in repository.rglob("*") if p.is_file() and not p.is_symlink()}
    assert before == after


def test_ids_are_gits_own(repository: Path, tmp_path: Path) -> None:
    run_collect(folder_corpus(repository, kind="git"), tmp_path / "work")
    for document in documents(tmp_path / "work"):
        if "\\" not in document["path"]:
            assert document["id"] == run("rev-parse", f"HEAD:{document['path']}", at=repository)
    kept = [d for d in decisions(tmp_path / "work" / "out") if d.step == "read"]
    assert len(kept) == 6
    assert all(d.kept for d in kept)


def test_a_bare_repository_gives_the_same(repository: Path, tmp_path: Path) -> None:
    run("clone", "-q", "--bare", str(repository), str(tmp_path / "project.git"), at=tmp_path)
    bare, clone = git(tmp_path / "project.git", ALL), git(repository, ALL)
    assert [c._replace(container="") for c in bare.candidates] == [c._replace(container="") for c in clone.candidates]
    assert bare.skipped == clone.skipped


def test_submodules_are_skipped_and_counted(repository: Path, tmp_path: Path) -> None:
    outer = write_tree(tmp_path / "outer", {"a.py": "x = 1\n"})
    run("init", "-q", at=outer)
    run("submodule", "--quiet", "add", str(repository), "modules/project", at=outer)
    run("add", "-A", at=outer)
    run("commit", "-qm", "with a submodule", at=outer)
    found = git(outer, ALL)
    assert [c.path for c in found.candidates] == ["a.py"]
    assert [(s.path, s.reason) for s in found.skipped] == [("modules/project", "submodule: a repository of its own")]


def test_nothing_that_a_repository_configures_is_run(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\nexit 1\n")
    trap.chmod(0o755)
    run("config", "core.fsmonitor", str(trap), at=repository)
    hooks = repository / ".git/hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        shutil.copy(trap, hooks / hook)
    assert len(git(repository, ALL).candidates) == 6
    assert not (tmp_path / "sprung").exists()


def test_a_surrounding_gits_environment_is_ignored(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert len(git(repository, ALL).candidates) == 6


def test_a_missing_blob_is_a_reason_not_a_fault(repository: Path, tmp_path: Path) -> None:
    blob = run("rev-parse", "HEAD:src/a.py", at=repository)
    found = git(repository, ALL)
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    task = (sorted(found.candidates), terms_of(folder_corpus(repository, kind="git")))
    assert gather_candidates(task, tmp_path)["documents"] == 5
    lost = [d for d in decisions(tmp_path) if not d.kept]
    assert [(d.path, d.witness) for d in lost] == [("src/a.py", "unreadable: the blob is missing from the repository")]
    found = git(repository, ALL)
    assert ("src/a.py", "unreadable: the blob is missing from the repository") in [s[2:] for s in found.skipped]
    assert len(found.candidates) == 5


def test_a_missing_licence_is_a_mistake_to_mend(repository: Path) -> None:
    blob = run("rev-parse", "HEAD:LICENSE", at=repository)
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(UserError, match="the blob is missing from the repository; clone it in full"):
        git(repository, ALL)


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    run("init", "-q", "empty", at=tmp_path)
    for path, message in (("missing", "no such repository"), ("plain", "not a git repository"), ("empty", "no commit")):
        with pytest.raises(UserError, match=message) as raised:
            git(tmp_path / path, ALL)
        assert str(tmp_path / path) in str(raised.value)


def test_attributes_name_languages_above_extensions(tmp_path: Path) -> None:
    repository = tmp_path / "named"
    files = {
        ".gitattributes": "".join(
            f"{name} linguist-language={language}\n"
            for name, language in (("*.jsx", "TypeScript"), ("*.inc", "Python"), ("odd.py", "Java"))
        ),
        "a.jsx": "let a = 1;\n",
        "b.inc": "b = 1\n",
        "odd.py": "class Odd { }\n",
        "plain.py": "c = 1\n",
        "book.ipynb": "{}",
    }
    write_tree(repository, files)
    run("init", "-q", at=repository)
    run("add", "-A", at=repository)
    run("-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "m", at=repository)
    found = git(repository, ALL)
    assert {c.path: c.language for c in found.candidates} == {"b.inc": "python", "odd.py": "java", "plain.py": "python"}
    assert [(s.path, s.reason.partition(":")[0]) for s in found.skipped] == [("book.ipynb", "notebook")]
