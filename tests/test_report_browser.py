"""The report in a real browser: nothing overflows, nothing is asked for, figures hold their text, the script works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import CHROMIUM, Browser
from report_sample import variants

from kringle.study.report import write

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="NOT CHECKED: the report in a real browser, because no Chromium is installed"
)

# Texts of visible figures that leave their frame or cover one another, in figure units.
MISPLACED = """(() => {
  const wrong = [];
  for (const svg of document.querySelectorAll("svg.figure[role=img]")) {
    if (svg.getBoundingClientRect().width === 0) continue;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const boxes = [...svg.querySelectorAll("text")].map((text) => [text.getBBox(), text.textContent]);
    for (const [box, what] of boxes)
      if (box.x < -1 || box.x + box.width > width + 1 || box.y < -3 || box.y + box.height > height + 3)
        wrong.push(["outside", what]);
    boxes.forEach(([a, one], i) => boxes.slice(0, i).forEach(([b, other]) => {
      const x = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
      const y = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
      if (x > 0.5 && y > 0.35 * Math.min(a.height, b.height)) wrong.push(["overlap", one, other]);
    }));
  }
  return wrong;
})()"""
FORCE_WIDE_FONT = """(() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(".figure text { font-family: 'DejaVu Sans', Verdana, sans-serif !important }");
  document.adoptedStyleSheets = [sheet];
})()"""
# What sticks out of the page without standing in something that scrolls by itself.
STICKING_OUT = """[...document.querySelectorAll("main *")].filter((element) =>
  element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest(".scroll, pre")
).map((element) => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {name: write(results, folder / name.replace(" ", "-")) for name, results in variants().items()}


@pytest.mark.parametrize("width", [390, 760, 1440])
@pytest.mark.parametrize("name", ["sample", "ten arms", "bare"])
def test_nothing_overflows_and_nothing_is_asked_for(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.console.clear()
    browser.requests.clear()
    browser.open(pages[name], width)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(STICKING_OUT) == []
    assert browser.evaluate(MISPLACED) == []
    browser.evaluate(FORCE_WIDE_FONT)
    assert browser.evaluate(MISPLACED) == []
    assert browser.requests == [pages[name].resolve().as_uri()]
    assert browser.console == []


def test_figures_have_a_layout_of_their_own_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    smallest = """Math.min(...[...document.querySelectorAll("svg.figure text")]
      .filter((text) => text.getBoundingClientRect().width > 0)
      .map((text) => text.getAttribute("font-size") * text.getScreenCTM().a))"""
    for width in (390, 759, 760, 1440):
        browser.open(pages["sample"], width)
        assert browser.evaluate(smallest) >= 9


def test_themes_and_paper(browser: Browser, pages: dict[str, Path]) -> None:
    colours = """(() => {
      const body = getComputedStyle(document.body), bar = getComputedStyle(document.querySelector(".fill-0"));
      return [body.color, bar.fill, body.backgroundColor];
    })()"""
    browser.open(pages["sample"], 1440)
    light = browser.evaluate(colours)
    browser.open(pages["sample"], 1440, dark=True)
    dark = browser.evaluate(colours)
    assert not [one for one, other in zip(light, dark, strict=True) if one == other]
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=scheme)
    assert browser.evaluate(colours) == [*light[:2], "rgba(0, 0, 0, 0)"]
    assert browser.evaluate("getComputedStyle(document.querySelector('.contents')).display") == "none"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_hovering_tells_values(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"], 1440)
    x, y = browser.evaluate("""(() => {
      const mark = document.querySelector("#figure-infilling rect[data-tip]");
      mark.scrollIntoView({ block: "center" });
      const box = mark.getBoundingClientRect();
      return [box.x + box.width / 4, box.y + box.height / 2];
    })()""")
    assert browser.evaluate("document.querySelector('.tip').hidden") is True
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    told = browser.evaluate("[document.querySelector('.tip').hidden, document.querySelector('.tip').textContent]")
    assert told == [False, "fim: exact match 6.2%, 90% interval 4.7% to 8.2% (31 of 500)"]
    assert browser.evaluate("document.querySelectorAll('svg.figure title').length") == 0
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=y)
    assert browser.evaluate("document.querySelector('.tip').hidden") is True


def test_tables_sort_by_their_numbers(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"], 1440)
    order = "[...document.querySelectorAll('#table-stages tbody th')].map((cell) => cell.textContent)"
    before = browser.evaluate(order)
    press = "document.querySelectorAll('#table-stages thead button')[1].click()"
    state = "document.querySelectorAll('#table-stages thead th')[1].getAttribute('aria-sort')"
    browser.evaluate(press)
    assert browser.evaluate(order) == ["encode", "clean", "tokenizer", "collect", "evaluate", "train"]
    assert browser.evaluate(state) == "ascending"
    browser.evaluate(press)
    assert browser.evaluate(order) == ["train", "evaluate", "collect", "tokenizer", "clean", "encode"]
    assert browser.evaluate(state) == "descending"
    assert sorted(before) == sorted(browser.evaluate(order))


def test_a_script_that_is_not_ours_does_not_run(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"], 1440)
    browser.evaluate("""(() => {
      const script = document.createElement("script");
      script.textContent = "window.intruder = true";
      document.body.append(script);
    })()""")
    assert browser.evaluate("window.intruder === undefined") is True
    assert any("Content Security Policy" in line for line in browser.console)
