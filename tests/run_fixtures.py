"""What the tests of whole studies share: a corpus that is written by rule, a quick recipe, and the real command.

The corpus looks like other people's repositories (Python and JavaScript, a licence in each) and is the same on every
machine. One study of it is run once per test session, through the command line, and looked at by many tests.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 300  # seconds until a command counts as hung

# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "kringle", *map(str, arguments)]


def kringle(*arguments: str | Path, prefix: Sequence[str] = (), cwd: Path | None = None) -> Done:
    """Run the real command to its end, from a folder that holds nothing; `prefix` may wrap it (`unshare -n`)."""
    with tempfile.TemporaryDirectory(prefix="kringle-cwd-") as empty:
        done = subprocess.run(
            [*prefix, *command(*arguments)], capture_output=True, cwd=cwd or empty, timeout=PATIENCE, check=False
        )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """What `--json` put on the last line of standard output."""
        last: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return last

    def succeeded(self) -> Done:
        assert self.code == 0, self.err
        return self

    def refused(self, *, notes: bool = False) -> str:
        """The one line with which a user's mistake is answered; `notes` on the corpus may come before it."""
        assert self.code == 2, self.err
        lines = [line for line in self.err.splitlines() if not (notes and line.startswith("note: "))]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("kringle: "), self.err
        assert self.out == ""
        return lines[0].removeprefix("kringle: ")


# -- a corpus of other people's code -----------------------------------------------------------------------------------

MIT = """MIT License

Copyright (c) 2019 The authors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
GPL_NOTICE = """This program is free software; you can redistribute it and/or modify it under the terms of the GNU
General Public License as published by the Free Software Foundation; either version 2 of the License, or (at your
option) any later version.
"""
JDK_LICENSE = "GPL-2.0-only WITH Classpath-exception-2.0"  # what a JDK's sources are under

_VERBS, _NOUNS, _ADJECTIVES = (
    line.split()
    for line in (
        "load save merge split parse format check build fetch count rank apply clear store trim sort wrap scan",
        "order invoice parcel ticket reader writer buffer record window branch ledger sensor route season margin "
        "garden engine planet recipe signal vector matrix bucket column letter corner bridge candle meadow harbor",
        "pending open recent broken hidden local remote sorted empty single final stale nested partial",
    )
)


class _Author:
    """Writes modules that differ from one another as those of one hand do; the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def word(self) -> str:
        return self.random.choice(_NOUNS)

    def name(self) -> str:
        return f"{self.random.choice(_ADJECTIVES)}_{self.word()}_{self.random.randrange(100)}"

    def verb(self) -> str:
        return self.random.choice(_VERBS)

    def python(self, functions: int) -> str:
        lines = [f'"""{self.verb().title()} every {self.word()} of a {self.word()}."""', "", "import math", ""]
        lines += [f"{self.name().upper()} = {self.random.randrange(10_000)}", ""]
        for _ in range(functions):
            given, made, item, limit = self.name(), self.name(), self.name(), self.random.randrange(1000)
            lines += [
                "",
                f"def {self.verb()}_{self.name()}({given}, {item}=None, limit={limit}):",
                f'    """{self.verb().title()} the {self.word()} until the {self.word()} is {self.verb()}ed."""',
                f"    {made} = [{self.random.randrange(50)}, {self.random.randrange(50)}]",
                f"    for {item} in {given}:",
                f"        # the {self.word()} comes before the {self.word()}",
                f"        if {item}.{self.word()} > limit or not {item}.{self.verb()}_{self.word()}():",
                f"            {made}.append({item}.{self.word()} * {self.random.randrange(90)})",
                f"        {self.verb()}_{self.word()}({made}, math.{self.random.choice(['sqrt', 'floor', 'sin'])})",
                f"    return {made}",
                "",
            ]
        return "\n".join(lines)

    def javascript(self, functions: int, *, comments: bool = True) -> str:
        lines = ["'use strict';", ""]
        for _ in range(functions):
            given, made, item = self.name(), self.name(), self.name()
            if comments:
                lines.append(f"/** {self.verb().title()} the {self.word()} of the {self.word()}. */")
            lines += [
                f"function {self.verb()}_{self.name()}({given}, options) {{",
                f"  const {made} = new Map([[{self.random.randrange(99)}, '{self.word()}']]);",
                f"  for (const {item} of {given}) {{",
                f"    if ({item}.{self.word()} !== options.{self.verb()}_{self.word()}) {{",
                f"      {made}.set({item}.{self.word()}, {self.random.randrange(5000)});",
                "    }",
                "  }",
                f"  return {self.verb()}_{self.word()}({made});",
                "}",
                "",
            ]
        return "\n".join([*lines, f"module.exports = {{ {self.name()}: {self.random.randrange(77)} }};", ""])


REPOSITORIES = 12  # with a permissive licence; a tenth of the bytes is one or two of them
VENDORED = "zz-vendored"  # holds copies of files of all others, as `_vendor` folders do; too large to be held out
JDK_LIKE, GPL, UNLICENSED = "openjdk-like", "gpl-tool", "no-licence"


def write_corpus(root: Path, *, files: int = 5, functions: int = 7) -> Path:
    """Some 400 kB in 16 repositories. Each has `util/exact.py` and `util/near.py`; `zz-vendored` has copies of both,
    the latter edited in a few places."""
    for number in range(REPOSITORIES):
        author, repo = _Author(f"repo {number}"), root / f"repo-{number:02d}"
        _write(repo / "LICENSE", MIT)
        for i in range(files):
            _write(repo / f"lib/{author.word()}_{i}.py", author.python(functions))
            _write(repo / f"web/{author.word()}_{i}.js", author.javascript(functions, comments=i % 2 == 0))
        exact, near = author.python(5), author.python(5)
        _write(repo / "util/exact.py", exact)
        _write(repo / "util/near.py", near)
        _write(root / VENDORED / f"{repo.name}/exact.py", exact)
        _write(root / VENDORED / f"{repo.name}/near.py", near.replace("import math", "import math as maths", 1))
    author = _Author("vendored")
    _write(root / VENDORED / "LICENSE", MIT)
    for i in range(files * 4):
        _write(root / VENDORED / f"own/{author.word()}_{i}.py", author.python(functions))
        _write(root / VENDORED / f"own/{author.word()}_{i}.js", author.javascript(functions))
    _write(root / JDK_LIKE / "package.json", json.dumps({"name": JDK_LIKE, "license": JDK_LICENSE}))
    _write(root / GPL / "COPYING", GPL_NOTICE)
    for repo in (JDK_LIKE, GPL, UNLICENSED):
        author = _Author(repo)
        _write(root / repo / "main.py", author.python(6))
        _write(root / repo / "index.js", author.javascript(6))
    return root


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# -- recipes -----------------------------------------------------------------------------------------------------------

STEPS = 40
SAMPLES = 2
LINES = 40
CONTINUATIONS = 4
ARMS = ("fim", "no-fim", "mha", "comments")
_ABLATIONS = {
    "fim": "{}",
    "no-fim": "{training: {fim: {rate: 0}}}",
    "mha": "{model: {attention: mha}}",
    "comments": "{filter: {comments: {above: 0.01, below: 0.80}}}",
}
_RECIPE = """\
name: tiny
corpus:     {{sources: [{source}], languages: [python, javascript], licenses: {licenses}, max_bytes: {max_bytes}}}
clean:      {{decontaminate: {decontaminate}}}
tokenizer:  {{vocab_size: {vocab_size}}}
model:      {{layers: 2, width: 64, heads: 2, attention: mqa, context: {context}}}
training:   {{tokens: {tokens}, batch_tokens: {batch_tokens}, learning_rate: {learning_rate}, fim: {fim},
             seeds: {seeds}}}
ablations:
{ablations}
evaluation: {{suites: {suites}, samples: {samples}, held_out: {held_out}, held_out_bytes: {held_out_bytes},
             infilling_lines: {lines}, continuations: {continuations}}}
"""


def write_recipe(
    path: Path,
    corpus: Path | None,
    *,
    ablations: Mapping[str, str] | Sequence[str] = ("fim",),
    steps: int = STEPS,
    seeds: Sequence[int] = (0,),
    **settings: str | float,
) -> Path:
    """A recipe of seconds. `corpus` None: the code that is installed here; `ablations`: names out of `ARMS`, or each
    with its difference; `settings`: what else `_RECIPE` has a place for."""
    chosen = ablations if isinstance(ablations, Mapping) else {name: _ABLATIONS[name] for name in ablations}
    source = "installed: {}" if corpus is None else f"folder: {json.dumps(str(corpus))}"
    quick: dict[str, str | float] = {
        "licenses": "permissive",
        "max_bytes": "5MB",
        "decontaminate": "[starter]",
        "vocab_size": 512,
        "context": 128,
        "batch_tokens": 512,
        "learning_rate": 0.002,
        "fim": "{rate: 0.5}",
        "suites": "[]",
        "samples": SAMPLES,
        "held_out": "10%",
        "held_out_bytes": "20kB",
        "lines": LINES,
        "continuations": CONTINUATIONS,
        **settings,
    }
    quick["tokens"] = steps * int(quick["batch_tokens"])
    text = _RECIPE.format(
        source=f"{{{source}}}",
        ablations="\n".join(f"  {name}: {difference}" for name, difference in chosen.items()),
        seeds=list(seeds),
        **quick,
    )
    path.write_text(text, encoding="utf-8")
    return path


# -- a finished study --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study:
    """A study that was run from nothing to the end. Tests may read its files, and copy its workspace to go on."""

    corpus: Path
    recipe: Path
    work: Path
    done: Done

    def results(self) -> dict[str, Any]:
        return results(self.work)

    def copy(self, to: Path) -> Path:
        """A copy of the workspace, as up to date as the workspace itself."""
        shutil.copytree(self.work, to, symlinks=True)
        return to


@functools.cache
def shared_folder() -> Path:
    """A folder for what lives as long as the test session."""
    folder = Path(tempfile.mkdtemp(prefix="kringle-study-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def shared_corpus() -> Path:
    """The corpus of the finished study; who changes it puts it back (`changed`)."""
    return write_corpus(shared_folder() / "corpus")


@functools.cache
def shared_recipe() -> Path:
    """The recipe of the finished study: four arms, evaluated on `starter` too."""
    return write_recipe(shared_folder() / "tiny.yaml", shared_corpus(), ablations=ARMS, suites="[starter]")


@functools.cache
def finished_study() -> Study:
    """The study that most tests look at."""
    recipe = shared_recipe()
    work = shared_folder() / "work"
    # Processes of one test session begin together: the first study compiles the kernels, the others find them.
    with Path(tempfile.gettempdir(), f"kringle-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = kringle("run", recipe, "--work", work, "--json")
    done.succeeded()
    return Study(shared_corpus(), recipe, work, done)


@contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    """A file with another content for a while; afterwards it is as before, its time of change too."""
    before, status = file.read_bytes(), file.stat()
    file.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


# -- what is in a workspace --------------------------------------------------------------------------------------------


def manifests(work: Path) -> dict[str, dict[str, Any]]:
    """Every published stage's manifest by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(work.glob("stages/*/manifest.json"))}


def stages(work: Path) -> set[str]:
    """Names of the published stages, with their arms."""
    return {manifest["stage"] for manifest in manifests(work).values()}


def unfinished(work: Path) -> list[str]:
    """Files that were left in the middle of something, whether a stage, a shard or a single file."""
    return sorted(
        str(path.relative_to(work))
        for path in work.rglob("*")
        if not path.is_dir() and (".partial" in str(path.relative_to(work)) or path.name.startswith("."))
    )


def results(work: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((work / "report/results.json").read_text(encoding="utf-8"))
    return read


_TIMES = {"created", "seconds", "tokens_per_second", "wall_seconds", "cpu_seconds", "peak_memory_bytes", "cached"}


def timeless(value: Any) -> Any:
    """Results without times, memory and what was computed when, so that two runs can be compared."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def models(work: Path) -> dict[str, bytes]:
    """The weights of every published model by the name of its run."""
    return {path.parent.name: path.read_bytes() for path in sorted(work.glob("models/*/model.safetensors"))}


# -- runs that are ended from outside ----------------------------------------------------------------------------------


class Running:
    """A command in a process group of its own, as a terminal starts it."""

    def __init__(self, *arguments: str | Path) -> None:
        self._mark = f"KRINGLE_TEST_RUN={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self._folder = tempfile.TemporaryDirectory(prefix="kringle-run-")
        self._out, self._err = (Path(self._folder.name, name) for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self._folder.name,
                env={**os.environ, name: value},
                start_new_session=True,
                # a shell's background job ignores Ctrl-C, and so would everything that it starts
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def wait_for(self, work: Path, pattern: str) -> bool:
        """Wait until something in the workspace matches; False if the command ends before."""
        deadline = time.monotonic() + PATIENCE
        while not any(work.glob(pattern)):
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"no {pattern} in {PATIENCE} s"
            time.sleep(0.002)
        return True

    def wait(self) -> Done:
        """Wait for the end of the command, then for that of everything that it started."""
        code = self.process.wait(PATIENCE)
        deadline = time.monotonic() + 60
        while left := self.processes():
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.02)
        done = Done(code, self._out.read_bytes().decode(), self._err.read_bytes().decode())
        self._folder.cleanup()
        return done

    def processes(self) -> dict[int, str]:
        """What still runs of all that the command has started: processes of its session or with its environment."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                named = state != "Z" and self._mark.encode() in (folder / "environ").read_bytes()
                if state != "Z" and (int(session) == self.process.pid or named):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except (OSError, ProcessLookupError):
                continue  # it has ended meanwhile, or is somebody else's
        return found
