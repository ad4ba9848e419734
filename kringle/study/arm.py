"""One arm of a study: which documents it is trained on, in which batches.

An arm is a view on one token store: the training documents that pass its filter. What its evaluation needs to know
about the training (which tokens were shown) is worked out again from the recipe, because batches are a pure function of
it. Training is in `kringle.study.teaching`, measuring in `kringle.study.measuring`; torch is imported inside functions,
because planning a study must not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kringle.errors import UserError
from kringle.settings import Arm, EvaluationSettings, FilterSettings, TrainingSettings
from kringle.study import altered
from kringle.workspace import Stage

if TYPE_CHECKING:
    from kringle.data.signals import Signals
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer
    from kringle.training.batches import Batches
    from kringle.training.windows import WindowBatches

MEASURE_UNITS = 0.25  # an evaluation's length in progress bars, as a share of the training's


class NotRun(Exception):
    """An arm that this corpus does not allow, with the reason; the rest of the study goes on."""


@dataclass(frozen=True)
class ArmJob:
    """What a worker needs for one arm with one seed. Folders are those of published stages."""

    arm: Arm
    seed: int
    train: Stage
    evaluate: Stage
    documents: Path
    split: Path
    annotate: Path
    tokenizer: Path
    encode: Path
    evaluation: EvaluationSettings
    threads: int
    until: str  # "train" or "evaluate"
    together: int = 1  # how many arms share the machine, this one included
    notice: str | None = None  # what whoever receives the model must know of its data

    @property
    def units(self) -> float:
        """Length in progress bars, in training steps."""
        steps = max(1, self.arm.training.steps)
        return steps * (1 + MEASURE_UNITS) if self.until == "evaluate" else steps


# -- the view ----------------------------------------------------------------------------------------------------------


def split_of(split: Path) -> dict[str, str]:
    """Document id -> "train" or "held-out"."""
    from kringle.data.table import read_table

    table = read_table(split / "split.parquet")
    return dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))


def view(store: TokenStore, split: Mapping[str, str], signals: Signals | None, chosen: FilterSettings) -> np.ndarray:
    """Numbers in the store of the training documents that pass the filter; `signals` may be None where there is none.

    Raises `NotApplicable` where this corpus lacks what the filter looks at.
    """
    from kringle.data.signals import passes

    training = np.array([i for i, name in enumerate(store.ids) if split.get(name) == "train"], dtype=np.int64)
    if chosen == FilterSettings():
        return training
    assert signals is not None
    counts = np.diff(store.offsets)[training]
    rows = signals.rows([store.ids[i] for i in training])
    return training[passes(chosen, rows, [store.languages[i] for i in training], counts)]


def _signals(annotate: Path) -> Signals:
    from kringle.data.signals import Signals

    return Signals(annotate)


def _headers(job: ArmJob) -> dict[str, str]:
    """The line of language and path by document."""
    from kringle.data.table import iter_documents

    documents = iter_documents(job.documents, ["id", "path", "language"])
    return {d["id"]: altered.header(d["language"], d["path"]) for d in documents}


def _own_store(job: ArmJob, store: TokenStore, tokenizer: Tokenizer, scratch: Path) -> TokenStore:
    """The store that this arm is trained from: the study's own, or a changed copy of it in the folder `scratch`."""
    if job.arm.control is not None and job.arm.control.kind == "harm":
        store = altered.harmed(store, tokenizer, job.arm.control.share, scratch / "harmed")
    if job.arm.training.metadata:
        store = altered.with_headers(store, _headers(job), tokenizer, scratch / "headed")
    return store


def at_equal_epochs(
    settings: TrainingSettings, store: TokenStore, pool: np.ndarray, kept: np.ndarray
) -> TrainingSettings:
    """The settings with as many tokens as pass the `kept` documents as often as `settings.tokens` pass the `pool`, and
    a schedule that is as much shorter."""
    lengths = np.diff(store.offsets)
    share = int(lengths[kept].sum()) / int(lengths[pool].sum())
    until = settings.decay_tokens
    return replace(
        settings,
        tokens=max(1, round(settings.tokens * share)),
        decay_tokens=None if until is None else max(1, round(until * share)),
    )


def batches_of(job: ArmJob, scratch: Path) -> tuple[TokenStore, TokenStore, Batches | WindowBatches, TrainingSettings]:
    """The study's store; the one that this arm is trained from, which may be a changed copy of it in the folder
    `scratch`; the arm's batches; how it is trained. Raises `NotRun` where the corpus does not allow the arm."""
    from kringle.data.signals import NotApplicable
    from kringle.tokens.store import TokenStore
    from kringle.tokens.tokenizer import Tokenizer

    store = TokenStore.open(job.encode / "store")
    signals = _signals(job.annotate) if job.arm.filter != FilterSettings() else None
    split = split_of(job.split)
    try:
        documents = view(store, split, signals, job.arm.filter)
    except NotApplicable as reason:
        raise NotRun(str(reason)) from None
    pool = view(store, split, None, FilterSettings())
    if job.arm.control is not None and job.arm.control.kind == "size":
        documents = altered.matched_size(store, pool, documents)
    if not len(documents):
        raise UserError(
            "no documents to train on: none passes the filter",
            where=f"ablations.{job.arm.name}.filter",
            hint="loosen it or add sources",
        )
    tokenizer = Tokenizer.load(job.tokenizer)
    own = _own_store(job, store, tokenizer, scratch)
    settings = job.arm.training
    if settings.budget == "epochs":
        settings = at_equal_epochs(settings, store, pool, documents)
    arm = replace(job.arm, training=settings)
    return store, own, make_batches(arm, altered.training_seed(job.arm, job.seed), own, documents, tokenizer), settings


def make_batches(
    arm: Arm, seed: int, store: TokenStore, documents: np.ndarray, tokenizer: Tokenizer
) -> Batches | WindowBatches:
    """The arm's batches over these documents of a store, in the manner that its recipe asks for."""
    from kringle.training.batches import Batches
    from kringle.training.windows import WindowBatches

    settings, context = arm.training, arm.model.context
    if settings.fidelity == "faithful":
        return WindowBatches(
            store,
            documents,
            tokenizer,
            context=context,
            batch_tokens=settings.batch_tokens,
            fim=settings.fim,
            seed=seed,
            steps=settings.shown_steps,
        )
    return Batches(
        store,
        documents,
        tokenizer,
        context=context,
        batch_tokens=settings.batch_tokens,
        fim=settings.fim,
        seed=seed,
        mixture=settings.mixture,
    )
