"""Pinned packages: fetched from the user's own index, checked, cached; and Debian's licences file by file."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from data_support import decisions, documents, run_collect

from kringle.data.debian_copyright import license_of, parse_copyright, spdx
from kringle.data.sources.archives import MAX_DEPTH
from kringle.data.sources.cache import load_list
from kringle.data.sources.debian import debian
from kringle.data.sources.packages import packages, pip_indexes
from kringle.errors import UserError
from kringle.settings import CorpusSettings, source_of

PKG_INFO = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nLicense: MIT\n\nWords.\n"
CODE = "def area(width, height):\n    return width * height\n"


def tarball(files: Mapping[str, str | bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


SDIST = tarball({"demo-1.0/PKG-INFO": PKG_INFO, "demo-1.0/demo/__init__.py": CODE, "demo-1.0/setup.py": "x = 1\n"})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Index(http.server.BaseHTTPRequestHandler):
    """An index of one project, in JSON or HTML, that asks for a password."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.headers.get("Authorization") != "Basic bWU6c2VjcmV0":  # me:secret
            self._answer(401, b"", "text/plain")
        elif self.path == "/simple/demo/" and self.server.json:  # type: ignore[attr-defined]
            page = {"files": [{"filename": "demo-1.0.tar.gz", "url": "../../files/demo-1.0.tar.gz", "hashes": {}}]}
            self._answer(200, json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
        elif self.path == "/simple/demo/":
            self._answer(200, b'<a href="../../files/demo-1.0.tar.gz#sha256=0">demo-1.0.tar.gz</a>', "text/html")
        elif self.path == "/files/demo-1.0.tar.gz":
            self._answer(200, SDIST, "application/octet-stream")
        else:
            self._answer(404, b"", "text/plain")

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    server.asked, server.json = [], True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def write_list(place: Path, digest: str, kind: str = "pypi", name: str = "demo") -> Path:
    place.write_text(f"{kind}:\n  - {{name: {name}, version: '1.0', sha256: '{digest}'}}\n")
    return place


@pytest.mark.parametrize("as_json", [True, False])
def test_a_source_distribution_comes_once_and_then_from_the_cache(index: Any, tmp_path: Path, as_json: bool) -> None:
    index.json = as_json
    pinned = write_list(tmp_path / "list.yaml", sha256(SDIST))
    run_collect(CorpusSettings(sources=(source_of("packages", str(pinned)),)), tmp_path)
    found = {d["path"]: d for d in documents(tmp_path)}
    assert set(found) == {"demo/__init__.py", "setup.py"}
    demo = found["demo/__init__.py"]
    assert (demo["repo"], demo["revision"], demo["licenses"], demo["source"]) == (
        "pypi/demo",
        "1.0",
        ["MIT"],
        "packages/pypi",
    )
    asked = len(index.asked)
    packages(str(pinned))
    assert len(index.asked) == asked  # all from the cache


def test_what_is_told_of_a_download_is_the_same_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path / "cache"))
    deep = tarball({"a.py": CODE})
    for depth in range(MAX_DEPTH):
        deep = tarball({f"{depth}.tar.gz": deep})
    files = {"PKG-INFO": PKG_INFO, "demo/__init__.py": CODE, "odd.zip": "PK...", "deep.tar.gz": deep}
    broken = tarball({f"demo-1.0/{name}": data for name, data in files.items()})
    place = tmp_path / "cache" / "pypi" / "demo-1.0.tar.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(broken)
    pinned = write_list(tmp_path / "list.yaml", sha256(broken))
    notes = run_collect(CorpusSettings(sources=(source_of("packages", str(pinned)),)), tmp_path)["notes"]
    assert any(note.startswith("pypi/demo-1.0.tar.gz/demo-1.0/odd.zip: cut short or damaged") for note in notes)
    assert any(note.startswith("pypi/demo-1.0.tar.gz/demo-1.0/deep.tar.gz/") and "deep" in note for note in notes)
    told = [text for d in decisions(tmp_path / "out") for text in (d.repo, d.path, d.witness or "")]
    assert not any(str(tmp_path) in text for text in told)


def test_another_checksum_is_never_used(index: Any, tmp_path: Path) -> None:
    pinned = write_list(tmp_path / "list.yaml", "0" * 64)
    with pytest.raises(UserError, match=r"demo 1\.0: demo-1\.0\.tar\.gz has the SHA-256 .*, not 000000000000"):
        packages(str(pinned))
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_what_cannot_be_had_is_one_line(index: Any, tmp_path: Path) -> None:
    pinned = write_list(tmp_path / "list.yaml", "0" * 64, name="other")
    with pytest.raises(UserError, match=r"other 1\.0: other-1\.0\.tar\.gz cannot be had from pip's index"):
        packages(str(pinned))


def test_pips_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    config.write_text(
        f"[global]\nindex-url = http://127.0.0.1:1/a\nextra-index-url = http://127.0.0.1:1/b\nfind-links = {tmp_path}\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    indexes, links = pip_indexes()
    assert indexes[:2] == ["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"]
    assert tmp_path in links
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_indexes()[0] == []


@pytest.mark.skipif(shutil.which("npm") is None, reason="NOT CHECKED: npm is not installed")
def test_an_npm_package_that_does_not_exist_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    pinned = write_list(tmp_path / "list.yaml", "0" * 64, kind="npm")
    with pytest.raises(UserError, match=r"demo 1\.0: demo-1\.0\.tgz cannot be had from npm's registry"):
        packages(str(pinned))


class _Registry(_Index):
    """npm's registry with one package."""

    def do_GET(self) -> None:
        found = self.path == "/npm/@scope/demo/-/demo-1.0.tgz"
        self._answer(200 if found else 404, NPM if found else b"", "application/octet-stream")


NPM = tarball({"package/package.json": json.dumps({"license": "ISC"}), "package/lib/a.js": "let a = 1;\n"})


def test_without_npm_its_registry_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm/")
    pinned = write_list(tmp_path / "list.yaml", sha256(NPM), kind="npm", name="'@scope/demo'")
    (container,) = packages(str(pinned)).containers
    assert Path(container.place).read_bytes() == NPM
    write_list(pinned, "0" * 64, kind="npm", name="'@scope/other'")
    with pytest.raises(UserError, match=r"@scope/other 1\.0: scope-other-1\.0\.tgz cannot be had from npm's registry"):
        packages(str(pinned))
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cached_npm_tarball_needs_no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    (tmp_path / "cache/npm").mkdir(parents=True)
    (tmp_path / "cache/npm/scope-demo-1.0.tgz").write_bytes(NPM)
    pinned = tmp_path / "list.yaml"
    pinned.write_text(f"npm:\n  - {{name: '@scope/demo', version: '1.0', sha256: {sha256(NPM)}}}\n")
    run_collect(CorpusSettings(sources=(source_of("packages", str(pinned)),)), tmp_path)
    (found,) = documents(tmp_path)
    assert (found["repo"], found["path"], found["licenses"]) == ("npm/@scope/demo", "lib/a.js", ["ISC"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pypi: [{name: x}]", "expected name, version and sha256"),
        ("[]", "is no list of packages"),
        ("gems: []", "is no list of packages"),
        ("pypi: []", "names no package under"),
        ("pypi: [{name: x, version: 1, sha256: abc}]", "not a file's name with its SHA-256"),
        ("pypi: [{name: x, version: 1, file: ../x, sha256: %s}]" % ("0" * 64), "not a file's name"),
        ("pypi: {", "not valid YAML"),
        ("pypi: [{name: x, version: 2024-13-01}]", "line 1: not valid YAML: '2024-13-01' is no timestamp"),
        ("pypi: 5", r"list\.yaml: pypi: expected a list of packages, got 5"),
        (f"pypi: [{{name: x, version: 1, sha256: {{a: {'a' * 64}, b: {'b' * 64}}}}}]", "SHA-256 of the one file of x"),
    ],
)
def test_mistakes_in_a_list(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_list(str(tmp_path / "list.yaml"), ("pypi", "npm"))


def test_the_shipped_list_is_well_formed_and_short() -> None:
    assert 10 < len(load_list("permissive", ("pypi", "npm", "debian"))) < 100
    with pytest.raises(UserError, match="no such list of packages; give a file, or one of permissive"):
        load_list("nothing", ("pypi",))


# -- Debian ------------------------------------------------------------------------------------------------------------

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: demo

Files: *
Copyright: 2020 A
License: Apache-2.0

Files: src/gpl/* src/one?.java
Copyright: 2020 B
License: GPL-2+

Files: src/gpl/free.java
 src/star\\*.java
License: Expat

License: Apache-2.0
 On Debian systems ...
"""


def test_the_last_pattern_that_matches_decides() -> None:
    paragraphs = parse_copyright(COPYRIGHT)
    assert paragraphs is not None
    expected = {
        "a.java": "Apache-2.0",
        "deep/er/a.java": "Apache-2.0",
        "src/gpl/deep/b.java": "GPL-2.0-or-later",
        "src/one1.java": "GPL-2.0-or-later",
        "src/one12.java": "Apache-2.0",
        "src/gpl/free.java": "MIT",
        "src/star*.java": "MIT",
        "src/starry.java": "Apache-2.0",
    }
    assert {path: license_of(path, paragraphs)[0] for path in expected} == expected


@pytest.mark.parametrize("text", ["", "This package was debianized by ...\n", "Name: x\n\nFiles: *\nLicense: Expat\n"])
def test_a_copyright_file_in_prose_says_nothing(text: str) -> None:
    assert parse_copyright(text) is None


@pytest.mark.parametrize(
    ("synopsis", "expected"),
    [
        ("Expat", ("MIT",)),
        ("GPL-2+", ("GPL-2.0-or-later",)),
        ("LGPL-2.1", ("LGPL-2.1-only",)),
        ("GPL-3", ("GPL-3.0-only",)),
        ("GPL", ("LicenseRef-GPL",)),
        ("BSD-3-clause", ("BSD-3-Clause",)),
        ("public-domain", ("LicenseRef-Public-Domain",)),
        ("GPL-2+ or Artistic", ("GPL-2.0-or-later OR Artistic-1.0",)),
        ("Expat and Apache-2.0", ("MIT AND Apache-2.0",)),
        ("Expat and ISC or GPL-2", ("(MIT AND ISC) OR GPL-2.0-only",)),
        ("GPL-2 or Expat, and ISC", ("(GPL-2.0-only OR MIT) AND ISC",)),
        ("Apache-2.0 with LLVM exception", ("Apache-2.0 WITH LLVM-exception",)),
        ("some-licence-of-ours", ("LicenseRef-Debian-some-licence-of-ours",)),
        ("", ()),
    ],
)
def test_synopses_as_spdx(synopsis: str, expected: tuple[str, ...]) -> None:
    found = spdx(synopsis)
    assert tuple(e.replace("(", "").replace(")", "") for e in found) == tuple(
        e.replace("(", "").replace(")", "") for e in expected
    )
    from kringle.data.licenses import Allowed

    assert Allowed().permits(found) == Allowed().permits(expected)


def source_package(folder: Path) -> Path:
    """A source package of format 3.0 (quilt) as files, with a description that states their checksums."""
    folder.mkdir(parents=True)
    java = {f"demo-1.0/src/{name}.java": f"class {name.title()} {{ }}\n" for name in ("a", "gpl/b", "gpl/free")}
    orig = tarball({**java, "demo-1.0/LICENSE": "whatever it says"}, "w:xz")
    packaging = tarball({"debian/copyright": COPYRIGHT, "debian/rules.py": CODE}, "w:xz")
    files = {"demo_1.0.orig.tar.xz": orig, "demo_1.0-1.debian.tar.xz": packaging}
    lines = [f" {sha256(data)} {len(data)} {name}" for name, data in files.items()]
    for name, data in files.items():
        (folder / name).write_bytes(data)
    dsc = "\n".join(["Format: 3.0 (quilt)", "Source: demo", "Version: 1.0-1", "Checksums-Sha256:", *lines, "Files:"])
    (folder / "demo_1.0-1.dsc").write_text(dsc + "\n")
    return folder


def test_java_from_debian_carries_the_licence_of_each_file(tmp_path: Path) -> None:
    folder = source_package(tmp_path / "deb")
    run_collect(CorpusSettings(sources=(source_of("debian", str(folder)),)), tmp_path)
    assert {d["path"]: d["licenses"] for d in documents(tmp_path)} == {
        "src/a.java": ["Apache-2.0"],
        "src/gpl/free.java": ["MIT"],
    }


def test_a_changed_archive_and_a_missing_one_are_one_line(tmp_path: Path) -> None:
    folder = source_package(tmp_path / "deb")
    (folder / "demo_1.0.orig.tar.xz").write_bytes(b"other")
    with pytest.raises(UserError, match="has another SHA-256 than it states"):
        debian(str(folder))
    (folder / "demo_1.0.orig.tar.xz").unlink()
    with pytest.raises(UserError, match="which is not beside it"):
        debian(str(folder))


def test_a_description_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    dsc = source_package(tmp_path / "deb") / "demo_1.0-1.dsc"
    whole = dsc.read_text()
    dsc.write_text(whole.replace("Files:", " 0000 demo_1.0.orig.tar.xz\nFiles:"))
    with pytest.raises(
        UserError, match=r"demo_1\.0-1\.dsc: has a checksum line without SHA-256, size and name: '0000 "
    ):
        debian(str(dsc.parent))
    dsc.write_text("".join(line for line in whole.splitlines(keepends=True) if "orig" not in line))
    with pytest.raises(UserError, match=r"debian/demo 1\.0-1: no file is an archive with upstream sources"):
        debian(str(dsc.parent))


@pytest.mark.skipif(shutil.which("dpkg-source") is None, reason="NOT CHECKED: dpkg-source is not installed")
def test_archives_are_the_ones_that_dpkg_unpacks(tmp_path: Path) -> None:
    folder = source_package(tmp_path / "deb")
    done = subprocess.run(
        ["dpkg-source", "--no-check", "-x", "demo_1.0-1.dsc", str(tmp_path / "out")],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"NOT CHECKED: {done.stderr.decode().splitlines()[-1]}")
    unpacked = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/src").rglob("*.java")}
    run_collect(CorpusSettings(sources=(source_of("debian", str(folder)),), licenses="any"), tmp_path)
    assert {d["path"] for d in documents(tmp_path)} == unpacked
