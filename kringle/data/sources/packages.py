"""Source `packages`: source distributions from PyPI and tarballs from npm, pinned by version and SHA-256.

They come from wherever the user's pip and npm are configured to get them (index, extra indexes, links, credentials),
without npm from its registry; nothing of a package is ever run: a source distribution is downloaded as a file, `npm
pack` runs no scripts. Licences come from each package's own metadata and licence files.
"""

from __future__ import annotations

import base64
import html.parser
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kringle.data.sources.cache import Pinned, cache_folder, is_cached, load_list, sha256
from kringle.data.sources.candidates import Found, printable
from kringle.data.sources.containers import Container
from kringle.errors import UserError

Answer = urllib.response.addinfourl
SOURCE = "packages"
_AT_ONCE = 4  # downloads
_SECONDS = 60.0  # without an answer
_REGISTRY = "https://registry.npmjs.org/"
_SIMPLE = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def packages(text: str) -> Found:
    """The containers of a pinned list's Python and Node packages, downloaded where they are not in the cache yet."""
    pinned = load_list(text, ("pypi", "npm"))
    folders = {kind: cache_folder() / kind for kind in ("pypi", "npm")}
    missing = [package for package in pinned if not is_cached(folders[package.kind], package)]
    failures = _fetch_pypi([p for p in missing if p.kind == "pypi"], folders["pypi"])
    failures += _fetch_npm([p for p in missing if p.kind == "npm"], folders["npm"])
    if failures:
        more = f" (and {len(failures) - 1} more packages)" if len(failures) > 1 else ""
        raise UserError(
            f"{failures[0]}{more}", where=f"packages {printable(text)}", hint="what came is kept; run again"
        )
    found = Found()
    for package in pinned:
        ((name, digest),) = package.files
        path = folders[package.kind] / name
        found.containers.append(
            Container(
                f"{SOURCE}/{package.kind}", "archive", str(path), "", path.stat().st_size, digest,
                f"{package.kind}/{package.name}", "", package.version, (), 1, told=f"{package.kind}/{name}",
            )
        )  # fmt: skip
    return found


def keep(data: Path, package: Pinned, name: str, folder: Path) -> str | None:
    """Move a downloaded file into the cache if its checksum is the pinned one; else say what is wrong."""
    expected = dict(package.files)[name]
    found = sha256(data)
    if found != expected:
        return f"{package.title}: {name} has the SHA-256 {found[:12]}..., not {expected[:12]}..., and is not used"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.{os.getpid()}"
    shutil.move(data, partial)
    partial.replace(folder / name)
    return None


# -- PyPI --------------------------------------------------------------------------------------------------------------


def _fetch_pypi(missing: Sequence[Pinned], folder: Path) -> list[str]:
    if not missing:
        return []
    indexes, links = pip_indexes()
    with tempfile.TemporaryDirectory(prefix="kringle-pypi-") as scratch, ThreadPoolExecutor(_AT_ONCE) as threads:

        def fetch(package: Pinned) -> str | None:
            ((name, digest),) = package.files
            data = Path(scratch) / name
            for place in links:
                if (place / name).is_file() and sha256(place / name) == digest:
                    shutil.copyfile(place / name, data)
                    return keep(data, package, name, folder)
            reasons = []
            for index in indexes:
                try:
                    url = next((u for u in _project_files(index, package.name) if _file_name(u) == name), None)
                    if url is None:
                        reasons.append("no such file on the index")
                        continue
                    with _open(url) as answer, data.open("wb") as out:
                        shutil.copyfileobj(answer, out)
                    return keep(data, package, name, folder)
                except (OSError, ValueError) as error:
                    reasons.append(str(getattr(error, "reason", None) or error))
            return f"{package.title}: {name} cannot be had from pip's index ({'; '.join(dict.fromkeys(reasons))})"

        return [failure for failure in threads.map(fetch, missing) if failure is not None]


def pip_indexes() -> tuple[list[str], list[Path]]:
    """The index URLs and local folders of files that the user's pip is configured with, its own default included."""
    settings = _pip_settings()
    index = os.environ.get("PIP_INDEX_URL") or settings.get("index-url") or _pip_default()
    extra = f"{os.environ.get('PIP_EXTRA_INDEX_URL', '')} {settings.get('extra-index-url', '')}".split()
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {settings.get('find-links', '')}".split()
    no_index = (os.environ.get("PIP_NO_INDEX") or settings.get("no-index") or "").lower() in ("1", "true", "yes", "on")
    folders = [Path(urllib.parse.urlparse(link).path if link.startswith("file:") else link) for link in links]
    indexes = [] if no_index else [url for url in dict.fromkeys([index, *extra]) if url]
    return indexes, [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _pip(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _pip_settings() -> dict[str, str]:
    """What pip's configuration files say, by the bare name of the option."""
    settings = {}
    for line in _pip("-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"").replace("\\n", " ")
    return settings


def _pip_default() -> str:
    """The index that pip itself has built in; empty where there is no pip."""
    return _pip("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)").strip()


def _open(url: str, accept: str = "*/*") -> Answer:
    """Open a URL; user and password in it are sent as such."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": accept, "User-Agent": "kringle"}
    if parts.username is not None and parts.scheme != "file":
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
        host = parts.hostname or ""
        url = parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()
    request = urllib.request.Request(url, headers=headers)
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    opened: Answer = urllib.request.urlopen(request, timeout=_SECONDS, context=context)
    return opened


def _project_files(index: str, name: str) -> Iterator[str]:
    """URLs of a project's files by the index' simple API, in JSON (PEP 691) or HTML (PEP 503)."""
    project = re.sub(r"[-_.]+", "-", name).lower()
    url = f"{index.rstrip('/')}/{project}/"
    if url.startswith("file:"):
        folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
        pages = [folder / "index.html"] if (folder / "index.html").exists() else []
        yield from (_absolute(url, link) for page in pages for link in _links(page.read_text(encoding="utf-8")))
        return
    with _open(url, _SIMPLE) as answer:
        text = answer.read().decode("utf-8")
        if "json" in (answer.headers.get("Content-Type") or ""):
            yield from (_absolute(url, file["url"]) for file in json.loads(text)["files"])
        else:
            yield from (_absolute(url, link) for link in _links(text))


def _absolute(page: str, link: str) -> str:
    """A link of a page with the page's credentials where it leads to the same host."""
    joined = urllib.parse.urlsplit(urllib.parse.urljoin(page, link))
    base = urllib.parse.urlsplit(page)
    if joined.username is None and base.username is not None and joined.hostname == base.hostname:
        joined = joined._replace(netloc=base.netloc)
    return joined._replace(fragment="").geturl()


def _file_name(url: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])


def _links(text: str) -> list[str]:
    """Targets of all links of an HTML page."""
    found: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for key, value in attrs if tag == "a" and key == "href" and value)

    Parser().feed(text)
    return found


# -- npm ---------------------------------------------------------------------------------------------------------------


def _fetch_npm(missing: Sequence[Pinned], folder: Path) -> list[str]:
    if not missing:
        return []
    npm = shutil.which("npm")
    with tempfile.TemporaryDirectory(prefix="kringle-npm-") as scratch, ThreadPoolExecutor(_AT_ONCE) as threads:

        def fetch(package: Pinned) -> str | None:
            ((name, _),) = package.files
            data = Path(scratch) / name
            reason = _npm_pack(npm, package, data) if npm is not None else _npm_download(package, data)
            if reason:
                return f"{package.title}: {name} cannot be had from npm's registry ({reason})"
            return keep(data, package, name, folder)

        return [failure for failure in threads.map(fetch, missing) if failure is not None]


def _npm_pack(npm: str, package: Pinned, data: Path) -> str:
    """Download a package's file as the user's npm is configured to; returns why it cannot be had, or ""."""
    command = [npm, "pack", "--ignore-scripts", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=data.parent, capture_output=True, text=True, check=False)
    if done.returncode == 0 and data.is_file():
        return ""
    return next((line for line in done.stderr.splitlines() if line.strip()), "npm pack made no such file")


def _npm_download(package: Pinned, data: Path) -> str:
    """The same without npm: from the registry that npm has built in, or the one of npm's own environment variable."""
    own = (value for name, value in os.environ.items() if name.lower() == "npm_config_registry")  # npm takes any case
    registry = next(own, "") or _REGISTRY
    file = f"{package.name.rpartition('/')[2]}-{package.version}.tgz"
    try:
        with _open(f"{registry.rstrip('/')}/{package.name}/-/{file}") as answer, data.open("wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)
    return ""
