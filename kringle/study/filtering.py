"""How much each filter keeps at other thresholds than its own: curves over the signals of the training pool.

Read from the annotate stage's tables and the token store's counts, never from text. Shares are of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.data.signals import NotApplicable, Rows, Signals, least_per_token, least_stars, near_file, passes
from kringle.settings import FilterSettings
from kringle.study import published
from kringle.study.arm import split_of, view
from kringle.study.filter_results import (
    ALL,
    Cluster,
    Filtering,
    Kept,
    Meeting,
    NearDuplicates,
    Removed,
    Signal,
    ThresholdCurve,
    ThresholdUsed,
    setting_name,
)
from kringle.study.plan import Plan, near_dedup_settings
from kringle.tokens.store import TokenStore

STEPS = 100  # of a curve between its first threshold and its last
MOST_STARS = 50.0  # the curve's end, unless a filter asks for more; SantaCoder's asked for 5


def filtering(plan: Plan) -> Filtering | None:
    """The filters of a plan whose stages are published; None where no arm has one."""
    arms = [arm for arm in plan.recipe.arms if arm.filter != FilterSettings() and arm.control is None]
    if not arms:
        return None
    pool = Pool(plan)
    used = [mark for arm in arms for mark in pool.used(arm.name, arm.filter)]
    stars = max((mark.threshold for mark in used if mark.signal == "stars"), default=0.0)
    curves = list(pool.curves(max(MOST_STARS, stars)))
    removed = [share for arm in arms for share in pool.removed(arm.name, arm.filter)]
    found = [json.loads((pool.rows.folder / name).read_text()) for name in pool.near_duplicates]
    curves += [_near_curve(one) for one in found if "bytes_kept" in one]
    return Filtering(tuple(curves), tuple(used), tuple(removed), tuple(_near_duplicates(one) for one in found))


class Pool:
    """The training documents with their signals: bytes, language, characters a token. N documents."""

    def __init__(self, plan: Plan) -> None:
        store = TokenStore.open(plan.encode.folder / "store")
        chosen = view(store, split_of(plan.split.folder), None, FilterSettings())
        self.rows: Rows = Signals(plan.annotate.folder).rows([store.ids[i] for i in chosen])
        self.spoken = np.array([store.languages[i] for i in chosen], dtype=object)
        self.sizes = np.asarray(store.sizes)[chosen].astype(np.float64)
        self.tokens = np.diff(store.offsets)[chosen]
        self.per_token = self.rows.per_token(self.tokens)
        self.near_duplicates = [
            str(Path(near_file(setting)).with_suffix(".json")) for setting in near_dedup_settings(plan.recipe)
        ]

    @property
    def languages(self) -> list[str]:
        """All together first, where there are several."""
        own = sorted(set(self.spoken))
        return [ALL, *own] if len(own) > 1 else own

    def of(self, language: str) -> NDArray[np.bool_]:
        return np.ones(len(self.spoken), dtype=np.bool_) if language == ALL else self.spoken == language

    def curves(self, most_stars: float) -> Iterator[ThresholdCurve]:
        """Those of comments, characters per token and, where any are known, stars."""
        ratio, per_token = self.rows.comment_ratio, self.per_token
        whole = np.linspace(0, 1, STEPS + 1)
        yield from self._curves("comments: floor", ratio, whole, lambda value, t: value > t)
        yield from self._curves("comments: ceiling", ratio, whole, lambda value, t: value < t)
        last = float(np.quantile(per_token, 0.999)) if len(per_token) else 1.0
        yield from self._curves("fertility", per_token, np.linspace(0, last, STEPS + 1), lambda value, t: value >= t)
        if not np.isnan(self.rows.stars).all():
            # Unknown counts as none, as for filters by number; one by quantile leaves what is unknown out
            stars, steps = np.nan_to_num(self.rows.stars), np.arange(0, most_stars + 1)
            yield from self._curves("stars", stars, steps, lambda value, t: value >= t)

    def _curves(
        self,
        signal: Signal,
        values: NDArray[np.float64],
        thresholds: NDArray[np.float64],
        keeps: Callable[[NDArray[np.float64], float], NDArray[np.bool_]],
    ) -> Iterator[ThresholdCurve]:
        for language in self.languages:
            own = self.of(language)
            sizes, held = self.sizes[own], values[own]
            total = float(sizes.sum()) or 1.0
            points = [Kept(round(float(t), 6), float(sizes[keeps(held, float(t))].sum()) / total) for t in thresholds]
            yield ThresholdCurve(signal, signal, language, tuple(points))

    def used(self, arm: str, chosen: FilterSettings) -> Iterator[ThresholdUsed]:
        """Where an arm stands; quantiles and percentiles as the thresholds that they come to here."""
        if chosen.comments is not None:
            if chosen.comments.above > 0:
                yield ThresholdUsed("comments: floor", arm, ALL, chosen.comments.above)
            if chosen.comments.below < 1:
                yield ThresholdUsed("comments: ceiling", arm, ALL, chosen.comments.below)
        if chosen.near_dedup is not None:
            yield ThresholdUsed("near-duplicates", arm, ALL, chosen.near_dedup.threshold)
        if chosen.fertility is not None:
            for language, least in least_per_token(chosen.fertility, self.per_token, self.spoken).items():
                yield ThresholdUsed("fertility", arm, language, least)
        if chosen.stars is not None and not np.isnan(self.rows.stars).all():
            yield ThresholdUsed("stars", arm, ALL, float(least_stars(chosen.stars, self.rows)))

    def removed(self, arm: str, chosen: FilterSettings) -> Iterator[Removed]:
        """By language, beside SantaCoder's where the arm has one filter alone; nothing where it does not apply."""
        try:
            kept = passes(chosen, self.rows, list(self.spoken), self.tokens)
        except NotApplicable:
            return
        asked = [field.name for field in fields(chosen) if getattr(chosen, field.name) is not None]
        theirs = published.REMOVED.get(asked[0], {}) if len(asked) == 1 else {}
        for language in self.languages:
            own = self.of(language)
            total = float(self.sizes[own].sum()) or 1.0
            share = float(self.sizes[own & ~kept].sum()) / total
            yield Removed(arm, language, share, theirs.get(language))


def _near_curve(found: dict[str, Any]) -> ThresholdCurve:
    total = found["bytes"] or 1
    points = tuple(Kept(float(threshold), kept / total) for threshold, kept in found["bytes_kept"])
    return ThresholdCurve("near-duplicates", setting_name(found["ngram"], found["threshold"]), ALL, points)


def _near_duplicates(found: dict[str, Any]) -> NearDuplicates:
    counted = ("ngram", "threshold", "bands", "rows", "documents", "dropped", "bytes", "bytes_dropped")
    return NearDuplicates(
        **{name: found[name] for name in counted},
        collision=tuple(Meeting(float(s), float(p)) for s, p in found["collision_curve"]),
        clusters=tuple(Cluster(size, count) for size, count in found["cluster_sizes"]),
    )
