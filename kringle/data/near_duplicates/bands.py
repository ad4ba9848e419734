"""How many bands of how many rows, and what that finds: the probability of a collision as a function of similarity.

Two documents of Jaccard similarity s share one given minimum with probability s, a band of r minima with s^r, and at
least one of b bands with 1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

PERMUTATIONS = 256  # SantaCoder's
RECALL = 0.995  # of pairs exactly at the threshold, in `corrected`; those above it are found more surely


class Bands(NamedTuple):
    """`bands` groups of `rows` minima each."""

    bands: int
    rows: int

    @property
    def permutations(self) -> int:
        return self.bands * self.rows

    def collision(self, similarity: float) -> float:
        """Probability that two documents of this Jaccard similarity share a band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def curve(self, points: int = 101) -> list[tuple[float, float]]:
        """(similarity, probability of a collision) at equal distances from 0 to 1."""
        return [(i / (points - 1), self.collision(i / (points - 1))) for i in range(points)]


def balanced_bands(threshold: float) -> Bands:
    """The bands that datasketch and BigCode's scripts take: of all with at most 256 minima, those with the smallest sum
    of the areas of false positives (collisions below the threshold) and false negatives (none above it); the first of
    equals. The integrands are polynomials of degree b * r, which Gauss and Legendre's rule integrates exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(PERMUTATIONS // 2 + 1)
    low, low_weights = (nodes + 1) * threshold / 2, weights * threshold / 2
    high, high_weights = threshold + (nodes + 1) * (1 - threshold) / 2, weights * (1 - threshold) / 2
    best, chosen = math.inf, Bands(1, 1)
    for b in range(1, PERMUTATIONS + 1):
        r = np.arange(1, PERMUTATIONS // b + 1)[:, None]
        false_positive = ((1 - (1 - low**r) ** b) * low_weights).sum(axis=1)
        false_negative = (((1 - high**r) ** b) * high_weights).sum(axis=1)
        error = 0.5 * false_positive + 0.5 * false_negative
        row = int(error.argmin())
        if error[row] < best - 1e-12:
            best, chosen = float(error[row]), Bands(b, row + 1)
    return chosen


def sure_bands(threshold: float, recall: float = RECALL) -> Bands:
    """The bands of `corrected`: as many rows as 256 minima allow while pairs at the threshold collide with at least
    this probability. More rows mean fewer candidates below the threshold; each candidate is verified anyway."""
    chosen = Bands(PERMUTATIONS, 1)
    for rows in range(1, PERMUTATIONS + 1):
        share = threshold**rows
        if share >= 1:
            return Bands(1, PERMUTATIONS)
        bands = math.ceil(math.log1p(-recall) / math.log1p(-share))
        if bands * rows > PERMUTATIONS:
            break
        chosen = Bands(bands, rows)
    return chosen
