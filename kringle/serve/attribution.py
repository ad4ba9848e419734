"""Where a text comes from, over HTTP: `POST /v1/attribution`, `GET /v1/membership`, and spans while a text is streamed.

`Attribution.open(work)` reads the index of a workspace's last run (`kringle run`), memory-mapped; it is the server's
`Attributor`. Nothing that a request says is used as a name of a file. What the corpus says (paths, names, licences) is
data: it leaves as JSON and is escaped by whoever shows it. Positions are in characters (code points) of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from kringle.attribution.index import SHORTEST_CHARACTERS, Copy
from kringle.attribution.opened import described
from kringle.attribution.sources import By
from kringle.attribution.streaming import TextFollower
from kringle.serve.attributing import Span
from kringle.serve.errors import RESPONSES, ApiError, response
from kringle.study.membership import MOST_FILES, Trained

MOST_CHARACTERS = 50_000  # of one text: some 1,200 lines in 0.1 s, seconds for texts made to be slow
MOST_NAME = 500  # characters of a repository's name or a path


@dataclass(frozen=True)
class Attribution:
    """The attribution index of a workspace's last run, as the server asks it."""

    trained: Trained

    @classmethod
    def open(cls, work: Path) -> Attribution:
        """`UserError` where no run in `work` has come as far as the index."""
        trained = Trained.open(work)
        trained.index.warm()  # opened now, so that a damaged one stops the start and no request
        return cls(trained)

    def follow(self) -> SpanFollower:
        """For one completion in the making."""
        return SpanFollower(self.trained)

    def find(self, text: str, min_characters: int = SHORTEST_CHARACTERS, whitespace: bool = True) -> list[Span]:
        """All spans of a text; without `whitespace` only exact ones."""
        copies = self.trained.index.find(text)
        wanted = (c for c in copies if c.end - c.start >= min_characters and (whitespace or c.kind == "exact"))
        return [span_of(self.trained, copy) for copy in wanted]


class SpanFollower:
    """A `kringle.serve.attributing.Follower`: `kringle.attribution.streaming` with sources."""

    def __init__(self, trained: Trained) -> None:
        self._trained = trained
        self._follower = TextFollower(trained.index)

    def feed(self, text: str) -> Sequence[Span]:
        """Take the next part of the text; spans that are new or grew."""
        return [span_of(self._trained, copy) for copy in self._follower.feed(text)]

    def finish(self) -> Sequence[Span]:
        """All spans of the whole text."""
        return [span_of(self._trained, copy) for copy in self._follower.finish()]


def span_of(trained: Trained, copy: Copy) -> Span:
    """A copy with its sources."""
    told = described(trained.index, copy)
    return Span(copy.start, copy.end, copy.kind, tuple(told["sources"]), copy.more)


# -- the endpoints -----------------------------------------------------------------------------------------------------


class AttributionRequest(BaseModel):
    """A text to look up."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=MOST_CHARACTERS)
    min_characters: int = Field(
        default=SHORTEST_CHARACTERS,
        ge=SHORTEST_CHARACTERS,
        le=MOST_CHARACTERS,
        description="the shortest span that is told; the index finds nothing shorter than its default",
    )
    whitespace: bool = Field(default=True, description="spans that differ in white space too")


class SourceOfSpan(BaseModel):
    """A training document that holds a span, and the line where the span begins in it."""

    id: str
    path: str
    repository: str
    licence: str | None
    language: str
    revision: str | None
    line: int
    url: str | None = None


class FoundSpan(BaseModel):
    """A stretch of the text that occurs in the training data, and in `more` further documents at least."""

    start: int
    end: int
    kind: Literal["exact", "white space"]
    sources: list[SourceOfSpan]
    more: int


class AttributionAnswer(BaseModel):
    """All spans of a text, in order."""

    object: Literal["attribution"] = "attribution"
    characters: int
    attributed: int = Field(description="characters that lie in a span")
    spans: list[FoundSpan]


class Count(BaseModel):
    """Files of one fate; bytes and tokens where they were trained on."""

    files: int
    bytes: int
    tokens: int


class MembershipAnswer(BaseModel):
    """What became of the files of a repository, an owner or a path, and how to opt them out."""

    object: Literal["membership"] = "membership"
    repository: str | None = None
    owner: str | None = None
    path: str | None = None
    found: bool
    repositories: list[str]
    licences: list[str]
    counts: dict[str, Count]
    files: list[dict[str, Any]]
    more: int
    opted_out: int = Field(description="files that the next run leaves out")
    opt_out: str = Field(description="the command line, for whoever runs the workspace")


Name = Annotated[str | None, Query(max_length=MOST_NAME)]
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: RESPONSES[status] for status in (400, 401, 403, 413, 415, 422, 500)
}


def router(attribution: Attribution) -> APIRouter:
    """Both endpoints, for the application to include."""
    api = APIRouter(tags=["attribution"])

    @api.post("/v1/attribution", response_model=AttributionAnswer, responses=_RESPONSES)
    def attribute(body: AttributionRequest) -> Any:
        """Every span of a text that occurs in the training data, with its sources."""
        spans = attribution.find(body.text, body.min_characters, body.whitespace)
        covered = {i for span in spans for i in range(span.start, span.end)}
        answer = {"object": "attribution", "characters": len(body.text), "attributed": len(covered)}
        return response(200, {**answer, "spans": [span.as_json() for span in spans]})

    @api.get("/v1/membership", response_model=MembershipAnswer, responses=_RESPONSES)
    def membership(repository: Name = None, owner: Name = None, path: Name = None) -> Any:
        """Is my repository in it? Exactly one of the three is asked for."""
        asked: list[tuple[By, str]] = []
        for by, name in (("repository", repository), ("owner", owner), ("path", path)):
            if name is not None:
                asked.append((by, name))  # type: ignore[arg-type]  # one of the three in the line before
        if len(asked) != 1 or not asked[0][1].strip().strip("/"):
            raise ApiError(400, "name one repository, owner or path", param="repository")
        return response(200, {"object": "membership", **attribution.trained.membership(*asked[0], MOST_FILES)})

    return api
