"""The playground's files and endpoints, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from kringle.evaluation.jail.levels import JailReport, Level, Name, probe
from kringle.evaluation.suites import load_suite
from kringle.serve import editor, errors, playground
from kringle.study import theme

CSP = "content-security-policy"


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    errors.install(app)
    app.include_router(playground.router(attribution=True))
    return TestClient(app, raise_server_exceptions=False)


def test_the_page_allows_its_own_scripts_alone(client: TestClient) -> None:
    first, second = client.get("/"), client.get("/playground/")
    policy = dict(part.split(" ", 1) for part in first.headers[CSP].split("; "))
    nonce = re.search(r"'nonce-([^']+)'", policy["script-src"])
    assert nonce is not None
    assert first.headers[CSP] != second.headers[CSP]
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy.values())
    assert set(re.findall(r"<script [^>]*nonce=\"([^\"]*)\"", first.text)) == {nonce[1]}
    assert first.text.count("<script") == 2
    assert "{{" not in first.text
    assert 'data-attribution="yes"' in first.text
    assert not re.findall(r"(?:src|href)=\"(?!/playground/|#|data:,)", first.text)
    assert " style=" not in first.text
    assert " onclick=" not in first.text


def test_only_the_pages_own_files_are_served(client: TestClient) -> None:
    page = client.get("/playground/").text
    for address in re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page):
        found = client.get(address)
        assert found.status_code == 200
        assert found.headers["content-type"].startswith("text/")
    for address in (
        "page/index.html", "page/../playground.py", "page/%2e%2e/playground.py", "page/..%2fplayground.py",
        "page/nothing.js", "editor/../page/main.js", "editor/%2e%2e/%2e%2e/etc/passwd", "editor//etc/passwd", "editor/",
    ):  # fmt: skip
        found = client.get(f"/playground/{address}")
        if found.status_code == 200:  # the client itself had taken the dots away
            assert found.content == (playground.PAGE / "main.js").read_bytes()
        else:
            assert found.status_code == 404


@pytest.mark.skipif(editor.load() is None, reason=f"NOT CHECKED: the editor is not installed: {editor.GET}")
def test_every_import_of_the_editor_is_on_the_map(client: TestClient) -> None:
    found = re.search(r"<script type=\"importmap\"[^>]*>(.*?)</script>", client.get("/playground/").text)
    assert found is not None
    imports = json.loads(found[1])["imports"]
    sources = [client.get(address) for address in imports.values()]
    assert all(source.status_code == 200 for source in sources)
    ours = [file.read_text(encoding="utf-8") for file in playground.PAGE.glob("*.js")]
    for text in (*(source.text for source in sources), *ours):
        asked = re.findall(r"^(?:import|export)\b[^'\";]*?from\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
        assert all(name in imports or name.startswith("./") for name in asked)
        assert all((playground.PAGE / name).is_file() for name in asked if name.startswith("./"))


def test_without_its_packages_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path))
    assert editor.load() is None
    app = FastAPI()
    app.include_router(playground.router(attribution=False))
    page = TestClient(app).get("/playground/").text
    assert 'data-editor="no"' in page
    assert 'data-attribution="no"' in page
    assert f'data-get="{editor.GET}"' in page


def test_a_damaged_package_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRINGLE_CACHE", str(tmp_path))
    (tmp_path / "npm").mkdir()
    for package in editor.load_list(str(editor.LIST), ("npm",)):
        ((name, _),) = package.files
        (tmp_path / "npm" / name).write_bytes(b"something else")
    assert editor.load() is None


def test_problems_come_without_their_tests(client: TestClient) -> None:
    suites = client.get("/v1/playground/problems").json()
    assert [suite["name"] for suite in suites] == list(playground.SUITES)
    for suite in suites:
        assert len(suite["problems"]) == 60
        assert all(problem["title"].isidentifier() and problem["stop"] for problem in suite["problems"])
        assert "canonical_solution" not in json.dumps(suite)


def run(client: TestClient, suite: str, task_id: str, text: str) -> tuple[int, dict[str, object]]:
    answer = client.post("/v1/playground/tests", json={"suite": suite, "task_id": task_id, "text": text})
    return answer.status_code, answer.json()


@pytest.mark.skipif(probe().level.name is Name.NONE, reason="NOT CHECKED: no jail on this machine")
def test_verdicts_on_what_stands_in_the_editor(client: TestClient) -> None:
    problem = load_suite("starter").by_id["starter/7"]
    helper = "def helper():\n    pass\n\n\n"  # a text of the user's own, which no stop string cuts
    status, verdict = run(client, "starter", "starter/7", helper + problem.prompt + problem.canonical_solution)
    assert (status, verdict["verdict"], verdict["passed"]) == (200, "pass", True)
    status, verdict = run(client, "starter", "starter/7", problem.prompt + "    return '<b>'\n")
    assert (status, verdict["verdict"]) == (200, "fail")
    status, verdict = run(client, "starter", "starter/7", "def (")
    assert (status, verdict["verdict"]) == (200, "syntax")


def test_a_java_method_may_be_closed_by_whoever_wrote_it() -> None:
    suite = load_suite("starter-java")
    problem = suite.by_id["starter/1"]
    open_ended = problem.prompt + problem.canonical_solution.rstrip("\n")
    for text in (
        open_ended,
        open_ended + "\n    }\n}\n",
        open_ended + "\n    }\n\n    static int other() { return 1; }\n}",
    ):
        assert playground._completion(suite, problem, text).text.rstrip() == open_ended


def test_what_cannot_be_tested_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(client, "starter", "starter/999", "")[0] == 404
    assert run(client, "../starter", "starter/1", "")[0] == 404
    assert run(client, "starter", "starter/1", "x" * (playground.LONGEST_PROGRAM + 1))[0] == 422
    nothing = JailReport(Level(Name.NONE, "bare"), (), {"bare": "no namespaces"})
    monkeypatch.setattr(playground, "probe", lambda: nothing)
    status, body = run(client, "starter", "starter/1", "")
    assert status == 403
    assert "no namespaces" in str(body)


def test_the_page_has_the_reports_colours() -> None:
    css = (playground.PAGE / "style.css").read_text(encoding="utf-8")
    for name in ("paper", "raised", "ink", "muted", "line", "accent", "better", "worse"):
        pair = f"--{name}: light-dark({getattr(theme.LIGHT, name)}, {getattr(theme.DARK, name)});"
        assert pair in css
