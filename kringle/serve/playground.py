"""The playground: one page, its code editor, and the tests of the starter problems, run in the jail.

Everything comes from this server: the page's own files (`page/`), CodeMirror's modules (`editor.py`), and nothing
else; the content security policy holds the browser to it. Completions are `/v1/completions`, as for any other client.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from kringle.errors import UserError
from kringle.evaluation.jail.levels import Name, probe
from kringle.evaluation.problems import Problem
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, Suite, load_suite
from kringle.serve.editor import GET, load

PAGE = Path(__file__).with_name("page")
SUITES = ("starter", "starter-java", "starter-js")
LONGEST_PROGRAM = 100_000  # characters
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}
_AT_ONCE = 1  # programs in the jail: the models need the processors, too


class TestRun(BaseModel):
    """A program to run with the tests of one problem."""

    suite: str = Field(max_length=100)
    task_id: str = Field(max_length=200)
    text: str = Field(max_length=LONGEST_PROGRAM)


def playground(*, attribution: bool) -> APIRouter:
    """The routes under `/playground/`. `attribution`: whether the server can tell where texts come from."""
    router = APIRouter(include_in_schema=True, tags=["playground"])
    editor = load()
    files = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.suffix in (".css", ".js")}
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    places = threading.BoundedSemaphore(_AT_ONCE)

    @router.get("/", include_in_schema=False)
    def root() -> Response:
        return RedirectResponse("/playground/")

    @router.get("/playground", include_in_schema=False)
    def bare() -> Response:
        return RedirectResponse("/playground/")

    @router.get("/playground/", include_in_schema=False)
    def index() -> Response:
        nonce = secrets.token_urlsafe(16)
        imports = json.dumps({"imports": dict(editor.imports) if editor else {}}).replace("<", "\\u003c")
        text = page.replace("{{nonce}}", nonce).replace("{{imports}}", imports)
        return Response(text, media_type="text/html", headers=_page_headers(nonce))

    @router.get("/playground/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        return _file(files.get(name), Path(name).suffix, "no-cache")

    @router.get("/playground/editor/{path:path}", include_in_schema=False)
    def editor_file(path: str) -> Response:
        return _file(editor.modules.get(path) if editor else None, ".js", "public, max-age=31536000, immutable")

    @router.get("/playground/state")
    def state() -> dict[str, Any]:
        """What this server offers to the page."""
        return {"editor": editor is not None, "get_editor": GET, "attribution": attribution}

    @router.get("/playground/problems")
    def problems() -> list[dict[str, Any]]:
        """The problems of the starter suites, without their tests."""
        return [_told(suite) for suite in map(_suite, SUITES)]

    @router.post("/playground/tests")
    def tests(run: TestRun) -> dict[str, Any]:
        """Run a problem's tests on a program, in the jail; the verdict and its evidence. 403 where there is no jail."""
        if run.suite not in SUITES or run.task_id not in _suite(run.suite).by_id:
            raise HTTPException(404, "there is no such problem")
        suite = _suite(run.suite)
        if (report := probe()).level.name is Name.NONE:
            raise HTTPException(403, f"this machine cannot jail programs: {report.why_not_full}")
        if not places.acquire(blocking=False):
            raise HTTPException(429, "another program is being tested", headers={"Retry-After": "2"})
        try:
            completion = _completion(suite, suite.by_id[run.task_id], run.text)
            (verdict,) = score(suite, [completion], workers=1)
        except UserError as error:
            raise HTTPException(403, str(error)) from None
        finally:
            places.release()
        return verdict.to_json()

    return router


def _page_headers(nonce: str) -> dict[str, str]:
    """Scripts and styles of this server or with the page's nonce; everything else, and frames around it, refused."""
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
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def _file(content: bytes | None, suffix: str, caching: str) -> Response:
    if content is None:
        raise HTTPException(404, "there is no such file")
    headers = {"Cache-Control": caching, "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_TYPES[suffix], headers=headers)


@cache
def _suite(name: str) -> Suite:
    return load_suite(name)


def _told(suite: Suite) -> dict[str, Any]:
    return {
        "name": suite.name,
        "about": suite.about,
        "language": suite.language,
        "problems": [
            {
                "task_id": problem.task_id,
                "title": _title(problem),
                "prompt": problem.prompt,
                "stop": list(suite.stops_for(problem)),
            }
            for problem in suite.problems
        ],
    }


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
