from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from data_support import write_tree

from kringle.data.licenses import is_permissive
from kringle.data.sources import jdk, node
from kringle.data.sources.candidates import Found
from kringle.data.sources.installed import Machine, installed, this_machine
from kringle.data.sources.jdk import JDK_LICENSE, find_jdks, jdk_sources
from kringle.data.sources.node import find_node_modules, node_sources
from kringle.data.sources.python import NO_OWNER, Python, python_sources

ALL = ("python", "java", "javascript")


def by_path(found: Found) -> dict[str, tuple[str, tuple[str, ...], str]]:
    return {f"{c.repo}:{c.path}": (c.source, c.licenses, c.revision) for c in found.candidates}


def distribution(name: str, version: str, files: list[str], metadata: str = "", **extra: str) -> dict[str, str]:
    info = f"{name}-{version}.dist-info"
    record = "".join(f"{f},sha256=x,1\n" for f in files) + f"{info}/METADATA,,\n{info}/RECORD,,\n"
    tree = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}\n\nLicense: GPL\n"
    }
    tree[f"{info}/RECORD"] = record
    tree |= {f"{info}/{path}": text for path, text in extra.items()}
    return tree | {f: "x = 1\n" for f in files if not f.startswith(("..", '"'))}


@pytest.fixture
def python(tmp_path: Path) -> Python:
    site = tmp_path / "lib" / "site-packages"
    tree: dict[str, str] = {}
    tree |= distribution("expr", "1.0", ["expr/__init__.py", "expr/app.js"], "License-Expression: MIT OR GPL-3.0-only")
    tree |= distribution("classy", "2.0", ["classy.py"], "Classifier: License :: OSI Approved :: MIT License")
    tree |= distribution("fieldy", "3", ["fieldy/a.py", "../../bin/fieldy"], "License: Apache License, Version 2.0")
    tree |= distribution("texty", "4", ["texty.py"], "License-File: LICENSE", LICENSE="Licensed under the MIT license.")
    bsd = "Classifier: License :: OSI Approved :: BSD License"
    head = "Redistributions of source code must retain the above. Redistributions in binary form must reproduce it."
    tree |= distribution("bsd", "5", ["bsd.py"], bsd, **{"licenses/LICENSE": head})
    tree |= distribution("vague", "5", ["vague.py"], bsd)
    tree |= distribution("silent", "6", ["silent.py"])
    tree |= distribution("Kringle", "0.1", ["kringle/suite.py"], "License-Expression: Apache-2.0")
    editable = json.dumps({"url": "file:///home/me/app", "dir_info": {"editable": True}})
    tree |= distribution("app", "0.1", ["__editable___app_finder.py"], "License: MIT", **{"direct_url.json": editable})
    tree |= distribution("listless", "7", [], "License: MIT", **{"top_level.txt": "listless\n"})
    del tree["listless-7.dist-info/RECORD"]
    tree |= distribution("quoted", "8", ['"quoted/a,b.py"'], "License: ISC")
    tree |= {"listless/x.py": "x", "quoted/a,b.py": "x", "orphan/y.py": "y", "orphan/data.txt": "z"}
    tree |= {"old-1.egg-info/PKG-INFO": "Name: old\nVersion: 1\nLicense: ZPL 2.1\n", "old/o.py": "x"}
    tree |= {"old-1.egg-info/installed-files.txt": "../old/o.py\nPKG-INFO\n"}
    write_tree(site, tree)
    write_tree(tmp_path / "lib", {"os.py": "x", "json/tool.py": "x", "__pycache__/os.py": "x"})
    return Python("cpython", "3.11.7", (tmp_path / "lib",), (site,))


def test_pythons_packages_with_their_licences(python: Python) -> None:
    found = python_sources(python, ALL)
    library, packages = "installed/standard-library", "installed/site-packages"
    assert by_path(found) == {
        "cpython-3.11:os.py": (library, ("Python-2.0",), "3.11.7"),
        "cpython-3.11:json/tool.py": (library, ("Python-2.0",), "3.11.7"),
        "expr:expr/__init__.py": (packages, ("MIT OR GPL-3.0-only",), "1.0"),
        "expr:expr/app.js": (packages, ("MIT OR GPL-3.0-only",), "1.0"),
        "classy:classy.py": (packages, ("MIT",), "2.0"),
        "fieldy:fieldy/a.py": (packages, ("Apache-2.0",), "3"),
        "texty:texty.py": (packages, ("MIT",), "4"),
        "bsd:bsd.py": (packages, ("BSD-2-Clause",), "5"),
        "vague:vague.py": (packages, ("LicenseRef-BSD",), "5"),
        "silent:silent.py": (packages, (), "6"),
        "listless:listless/x.py": (packages, ("MIT",), "7"),
        "quoted:quoted/a,b.py": (packages, ("ISC",), "8"),
        "old:old/o.py": (packages, ("ZPL-2.1",), "1"),
    }


def test_files_without_a_distribution_are_counted_and_explained(python: Python) -> None:
    found = python_sources(python, ALL)
    assert [(s.repo, s.path, s.reason) for s in found.skipped] == [("site-packages", "orphan/y.py", NO_OWNER)]
    assert any("1 files belong to no installed distribution" in note and "orphan" in note for note in found.notes)


def test_nodes_packages_with_their_licences(tmp_path: Path) -> None:
    modules = write_tree(
        tmp_path / "node_modules",
        {
            "left/package.json": json.dumps({"name": "left", "version": "1.2.3", "license": "MIT"}),
            "left/index.js": "x",
            "left/lib/inner/package.json": '{"type": "module"}',
            "left/lib/inner/b.mjs": "x",
            "left/node_modules/right/package.json": json.dumps({"name": "right", "version": "2", "license": "GPL-2.0"}),
            "left/node_modules/right/c.js": "x",
            "@scope/deep/package.json": json.dumps({"name": "@scope/deep", "licenses": [{"type": "ISC"}]}),
            "@scope/deep/d.cjs": "x",
            "@scope/deep/tool/e.py": "x",
            "texty/LICENSE.md": "Licensed under the MIT license.",
            "texty/f.js": "x",
            "hostile/package.json": '{"name": "h\\ud800", "version": "1\\n2", "license": "\\ud800"}',
            "hostile/i.js": "x",
            "broken/package.json": "{",
            "broken/g.js": "x",
            ".cache/h.js": "x",
        },
    )
    (modules / "linked").symlink_to(tmp_path)
    found = node_sources([modules], ALL)
    assert {k: v[1:] for k, v in by_path(found).items()} == {
        "left:index.js": (("MIT",), "1.2.3"),
        "left:lib/inner/b.mjs": (("MIT",), "1.2.3"),
        "right:c.js": (("GPL-2.0-only",), "2"),
        "@scope/deep:d.cjs": (("ISC",), ""),
        "@scope/deep:tool/e.py": (("ISC",), ""),
        "texty:f.js": (("MIT",), ""),
        "broken:g.js": ((), ""),
        "h\\ud800:i.js": ((), "1\\n2"),
    }
    assert [(s.path, s.reason) for s in found.skipped] == [("linked", "symbolic link, not followed")]


def make_jdk(home: Path, *, text: str | None = None, version: str = "21.0.1") -> Path:
    write_tree(home, {"release": f'JAVA_VERSION="{version}"\nOS_NAME="Linux"\n'})
    (home / "lib").mkdir(exist_ok=True)
    with zipfile.ZipFile(home / "lib/src.zip", "w") as archive:
        archive.writestr("java.base/java/util/List.java", "interface List {}\n")
        archive.writestr("java.base/java/util/notes.txt", "hello")
    if text is not None:
        write_tree(home, {"legal/java.base/LICENSE": text})
    return home


def test_a_jdk_counts_once_and_is_not_permissive(tmp_path: Path) -> None:
    home = make_jdk(
        tmp_path / "jdk-21", text="The GNU General Public License (GPL)\nVersion 2, June 1991\nCLASSPATH EXCEPTION"
    )
    (tmp_path / "default").symlink_to(home)
    other = tmp_path / "same"
    (other / "lib").mkdir(parents=True)
    (other / "lib/src.zip").symlink_to(home / "lib/src.zip")
    found = jdk_sources([home, (tmp_path / "default").resolve(), other], ALL)
    assert by_path(found) == {"jdk-21.0.1:java.base/java/util/List.java": ("installed/jdk", (JDK_LICENSE,), "21.0.1")}
    assert not is_permissive([JDK_LICENSE])
    assert jdk_sources([make_jdk(tmp_path / "plain")], ALL).candidates[0].licenses == (JDK_LICENSE,)
    odd = jdk_sources([make_jdk(tmp_path / "odd", text="Oracle No-Fee Terms")], ALL).candidates[0]
    assert odd.licenses == ("LicenseRef-Unrecognised",)


def test_a_dangling_or_broken_source_archive_is_explained(tmp_path: Path) -> None:
    dangling = tmp_path / "java-17-openjdk"
    (dangling / "lib").mkdir(parents=True)
    (dangling / "lib/src.zip").symlink_to("../../openjdk-17/lib/src.zip")
    broken = tmp_path / "broken"
    write_tree(broken, {"lib/src.zip": "PK not really"})
    (tmp_path / "jre").mkdir()
    found = jdk_sources([dangling, broken, tmp_path / "jre"], ALL)
    assert not found.candidates
    assert any("java-17-openjdk" in note and "link to nowhere" in note for note in found.notes)
    assert [(s.repo, s.path) for s in found.skipped] == [("jdk-broken", "src.zip")]
    assert found.skipped[0].reason.startswith("unreadable")


def test_places_are_found_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = write_tree(
        tmp_path / "node-20",
        {
            "bin/node": "#!/bin/sh",
            "lib/node_modules/npm/bin/npm-cli.js": "x",
            "lib/node_modules/npm/package.json": "{}",
        },
    )
    (prefix / "bin/node").chmod(0o755)
    (prefix / "lib/node_modules/npm/bin/npm-cli.js").chmod(0o755)
    (prefix / "bin/npm").symlink_to("../lib/node_modules/npm/bin/npm-cli.js")
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "node").symlink_to(prefix / "bin/node")
    (shims / "npm").symlink_to(prefix / "bin/npm")
    home = make_jdk(tmp_path / "jvm/jdk")
    write_tree(home, {"bin/java": "#!/bin/sh"})
    (home / "bin/java").chmod(0o755)
    (shims / "java").symlink_to(home / "bin/java")
    extra = tmp_path / "extra"
    extra.mkdir()
    monkeypatch.setattr(node, "_PLACES", ())
    monkeypatch.setattr(jdk, "_PARENTS", (str(tmp_path / "jvm"), str(tmp_path / "none")))
    monkeypatch.setenv("PATH", str(shims))
    monkeypatch.setenv("NODE_PATH", str(extra))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert find_node_modules() == (extra, prefix / "lib/node_modules")
    assert find_jdks() == (home,)
    second = make_jdk(tmp_path / "elsewhere")
    monkeypatch.setenv("JAVA_HOME", str(second))
    assert find_jdks() == (second, home)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "missing"))
    assert find_jdks() == (home,)


def test_a_machine_without_node_and_java(python: Python) -> None:
    found = installed(ALL, Machine(python, (), ()))
    assert {c.language for c in found.candidates} == {"python", "javascript"}
    assert any("no JDK was found" in note for note in found.notes)
    assert not any("JDK" in note for note in installed(("python",), Machine(python, (), ())).notes)


def test_this_machine() -> None:
    machine = this_machine()
    found = installed(("python",), machine)
    repos = {c.repo for c in found.candidates}
    assert any(repo.startswith(("cpython-", "pypy-")) for repo in repos)
    assert {"pytest", "numpy"} <= repos
    assert "kringle" not in repos
    assert not any("kringle" in c.path and "starter" in c.path for c in found.candidates)
    assert all(Path(c.member).is_absolute() for c in found.candidates if c.reader == "file")
    pytest_files = [c for c in found.candidates if c.repo == "pytest"]
    assert {c.licenses for c in pytest_files} == {("MIT",)}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_this_machines_node_packages() -> None:
    modules = find_node_modules()
    if not modules:
        pytest.skip("Node has no global packages here")
    found = node_sources(modules, ("javascript",))
    assert {c.language for c in found.candidates} <= {"javascript"}
