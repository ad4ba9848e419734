"""What was published about SantaCoder and its peers: the numbers that a study is held beside.

All from "SantaCoder: don't reach for the stars!" (arXiv 2301.03988), tables 3 and 5 to 12. HumanEval and MBPP are
MultiPL-E's translations, pass@k from 200 samples; infilling is exact match on single lines of working HumanEval
solutions. None of these has an interval or a second training seed; with 161 problems, one or two points are within
noise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import fmean

LANGUAGES = ("java", "javascript", "python")
HUMANEVAL, MBPP, INFILLING = "HumanEval", "MBPP", "infilling"
_PROBLEMS = {  # whose problems our suites hold
    "humaneval": HUMANEVAL,
    "mbpp": MBPP,
    **{f"multipl-e-{language}": HUMANEVAL for language in ("java", "js", "py")},
}
SOURCE = "arXiv 2301.03988, tables 5 to 12"
DATA_SOURCE = "arXiv 2301.03988, table 3"


@dataclass(frozen=True)
class Scores:
    """One model's scores in the order of `LANGUAGES`; pass@1, @10 and @100. None where the paper has none."""

    humaneval: tuple[tuple[float, float, float], ...]
    mbpp: tuple[tuple[float, float, float], ...]
    infilling: tuple[float, float, float] | None


def _passes(text: str) -> tuple[tuple[float, float, float], ...]:
    rows = [tuple(int(part) / 100 for part in language.split("/")) for language in text.split()]
    return tuple((a, b, c) for a, b, c in rows)


# By the name that the arm has in our recipes. Rows: Java, JavaScript, Python; columns: pass@1/@10/@100 in percent.
ARMS = {
    "fim": Scores(_passes("10/19/35 12/19/33 12/21/36"), _passes("23/37/54 25/43/64 27/47/67"), (0.64, 0.61, 0.42)),
    "mha": Scores(_passes("12/21/36 13/21/37 13/24/38"), _passes("23/38/55 26/46/67 31/49/70"), None),
    "no-fim": Scores(_passes("11/21/37 14/21/37 14/23/39"), _passes("23/37/55 23/44/65 28/47/68"), None),
    "stars": Scores(_passes("8/16/30 8/15/30 10/18/31"), _passes("18/33/49 19/37/59 24/41/63"), (0.54, 0.57, 0.37)),
    "comments": Scores(
        _passes("11/20/35 12/20/35 14/22/38"), _passes("22/37/52 25/44/65 30/48/69"), (0.62, 0.59, 0.44)
    ),
    "near-dedup": Scores(
        _passes("13/22/38 14/20/37 13/22/37"), _passes("23/38/55 26/45/66 31/49/71"), (0.66, 0.57, 0.45)
    ),
    "fertility": Scores(
        _passes("11/19/35 10/19/35 14/21/36"), _passes("22/38/53 24/43/65 28/47/68"), (0.67, 0.65, 0.45)
    ),
    "final": Scores(_passes("15/26/41 16/27/47 18/29/49"), _passes("28/44/59 28/51/70 35/58/77"), (0.62, 0.60, 0.44)),
}


def difference(arm: str, measure: str, k: int = 100) -> float | None:
    """Arm minus base, the mean of three languages; None where it was not published."""
    if arm not in ARMS or arm == "fim":
        return None
    one, base = ARMS[arm], ARMS["fim"]
    if measure == INFILLING:
        return fmean(one.infilling) - fmean(base.infilling) if one.infilling and base.infilling else None
    column = (1, 10, 100).index(k)
    rows = (one.humaneval, base.humaneval) if measure == HUMANEVAL else (one.mbpp, base.mbpp)
    ours, theirs = (fmean(row[column] for row in part) for part in rows)
    return ours - theirs


def beside(arm: str, measure: str) -> float | None:
    """The published difference of an arm to the base on one of our measures ("infilling", "pass@1 on humaneval"); None
    where the paper has none on the same problems."""
    if measure == INFILLING:
        return difference(arm, INFILLING)
    found = re.fullmatch(r"pass@(1|10|100) on (.+)", measure)
    problems = _PROBLEMS.get(found[2]) if found is not None else None
    return difference(arm, problems, int(found[1])) if found is not None and problems is not None else None


@dataclass(frozen=True)
class Model:
    """A published model; scores by prompt set and language, shares between 0 and 1."""

    name: str
    parameters: float
    pass_at_100: dict[str, float]
    infilling: dict[str, float]


# Table 12 and table 9: pass@100 on MultiPL-E's HumanEval, exact match on single-line infilling.
MODELS = (
    Model(
        "InCoder",
        6.7e9,
        {"java": 0.36, "javascript": 0.38, "python": 0.47},
        {"java": 0.49, "javascript": 0.51, "python": 0.31},
    ),
    Model("CodeGen-Multi", 2.7e9, {"java": 0.42, "javascript": 0.39, "python": 0.39}, {}),
    Model("CodeGen-Mono", 2.7e9, {"python": 0.57}, {}),
    Model("Codex", 2.5e9, {"python": 0.60}, {}),
    Model(
        "SantaCoder",
        1.1e9,
        {"java": 0.41, "javascript": 0.47, "python": 0.49},
        {"java": 0.62, "javascript": 0.60, "python": 0.44},
    ),
)
PROMPT_SETS = {"pass@100": "MultiPL-E HumanEval, 200 samples", "infilling": "single lines of HumanEval solutions"}


@dataclass(frozen=True)
class Claim:
    """One lesson of the article: what it says of an arm, the published number, and which of our verdicts would agree.

    `kind` is what the claim is about: writing programs or infilling.
    """

    arm: str
    claim: str
    published: str
    kind: str
    agree: tuple[str, ...]
    value: float | None


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}") + " pts"


def _claim(arm: str, claim: str, kind: str, agree: tuple[str, ...]) -> Claim:
    value = difference(arm, INFILLING) if kind == INFILLING else difference(arm, HUMANEVAL)
    text = f"{_points(value)} infilling"
    if kind != INFILLING:
        text = f"{_points(value)} HumanEval, {_points(difference(arm, MBPP))} MBPP (pass@100)"
    return Claim(arm, claim, text, kind, agree, value)


PROGRAMS = "programs"
CLAIMS = (
    _claim("mha", "Multi-query attention costs a little: multi-head is better", PROGRAMS, ("better",)),
    _claim("no-fim", "Fill-in-the-middle costs a little: without it is better", PROGRAMS, ("better",)),
    _claim("stars", "Choosing repositories by stars makes the model worse", PROGRAMS, ("worse",)),
    _claim("stars", "Choosing repositories by stars makes infilling worse", INFILLING, ("worse",)),
    _claim("comments", "More comments in the code help a little", PROGRAMS, ("better", "no difference")),
    _claim("near-dedup", "Stronger near-deduplication helps", PROGRAMS, ("better",)),
    _claim("fertility", "Filtering by tokenizer fertility changes little", PROGRAMS, ("no difference",)),
    _claim("fertility", "Filtering by tokenizer fertility helps infilling", INFILLING, ("better",)),
    _claim("final", "Both best filters and twice the tokens: clearly better", PROGRAMS, ("better",)),
    _claim("final", "The final model is no better at infilling", INFILLING, ("no difference", "worse")),
)


# -- data --------------------------------------------------------------------------------------------------------------

# Gigabytes of each version of the training data (table 3 of the paper), by the filter's key in our recipes.
SIZES_GB = {
    "": {"python": 75.6, "java": 110.0, "javascript": 82.7},
    "stars": {"python": 26.6, "java": 35.8, "javascript": 20.8},
    "comments": {"python": 65.6, "java": 92.7, "javascript": 57.5},
    "near_dedup": {"python": 62.0, "java": 88.4, "javascript": 65.1},
    "fertility": {"python": 72.5, "java": 105.5, "javascript": 76.4},
}


def _removed(sizes: dict[str, float]) -> dict[str, float]:
    base = SIZES_GB[""]
    shares = {language: 1 - sizes[language] / base[language] for language in base}
    return {"all": 1 - sum(sizes.values()) / sum(base.values()), **shares}


# Share of the base data's bytes that a filter removed, by language and of all.
REMOVED = {name: _removed(sizes) for name, sizes in SIZES_GB.items() if name}
