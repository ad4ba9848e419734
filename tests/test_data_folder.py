from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from data_support import write_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data.sources.candidates import Candidate, Found, original_name, printable
from kringle.data.sources.folder import folder
from kringle.errors import UserError

ALL = ("python", "java", "javascript")
MIT = "Licensed under the MIT license."
GPL = "GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007"


def by_path(found: Found) -> dict[str, Candidate]:
    return {f"{c.repo}:{c.path}": c for c in found.candidates}


def reasons(found: Found) -> dict[str, str]:
    return {f"{s.repo}:{s.path}": s.reason for s in found.skipped}


def test_repositories_and_loose_files(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "code",
        {
            "loose.py": "x",
            "plain/a.py": "x",
            "plain/deep/b.java": "x",
            "team/service/.git/HEAD": "ref: x",
            "team/service/c.js": "x",
            "team/other.py": "x",
            "worktree/.git": "gitdir: elsewhere",
            "worktree/d.py": "x",
        },
    )
    assert set(by_path(folder(tmp_path / "code", ALL))) == {
        "code:loose.py",
        "plain:a.py",
        "plain:deep/b.java",
        "team/service:c.js",
        "team:other.py",
        "worktree:d.py",
    }


def test_a_folder_that_is_itself_a_repository(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "app", {".git/HEAD": "x", "src/a.py": "x", "vendor/lib/.git/HEAD": "x", "vendor/lib/b.py": "x"}
    )
    assert set(by_path(folder(tmp_path / "app", ALL))) == {"app:src/a.py", "vendor/lib:b.py"}


def test_loose_files_are_not_mixed_with_a_repository_of_the_same_name(tmp_path: Path) -> None:
    write_tree(tmp_path / "code", {"a.py": "1", "code/a.py": "2"})
    assert set(by_path(folder(tmp_path / "code", ALL))) == {"code/.:a.py", "code:a.py"}


def test_the_nearest_declaration_is_the_licence(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "none/a.py": "x",
            "mit/LICENSE": MIT,
            "mit/a.py": "x",
            "mit/sub/b.py": "x",
            "mit/third/COPYING": GPL,
            "mit/third/c.py": "x",
            "mit/odd/LICENSE": "You may use this on Tuesdays.",
            "mit/odd/d.py": "x",
            "meta/package.json": '{"license": "(ISC OR GPL-2.0)"}',
            "meta/LICENSE-GPL": GPL,
            "meta/e.js": "x",
            "meta/inner/package.json": '{"type": "module"}',
            "meta/inner/f.js": "x",
            "both/pyproject.toml": '[project]\nlicense = "Zlib"',
            "both/package.json": '{"license": "ISC"}',
            "both/g.py": "x",
        },
    )
    licenses = {name: c.licenses for name, c in by_path(folder(tmp_path, ALL)).items()}
    assert licenses == {
        "none:a.py": (),
        "mit:a.py": ("MIT",),
        "mit:sub/b.py": ("MIT",),
        "mit:third/c.py": ("GPL-3.0-only",),
        "mit:odd/d.py": ("LicenseRef-Unrecognised",),
        "meta:e.js": ("ISC OR GPL-2.0-only",),
        "meta:inner/f.js": ("ISC OR GPL-2.0-only",),
        "both:g.py": ("ISC", "Zlib"),
    }


def test_a_licence_does_not_cross_the_border_of_a_git_repository(tmp_path: Path) -> None:
    write_tree(
        tmp_path / "outer",
        {".git/HEAD": "x", "LICENSE": MIT, "a.py": "x", "sub/module/.git": "x", "sub/module/b.py": "x"},
    )
    licenses = {name: c.licenses for name, c in by_path(folder(tmp_path / "outer", ALL)).items()}
    assert licenses == {"outer:a.py": ("MIT",), "sub/module:b.py": ()}
    write_tree(tmp_path / "repos", {"LICENSE": MIT, "one/.git/HEAD": "x", "one/c.py": "x"})
    assert by_path(folder(tmp_path / "repos", ALL))["one:c.py"].licenses == ("MIT",)


def test_what_is_nobodys_source_code_is_left_out(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "app/setup.py": "x",
            "app/build/lib/a.py": "x",
            "app/dist/b.js": "x",
            "app/node_modules/left-pad/index.js": "x",
            "app/__pycache__/c.py": "x",
            "app/env/pyvenv.cfg": "home = /usr",
            "app/env/lib/d.py": "x",
            "app/.tox/e.py": "x",
            "app/src/build/__init__.py": "x",
            "app/src/setup.py": "x",
            "plain/build/f.py": "x",
            "plain/target/g.java": "x",
        },
    )
    found = folder(tmp_path, ALL)
    assert set(by_path(found)) == {
        "app:setup.py",
        "app:src/build/__init__.py",
        "app:src/setup.py",
        "plain:build/f.py",
        "plain:target/g.java",
    }
    assert reasons(found) == {
        "app:build": "build output",
        "app:dist": "build output",
        "app:node_modules": "installed packages, not this folder's own code",
        "app:env": "installed packages, not this folder's own code",
        "app:.tox": "a tool's own files",
    }


def test_links_pipes_and_sockets_are_counted_and_never_opened(tmp_path: Path) -> None:
    write_tree(tmp_path, {"r/real.py": "x", "r/deep/file.py": "x"})
    (tmp_path / "r/link.py").symlink_to("real.py")
    (tmp_path / "r/loop").symlink_to("loop")
    (tmp_path / "r/deep/up").symlink_to("..")
    (tmp_path / "r/dangling.py").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "r/pipe.py")
    os.mkfifo(tmp_path / "r/script")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path / "r")  # the name of a socket must be short
        try:
            listener.bind("socket.py")
        finally:
            os.chdir(here)
    found = folder(tmp_path, ALL)
    assert set(by_path(found)) == {"r:real.py", "r:deep/file.py"}
    assert reasons(found) == {
        "r:link.py": "symbolic link, not followed",
        "r:loop": "symbolic link, not followed",
        "r:deep/up": "symbolic link, not followed",
        "r:dangling.py": "symbolic link, not followed",
        "r:pipe.py": "not a regular file",
        "r:socket.py": "not a regular file",
    }


def test_scripts_without_extension_need_the_executable_bit_and_a_known_interpreter(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "r/tool": "#!/usr/bin/env python3\n",
            "r/server": "#!/usr/bin/env node\n",
            "r/shell": "#!/bin/sh\n",
            "r/not-executable": "#!/usr/bin/env python3\n",
            "r/binary": b"\x7fELF\x00",
            "r/README": "hello",
        },
    )
    for name in ("tool", "server", "shell", "binary"):
        (tmp_path / "r" / name).chmod(0o755)
    found = folder(tmp_path, ALL)
    assert {c.path: c.language for c in found.candidates} == {"tool": "python", "server": "javascript"}
    assert found.other == {"no extension": 4}


def test_languages_that_were_not_asked_for_are_counted(tmp_path: Path) -> None:
    write_tree(tmp_path, {"r/a.py": "x", "r/b.java": "x", "r/c.rb": "x", "r/d.rb": "x"})
    found = folder(tmp_path, ("python",))
    assert [c.path for c in found.candidates] == ["a.py"]
    assert found.unasked == {"java": 1}
    assert found.other == {".rb": 2}


def test_a_deep_tree_needs_no_recursion(tmp_path: Path) -> None:
    at = tmp_path
    for _ in range(1010):
        at = at / "d"
        os.mkdir(at)  # noqa: PTH102
    (at / "a.py").write_text("x")
    try:
        assert [c.path.count("/") for c in folder(tmp_path, ALL).candidates] == [1009]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # too deep for shutil.rmtree


def test_unreadable_folders_and_files_are_counted_with_the_reason(tmp_path: Path) -> None:
    write_tree(tmp_path, {"r/a.py": "x", "r/secret/b.py": "x", "r/locked.py": "x"})
    locked, file = tmp_path / "r/secret", tmp_path / "r/locked.py"
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o755)
    locked.chmod(0)
    file.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)  # root reads everything; nobody does not
        found = folder(tmp_path, ALL)
    finally:
        if root:
            os.seteuid(0)
        locked.chmod(0o755)
    assert set(by_path(found)) == {"r:a.py"}
    assert reasons(found) == {
        f"{tmp_path.name}:r/secret": "unreadable: Permission denied",
        "r:locked.py": "unreadable: Permission denied",
    }


def test_names_with_spaces_newlines_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    names = [b"two words.py", b"new\nline.py", b"back\\slash.py", b"caf\xe9.py", "ünïcode.py".encode(), b"tab\t.py"]
    (tmp_path / "r").mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path / "r") + b"/" + name)).write_bytes(b"x")
    found = folder(tmp_path, ALL)
    assert {c.path for c in found.candidates} == {
        "two words.py",
        "new\\nline.py",
        "back\\\\slash.py",
        "caf\\udce9.py",
        "ünïcode.py",
        "tab\\u0009.py",
    }
    for c in found.candidates:
        c.path.encode("utf-8")
        assert os.fsencode(original_name(c.path)) in names
        assert Path(c.member).read_bytes() == b"x"


@settings(deadline=None)
@given(st.binary(max_size=30).filter(lambda b: b"\0" not in b))
def test_printable_names_are_reversible_and_on_one_line(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = printable(name)
    assert original_name(text) == name
    assert len(text.splitlines()) <= 1
    text.encode("utf-8")


def test_any_text_can_be_printed() -> None:
    for name in ("\ud800", "a\udfffb", "\x9b", "\x00"):
        printable(name).encode("utf-8")
        assert original_name(printable(name)) == name


def test_mistakes(tmp_path: Path) -> None:
    write_tree(tmp_path, {"file.py": "x"})
    (tmp_path / "loop").symlink_to("loop")
    for path, message in (("missing", "no such folder"), ("file.py", "is a file"), ("loop", "no such folder")):
        with pytest.raises(UserError, match=message) as raised:
            folder(tmp_path / path, ALL)
        assert str(tmp_path / path) in str(raised.value)
