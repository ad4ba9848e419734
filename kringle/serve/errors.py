"""What goes wrong with a request, in the shape of OpenAI's errors, whatever dialect it came in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kringle.errors import UserError
from kringle.generation.service import Busy

RETRY_SECONDS = 1  # a row is free again within about that time, or nobody knows when
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


class ErrorDetail(BaseModel):
    """One fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """How every refusal looks."""

    error: ErrorDetail


# For the OpenAPI document: what any endpoint that takes a body may answer.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": what}
    for status, what in {
        400: "Something that this server does not do, or no JSON",
        401: "No key, or a wrong one",
        403: "A foreign host name or page",
        404: "No such model",
        408: "The body did not come in time",
        413: "The body is too large",
        415: "The body is not said to be JSON",
        422: "A field of the wrong type or out of its range",
        429: "Too many requests are waiting",
        500: "A fault of the server",
        503: "The server is stopping",
        504: "No token came before the deadline",
    }.items()
}
ACCESS_RESPONSES: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (401, 403, 500)}


class ApiError(Exception):
    """A refusal with its HTTP status."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry: bool = False
    ) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = {"retry-after": str(RETRY_SECONDS)} if retry else {}
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class ClientGone(Exception):
    """Nobody is there to be answered."""


def refusal(error: UserError, param: str | None = None) -> ApiError:
    """What the engine refuses, as a status."""
    if isinstance(error, Busy):
        return ApiError(429, "too many requests are waiting; try again", code="queue_full", retry=True)
    return ApiError(400, error.what + (f"; {error.hint}" if error.hint else ""), param=param)


def response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII: any text can be written, half a surrogate pair too. No white space: llama.vim takes an answer for
    one only if `"content":"` stands in it."""
    content = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    return Response(content, status, dict(headers or {}), media_type="application/json")


def error_response(error: ApiError) -> Response:
    return response(error.status, error.body, error.headers)


def _invalid(errors: Sequence[Any]) -> ApiError:
    """The first fault that validation found; what was sent is not repeated."""
    first = errors[0] if errors else {"loc": (), "msg": "invalid", "type": ""}
    if first.get("type") == "json_invalid":
        return ApiError(400, "the body is not JSON", code="invalid_json")
    place = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(place) or None
    return ApiError(422, f"{param or 'body'}: {first['msg']}", param=param)


def install(app: FastAPI) -> None:
    """Let every fault of `app` answer in this shape."""

    async def on_api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error)

    async def on_user_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, UserError)
        return error_response(refusal(error))

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_invalid(error.errors()))

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = ApiError(error.status_code, str(error.detail).lower())
        return response(said.status, said.body, error.headers)

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(UserError, on_user_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
