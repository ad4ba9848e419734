"""Running the application: one socket, one process, and an orderly end.

SIGTERM (and Ctrl-C) drain: no connection is taken any more, what runs may end within the grace period, what has not
ended then is told so, and the process leaves with 0. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from kringle.errors import UserError
from kringle.serve.journal import Handler
from kringle.serve.serving import Serving

BACKLOG = 512  # connections that may wait to be taken
MOST_CONNECTIONS = 900  # a process may usually open 1,024 files; one more gets 503
IDLE_SECONDS = 75  # that a connection is kept without a request
LAST_SECONDS = 5  # after the grace period, for answers to be sent


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. UserError for a port that is taken or may not be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise UserError(f"'{host}' is no address of this machine ({error})", where="--host") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is taken", where="--port", hint="give another one, or 0 for any that is free"
            ) from None
        raise UserError(f"cannot listen on {host} port {port} ({error.strerror})", where="--port") from None
    return sock


def url(sock: socket.socket) -> str:
    """Where the server can be reached from this machine."""
    host, port = sock.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"


class Server(uvicorn.Server):
    """Uvicorn with this module's ending."""

    def __init__(self, app: FastAPI, *, grace: float) -> None:
        self.serving: Serving = app.state.serving
        self._grace = grace
        library = logging.getLogger("uvicorn.error")
        library.handlers, library.propagate = [Handler(self.serving.journal)], False
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=int(grace) + LAST_SECONDS,
                ws="none",
                lifespan="on",
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:
            self.force_exit = True
            self.serving.stop()
        self.should_exit = True
        self.serving.draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.serving.draining = True
        self.serving.journal.write("draining", running=self.serving.running, grace=self._grace)

        async def end_the_rest() -> None:
            await asyncio.sleep(self._grace)
            self.serving.stop()

        rest = asyncio.create_task(end_the_rest())
        try:
            await super().shutdown(sockets)
        finally:
            rest.cancel()


def run(app: FastAPI, sock: socket.socket, *, grace: float, on_started: Callable[[], None] = lambda: None) -> None:
    """Serve on `sock` until a signal ends it. `on_started` is called once connections are taken."""
    server = Server(app, grace=grace)

    async def main() -> None:
        task = asyncio.create_task(server.serve(sockets=[sock]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            on_started()
        await task

    asyncio.run(main())
    server.serving.journal.write("stopped")
