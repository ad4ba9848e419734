"""Colours that can be read and told apart, by everyone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kringle.study.theme import DARK, LIGHT, Theme, page_css

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Ottosson (2020), linear sRGB to OKLab.
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def linear(colour: str) -> np.ndarray:
    raw = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(raw <= 0.04045, raw / 12.92, ((raw + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    dark, light = sorted(float(linear(c) @ weights) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


def oklab(colour: str, vision: str) -> np.ndarray:
    return np.cbrt(TO_LMS @ np.clip(VISION[vision] @ linear(colour), 0, 1)) @ TO_LAB.T


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_has_contrast(theme: Theme) -> None:
    for text in (theme.ink, theme.muted, theme.accent, theme.better, theme.worse):
        for ground in (theme.paper, theme.raised):
            assert contrast(text, ground) >= 4.5
    for text in (theme.prefix, theme.suffix):
        assert contrast(text, theme.raised) >= 4.5
    assert contrast(theme.ink, theme.middle) >= 4.5
    assert contrast(theme.muted, theme.middle) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_have_contrast(theme: Theme) -> None:
    for colour in (*theme.series, theme.muted, theme.middle_line):
        assert contrast(colour, theme.paper) >= 3.0


@pytest.mark.parametrize("vision", list(VISION))
@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_the_first_six_colours_stay_apart(theme: Theme, vision: str) -> None:
    seen = [oklab(colour, vision) for colour in theme.series[:6]]
    apart = [float(np.linalg.norm(a - b)) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) >= 0.08


def test_style_asks_for_nothing_from_outside() -> None:
    css = page_css()
    assert not re.search(r"url\(|@import|@font-face|https?:", css)
    assert css.count("{") == css.count("}")


def test_both_themes_set_the_same_names() -> None:
    names = [re.findall(r"(--[a-z-]+):", part) for part in re.findall(r":root\{([^}]*)\}", page_css())]
    light, dark = (set(found) for found in names)
    assert dark == light - {"--sans", "--serif", "--mono"}
