"""Escaping and the spelling of numbers."""

from __future__ import annotations

import html
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kringle.study import units
from kringle.study.markup import Markup, escape, join, tag, visible
from kringle.study.units import MINUS


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters()))
def test_any_text_stays_text_in_content_and_attribute(text: str) -> None:
    reader = Reader()
    reader.feed(tag("p", text, title=text, data_value=text))
    reader.close()
    assert reader.tags == [("p", {"title": visible(text), "data-value": visible(text)})]
    assert reader.text == visible(text)


@given(st.text(st.characters()))
def test_nothing_invisible_passes(text: str) -> None:
    shown = visible(text)
    assert all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in shown)
    assert not set(shown) & set("\u2028\u2029")
    shown.encode("utf-8")  # no lone surrogates


def test_what_is_spelled_out() -> None:
    assert visible("a\u202eb\x00\x1b[0m\ufeff\ud800\n\té中") == "a<U+202E>b<U+0000><U+001B>[0m<U+FEFF><U+D800>\n\té中"


def test_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "<&>")
    assert tag("p", inner, "&") == "<p><b>&lt;&amp;&gt;</b>&amp;</p>"
    assert escape(inner) is inner
    assert join("<", Markup("<br/>"), between="&") == "&lt;&amp;<br/>"


def test_attributes() -> None:
    made = tag("line", class_="a", stroke_width=1.5, x1=1 / 3, hidden=True, title=None, open=False)
    assert made == '<line class="a" stroke-width="1.5" x1="0.333333" hidden=""></line>'
    assert tag("meta", name="x") == '<meta name="x"/>'
    assert html.unescape(tag("a", title='"><script>')) == '<a title=""><script>"></a>'


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0%"), (1, "100.0%"), (0.1234, "12.3%"), (0.0004, "0.04%"), (0.00004, "0.004%"), (1e-9, "<0.001%")],
)
def test_percent(value: float, text: str) -> None:
    assert units.percent(value) == text


def test_percent_of_a_negative_share() -> None:
    assert units.percent(-0.02) == f"{MINUS}2.0%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (812, "812 B"), (999.6, "1.00 KB"), (4_210, "4.21 KB"), (61_300_000, "61.3 MB"), (2.5e12, "2.50 TB")],
)
def test_size(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0001, "0.1 ms"),
        (0.412, "412 ms"),
        (0.9999, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 00 s"),
        (75, "1 min 15 s"),
        (3_599.7, "1 h 00 min"),
        (356_400, "99 h 00 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_counts_and_differences() -> None:
    assert units.count(-1_234_567) == f"{MINUS}1,234,567"
    assert [units.short_count(n) for n in (5, 12_345, 999_999, 1_048_576)] == ["5", "12.3K", "1.00M", "1.05M"]
    assert [units.points(d) for d in (0.0123, -0.01, 0.0)] == ["+1.2 pts", f"{MINUS}1.0 pts", "0.0 pts"]
    assert [units.bits_difference(d) for d in (0.0123, -0.0123, -0.00001)] == ["+0.0123", f"{MINUS}0.0123", "0.0000"]


@given(st.floats(min_value=1e-12, max_value=1.0))
def test_a_share_above_zero_is_never_written_as_zero(share: float) -> None:
    assert any(digit in units.percent(share) for digit in "123456789")
