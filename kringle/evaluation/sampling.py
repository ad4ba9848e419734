"""`kringle sample`: completions of a suite's problems by any model, in the format of the harness that will score them.

    human-eval   JSON Lines, one completion a line, without the prompt               (openai/human-eval)
    bigcode      one JSON list, for each problem in order a list of prompt + completion  (bigcode-evaluation-harness)
    multipl-e    a folder with one gzipped JSON file a problem                         (nuprl/MultiPL-E)

Completions are appended to `OUT.partial` as they come, after one line that says what is being sampled; the wanted
format is written whole at the end. A run that was broken goes on from that file if model, suite and settings are the
same, and refuses if they are not: since a sample depends on nothing but its own number, the result is the same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from kringle.errors import UserError
from kringle.evaluation.problems import Problem
from kringle.evaluation.suites import Suite, load_suite
from kringle.generation.engine import ROWS, generate
from kringle.generation.fim import SENTINELS, infilling_prompt, left_to_right_prompt
from kringle.generation.requests import Completion, Request
from kringle.generation.weights import Precision, choose_precision
from kringle.progress import Reporter

Format = Literal["human-eval", "bigcode", "multipl-e"]
LEAST_COMPLETION = 4  # at least one part in so many of the context is kept for the completion


@dataclass(frozen=True)
class Settings:
    """How completions are drawn."""

    samples: int
    temperature: float
    top_p: float
    top_k: int | None
    seed: int
    max_new_tokens: int | None  # None is the suite's protocol
    precision: str
    invariant: bool


class Sampler(Protocol):
    """A model that completes prompts."""

    context: int

    def prompt(self, text: str, new_tokens: int) -> tuple[list[int], bool]:
        """Ids of a file's beginning, and whether it had to lose its own beginning to fit."""

    def infilling_prompt(self, prefix: str, suffix: str, new_tokens: int) -> tuple[list[int], bool]:
        """Ids that ask for the text between the two, and whether either had to lose a part to fit."""

    def count(self, text: str) -> int:
        """Tokens of a text."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]: ...


class OwnModel:
    """A model that our engine runs. A prompt follows an end-of-text token where it was trained here, as every file does
    in training; a checkpoint that was imported is asked as the harnesses ask that its published numbers come from."""

    def __init__(self, folder: Path, precision: str, rows: int, invariant: bool) -> None:
        import torch

        from kringle.model.exchange import fim_training, load

        self.trained_here = fim_training(folder) is not None
        self.model, self.tokenizer = load(folder)
        if torch.cuda.is_available():
            self.model = self.model.cuda()
        self.model.eval()
        self.context = self.model.config.context
        self.rows, self.invariant = rows, invariant
        device = self.model.transformer.wte.weight.device
        self.precision: Precision = "fp32" if invariant else choose_precision(precision, device)

    def prompt(self, text: str, new_tokens: int) -> tuple[list[int], bool]:
        whole = self.tokenizer.encode(text)
        ids = left_to_right_prompt(self.tokenizer, text, context=self.context - 1, new_tokens=new_tokens)
        cut = len(ids) < len(whole)
        return (ids if cut else self.beginning(ids)), cut

    def beginning(self, ids: list[int]) -> list[int]:
        """The ids of a prompt that is the beginning of a file; of an empty one always a token to go on from."""
        return [self.tokenizer.specials.end_of_text, *ids] if self.trained_here or not ids else ids

    def infilling_prompt(self, prefix: str, suffix: str, new_tokens: int) -> tuple[list[int], bool]:
        ids = infilling_prompt(self.tokenizer, prefix, suffix, mode="psm", context=self.context, new_tokens=new_tokens)
        return ids, len(ids) < self.count(prefix) + self.count(suffix) + SENTINELS

    def count(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        return generate(
            self.model,
            self.tokenizer,
            requests,
            rows=self.rows,
            precision=self.precision,
            invariant=self.invariant,
        )


class OtherModel:
    """A model that `transformers` runs."""

    def __init__(self, folder: Path, precision: str) -> None:
        from kringle.evaluation.foreign import ForeignModel

        self.precision = "fp32" if precision == "auto" else precision
        self.foreign = ForeignModel(folder, self.precision)
        self.context = self.foreign.context

    def prompt(self, text: str, new_tokens: int) -> tuple[list[int], bool]:
        return self.foreign.prompt_within(text, self.context - new_tokens)

    def infilling_prompt(self, prefix: str, suffix: str, new_tokens: int) -> tuple[list[int], bool]:
        ids = self.foreign.infilling_prompt(prefix, suffix, new_tokens)
        family = self.foreign.format
        assert family is not None, "infilling_prompt refuses such a model"
        text = sum(len(self.foreign.encode(part)) for part in (prefix, suffix))
        return ids, len(ids) < len(family.begin) + len(family.psm) - 2 + text  # two places are prefix and suffix

    def count(self, text: str) -> int:
        return len(self.foreign.prompt(text))

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        return self.foreign.sample(requests)


def open_model(folder: Path, precision: str = "auto", *, rows: int = ROWS, invariant: bool = False) -> Sampler:
    """Ours by our engine, whatever else is a causal language model by `transformers`."""
    if not (folder / "config.json").is_file():
        raise UserError("no model here (a model is a folder with config.json)", where=str(folder))
    try:
        return OwnModel(folder, precision, rows, invariant)
    except UserError as ours:
        if precision not in ("auto", "fp32", "bf16") or invariant or belongs_to_us(folder):
            raise
        try:
            return OtherModel(folder, precision)
        except UserError as theirs:
            raise UserError(f"{theirs.what}; and as one of ours: {ours.what}", where=str(folder)) from None


def belongs_to_us(folder: Path) -> bool:
    """Whether configuration and tokenizer are ours, so that what does not fit is a fault and not another family."""
    from kringle.tokens.tokenizer import Tokenizer

    try:
        settings = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return True  # nobody's; our own message says what is wrong with it
    if not isinstance(settings, dict) or settings.get("model_type") != "gpt_bigcode":
        return False
    try:
        Tokenizer.load(folder)
    except UserError:
        return False
    return True


def requests_of(suite: Suite, model: Sampler, settings: Settings) -> tuple[list[Request], list[bool]]:
    """One request a problem, and whether its prompt was cut. A prompt keeps its end; at least a quarter of the context
    is kept for the completion. Where a suite has gaps, one at the end of a file is asked for as the others are."""
    protocol = suite.protocol
    most = settings.max_new_tokens or protocol.max_new_tokens
    requests, cut = [], []
    for problem in suite.problems:
        text = problem.prompt.strip() if protocol.strip_prompt else problem.prompt
        budget = max(1, most - (model.count(text) if protocol.count_prompt else 0))
        kept = max(1, min(budget, model.context // LEAST_COMPLETION))
        if suite.infills:
            prompt, shortened = model.infilling_prompt(text, problem.suffix, kept)
        else:
            prompt, shortened = model.prompt(text, kept)
        requests.append(
            Request(
                prompt,
                samples=settings.samples,
                max_new_tokens=min(budget, model.context - len(prompt)),
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                seed=settings.seed,
                key=f"{suite.name}/{problem.task_id}",
                stops=tuple(stop.encode() for stop in suite.stops_for(problem)),
            )
        )
        cut.append(shortened)
    return requests, cut


def sample_suite(
    model_folder: Path,
    suite_name: str,
    out: Path,
    settings: Settings,
    *,
    format: Format = "human-eval",
    rows: int = ROWS,
    data_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Sample a suite into `out`; returns counts. UserError for what cannot be sampled or was begun otherwise."""
    if format not in get_args(Format):
        raise UserError(f"unknown format '{format}'", where="--format", hint=f"known: {', '.join(get_args(Format))}")
    if not out.name:
        raise UserError("is no name for what is to be written", where=f"--out {out}")
    if out.exists() and out.is_dir() != (format == "multipl-e"):
        raise UserError("is a folder" if out.is_dir() else "is a file", where=str(out), hint="choose another --out")
    suite = load_suite(suite_name, data_dir)
    if suite.infills and format != "human-eval":
        raise UserError(
            f"files in the format {format} have no place for what follows the gaps of {suite.name}",
            where="--format",
            hint="write them as human-eval",
        )
    partial = _Partial(out.with_name(out.name + ".partial"))
    model = open_model(model_folder, settings.precision, rows=rows, invariant=settings.invariant)
    header = {
        "suite": suite.name,
        "problems": suite.prompt_hash,
        "stop_strings": suite.stop_hash,
        "protocol": asdict(suite.protocol),
        "model": model_fingerprint(model_folder),
        **asdict(settings),
        "precision": getattr(model, "precision", settings.precision),
    }
    requests, cut = requests_of(suite, model, settings)
    done = partial.open(header)
    missing = list(_missing(requests, done))
    total = settings.samples * len(requests)
    reporter = reporter or Reporter(quiet=True)
    with reporter.task(f"sampling {suite.name}", total - len(done), "samples") as counter, partial:
        for completion in model.sample([request for _, request in missing]):
            number = missing[completion.request][0]
            row = {
                "problem": number,
                "sample": completion.sample,
                "completion": completion.text.decode("utf-8", "replace"),
                "finish": completion.finish,
                "truncated": cut[number],
            }
            partial.append(row)
            done[number, completion.sample] = row
            counter.advance()
    _write(out, format, suite, settings, done)
    partial.path.unlink()
    return {
        "out": str(out),
        "suite": suite.name,
        "problems": len(requests),
        "samples": total,
        "drawn": sum(request.samples for _, request in missing),
        "truncated_prompts": sum(cut),
        "precision": header["precision"],
    }


def model_fingerprint(folder: Path) -> str:
    """Which model: SHA-256 over names and contents of configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    wanted = (".json", ".safetensors", ".bin", ".model", ".txt")
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in wanted):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _missing(requests: Sequence[Request], done: dict[tuple[int, int], Any]) -> Iterator[tuple[int, Request]]:
    """(problem, request) for every run of samples that are not there yet."""
    from dataclasses import replace

    for number, request in enumerate(requests):
        start = None
        for sample in range(request.samples + 1):
            there = sample == request.samples or (number, sample) in done
            if there and start is not None:
                yield number, replace(request, first=start, samples=sample - start)
                start = None
            elif not there and start is None:
                start = sample


class _Partial:
    """The file that a broken run goes on from: a line of settings, then a line a completion."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def open(self, header: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
        """Completions that are there already; a torn last line is cut off. UserError for a file that was begun
        otherwise, or by somebody else; it stays as it is."""
        done: dict[tuple[int, int], dict[str, Any]] = {}
        if self.path.exists():
            *whole, torn = self.path.read_bytes().split(b"\n")  # what follows the last line break was torn by a kill
            if not whole and not json.dumps(header).encode().startswith(torn):
                raise self._refused(1)
            if whole:
                before = self._parsed(whole[0], 1)
                if before != header:
                    names = sorted(key for key in {*before, *header} if before.get(key) != header.get(key))
                    raise UserError(
                        f"was begun with another {', '.join(names)}",
                        where=str(self.path),
                        hint="delete it to begin anew, or choose another --out",
                    )
                for place, line in enumerate(whole[1:], 2):
                    row = self._parsed(line, place)
                    if not {"problem", "sample", "completion"} <= row.keys():
                        raise self._refused(place)
                    done[row["problem"], row["sample"]] = row
            with self.path.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in whole))
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists() or not self.path.stat().st_size:
            self.path.write_text(json.dumps(header) + "\n")
        return done

    def _parsed(self, line: bytes, place: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            raise self._refused(place) from None
        if not isinstance(row, dict):
            raise self._refused(place)
        return row

    def _refused(self, place: int) -> UserError:
        return UserError(
            "is nothing that kringle sample wrote",
            where=f"{self.path}, line {place}",
            hint="move it away to begin anew, or choose another --out",
        )

    def __enter__(self) -> _Partial:
        self.file = self.path.open("a", encoding="utf-8")
        return self

    def append(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def __exit__(self, *trouble: object) -> None:
        self.file.close()


def _write(
    out: Path, format: Format, suite: Suite, settings: Settings, done: dict[tuple[int, int], dict[str, Any]]
) -> None:
    """The wanted format, under its name only when it is whole."""
    by_problem = [[done[number, i] for i in range(settings.samples)] for number in range(len(suite.problems))]
    fresh = out.with_name(f".{out.name}.new")
    if format == "multipl-e":
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for problem, rows in zip(suite.problems, by_problem, strict=True):
            text = json.dumps(_multipl_e(problem, suite, settings, rows))
            name = problem.task_id.replace("/", "_")
            (fresh / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        if out.exists():
            shutil.rmtree(out)
    elif format == "bigcode":
        texts = [[problem.prompt + row["completion"] for row in rows] for problem, rows in _pairs(suite, by_problem)]
        fresh.write_text(json.dumps(texts) + "\n")
    else:
        with fresh.open("w", encoding="utf-8") as file:
            for problem, rows in _pairs(suite, by_problem):
                for row in rows:
                    line = {"task_id": problem.task_id, **{k: v for k, v in row.items() if k != "problem"}}
                    file.write(json.dumps(line) + "\n")
    fresh.rename(out)


def _pairs(suite: Suite, by_problem: list[list[dict[str, Any]]]) -> Iterator[tuple[Problem, list[dict[str, Any]]]]:
    return zip(suite.problems, by_problem, strict=True)


def _multipl_e(problem: Problem, suite: Suite, settings: Settings, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The file that MultiPL-E's driver writes and its evaluator reads."""
    return {
        "name": problem.task_id,
        "language": {"python": "py", "javascript": "js"}.get(suite.language, suite.language),
        "prompt": problem.prompt,
        "tests": problem.tests,  # with the call of `check`, which HumanEval's format leaves to its harness
        "stop_tokens": list(suite.stops_for(problem)),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens or suite.protocol.max_new_tokens,
        "completions": [row["completion"] for row in rows],
    }
