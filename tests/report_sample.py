"""A study's results as a laptop run might give them, for the tests of the report and for looking at it."""

from __future__ import annotations

import math
from dataclasses import replace

from kringle.randomness import stream
from kringle.study.filter_results import (
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
from kringle.study.results import (
    Arm,
    Baseline,
    BitsPerByte,
    Command,
    Comparison,
    Corpus,
    Dropped,
    Estimate,
    Example,
    FunnelStep,
    HeldOut,
    HeldOutPoint,
    Infilling,
    InfillingScore,
    LossPoint,
    Machine,
    PassAtK,
    RecipeText,
    Results,
    Share,
    Stage,
    SuiteResult,
    TokenizerResult,
    Training,
)

RECIPE = """\
name: laptop
fidelity: corrected
corpus:     {sources: [{installed: {}}], languages: [python, java, javascript], licenses: permissive, max_bytes: 60MB}
clean:      {max_line: 1000, mean_line: 100, alphanumeric: 0.25, decontaminate: [starter]}
tokenizer:  {vocab_size: 2048}
model:      {layers: 4, width: 128, heads: 4, attention: mqa, context: 256}
training:   {tokens: 1M, batch_tokens: 2048, learning_rate: 2e-3, schedule: cosine, warmup: 0.02,
             fim: {rate: 0.5, spm: 0.5}, seeds: [0]}
ablations:
  fim:      {}
  no-fim:   {training: {fim: {rate: 0}}}
  mha:      {model: {attention: mha}}
  comments: {filter: {comments: {above: 0.01, below: 0.80}}}
"""


def wilson(hits: int, n: int, z: float = 1.644854) -> Estimate:
    """Wilson's score interval (1927), 90% as in every study."""
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, centre - half, centre + half, 0.90, "Wilson score")


def bootstrap(value: float, half: float) -> Estimate:
    return Estimate(value, value - half, value + half, 0.90, "bootstrap over files, 10,000 resamples")


def training(name: str, seed: int, start: float, end: float, parameters: int, held_out: bool) -> Training:
    noise = stream(seed, "sample-curve", name)
    points = []
    for step in range(1, 513):
        mean = end + (start - end) * math.exp(-step / 45) + 0.7 * math.exp(-step / 260)
        points.append(LossPoint(step, step * 2048, mean + 0.09 * float(noise.standard_normal())))
    curve = [HeldOutPoint(s, s * 2048, 2.2 + 2.6 * math.exp(-s / 120) + 0.02 * seed) for s in range(64, 513, 64)]
    return Training(
        parameters=parameters,
        tokens=512 * 2048,
        unique_tokens=9_412_233,
        epochs=512 * 2048 / 9_412_233,
        steps=512,
        seconds=92.4 + seed,
        tokens_per_second=11_348.6 - 7 * seed,
        curve=tuple(points),
        held_out_curve=tuple(curve) if held_out else (),
    )


def arm(
    name: str,
    summary: str,
    changes: dict[str, str],
    *,
    base: bool = False,
    loss: float = 3.3,
    bits: float = 2.21,
    hits: int = 31,
    passes: int = 3,
    parameters: int = 1_023_104,
    number: int = 0,
    held_out_curve: bool = False,
) -> Arm:
    scores = {
        language: InfillingScore(part, of, wilson(part, of), truncated)
        for language, part, of, truncated in (
            ("python", hits // 2, 263, 4),
            ("javascript", hits - hits // 2, 237, 2),
        )
    }
    return Arm(
        name=name,
        summary=summary,
        changes=changes,
        is_base=base,
        seed=0,
        command=f"kringle run laptop --only {name}",
        training=training(name, number, 7.6, loss, parameters, held_out_curve),
        bits_per_byte=BitsPerByte(
            total=bootstrap(bits, 0.031),
            languages={"python": bootstrap(bits - 0.07, 0.036), "javascript": bootstrap(bits + 0.11, 0.052)},
            baselines=(
                Baseline("5-gram", 2.387, {"python": 2.301, "javascript": 2.522}),
                Baseline("zstd with dictionary", 2.914, {"python": 2.846, "javascript": 3.017}),
            ),
            beats_ngram="yes" if bits < 2.3 else "undecided",
            files=412,
            bytes=998_412,
        ),
        infilling=Infilling(
            "prefix only" if name == "no-fim" else "prefix-suffix-middle",
            InfillingScore(hits, 500, wilson(hits, 500), 6),
            scores,
        ),
        suites=(
            SuiteResult(
                suite="starter",
                prompts="9c1f2e77ab04",
                problems=44,
                samples=20,
                sampler="temperature 0.8, top-p 0.95",
                jail="namespaces",
                pass_at=(PassAtK(1, wilson(passes, 880)), PassAtK(10, wilson(min(44, passes), 44))),
                verdicts={"passed": passes, "wrong answer": 512, "exception": 301, "syntax error": 61, "timeout": 6},
            ),
        ),
    )


def comparison(name: str, measure: str, difference: float, half: float, **changes: object) -> Comparison:
    bits = measure == "bits per byte"
    made = Comparison(
        arm=name,
        base="fim",
        measure=measure,
        unit="bits per byte" if bits else "fraction",
        higher_is_better=not bits,
        difference=difference,
        low=difference - half,
        high=difference + half,
        level=0.90,
        margin=0.022 if bits else 0.02,
        verdict="undecided",
        remark="this pair of runs only",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


PREFIX = '''\
def _split_header(line: str) -> tuple[str, str]:
    """Split ``Name: value`` at the first colon."""
    name, colon, value = line.partition(":")
    if not colon:
'''
SUFFIX = """
    return name.strip().lower(), value.strip()


def parse_headers(lines):
    headers = {}
    for line in lines:
        name, value = _split_header(line)
        headers[name] = value
    return headers
"""


VOWELS = '''\
def count_vowels(text: str) -> int:
    """How many vowels are in text?

    >>> count_vowels("banana")
    3
    """
'''


def examples() -> tuple[Example, ...]:
    where, line = "site-packages/httpish/_headers.py", '        raise ValueError(f"no colon in {line!r}")'
    return (
        Example("infilling", "fim", "python", where, PREFIX, line, SUFFIX, line, True),
        Example("infilling", "no-fim", "python", where, PREFIX, '        return ""', SUFFIX, line, False),
        Example("infilling", "mha", "python", where, PREFIX, "", SUFFIX, line, False, "cut at the token limit"),
        Example(
            "infilling",
            "fim",
            "javascript",
            "node_modules/example/lib/escape.js",
            "// hostile text must stay text\nconst html = '</script><script>alert(1)</script><!--';\n"
            + "x" * 900
            + "\n",
            "const bidi = '\u202e\u2066 gnp.exe \u2069';\tvar esc = '\x1b[31m';\x00",
            "\nmodule.exports = { html, bidi };\n",
            "const bidi = null;",
            False,
        ),
        Example(
            "starter",
            "fim",
            "python",
            "starter/07 count_vowels",
            VOWELS,
            '    return sum(c in "aeiou" for c in text.lower())',
            "",
            None,
            True,
            "passed 6 of 6 checks",
        ),
        Example(
            "left-to-right",
            "mha",
            "python",
            "free text",
            "import os\nimport sys\n\n\nclass Registry:\n    def __init__(self):\n",
            "        self._name = name\n        self._name = name\n        self._name = None\n",
            "",
            None,
            None,
        ),
    )


def filtering() -> Filtering:
    """Two filters, one of them at two thresholds by language, and near-duplicates under two settings."""

    def curve(signal: Signal, name: str, language: str, last: float, power: float) -> ThresholdCurve:
        points = tuple(Kept(last * i / 50, (1 - i / 50) ** power) for i in range(51))
        return ThresholdCurve(signal, name, language, points)

    near = tuple(Kept(0.7 + i / 10, 0.9991 + i / 5000) for i in range(4))
    collision = tuple(Meeting(i / 50, 1 - (1 - (i / 50) ** 5) ** 29) for i in range(51))
    one = NearDuplicates(
        5, 0.7, 29, 5, 14_203, 902, 74_120_331, 6_300_120, collision, (Cluster(2, 300), Cluster(3, 80), Cluster(35, 7))
    )
    return Filtering(
        (
            *(curve("comments: floor", "comments: floor", x, 1.0, 3) for x in ("all", "javascript", "python")),
            *(curve("fertility", "fertility", x, 5.2, 0.2) for x in ("all", "javascript", "python")),
            ThresholdCurve("near-duplicates", setting_name(5, 0.7), "all", near),
            ThresholdCurve("near-duplicates", setting_name(1, 0.85), "all", near[1:]),
        ),
        (
            ThresholdUsed("comments: floor", "comments", "all", 0.01),
            ThresholdUsed("fertility", "fertility", "python", 2.5),
            ThresholdUsed("fertility", "fertility", "javascript", 2.6),
            ThresholdUsed("near-duplicates", "near-dedup", "all", 0.7),
        ),
        (Removed("comments", "all", 0.12, 0.196), Removed("mine", "all", 0.5, None)),
        (one, replace(one, ngram=1, threshold=0.85, bands=25, rows=10, clusters=())),
    )


def sample() -> Results:
    """Four arms of a laptop study, everything present."""
    arms = (
        arm(
            "fim", "The base: multi-query attention, half of the pieces rearranged", {}, base=True, held_out_curve=True
        ),
        arm(
            "no-fim",
            "Plain left-to-right training",
            {"training.fim.rate": "0"},
            loss=3.21,
            bits=2.195,
            hits=12,
            passes=5,
            number=1,
            held_out_curve=True,
        ),
        arm(
            "mha",
            "Multi-head attention",
            {"model.attention": "mha"},
            loss=3.28,
            bits=2.202,
            hits=34,
            passes=0,
            parameters=1_121_408,
            number=2,
            held_out_curve=True,
        ),
        arm(
            "comments",
            "Only files with 1% to 80% comments",
            {"filter.comments.above": "0.01", "filter.comments.below": "0.80"},
            loss=3.36,
            bits=2.318,
            hits=27,
            passes=2,
            number=3,
            held_out_curve=True,
        ),
    )
    return Results(
        filtering=filtering(),
        study="laptop",
        created="2025-03-04T10:21:07+00:00",
        command_line="kringle run laptop",
        kringle_version="0.1.0",
        fidelity="corrected",
        release_note="Not for permissive release: the corpus holds GPL-2.0 code with the Classpath exception",
        findings=(
            "Fill-in-the-middle training fills in more lines than left-to-right training (6.2% against 2.4% of 500 "
            "held-out lines), and costs too little on plain prediction to be seen here.",
            "Multi-head attention: undecided on every measure. With one seed no difference is called more.",
            "The comment filter: worse by 0.11 bits per byte, from having less data or from the filter; this run "
            "has no size-matched control that could tell which.",
            "Three of four models beat the 5-gram baseline; comments does not clearly do so.",
        ),
        limitations=(
            "One seed per arm: a difference may be luck; intervals hold for this pair of runs only.",
            "About a million parameters and a million tokens: what helps here need not help at a billion.",
            "The starter suite is far too hard for models of this size; pass rates near zero say little.",
        ),
        machine=Machine("AMD EPYC 9R45", 2, 16_482_000_000, "Linux 6.1 x86-64", "3.11.7", "2.13.0+cpu"),
        versions={
            "numpy": "2.3.1",
            "tokenizers": "0.22.0",
            "numba": "0.62.1",
            "zstandard": "0.23.0",
            "pyarrow": "21.0",
        },
        recipe=RecipeText("laptop", "5d41402abc4b2a76b9719d911017c592", RECIPE),
        corpus=Corpus(
            fingerprint="7d793037a0760186574b0282f2f435e7",
            notes=(
                "Left out: openjdk-17 src.zip, 14,202 files under GPL-2.0-with-classpath-exception; "
                "--allow-license GPL-2.0-with-classpath-exception includes it.",
                "318 files could not be read as UTF-8 and were skipped.",
            ),
            sources=(
                Share("python3.11 standard library", 1_702, 24_310_442),
                Share("site-packages/torch", 2_911, 19_874_100),
                Share("node_modules/@babel/core", 212, 1_204_331),
            ),
            languages=(Share("python", 9_811, 51_204_331), Share("javascript", 2_410, 8_795_112)),
            licenses=(
                Share("MIT", 5_120, 22_101_001),
                Share("BSD-3-Clause", 4_411, 21_001_404),
                Share("PSF-2.0", 1_702, 16_897_038),
            ),
            languages_without_data=("java",),
        ),
        funnel=(
            FunnelStep("collected", 14_203, 74_120_331, None, (Dropped("licence not permissive", 902, 6_300_120),)),
            FunnelStep("distinct", 12_811, 63_811_200, None, (Dropped("exact copy", 1_392, 10_309_131),)),
            FunnelStep(
                "basic filter",
                12_221,
                59_999_443,
                None,
                (
                    Dropped("line over 1,000 characters", 311, 3_001_442),
                    Dropped("mean line over 100 characters", 204, 611_204),
                    Dropped("too few letters and digits", 75, 199_111),
                ),
            ),
            FunnelStep("training pool", 11_598, 56_911_020, 20_114_870, (Dropped("held out", 623, 3_088_423),)),
        ),
        held_out=HeldOut("package", 412, 2_901_411, 118, 93),
        tokenizer=TokenizerResult("e4d909c290d0fb1ca068ffaddf22cbd0", 2_176, {"python": 2.91, "javascript": 2.64}),
        arms=arms,
        comparisons=(
            comparison("no-fim", "bits per byte", -0.0151, 0.0121),
            comparison("mha", "bits per byte", -0.0080, 0.0102, verdict="no difference"),
            comparison("comments", "bits per byte", 0.1080, 0.0190, verdict="worse"),
            comparison("no-fim", "infilling exact match", -0.038, 0.017, verdict="worse"),
            comparison("mha", "infilling exact match", 0.006, 0.019),
            comparison("comments", "infilling exact match", -0.008, 0.018),
            comparison("no-fim", "pass@1 on starter", 0.0023, 0.0041, verdict="better"),
            comparison("mha", "pass@1 on starter", -0.0034, 0.0034),
            comparison("comments", "pass@1 on starter", -0.0011, 0.0040),
        ),
        examples=examples(),
        stages=(
            Stage("collect", 21.4, 38.2, 412_000_000, False, "kringle run laptop --from collect --until collect"),
            Stage("clean", 9.81, 18.8, 388_000_000, False, "kringle run laptop --from clean --until clean"),
            Stage("tokenizer", 14.2, 27.0, 921_000_000, True, "kringle run laptop --from tokenizer --until tokenizer"),
            Stage("encode", 0.412, 0.71, 301_000_000, False, "kringle run laptop --from encode --until encode"),
            Stage("train", 371.2, 730.4, 1_204_000_000, False, "kringle run laptop --from train --until train"),
            Stage("evaluate", 77.9, 150.1, 880_000_000, False, "kringle run laptop --from evaluate --until evaluate"),
        ),
        commands=(
            Command("study", "the whole study", "kringle run laptop"),
            Command("left-to-right", "pass@k", "kringle evaluate kringle-work/models/fim --suite starter"),
            Command("infilling", "exact match", "kringle evaluate kringle-work/models/fim --infilling"),
            Command("bits-per-byte", "bits per byte", "kringle evaluate kringle-work/models/fim --bits-per-byte"),
            Command("comparisons", "differences", "kringle run laptop --from report"),
            Command("training", "the models", "kringle run laptop --from train --until train"),
            Command("examples", "completions", "kringle run laptop --from evaluate"),
            Command("corpus", "the corpus", "kringle run laptop --until collect"),
            Command("funnel", "the counts", "kringle run laptop --until encode"),
            Command("held-out", "the split", "kringle run laptop --until split"),
            Command("tokenizer", "the tokenizer", "kringle run laptop --until tokenizer"),
        ),
    )


def with_arms(results: Results, names: list[str]) -> Results:
    """The same study with these arms, the first one the base; scores vary, comparisons follow."""
    arms = tuple(
        arm(
            name,
            f"Arm {index} of many",
            {"key": str(index)} if index else {},
            base=index == 0,
            loss=3.2 + 0.004 * index,
            bits=2.2 + 0.01 * index,
            hits=30 + index,
            passes=index,
            number=index,
        )
        for index, name in enumerate(names)
    )
    compared = tuple(
        replace(comparison(name, measure, 0.004 * index, 0.01), base=names[0])
        for measure in ("bits per byte", "infilling exact match", "pass@1 on starter")
        for index, name in enumerate(names)
        if index
    )
    shown = tuple(replace(example, arm=names[0]) for example in results.examples[:1])
    return replace(results, arms=arms, comparisons=compared, examples=shown)


def variants() -> dict[str, Results]:
    """Studies at the edges of what a report must take."""
    whole = sample()
    first, second, *rest = whole.arms
    infilling = first.infilling
    assert infilling is not None
    assert infilling.total is not None
    all_hit = replace(infilling, total=replace(infilling.total, hits=500, exact_match=wilson(500, 500)))
    none_hit = replace(infilling, total=replace(infilling.total, hits=0, exact_match=wilson(0, 500)))
    jailless = tuple(
        replace(suite, pass_at=(), verdicts={}, not_run="no jail on this machine") for suite in first.suites
    )
    no_line = Infilling("prefix only", None, {}, "no held-out line is long enough")
    diverged = replace(second.training, curve=tuple(replace(p, loss=None) for p in second.training.curve))  # type: ignore
    long_name = "an-arm-with-a-name-" + "m" * 80 + "-longer-than-any-column"
    untrained = replace(
        rest[0], training=None, bits_per_byte=None, infilling=None, suites=(), not_run="left out by --only"
    )
    bare = replace(
        with_arms(whole, ["alone"]),
        examples=(),
        commands=(),
        stages=(),
        funnel=(),
        findings=(),
        limitations=(),
        versions={},
        release_note=None,
        corpus=replace(whole.corpus, notes=(), sources=(), languages=(), licenses=(), languages_without_data=()),
        tokenizer=replace(whole.tokenizer, bytes_per_token={}),
    )
    two_seeds = replace(
        whole,
        arms=(first, replace(first, seed=1), second),
        comparisons=tuple(c for c in whole.comparisons if c.arm == second.name),
        examples=(),
    )
    return {
        "sample": whole,
        "one arm": with_arms(whole, ["alone"]),
        "ten arms": with_arms(whole, [f"arm-{index}" for index in range(9)] + [long_name]),
        "zero and one": replace(
            whole, arms=(replace(first, infilling=all_hit), replace(second, infilling=none_hit), *rest)
        ),
        "suite not run": replace(whole, arms=tuple(replace(a, suites=jailless) for a in whole.arms)),
        "suite missing for one": replace(whole, arms=(first, replace(second, suites=()), *rest)),
        "no suites": replace(whole, arms=tuple(replace(a, suites=()) for a in whole.arms)),
        "no infilling": replace(whole, arms=tuple(replace(a, infilling=None) for a in whole.arms)),
        "infilling not run": replace(whole, arms=(first, replace(second, infilling=no_line), *rest)),
        "diverged": replace(whole, arms=(first, replace(second, training=diverged), *rest)),
        "untrained arm": replace(whole, arms=(first, second, untrained, *rest[1:])),
        "two seeds": two_seeds,
        "bare": bare,
        "no examples": replace(whole, examples=()),
    }
