"""The playground: one page, its code editor, and the tests of the starter problems, run in the jail.

Everything comes from this server: the page's own files (`page/`), CodeMirror's modules (`editor.py`), and nothing
else; the content security policy holds the browser to it. Completions are `/v1/completions`, as for any other client.
What is below `/playground/` is the same for everybody and needs no key; what computes anything is not.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from kringle.evaluation.jail.levels import Name, probe
from kringle.evaluation.problems import Problem
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, Suite, load_suite
from kringle.serve.editor import GET, load
from kringle.serve.errors import ACCESS_RESPONSES, RESPONSES, ApiError, response

OPEN_PATHS = ("/", "/playground", "/playground/")
PAGE = Path(__file__).with_name("page")
SUITES = ("starter", "starter-java", "starter-js")
LONGEST_PROGRAM = 100_000  # characters
_TYPES = {".css": "text/css", ".js": "text/javascript"}
_AT_ONCE = 1  # programs in the jail: the models need the processors, too


class TestRun(BaseModel):
    """A program to run with the tests of one problem."""

    model_config = ConfigDict(strict=True)

    suite: str = Field(max_length=100)
    task_id: str = Field(max_length=200)
    text: str = Field(max_length=LONGEST_PROGRAM)


class TestVerdict(BaseModel):
    """What came of it; `verdict` is one of the nine that `kringle score` knows."""

    task_id: str
    verdict: str
    passed: bool
    evidence: str
    tier: str
    jail: str
    cpu_ms: float
    wall_ms: float
    peak_kb: int | None


class ToldProblem(BaseModel):
    """A problem without its tests."""

    task_id: str
    title: str
    prompt: str
    stop: list[str]


class ToldSuite(BaseModel):
    """A suite without its tests."""

    name: str
    about: str
    language: str
    problems: list[ToldProblem]


def router(*, attribution: bool) -> APIRouter:
    """The page below `/playground/`, and what it asks besides completions. `attribution`: whether the server can tell
    where texts come from."""
    api = APIRouter(tags=["playground"])
    editor = load()
    files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in _TYPES}
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    imports = json.dumps({"imports": dict(editor.imports) if editor else {}}).replace("<", "\\u003c")
    for name, value in {
        "imports": imports,
        "editor": editor is not None,
        "attribution": attribution,
        "get": GET,
    }.items():
        page = page.replace(f"{{{{{name}}}}}", value if isinstance(value, str) else "yes" if value else "no")
    places = threading.BoundedSemaphore(_AT_ONCE)

    @api.get("/", include_in_schema=False)
    @api.get("/playground", include_in_schema=False)
    def root() -> Response:
        return RedirectResponse("/playground/")

    @api.get("/playground/", include_in_schema=False)
    def index() -> Response:
        nonce = secrets.token_urlsafe(16)
        text = page.replace("{{nonce}}", nonce)
        return Response(text, media_type="text/html", headers={"content-security-policy": _policy(nonce)})

    @api.get("/playground/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        return _file(files.get(name), Path(name).suffix, "no-cache")

    @api.get("/playground/editor/{path:path}", include_in_schema=False)
    def editor_file(path: str) -> Response:
        return _file(editor.modules.get(path) if editor else None, ".js", "public, max-age=31536000, immutable")

    @api.get("/v1/playground/problems", response_model=list[ToldSuite], responses=ACCESS_RESPONSES)
    def problems() -> Response:
        """The problems of the starter suites, without their tests."""
        return response(200, [_told(_suite(name)).model_dump() for name in SUITES])

    @api.post("/v1/playground/tests", response_model=TestVerdict, responses=RESPONSES)
    def tests(run: TestRun) -> Response:
        """Run a problem's tests on a program, in the jail. 403 where this machine has no jail, 429 while another
        program is being tested."""
        if run.suite not in SUITES or run.task_id not in _suite(run.suite).by_id:
            raise ApiError(404, "there is no such problem", param="task_id")
        suite = _suite(run.suite)
        if (report := probe()).level.name is Name.NONE:
            raise ApiError(403, f"this machine cannot jail programs: {report.why_not_full}", code="no_jail")
        if not places.acquire(blocking=False):
            raise ApiError(429, "another program is being tested", code="busy", retry=True)
        try:
            (verdict,) = score(suite, [_completion(suite, suite.by_id[run.task_id], run.text)], workers=1)
        finally:
            places.release()
        return response(200, verdict.to_json())

    return api


def _policy(nonce: str) -> str:
    """Content security policy: scripts and styles of this server or with the page's nonce; everything else, and frames
    around the page, refused. Trusted types refuse any text as HTML, CodeMirror's included."""
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": f"'self' 'nonce-{nonce}'",  # CodeMirror's style element carries the nonce
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in policy.items())


def _file(content: bytes | None, suffix: str, caching: str) -> Response:
    if content is None:
        raise ApiError(404, "there is no such file")
    return Response(content, media_type=_TYPES[suffix], headers={"cache-control": caching})


@cache
def _suite(name: str) -> Suite:
    return load_suite(name)


def _told(suite: Suite) -> ToldSuite:
    problems = [
        ToldProblem(
            task_id=problem.task_id,
            title=_title(problem),
            prompt=problem.prompt,
            stop=list(suite.stops_for(problem)),
        )
        for problem in suite.problems
    ]
    return ToldSuite(name=suite.name, about=suite.about, language=suite.language, problems=problems)


def _title(problem: Problem) -> str:
    """The name of the function that is asked for: the last one that the prompt opens."""
    names = re.findall(r"(?:^|\s)(\w+)\(", re.sub(r"^\s*(//|#).*$", "", problem.prompt, flags=re.MULTILINE))
    return problem.entry_point or (names[-1] if names else "")


def _completion(suite: Suite, problem: Problem, text: str) -> Completion:
    """The program as the suite runs it. Tests that begin by closing the method (MultiPL-E's Java) need it left open."""
    if problem.test.lstrip().startswith("}"):
        head = problem.prompt if text.startswith(problem.prompt) else ""
        text = head + suite.cut(text[len(head) :] + "\n", problem)
    return Completion(problem.task_id, text, whole=True)
