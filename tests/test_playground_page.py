"""The playground in a real browser: type, complete, fill in, stop, compare, test; by keyboard; nothing injected,
nothing asked for elsewhere, nothing that a screen reader or a phone stumbles over."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from playground_support import Server, trained_on, write_reciter
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from serve_support import until

from kringle.data.sources.cache import cache_folder, is_cached, load_list
from kringle.evaluation.jail.levels import Name, probe
from kringle.evaluation.suites import load_suite
from kringle.serve import editor, playground
from kringle.serve.app import build
from kringle.serve.attribution import Attribution
from kringle.serve.attribution import router as attribution_router
from kringle.serve.models import ModelOptions, open_models
from kringle.serve.settings import Settings

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
AXE = load_list(str(Path(__file__).with_name("accessibility.yaml")), ("npm",))[0]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="NOT CHECKED: the playground, because no Chromium is installed"),
    pytest.mark.skipif(
        editor.load() is None, reason=f"NOT CHECKED: the playground, because its editor is not installed: {editor.GET}"
    ),
]
# One line, so that the rest of a line is long, and as hostile as a model's text can be.
TEXT = "<script>window.hacked = 1</script> \"quoted\" 'text' <img src=x onerror=window.hacked=1> & </pre></div> "
expect.set_options(timeout=60_000)  # compiled kernels may have to be compiled first
NAMES = ("writer", "<b title>'slow'</b> \"&amp;\"")  # the second model's name is hostile, too
WRITTEN = TEXT * 4
PLANTED = ("<img src=x onerror=window.hacked=1>", '"quoted" & <b>', "it's/planted")
PATH = 'it\'s "here" <i>.py'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    folder = tmp_path_factory.mktemp("models")
    write_reciter(folder / "a", TEXT, certainty=0.2)
    write_reciter(folder / "b", TEXT, layers=8, width=512)
    names = [f"{name}={folder / place}" for name, place in zip(NAMES, "ab", strict=True)]
    models = open_models(names, ModelOptions(rows=8))
    router = playground.router(attribution=False)
    yield build(models, Settings(), extras=[router], open_paths=playground.OPEN_PATHS)
    for model in models:
        model.close()


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with Server(app) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Browser, url: str, width: int = 1440, theme: str = "light") -> Iterator[Page]:
    """A page that must ask nobody else, run nothing foreign and complain of nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        reduced_motion="reduce",  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_selector("[data-ready]")
    yield page
    assert page.evaluate("window.hacked") is None
    context.close()
    assert said == []
    assert asked
    assert all(address.startswith((url, "data:")) for address in asked)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    yield from opened(browser, url)


def text_of(page: Page) -> str:
    """What is in the editor, suggestions aside."""
    text = page.evaluate("""(() => {
      const lines = [...document.querySelectorAll(".cm-line")].map((line) => {
        const copy = line.cloneNode(true);
        for (const ghost of copy.querySelectorAll(".ghost")) ghost.remove();
        return copy.textContent;
      });
      return lines.join("\\n");
    })()""")
    assert isinstance(text, str)
    return text


def begin(page: Page, what: str) -> None:
    page.select_option("#start", label=what)


def ended(page: Page) -> Locator:
    """The lanes, once all of them are complete."""
    expect(page.locator(".lane").first).to_be_visible()
    expect(page.locator(".lane.busy")).to_have_count(0)
    return page.locator(".lane")


def lane_text(lane: Locator) -> str:
    return lane.locator(".tokens").evaluate("(element) => element.textContent")


def recites(lane: Locator) -> bool:
    """Whether the model wrote its text; the first token may be another one, that fits what stands before the cursor."""
    tokens = lane.locator(".token").all_text_contents()
    return len(tokens) > 4 and "".join(tokens[1:]) in WRITTEN


def test_typing_brings_a_suggestion_that_tab_accepts(page: Page) -> None:
    begin(page, "An empty page")
    page.locator(".cm-content").press_sequentially("print", delay=5)
    (lane,) = ended(page).all()
    suggested = page.locator(".ghost").text_content()
    assert suggested
    assert suggested == lane_text(lane)
    assert recites(lane)
    page.keyboard.press("Control+ArrowRight")  # a word of it
    first = text_of(page).removeprefix("print")
    assert 0 < len(first) < len(suggested)
    assert suggested.startswith(first)
    assert page.locator(".ghost").text_content() == suggested[len(first) :]
    page.keyboard.type(suggested[len(first)])  # typing what it says keeps the rest
    assert page.locator(".ghost").text_content() == suggested[len(first) + 1 :]
    page.keyboard.press("Tab")
    assert text_of(page) == f"print{suggested}"
    expect(page.locator(".ghost")).to_have_count(0)


def test_a_selection_is_filled_in(page: Page) -> None:
    begin(page, "Python: fill in a condition")
    before = text_of(page)
    hole = "left[0] <= right[0]"
    page.get_by_role("button", name="Fill in the selection").click()
    (lane,) = ended(page).all()
    written = lane_text(lane)
    assert recites(lane)
    assert page.locator(".replaced").all_text_contents() == [hole]
    assert text_of(page) == before  # nothing changes until it is accepted
    page.get_by_role("button", name="Accept").click()
    assert text_of(page) == before.replace(hole, written)


def test_escape_stops_and_frees_the_model(page: Page, app: FastAPI) -> None:
    page.select_option("[name=model]", index=1)
    page.locator("[name=max_tokens]").fill("256")
    page.locator(".cm-content").press("Control+Enter")
    expect(page.locator(".lane .token").nth(3)).to_be_visible()
    assert app.state.serving.running == 1
    page.keyboard.press("Escape")
    expect(page.locator(".lane .facts")).to_contain_text("stopped")
    assert 3 < page.locator(".lane .token").count() < 256
    expect(page.locator("#stop")).to_be_hidden()
    until(lambda: app.state.serving.running == 0)
    until(lambda: sum(model.load.busy for model in app.state.serving.models.values()) == 0)  # in the engine's next step
    expect(page.locator(".ghost")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".ghost")).to_have_count(0)
    page.keyboard.press("Escape")  # and with a Tab behind it, out of the editor
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('.cm-editor') !== null")


def test_a_key_ends_the_suggestion_under_way(page: Page, app: FastAPI) -> None:
    page.select_option("[name=model]", index=1)
    page.locator("[name=max_tokens]").fill("256")
    begin(page, "An empty page")
    page.locator(".cm-content").focus()
    page.keyboard.type("a")
    expect(page.locator(".lane .token").nth(2)).to_be_visible()
    page.keyboard.type("~~")
    expect(page.locator(".ghost")).to_have_count(0)
    expect(page.locator(".lane .token").nth(2)).to_be_visible()  # of the next suggestion
    page.keyboard.press("Escape")
    until(lambda: app.state.serving.running == 0)


def test_two_models_side_by_side(page: Page) -> None:
    page.select_option("[name=beside]", label=NAMES[1])
    page.locator(".cm-content").press("Control+Enter")
    lanes = ended(page).all()
    assert [lane.locator("h3").text_content() for lane in lanes] == list(NAMES)
    speeds = [float(lane.locator(".speed b").text_content() or "") for lane in lanes]
    assert all(speed > 0 for speed in speeds)
    fastest = page.locator(".fastest h3").all_text_contents()
    assert fastest == [NAMES[speeds.index(max(speeds))]]
    texts = [lane_text(lane) for lane in lanes]
    assert page.locator(".ghost").text_content() == texts[0]
    page.keyboard.press("Alt+]")
    expect(page.locator(".lane").nth(1)).to_have_class(re.compile("chosen"))
    before = text_of(page)
    page.keyboard.press("Alt+2")
    assert len(text_of(page)) == len(before) + len(texts[1])
    assert page.locator("b[title]").count() == 0


def test_alternatives_and_what_else_was_likely(page: Page) -> None:
    page.select_option("[name=alternatives]", "4")
    page.locator("[name=temperature]").fill("1.5")
    page.get_by_role("button", name="Alternatives").click()
    lanes = ended(page).all()
    assert len(lanes) == 4
    assert len({lane_text(lane) for lane in lanes}) > 1  # drawn apart
    token = lanes[1].locator(".token").nth(2)
    token.hover()
    popover = page.locator("#popover")
    expect(popover).to_be_visible()
    assert popover.locator("tbody tr").count() == 5
    assert "%" in (popover.locator("caption").text_content() or "")
    lanes[0].locator(".tokens").focus()
    page.keyboard.press("End")
    active = lanes[0].locator("[role=option][aria-selected=true]")
    assert active.get_attribute("id") == lanes[0].locator(".tokens").get_attribute("aria-activedescendant")
    assert re.search(r", (\d+|over 99|under 1)%$", active.get_attribute("aria-label") or "")
    page.keyboard.press("Escape")
    expect(popover).to_be_hidden()


@pytest.mark.skipif(probe().level.name is Name.NONE, reason="NOT CHECKED: no jail on this machine")
@pytest.mark.parametrize("suite", ["starter", "starter-js"])
def test_problems_are_tested_in_the_jail(page: Page, suite: str) -> None:
    problem = load_suite(suite).problems[5]
    group = page.locator(f"#start optgroup[label='Problems: {suite}'] option").nth(5)
    page.select_option("#start", value=group.get_attribute("value"))
    page.get_by_role("button", name="Run the tests").click()
    expect(page.locator("#verdict.bad")).to_contain_text("starter/5")
    page.locator("[name=typing]").select_option("off")
    page.locator(".cm-content").focus()
    page.keyboard.insert_text(problem.canonical_solution)
    page.keyboard.press("Alt+Enter")
    expect(page.locator("#verdict")).to_contain_text("Passed")
    expect(page.locator("#announce")).to_contain_text("Passed")


def test_the_keyboard_is_enough(page: Page) -> None:
    assert page.evaluate("document.activeElement.closest('.cm-editor') !== null")
    page.keyboard.press("F1")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.locator(".cm-content").press("Control+Shift+Enter")
    ended(page)
    where = "document.activeElement.getAttribute('role') ?? document.activeElement.name"
    page.keyboard.press("F6")
    assert page.evaluate(where) == "listbox"
    page.keyboard.press("F6")
    assert page.evaluate(where) == "model"
    page.keyboard.press("F6")
    assert page.evaluate(where) == "textbox"
    page.keyboard.press("Escape")  # the suggestion goes, and the button with it
    # Everything that can be used is reached by Tab, in the order of the page.
    page.evaluate("document.activeElement.blur()")
    wanted = page.evaluate("""[...document.querySelectorAll("a, button, select, input, [tabindex='0'], .cm-content")]
      .filter((element) => element.checkVisibility() && !element.disabled && !element.closest("dialog"))
      .map((element) => element.id || element.name || element.className || element.textContent)""")
    reached = []
    page.locator(".skip").focus()
    for _ in range(len(wanted)):
        reached.append(
            page.evaluate(
                "(() => { const e = document.activeElement; return e.id || e.name || e.className || e.textContent })()"
            )
        )
        if "cm-content" in reached[-1]:
            page.keyboard.press("Escape")
        page.keyboard.press("Tab")
    assert [re.sub(r" ?cm-\w+", "", name) for name in reached] == [re.sub(r" ?cm-\w+", "", name) for name in wanted]


@pytest.mark.skipif(
    not is_cached(cache_folder() / "npm", AXE),
    reason="NOT CHECKED: accessibility, because axe-core is not installed: make setup",
)
@pytest.mark.parametrize(("width", "themes"), [(1440, ("light", "dark")), (390, ("dark", "light"))])
def test_no_serious_fault_of_accessibility_and_nothing_sticks_out(
    browser: Browser, url: str, width: int, themes: tuple[str, str]
) -> None:
    """Of page and dialog in one theme, and of the contrasts in the other."""
    with tarfile.open(cache_folder() / "npm" / AXE.files[0][0]) as archive:
        source = archive.extractfile("package/axe.min.js")
        assert source is not None
        axe = source.read().decode()

    def faults(page: Page, options: str = "{ resultTypes: ['violations'] }") -> list[tuple[str, list[str]]]:
        found = page.evaluate(f"axe.run({options}).then((found) => found.violations)")
        return [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    for page in opened(browser, url, width, themes[0]):
        page.select_option("[name=beside]", label=NAMES[1])
        for name, value in (("temperature", "1.5"), ("max_tokens", "16")):
            page.locator(f"[name={name}]").fill(value)
        begin(page, "Java: fill in a return")
        page.locator("#several").click()
        ended(page)
        page.locator(".tokens").first.focus()
        expect(page.locator("#popover")).to_be_visible()
        page.evaluate(axe)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.select_option("#theme", themes[1])
        assert faults(page, "{ runOnly: ['color-contrast'], resultTypes: ['violations'] }") == []
        page.locator("#help").click()
        expect(page.locator("#shortcuts")).to_be_visible()
        assert faults(page, "'#shortcuts'") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_the_editor_there_is_a_plain_field(
    browser: Browser, app: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path))
    models = list(app.state.serving.models.values())
    plain = build(models, Settings(), extras=[playground.router(attribution=False)], open_paths=playground.OPEN_PATHS)
    with Server(plain) as server:
        for page in opened(browser, server.url, 390):
            expect(page.locator("#notice")).to_contain_text("The code editor is not installed")
            expect(page.locator("#notice code")).to_have_text(editor.GET)
            begin(page, "An empty page")
            page.locator("textarea").press_sequentially("x = ")
            (lane,) = ended(page).all()
            suggested = page.locator(".plain-ghost").text_content()
            assert suggested == lane_text(lane)
            assert recites(lane)
            page.keyboard.press("Tab")
            assert page.locator("textarea").input_value() == f"x = {suggested}"
            assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_server_with_keys_asks_for_one(browser: Browser, app: FastAPI) -> None:
    models = list(app.state.serving.models.values())
    router = playground.router(attribution=False)
    closed = build(models, Settings(keys=("k" * 20,)), extras=[router], open_paths=playground.OPEN_PATHS)
    with Server(closed) as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#notice")).to_contain_text("no valid key")
        page.locator("#key").fill("k" * 20)
        page.locator("#key").press("Enter")
        page.wait_for_selector("[data-ready]")
        page.locator(".cm-content").press("Control+Enter")
        ended(page)
        context.close()


def test_settings_and_theme_outlive_a_reload(page: Page) -> None:
    page.locator("[name=temperature]").fill("0.7")
    page.select_option("[name=beside]", label=NAMES[1])
    page.select_option("#theme", "dark")
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert page.locator("[name=temperature]").input_value() == "0.7"
    assert page.locator("[name=beside]").input_value() == NAMES[1]
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"


def test_requests_say_what_the_settings_say(page: Page) -> None:
    for name, value in (("temperature", "0.45"), ("top_p", "0.6"), ("max_tokens", "16"), ("seed", "77")):
        page.locator(f"[name={name}]").fill(value)
    begin(page, "JavaScript: fill in an expression")
    with page.expect_request("**/v1/completions") as caught:
        page.locator(".cm-content").press("Control+Enter")
    body = json.loads(caught.value.post_data or "")
    assert {name: body[name] for name in ("temperature", "top_p", "max_tokens", "seed", "n", "model")} == {
        "temperature": 0.45, "top_p": 0.6, "max_tokens": 16, "seed": 77, "n": 1, "model": NAMES[0],
    }  # fmt: skip
    assert body["prompt"].endswith(".map((word) => ")
    assert body["suffix"].startswith(")")


@pytest.fixture(scope="module")
def attributed(app: FastAPI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the index of training data that holds the models' text, in repositories of hostile names."""
    documents = {(name, PATH): f"# Copied into {name}.\ntext = r'''{TEXT}'''\n" for name in PLANTED}
    attribution = Attribution(trained_on(tmp_path_factory.mktemp("trained"), documents))
    served = build(
        list(app.state.serving.models.values()),
        Settings(),
        [playground.router(attribution=True), attribution_router(attribution)],
        attributor=attribution,
        open_paths=playground.OPEN_PATHS,
    )
    with Server(served) as server:
        yield server.url


def test_copies_are_underlined_with_where_they_come_from(browser: Browser, attributed: str) -> None:
    for page in opened(browser, attributed):
        begin(page, "An empty page")
        page.locator(".cm-content").press("Control+Enter")
        (lane,) = ended(page).all()
        copied = "".join(lane.locator(".copied").all_text_contents())
        assert len(copied) >= 50
        assert copied in WRITTEN
        assert "".join(page.locator(".ghost .copied").all_text_contents()) == copied
        told = page.locator("#sources")
        repository = told.locator("b").first.text_content()
        assert repository in PLANTED
        expect(told.locator(".path").first).to_have_text(f"{PATH}, line 2")
        expect(told.locator(".licence").first).to_have_text("MIT")
        page.keyboard.press("Tab")
        assert "".join(page.locator(".cm-line .copied").all_text_contents()) == copied
        begin(page, "Java: fill in a return")
        expect(told).to_contain_text("Nothing of 50 characters")
        page.locator("[name=repository]").fill(repository)
        page.locator("[name=repository]").press("Enter")
        answer = page.locator("#membership-answer")
        expect(answer).to_contain_text("Yes. The model was trained on 1 file of it")
        expect(answer.locator(".command")).to_contain_text("kringle optout ")
        answer.locator("summary").click()
        expect(answer.locator("details .path").first).to_contain_text(repository)
        page.locator("[name=repository]").fill("nobody")
        page.locator("[name=repository]").press("Enter")
        expect(answer).to_contain_text("No. Nothing of nobody was collected")
