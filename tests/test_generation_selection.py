"""The choice of the next token against definitions written out plainly, and against exact probabilities."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.errors import UserError
from kringle.generation.selection import (
    FLOOR,
    PREFILTER,
    WORTH_A_THREAD,
    Truncation,
    choose_by_sorting,
    select,
    select_by_kernel,
    select_on_device,
)
from kringle.generation.selection_kernel import choose, maximum, temper
from kringle.randomness import stream

Implementation = Callable[[torch.Tensor, Truncation, np.ndarray], tuple[np.ndarray, np.ndarray]]
IMPLEMENTATIONS = [select_by_kernel, select_on_device]


def kept_tokens(weights: np.ndarray, p: float, k: int) -> list[int]:
    """The definition: rank by weight, then id; the first k; of them the fewest whose mass is at least p."""
    ranked = sorted(range(len(weights)), key=lambda i: (-weights[i], i))[: k or None]
    if p == 1:
        return sorted(ranked)
    target = p * math.fsum(float(weights[i]) for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        kept.append(i)
        mass += float(weights[i])
        if mass >= target:
            break
    return sorted(kept)


def drawn_token(weights: np.ndarray, kept: list[int], uniform: float) -> int:
    target = uniform * math.fsum(float(weights[i]) for i in kept)
    mass = 0.0
    for i in kept:
        mass += float(weights[i])
        if mass > target:
            return i
    raise AssertionError("a uniform below 1 lies inside the mass")


def by_kernel(weights: np.ndarray, p: np.ndarray, k: np.ndarray, u: np.ndarray) -> list[int]:
    width = weights.shape[1]
    bits, mass = np.empty(width, np.int32), np.empty(width, np.float32)
    return [choose(row.copy(), *settings, bits, mass) for row, *settings in zip(weights, p, k, u, strict=True)]


def by_sorting(weights: np.ndarray, p: np.ndarray, k: np.ndarray, u: np.ndarray) -> list[int]:
    return choose_by_sorting(*(torch.from_numpy(x) for x in (weights, p, k, u))).tolist()


def uniform_truncation(rows: int, temperature: float, p: float, k: int) -> Truncation:
    return Truncation(np.full(rows, temperature), np.full(rows, p), np.full(rows, k))


def run(implementation: Implementation, logits: torch.Tensor, truncation: Truncation, u: np.ndarray) -> np.ndarray:
    return implementation(logits, truncation, u)[0]


@settings(max_examples=150, deadline=None)
@given(
    # Multiples of 1/64: every sum is exact in float64, so a mass that equals p exactly is decided, not rounded.
    weights=st.lists(st.integers(0, 64), min_size=0, max_size=40),
    p=st.sampled_from([1e-9, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0]),
    k=st.integers(0, 45),
    u=st.floats(0, 1, exclude_max=True),
    position=st.integers(0, 40),
)
def test_both_choose_what_the_definition_says(weights: list[int], p: float, k: int, u: float, position: int) -> None:
    weights.insert(position, 64)  # the highest weight is 1
    row = (np.array(weights, np.float32) / 64)[None]
    expected = drawn_token(row[0], kept_tokens(row[0], p, k), u)
    arguments = (row, np.array([p]), np.array([k]), np.array([u]))
    assert by_kernel(*arguments) == [expected]
    assert by_sorting(*arguments) == [expected]


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 40.0])
def test_both_choose_alike_beyond_the_prefilter(spread: float) -> None:
    """Rows wider than the prefilter, flat ones and peaked ones, with ties by rounding; each row its own settings."""
    rows, width = 120, 5 * PREFILTER
    random = stream(0, "test", "wide", str(spread))
    logits = np.round(random.standard_normal((rows, width)) * spread * 8) / 8
    weights = np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float32)
    p = random.choice([0.05, 0.5, 0.95, 0.999, 1.0], rows)
    k = random.choice([0, 1, 7, PREFILTER - 1, PREFILTER, PREFILTER + 1, 3 * PREFILTER, width, 2 * width], rows)
    u = random.random(rows)
    kernel, sorting = by_kernel(weights, p, k, u), by_sorting(weights, p, k, u)
    assert kernel == sorting
    expected = [drawn_token(w, kept_tokens(w, *pk), x) for w, x, *pk in zip(weights, u, p, k, strict=True)]
    assert kernel == expected


def critical_value(freedom: int, deviations: float = 4.0) -> float:
    """Of the chi-square distribution, at so many standard deviations (Wilson and Hilferty, 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + deviations * math.sqrt(2 / (9 * freedom))) ** 3


LOGITS = {
    "spread": np.linspace(0, 4, 24)[::-1].copy(),
    "ties": np.repeat([2.0, 1.0, 0.0], 8),  # the nucleus ends among equals: the lower ids are in it
    "interleaved ties": np.tile([0.0, 1.5, 0.75], 8),
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", LOGITS)
@pytest.mark.parametrize(
    ("temperature", "p", "k"),
    [(1.0, 1.0, 0), (0.2, 0.95, 0), (0.8, 0.95, 0), (2.5, 0.5, 0), (1.0, 1.0, 5), (1.0, 0.7, 9)],
)
def test_frequencies_are_the_exact_probabilities(
    implementation: Implementation, shape: str, temperature: float, p: float, k: int
) -> None:
    draws, logits = 100_000, LOGITS[shape]
    weights = np.exp((logits - logits.max()) / temperature)
    kept = kept_tokens(weights.astype(np.float32), p, k)
    expected = np.zeros(len(logits))
    expected[kept] = weights[kept] / weights[kept].sum() * draws
    uniforms = stream(1, "test", shape, str(temperature)).random(draws)
    truncation = uniform_truncation(draws, temperature, p, k)
    ids = run(implementation, torch.tensor(logits, dtype=torch.float32)[None], truncation, uniforms)
    counts = np.bincount(ids, minlength=len(logits))
    assert set(np.flatnonzero(counts)) <= set(kept)
    usual = expected >= 5  # the statistic is chi-square distributed only where counts are not tiny
    statistic = ((counts - expected)[usual] ** 2 / expected[usual]).sum()
    if usual.sum() > 1:
        assert statistic < critical_value(int(usual.sum()) - 1)
    assert counts[~usual].sum() <= 20 * max(1.0, expected[~usual].sum())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_token_of_probability_one_is_always_drawn(implementation: Implementation) -> None:
    logits = torch.full((1, 400), -math.inf)
    logits[0, 123] = 5.0
    uniforms = np.append(np.linspace(0, 1, 99, endpoint=False), np.nextafter(1, 0))
    for temperature, p, k in [(1.0, 1.0, 0), (0.3, 0.9, 0), (1.0, 1.0, 3), (0.0, 1.0, 0), (1e-30, 1.0, 0)]:
        truncation = uniform_truncation(100, temperature, p, k)
        ids, log_probabilities = implementation(logits, truncation, uniforms)
        assert (ids == 123).all()
        assert abs(log_probabilities).max() < 1e-6


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_greedy_takes_the_lowest_id_among_equals(implementation: Implementation) -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
    truncation = Truncation(np.array([0.0, 0.0]), np.ones(2), np.zeros(2, np.int64))
    assert run(implementation, logits, truncation, np.array([0.9, 0.9])).tolist() == [1, 0]


def test_implementations_agree_from_logits_with_mixed_rows() -> None:
    rows, width = 400, 2053
    random = stream(2, "test", "mixed")
    logits = torch.from_numpy(random.standard_normal((rows, width)).astype(np.float32) * 3)
    truncation = Truncation(
        random.choice([0.0, 0.2, 0.8, 1.0, 1.7], rows),
        random.choice([0.5, 0.95, 1.0], rows),
        random.choice([0, 40], rows),
    )
    uniforms = random.random(rows)
    ids, log_probabilities = select(logits, truncation, uniforms)
    other_ids, other_log_probabilities = select_on_device(logits, truncation, uniforms)
    assert (ids == other_ids).mean() >= 0.995  # exponentials differ by a rounding, which moves the borders a little
    exact = torch.log_softmax(logits.double(), -1).numpy()[np.arange(rows), ids]
    assert abs(log_probabilities - exact).max() < 1e-5
    assert abs(other_log_probabilities - log_probabilities)[ids == other_ids].max() < 1e-5


def test_threads_change_nothing() -> None:
    width = 4096
    rows = 3 * WORTH_A_THREAD // width
    random = stream(3, "test", "threads")
    logits = torch.from_numpy(random.standard_normal((rows, width)).astype(np.float32))
    truncation, uniforms = uniform_truncation(rows, 0.8, 0.95, 0), random.random(rows)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(np.stack(select(logits, truncation, uniforms)))
    finally:
        torch.set_num_threads(threads)
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_the_exponential_is_exact_to_two_units_in_the_last_place() -> None:
    x = np.append(-np.geomspace(1e-8, -0.9999 * FLOOR, 20_000), 0.0).astype(np.float32)
    weights = np.empty_like(x)
    total = temper(x, np.float32(0), np.float32(1), np.float32(FLOOR), weights)
    exact = np.exp(x.astype(np.float64))
    assert abs(weights / exact - 1).max() < 2 * np.finfo(np.float32).eps
    assert total == pytest.approx(exact.sum(), rel=1e-6)
    temper(np.array([FLOOR, -np.inf], np.float32), np.float32(0), np.float32(1), np.float32(FLOOR), weights[:2])
    assert (weights[:2] == 0).all()


@settings(deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=70))
def test_the_maximum_is_that_of_the_definition(numbers: list[float]) -> None:
    row = np.array(numbers, np.float32)
    assert np.array_equal(maximum(row), row.max(), equal_nan=True)
    assert np.isnan(maximum(np.append(row, -np.float32(np.nan))))


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused(bad: float) -> None:
    logits = torch.zeros(3, 10)
    logits[1, 4] = bad
    with pytest.raises(UserError, match="not finite"):
        select(logits, uniform_truncation(3, 0.8, 0.95, 0), np.full(3, 0.5))
    with pytest.raises(UserError, match="not finite"):
        select(torch.full((1, 10), -math.inf), uniform_truncation(1, 0.0, 1.0, 0), np.zeros(1))


def test_the_kernel_stays_inside_its_arrays(tmp_path: Path) -> None:
    """Fuzzed with bounds checks compiled in: widths around the block size, ties, wide and narrow rows."""
    script = """
import numpy as np, numba
from kringle.generation.selection_kernel import BLOCK, _sum, select_rows
assert _sum.targetoptions.get("boundscheck") or numba.config.BOUNDSCHECK
random = np.random.Generator(np.random.Philox(5))
for width in (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 300):
    for spread in (0.0, 1.0, 60.0):
        rows = 40
        logits = (np.round(random.standard_normal((rows, width)) * 4) / 4 * spread).astype(np.float32)
        ids, log_probabilities = np.full(rows, -1), np.full(rows, 9, np.float32)
        inverse = random.choice([0, 0.1, 1, 5], rows).astype(np.float32)
        p, k = random.choice([1e-9, 0.5, 0.95, 1.0], rows), random.choice([0, 1, 3, width, 999], rows)
        u = random.choice([0.0, 0.3, np.nextafter(1, 0)], rows)
        select_rows(logits, inverse, p, k, u, np.float32(-87), ids, log_probabilities)
        assert ((0 <= ids) & (ids < width) & (log_probabilities <= 1e-6)).all()
"""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
