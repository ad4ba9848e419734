"""The score stage: one run's completions through the jail, or the reason why they were not.

Without a jail nothing is executed: the suite counts as not run, and everything else of the study goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kringle.evaluation.jail.levels import JailReport, Name, probe
from kringle.evaluation.kept import read_lines, write_lines
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite
from kringle.progress import Reporter
from kringle.settings import EvaluationSettings
from kringle.study.licences import summary as summary_of

if TYPE_CHECKING:
    from kringle.study.plan import Run


def score_run(
    run: Run, evaluation: EvaluationSettings, out: Path, workers: int, reporter: Reporter
) -> dict[str, dict[str, Any]]:
    """Verdicts on all completions of a run, in `out/verdicts-SUITE.jsonl`; returns a summary by suite."""
    if summary_of(run.evaluate).get("not_run") is not None:
        return {}
    jail = probe()
    return {name: _score(name, run, evaluation, out, workers, reporter, jail) for name in evaluation.suites}


def _score(
    name: str, run: Run, evaluation: EvaluationSettings, out: Path, workers: int, reporter: Reporter, jail: JailReport
) -> dict[str, Any]:
    suite = load_suite(name, evaluation.benchmarks)
    samples = list(read_lines(run.evaluate.folder / f"samples-{name}.jsonl"))
    summary = {
        "prompts": suite.prompt_hash[:16],
        "problems": len(suite.problems),
        "samples": evaluation.samples,
        "sampler": f"temperature {evaluation.temperature:g}, top-p {evaluation.top_p:g}",
        "jail": str(jail.level.name),
        "jail_lacks": jail.why_not_full,
        "truncated": sum(1 for sample in samples if sample["truncated"]),
    }
    if jail.level.name is Name.NONE:
        reason = f"this machine has no jail ({jail.why_not_full}), and what a model wrote is not run without one"
        return {**summary, "not_run": reason}
    completions = [Completion(sample["task_id"], sample["completion"]) for sample in samples]
    verdicts = score(suite, completions, workers, progress=reporter)
    rows = [
        {
            "task_id": sample["task_id"],
            "sample": sample["sample"],
            "verdict": str(verdict.verdict),
            "passed": verdict.passed,
            "evidence": verdict.evidence,
        }
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]
    write_lines(out / f"verdicts-{name}.jsonl", rows)
    return {**summary, "not_run": None}
