"""What every request passes before any endpoint sees it, and every answer on its way out.

In this order: the `Host` header (a page whose name was made to lead here is refused: DNS rebinding), the `Origin`
header (another page is refused unless allowed), the key, the content type (a form posts no JSON), the body's size and
the time that it takes. An answer gets the headers that keep a browser from making anything of it but data, unless it
sets its own. One JSON line a request is logged, without anything that a client wrote: route, status, times, counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kringle.serve.errors import ApiError, ClientGone, error_response
from kringle.serve.journal import Journal
from kringle.serve.metrics import Metrics
from kringle.serve.settings import Settings

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
OPEN_PATHS = ("/health", "/v1/health")
ALLOWED_METHODS, ALLOWED_HEADERS = "GET, POST, OPTIONS", "authorization, content-type, x-api-key"
PREFLIGHT_SECONDS = "600"
LONGEST_URL = 8192
DISCARD, DISCARD_SECONDS = 4, 2.0  # how much of a refused body is read, in largest bodies and seconds


class Guard:
    """ASGI middleware. `open_paths` need no key; one that ends in `/` stands for everything below it."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, journal: Journal, open_paths: Sequence[str] = ()
    ) -> None:
        self.app, self.settings, self.metrics, self.journal = app, settings, metrics, journal
        self.open_paths = (*OPEN_PATHS, *open_paths)
        self._keys = [hashlib.sha256(key.encode()).digest() for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        # No endpoint is a web socket; the server closes one that nobody accepts.

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0
        request_id = secrets.token_hex(8)
        headers = Headers(scope=scope)
        origin = self._allowed_origin(headers)
        scope.setdefault("state", {})["note"] = note = {}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
                sent["x-request-id"] = request_id
                if origin:
                    sent["access-control-allow-origin"] = origin
                    sent["cross-origin-resource-policy"] = "cross-origin"
                    sent.add_vary_header("Origin")
            try:
                async with asyncio.timeout(self.settings.send_seconds):
                    await send(message)
            except TimeoutError:
                note["ended"] = "the client does not read"
                raise ClientGone from None

        try:
            self._check(scope, headers)
            if scope["method"] == "OPTIONS" and origin and "access-control-request-method" in headers:
                await _preflight(scope, receive, answer)
            else:
                self._check_key(scope, headers)
                body = await self._body(scope, headers, receive)
                await self.app(scope, _replay(body, receive), answer)
        except ApiError as error:
            if not status:
                if error.status != 408:
                    await self._discard(receive)
                await error_response(error)(scope, receive, answer)
        except ClientGone:
            note.setdefault("ended", "the client went away")
            self.metrics.count("kringle_disconnects_total")
        except Exception as error:
            # The message may hold what a client wrote; the place does not.
            self.journal.write("fault", id=request_id, kind=type(error).__name__, at=_places(error))
            if not status:
                await error_response(ApiError(500, "a fault of the server; its log says where"))(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.monotonic() - began
            self.metrics.count("kringle_requests_total", route=route, status=str(status))
            self.metrics.observe("kringle_request_seconds", seconds, route=route)
            self.journal.write(
                "request",
                id=request_id,
                method=scope["method"] if scope["method"] in ("GET", "POST", "OPTIONS", "HEAD") else "other",
                route=route,
                status=status,
                seconds=round(seconds, 4),
                **note,
            )

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.settings.knows_host(hosts[0]):
            raise ApiError(403, "this is not a name of this server; allow it with --allow-host", code="host")
        if len(scope["path"]) + len(scope.get("query_string", b"")) > LONGEST_URL:
            raise ApiError(400, "the address is too long")
        if "origin" in headers and not self._allowed_origin(headers) and not _same_origin(headers):
            raise ApiError(403, "pages of other sites may not call this server; see --allow-origin", code="origin")

    def _allowed_origin(self, headers: Headers) -> str:
        origin = headers.get("origin", "")
        return origin if origin and origin.rstrip("/") in self.settings.origins else ""

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self._keys or self._is_open(scope["path"]):
            return
        given = headers.get("x-api-key", "")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given = token.strip()
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        # All are compared, whichever fits: neither the time nor the key's place in the list tells anything.
        matches = [hmac.compare_digest(digest, key) for key in self._keys]
        if not any(matches):
            error = ApiError(401, "no valid key; send it as 'Authorization: Bearer KEY'", code="invalid_api_key")
            error.headers["www-authenticate"] = "Bearer"
            raise error

    def _is_open(self, path: str) -> bool:
        return any(
            path == one or (one.endswith("/") and one != "/" and path.startswith(one)) for one in self.open_paths
        )

    async def _discard(self, receive: Receive) -> None:
        """Read the rest of a refused body, within bounds: to close a connection on what was sent would reset it, and
        the client would not see why it was refused."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                more = True
                while more and size <= DISCARD * self.settings.most_body:
                    message = await receive()
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """The whole body, if it is allowed."""
        most = self.settings.most_body
        length = headers.get("content-length", "0")
        too_large = ApiError(413, f"the body may have {most:,} bytes", code="body_too_large")
        if not length.isascii() or not length.isdigit() or len(length) > 18:
            raise ApiError(400, "content-length is no number")
        if int(length) > most:
            raise too_large
        if scope["method"] == "POST":
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "send JSON, with the header 'content-type: application/json'", code="not_json")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, "the body did not come in time") from None


def _same_origin(headers: Headers) -> bool:
    """Whether the page that calls was served under the name that it calls."""
    try:
        return urlsplit(headers["origin"]).netloc.lower() == headers["host"].lower()
    except ValueError:
        return False


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for an endpoint: the body at once, then what else comes, which is that the client goes away."""
    told = False

    async def replayed() -> Message:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


async def _preflight(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import Response

    allowed = {
        "access-control-allow-methods": ALLOWED_METHODS,
        "access-control-allow-headers": ALLOWED_HEADERS,
        "access-control-max-age": PREFLIGHT_SECONDS,
    }
    await Response(status_code=204, headers=allowed)(scope, receive, send)


def _places(error: BaseException) -> list[str]:
    """Where it was raised, outermost first, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return [
        f"{frame.filename.rsplit('/', 2)[-2]}/{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames
    ]
