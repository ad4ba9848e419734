"""The evaluate stage of one arm, in a worker process: everything that is measured of its model, item by item."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kringle.engine import tick
from kringle.evaluation import continuations, infilling, measure, prompt_choice
from kringle.evaluation.baselines import MOST_TOKENS
from kringle.evaluation.kept import MEASURE_SEED, write_lines
from kringle.evaluation.measure import HeldOutFile
from kringle.evaluation.suites import load_suite
from kringle.model import exchange
from kringle.study import altered
from kringle.study.arm import MEASURE_UNITS, ArmJob, batches_of, split_of
from kringle.study.licences import summary
from kringle.tokens.store import TokenStore


def held_out(job: ArmJob, store: TokenStore) -> list[HeldOutFile]:
    """The held-out files in the order of the store."""
    from kringle.data.table import iter_documents

    split = split_of(job.split)
    numbers = {name: i for i, name in enumerate(store.ids) if split.get(name) == "held-out"}
    files = [
        HeldOutFile(numbers[d["id"]], d["id"], d["repo"], d["path"], d["language"], d["content"])
        for d in iter_documents(job.documents, ["id", "repo", "path", "language", "content"])
        if d["id"] in numbers
    ]
    return sorted(files, key=lambda file: file.number)


def measure_arm(job: ArmJob, out: Path) -> dict[str, Any]:
    """Measure the model that the train stage published; writes the files that `kringle.evaluation.measure` lists."""
    if (reason := summary(job.train).get("not_run")) is not None:
        return {"not_run": reason}
    share = job.arm.training.steps * MEASURE_UNITS / (3 + len(job.evaluation.suites))
    model, tokenizer = exchange.load(job.train.folder / "model")
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    scratch = out / "scratch"
    store, _, batches, settings = batches_of(job, scratch)
    files = held_out(job, store)
    steps = settings.shown_steps
    since = max(0, steps - max(1, MOST_TOKENS // settings.batch_tokens))
    sequences = list(batches.shown(steps, since))
    shutil.rmtree(scratch, ignore_errors=True)
    shown = measure.Shown(sequences, tokenizer.decode_bytes(np.concatenate(sequences)))
    scored = measure.scored_files(files, store, job.evaluation.held_out_bytes)
    headed = job.arm.training.metadata
    headers = {f.id: altered.header(f.language, f.path) if headed else "" for f in files}
    rows = measure.measure_bits(
        model, tokenizer, scored, store, shown, [headers[f.id] for f in scored] if headed else None
    )
    (out / "bits_per_byte.json").write_text(json.dumps(rows))
    tick(share)

    contents = [(f.id, f.language, f.content) for f in files]
    tasks, others = (
        [replace(task, prefix=headers[task.document] + task.prefix) for task in part]
        for part in prompt_choice.divide_tasks(contents, job.evaluation.infilling_lines)
    )
    candidates = prompt_choice.formats(job.arm.training.fim.rate, job.arm.training.fim.spm)
    prompt, tried, tried_on = candidates[0], {}, 0
    if len(candidates) > 1:
        tried, tried_on = prompt_choice.count_hits(model, tokenizer, others, candidates), len(others)
        prompt = max(candidates, key=lambda name: tried[name])
    results = infilling.run(model, tokenizer, tasks, prompt)
    write_lines(out / "infilling.jsonl", measure.infilling_rows(results, files))
    tick(share)

    texts = [(f.id, f.repo, f.path, f.language, f.content) for f in files]
    places = continuations.openings(texts, job.evaluation.continuations)
    before = [headers[place.document] for place in places] if headed else None
    written = continuations.continue_files(model, tokenizer, places, before, seed=MEASURE_SEED)
    write_lines(out / "continuations.jsonl", written)
    tick(share)

    for name in job.evaluation.suites:
        suite = load_suite(name, job.evaluation.benchmarks)
        header = altered.header(suite.language, altered.file_name(suite.language)) if headed else ""
        solutions = measure.measure_solutions(model, tokenizer, suite, header)
        write_lines(out / f"solutions-{name}.jsonl", solutions)
        samples = measure.sample_suite(
            model,
            tokenizer,
            suite,
            samples=job.evaluation.samples,
            temperature=job.evaluation.temperature,
            top_p=job.evaluation.top_p,
            header=header,
        )
        write_lines(out / f"samples-{name}.jsonl", samples)
        tick(share)
    return {
        "files": len(scored),
        "tasks": len(tasks),
        "prompt": prompt,
        "tried": tried,
        "tried_on": tried_on,
        "shown_bytes": len(shown.text),  # what the baselines got: of a long training, its end
        "shown_from_step": since,
    }
