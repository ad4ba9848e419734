"""The page: everything in it, nothing of it from outside, and no text that turns into markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from report_sample import sample, variants

from kringle.study.markup import visible
from kringle.study.report import render
from kringle.study.results import Results

VARIANTS = variants()
VOID = {"meta", "link", "br", "hr", "col"}
FREE = {"versions", "changes", "languages", "verdicts", "bytes_per_token"}  # mappings with names of their own


class Page(HTMLParser):
    """A page taken apart; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.code: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self.headings: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.code:
            self.code[self.open[-1]].append(data)
        elif "svg" not in self.open:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@pytest.mark.parametrize("name", list(VARIANTS))
def test_structure(name: str) -> None:
    page = Page(render(VARIANTS[name]))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    for tag, attributes in page.tags:
        if tag == "a":
            assert attributes["href"].startswith("#")
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or len(attributes["aria-label"]) > 20
        if tag in ("td", "th") and "scope" not in attributes:
            assert "data-sort" in attributes
    tables = [attributes for tag, attributes in page.tags if tag == "table"]
    assert sum(tag == "caption" for tag, _ in page.tags) == len(tables)
    assert page.tags[0] == ("html", {"lang": "en"})


def guarded(page: Page) -> None:
    """One script and one style, both ours, and nothing that could load or run anything else."""
    assert len(page.code["script"]) == len(page.code["style"]) == 1
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.code[kind][0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    for tag, attributes in page.tags:
        assert tag not in {"img", "iframe", "object", "embed", "form", "base", "use", "image", "foreignobject"}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        if "href" in attributes:
            assert attributes["href"].startswith("#") or attributes == {"rel": "icon", "href": "data:,"}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_nothing_from_outside(name: str) -> None:
    guarded(Page(render(VARIANTS[name])))


KEPT = {"schema", "created", "kind", "verdict", "beats_ngram", "unit", "section", "signal"}
PROBES = (
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    '" onload="alert(1)" x="',
    "' onmouseover='alert(1)",
    "<img src=https://example.org/x onerror=alert(1)>",
    "</title></svg></textarea></pre><!-- ",
    "]]><![CDATA[ &lt;script&gt; &#60;b&#62; javascript:alert(1)",
    "\u202e\u2066\x00\x1b[31m\x85\ufeff\u2028\ud800",
)


def probed(value: Any, probe: str) -> Any:
    """Every text in a JSON value, keys of free mappings included, with a probe at its end."""
    if isinstance(value, str):
        return value + probe
    if isinstance(value, list):
        return [probed(item, probe) for item in value]
    if isinstance(value, dict):
        return {
            key: {k + probe: probed(v, probe) for k, v in item.items()}
            if key in FREE and isinstance(item, dict)
            else item
            if key in KEPT
            else probed(item, probe)
            for key, item in value.items()
        }
    return value


@pytest.mark.parametrize(
    ("name", "probe"), [*(("sample", probe) for probe in PROBES), *((name, PROBES[0]) for name in VARIANTS)]
)
def test_text_never_turns_into_markup(name: str, probe: str) -> None:
    raw = json.loads(VARIANTS[name].to_json())
    hostile = Results.from_json(json.dumps(probed(raw, probe)))
    calm = Results.from_json(json.dumps(probed(raw, "q" * len(probe))))
    text = render(hostile)
    page = Page(text)
    guarded(page)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in Page(render(calm)).tags}
    assert visible(probe).strip() in " ".join(page.words)
    assert not set(text) & set("\u202e\u2066\x00\x1b\x85\ufeff\u2028\ud800")
    text.encode("utf-8")


# -- every value -------------------------------------------------------------------------------------------------------


class Numbered:
    """A JSON value with a number of its own in every place; `told` lists what the page must say, with the path."""

    def __init__(self, value: Any) -> None:
        self.count = 0
        self.told: list[tuple[str, str]] = []
        self.value = self.walk(value, "")

    def say(self, path: str, *texts: str) -> None:
        self.told += [(path, " ".join(visible(text).split())) for text in texts]

    def walk(self, value: Any, path: str) -> Any:
        if isinstance(value, list):
            return [self.walk(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, dict):
            self.count += 1
            if "method" in value:
                return self.estimate(value, path)
            value = self.comparison(value, path) if "difference" in value else value
            if path.rsplit(".", 1)[-1] in FREE:
                self.say(path, *value)
            return {key: self.field(key, item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, str):
            self.say(path, value)
        return value

    def estimate(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        """Three different numbers; shares read as percent, bits per byte as they are."""
        self.say(path, value["method"])
        numbers = [(3 * self.count + place) / 1000 for place in range(3)]
        bits = "bits_per_byte" in path
        self.say(path, *(f"{number:.3f}" if bits else f"{number * 100:.1f}" for number in numbers))
        return {**value, **dict(zip(("low", "value", "high"), numbers, strict=True))}

    def comparison(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        share = value["unit"] == "fraction"
        numbers = [(-4, 4), (-3, 3), (5, 5), (7, 7)]
        made = {}
        for (scale, size), key in zip(numbers, ("low", "difference", "high", "margin"), strict=True):
            number = (size * 100 + self.count % 100) / (1000 if share else 10_000)
            self.say(f"{path}.{key}", f"{number * 100:.1f}" if share else f"{number:.4f}")
            made[key] = number if scale > 0 else -number
        return {**value, **made}

    def field(self, key: str, value: Any, path: str) -> Any:
        """A number by the unit of its field."""
        if key in SKIPPED or isinstance(value, bool):
            return value
        if not isinstance(value, int | float):
            return self.walk(value, path)
        self.count += 1
        n = self.count
        if key.endswith("bytes"):
            self.say(path, f"{100 + n} GB")
            return (100 + n) * 10**9
        if isinstance(value, int):
            self.say(path, f"{1_000_003 + 7_919 * n:,}")
            return 1_000_003 + 7_919 * n
        if key.endswith("seconds"):
            self.say(path, f"{n // 60} h {n % 60:02d} min" if n >= 60 else f"{n} min 05 s")
            return 60.0 * n + 5
        if key == "tokens_per_second":
            self.say(path, f"{11_003 + 101 * n:,}")
            return 11_003.0 + 101 * n
        digits = 3 if "bits_per_byte" in path else 2
        self.say(path, f"{3 + n / 1000:.{digits}f}")
        return 3 + n / 1000


# Curves are in the figure and the CSV; what filters keep (`test_study_filtering.py`) and code, which is clipped, have
# tests of their own; a run has one level and seed.
SKIPPED = {"schema", "created", "curve", "held_out_curve", "prefix", "suffix", "level", "seed", "k", "unit", "kind"}
SKIPPED |= {"section", "difference", "low", "high", "margin", "filtering"}


def test_every_value_is_on_the_page() -> None:
    numbered = Numbered(json.loads(sample().to_json()))
    assert len(numbered.told) > 500
    page = Page(render(Results.from_json(json.dumps(numbered.value))))
    missing = [
        (path, text)
        for path, text in numbered.told
        if text and not re.search(rf"(?<![\d.,]){re.escape(text)}(?!\d)", page.text)
    ]
    assert missing == []
    assert "4 March 2025, 10:21 UTC" in page.text


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_sentence_and_reason_is_on_the_page(name: str) -> None:
    results = VARIANTS[name]
    page = Page(render(results))
    for sentence in (*results.findings, *results.limitations, *results.corpus.notes):
        assert sentence in page.text
    for arm in results.arms:
        assert arm.name in page.text
        assert arm.not_run is None or arm.not_run in page.text
        assert arm.infilling is None or arm.infilling.not_run is None or arm.infilling.not_run in page.text
        assert all(suite.not_run is None or suite.not_run in page.text for suite in arm.suites)


# -- what is missing is named ------------------------------------------------------------------------------------------


def words(name: str) -> str:
    return Page(render(VARIANTS[name])).text


def test_what_is_missing_is_named() -> None:
    assert "starter was not run for fim, no-fim, mha and comments: no jail on this machine" in words("suite not run")
    assert "Infilling was not run for no-fim: no held-out line is long enough" in words("infilling not run")
    assert "No suite of problems was evaluated." in words("no suites")
    assert "Infilling was not evaluated." in words("no infilling")
    assert "No example completions were kept." in words("no examples")
    assert "There is no second arm to compare with the base." in words("one arm")
    assert "not run left out by --only" in words("untrained arm")
    assert "Languages without data on this machine: java." in words("sample")
    assert "where the line breaks: no-fim" in words("diverged")
    assert "fim, seed 0" in words("two seeds")
    assert "fim, seed 1" in words("two seeds")
    assert "Not for permissive release" in words("sample")
    assert "Not for permissive release" not in words("bare")


def test_whether_the_models_beat_the_baseline_is_said() -> None:
    def said(*answers: str) -> str:
        arms = [
            replace(arm, bits_per_byte=replace(arm.bits_per_byte, beats_ngram=answer))  # type: ignore
            for arm, answer in zip(sample().arms, answers, strict=True)
        ]
        return Page(render(replace(sample(), arms=tuple(arms)))).text

    assert "Every trained model beats the n-gram baseline" in said("yes", "yes", "yes", "yes")
    mixed = said("no", "yes", "no", "undecided")
    assert "is beaten by no-fim; not beaten by fim and mha; undecided for comments." in mixed


# -- examples ----------------------------------------------------------------------------------------------------------


def test_examples_show_prefix_middle_and_suffix_in_order() -> None:
    results = sample()
    text = render(replace(results, examples=results.examples[:1]))
    block = re.search(r"<pre[^>]*><code><span class=\"prefix\">.*?</code></pre>", text, re.DOTALL)
    assert block is not None
    assert re.findall(r'<(span|mark)(?: class="(\w+)")?>', block[0]) == [
        ("span", "prefix"),
        ("mark", ""),
        ("span", "suffix"),
        ("span", "cut"),
    ]
    reader = Page(f"<div>{block[0]}</div>")
    example = results.examples[0]
    shown = "".join(reader.words)
    assert shown.startswith(example.prefix + example.completion + "\n    return name.strip()")
    assert shown.endswith("3 more lines")


def test_examples_at_one_place_share_a_card() -> None:
    text = render(sample())
    assert text.count('class="example"') == 4
    assert text.count("\N{CHECK MARK} exact match</span>") == 1
    assert text.count("\N{MULTIPLICATION X} missed</span>") == 3


def test_long_code_is_clipped_and_says_so() -> None:
    example = sample().examples[0]
    long = replace(
        example,
        prefix="\n".join(f"above {i}" for i in range(1, 100)),
        completion="c" * 1_000,
        suffix="\n".join(f"below {i}" for i in range(1, 100)),
        expected=None,
    )
    page = Page(render(replace(sample(), examples=(long,))))
    assert "83 lines above" in page.text
    assert "above 84" in page.text
    assert "above 83 " not in page.text
    assert "600 characters" in page.text
    assert "c" * 400 in page.text
    assert "c" * 401 not in page.text
    assert "below 8" in page.text
    assert "91 more lines" in page.text
