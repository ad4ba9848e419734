"""Who is let in and with what: hosts, origins, keys, sizes, queues; clients that leave and servers that stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter
from serve_support import OPTIONS, Reply, call, native, running, saved, until

from kringle.errors import UserError
from kringle.serve.attributing import Span
from kringle.serve.journal import Journal
from kringle.serve.models import ModelOptions, NativeModel, open_models
from kringle.serve.run import listen
from kringle.serve.settings import Settings, check_access, read_keys

KEY = "a-long-key-1"
LONG = {"prompt": "def f(", "max_tokens": 200, "temperature": 1.0, "stream": True}


class Planted:
    """Says that every text is copied, as soon as it has ten characters."""

    def __init__(self) -> None:
        self.text = ""

    def follow(self) -> Planted:
        return Planted()

    def feed(self, text: str) -> list[Span]:
        self.text += text
        return self.finish()

    def finish(self) -> list[Span]:
        source = {"repo": "<script>", "path": "a.py", "licenses": ["MIT"]}
        return [Span(0, len(self.text), "exact", (source,))] if len(self.text) >= 10 else []


extra = APIRouter()


@extra.get("/extra/open")
async def is_open() -> dict[str, bool]:
    return {"open": True}


@extra.get("/fault")
async def fault() -> None:
    raise RuntimeError("def secret_code(): pass")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NativeModel:
    return native(tmp_path_factory.mktemp("model"), ends=False, options=replace(OPTIONS, rows=2, waiting=3))


@pytest.fixture(scope="module")
def log() -> StringIO:
    return StringIO()


@pytest.fixture(scope="module")
def address(model: NativeModel, log: StringIO) -> Iterator[str]:
    settings = Settings(
        keys=(KEY, "another-key"),
        hosts=("kringle.example",),
        origins=("https://editor.example",),
        most_body=20_000,
        body_seconds=1.0,
        send_seconds=2.0,
    )
    with running(
        [model],
        settings,
        extras=[extra],
        attributor=Planted(),
        open_paths=("/extra/",),
        journal=Journal(log),
    ) as address:
        yield address


def ask(address: str, path: str = "/v1/completions", body: Any = None, **headers: str) -> Reply:
    sent = {"authorization": f"Bearer {KEY}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return call(address, path, {"prompt": "a", "max_tokens": 1} if body is None else body, headers=sent)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT CHECKED: this system has no /dev/full")
def test_a_full_disk_costs_lines_of_the_journal_and_nothing_else(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as stream, (tmp_path / "log").open("w") as disk:
        journal = Journal(stream)
        journal.write("lost")
        os.dup2(disk.fileno(), stream.fileno())  # now there is room
        journal.write("kept")
    assert '"event": "kept"' in (tmp_path / "log").read_text()


def test_keys(address: str) -> None:
    assert call(address, "/health").status == 200
    assert call(address, "/v1/health").status == 200
    assert call(address, "/extra/open").status == 200
    for path in ("/v1/models", "/metrics", "/props", "/openapi.json", "/nothing"):
        refused = call(address, path)
        assert (refused.status, refused.json["error"]["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
    for given in ("Bearer wrong", f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"):
        assert ask(address, authorization=given).status == 401
    assert ask(address).status == 200
    assert ask(address, authorization="Bearer another-key").status == 200
    assert ask(address, authorization="", x_api_key=KEY).status == 200


def test_hosts_and_origins(address: str) -> None:
    port = urlsplit(address).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "localhost:x"):
        refused = ask(address, host=host)
        assert refused.status in (400, 403), host
    for host in ("localhost", f"127.0.0.1:{port}", "kringle.example", "KRINGLE.example.:80", "[::1]:80"):
        assert ask(address, host=host).status == 200, host
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{port}.evil.example",
        "http://[",
        "https://editor.example.evil",
    ):
        refused = ask(address, origin=origin)
        assert (refused.status, refused.json["error"]["code"]) == (403, "origin"), origin
        assert "access-control-allow-origin" not in refused.headers
    same = ask(address, origin=address)
    assert same.status == 200
    assert "access-control-allow-origin" not in same.headers
    allowed = ask(address, origin="https://editor.example")
    assert allowed.headers["access-control-allow-origin"] == "https://editor.example"
    preflight = call(
        address,
        "/v1/completions",
        method="OPTIONS",
        headers={"origin": "https://editor.example", "access-control-request-method": "POST"},
    )
    assert preflight.status == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]


def test_forms_sizes_methods_and_paths(address: str) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""):
        assert ask(address, content_type=kind).status == 415, kind
    assert ask(address, content_type="application/json; charset=utf-8").status == 200
    large = ask(address, body={"prompt": "x" * 20_000})
    assert (large.status, large.json["error"]["code"]) == (413, "body_too_large")
    assert ask(address, body=b"{").status == 400
    assert ask(address, body=b'{"prompt": "\\ud800"}').status == 422
    assert ask(address, body=b'{"prompt": NaN}').status == 422
    assert ask(address, body=b'{"temperature": 1e999}').status == 422
    assert ask(address, body=b'{"seed": ' + b"9" * 5000 + b"}").status == 400
    assert ask(address, body=b'{"prompt": ' + b"[" * 9_000 + b"]" * 9_000 + b"}").status in (400, 422)
    assert ask(address, body=b"[]").status == 422
    assert ask(address, body={"prompt": []}).status == 400
    assert ask(address, body={"prompt": [[]]}).status == 400
    headers = {"authorization": f"Bearer {KEY}"}
    assert call(address, "/v1/completions", headers=headers).status == 405
    assert call(address, "/v1/models", method="DELETE", headers=headers).status == 405
    for path in (
        "/../etc/passwd",
        "/v1/models/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/%00",
        "/?" + "a" * 9000,
    ):
        answer = call(address, path, headers=headers)
        assert answer.status in (400, 404), path
        assert "root:" not in answer.text


def raw(address: str, sent: bytes, *, close: bool = False) -> bytes:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(sent)
        if close:
            return b""
        found = b""
        with suppress(ConnectionResetError):  # what it had not read when it closed
            while part := sock.recv(65536):
                found += part
        return found


def test_bodies_that_do_not_come_or_do_not_end(address: str) -> None:
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    head += "content-type: application/json\r\n"
    slow = raw(address, (head + "content-length: 50\r\n\r\n{").encode())
    assert slow.startswith(b"HTTP/1.1 408")
    chunks = b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(6)) + b"0\r\n\r\n"
    assert raw(address, (head + "transfer-encoding: chunked\r\n\r\n").encode() + chunks).startswith(b"HTTP/1.1 413")
    assert raw(address, b"GET /health HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").startswith(b"HTTP/1.1 40")
    assert raw(address, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    huge = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"
    assert raw(address, huge)[:10] in (b"", b"HTTP/1.1 4")
    raw(address, (head + "content-length: 50\r\n\r\n{").encode(), close=True)
    assert call(address, "/health").status == 200


def test_answers_tell_browsers_to_make_nothing_of_them(address: str) -> None:
    for answer in (
        call(address, "/health"),
        ask(address),
        call(address, "/nothing"),
        ask(address, host="evil.example"),
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


def test_a_fault_is_told_without_what_was_sent(address: str, log: StringIO) -> None:
    answer = call(address, "/fault", headers={"authorization": f"Bearer {KEY}"})
    assert (answer.status, answer.json["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text + log.getvalue()
    assert "RuntimeError" in log.getvalue()
    ask(address, body={"prompt": "my_secret_code = 1", "max_tokens": 1})
    ask(address, path="/my_secret_path")
    assert "secret" not in log.getvalue()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {"time", "event", "id", "route", "status", "seconds"} <= lines[-1].keys()
    assert any(line.get("completion_tokens") == 1 for line in lines)


def test_attribution_is_told_while_it_is_written(address: str) -> None:
    body = {"prompt": "def f(", "max_tokens": 40, "temperature": 0, "attribution": True}
    whole = ask(address, body=body).json["choices"][0]
    assert whole["attribution"][0]["end"] == len(whole["text"])
    stream = ask(address, body={**body, "stream": True}).events
    told = [event["choices"][0]["attribution"] for event in stream]
    written = 0
    for event, spans in zip(stream, told, strict=True):  # an event may hold several tokens
        written += len(event["choices"][0]["text"])
        assert [span["end"] for span in spans] == ([written] if written >= 10 else [])
    assert any(told[:-1])
    assert told[-1] == whole["attribution"]
    assert "attribution" not in ask(address).json["choices"][0]


def start(address: str, body: dict[str, Any]) -> http.client.HTTPResponse:
    """A request whose answer has begun and is not read any further."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    answer.connection = connection  # type: ignore[attr-defined]  # kept open as long as the answer
    return answer


@pytest.fixture
def slow(model: NativeModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Steps wait for the event: so long, what runs goes on running."""
    gate = threading.Event()
    engine = model._service._engine
    step = engine.decoder.step

    def wait(*inputs: Any) -> Any:
        gate.wait(20)
        return step(*inputs)

    monkeypatch.setattr(engine.decoder, "step", wait)
    yield gate
    gate.set()
    until(lambda: model.load.requests == 0)


def test_a_full_queue_refuses_and_a_client_that_leaves_frees_its_row(
    address: str, model: NativeModel, slow: threading.Event
) -> None:
    """Two rows, and three requests that may wait; once all are gone the rows are free."""
    running_now = start(address, {**LONG, "n": 2})
    until(lambda: model.load.busy == 2)
    bodies = [json.dumps({**LONG, "stream": False}).encode() for _ in range(3)]
    parts = urlsplit(address)
    waiting = []
    for number, body in enumerate(bodies):
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/completions", body, headers)
        waiting.append(connection)
        until(lambda number=number: model.load.requests == 2 + number)
    refused = ask(address)
    assert (refused.status, refused.json["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    for connection in waiting:
        connection.close()
    running_now.connection.close()  # type: ignore[attr-defined]
    running_now.close()
    slow.set()
    until(lambda: model.load.requests == 0 and model.load.busy == 0)
    assert model._service._engine.plans == {}
    assert ask(address).status == 200
    metrics = call(address, "/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    assert 'kringle_requests_total{route="/v1/completions",status="429"} 1' in metrics
    assert 'kringle_rows_busy{model="tiny"} 0' in metrics


def test_a_deadline_ends_with_what_there_is_or_says_that_nothing_came(tmp_path: Path) -> None:
    model = native(tmp_path, ends=False, options=replace(OPTIONS, rows=1))
    engine = model._service._engine
    step, prefill = engine.decoder.step, engine.decoder.prefill
    gate = threading.Event()
    with running([model], Settings(deadline=0.3)) as address:
        engine.decoder.step = lambda *inputs: (gate.wait(0.5), step(*inputs))[1]  # type: ignore[method-assign]
        answer = call(address, "/v1/completions", {"prompt": "a b c d", "max_tokens": 50})
        assert (answer.status, answer.json["choices"][0]["finish_reason"]) == (200, "length")
        assert answer.json["usage"]["completion_tokens"] < 50
        engine.decoder.prefill = lambda *inputs: (gate.wait(20), prefill(*inputs))[1]  # type: ignore[method-assign]
        replies: list[Reply] = []
        bodies = [{"prompt": text, "max_tokens": 50, "stream": True} for text in "bc"]
        threads = [
            threading.Thread(target=lambda body=body: replies.append(call(address, "/v1/completions", body)))
            for body in bodies
        ]
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: model.load.requests == number + 1)
        time.sleep(0.4)  # the second one's time has passed before its prompt is looked at
        gate.set()
        for thread in threads:
            thread.join()
        assert 504 in [reply.status for reply in replies]
        assert all(reply.json["error"]["type"] == "timeout_error" for reply in replies if reply.status == 504)


def command(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kringle", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **variables},
    )


def test_the_command_serves_and_sigterm_drains(tmp_path: Path) -> None:
    """What runs is finished if it can be within the grace period, else told so; nothing new is taken; exit code 0."""
    folder = saved(tmp_path, ends=False, context=8192)
    options = ("--port", "0", "--json", "--precision", "fp32", "--most-tokens", "8000", "--grace", "1.5")
    process = command(tmp_path, f"mine={folder}", *options)
    assert process.stdout is not None
    try:
        said = [process.stdout.readline()]
        while not said[-1].startswith("{"):
            said.append(process.stdout.readline())
            assert said[-1], "it ended"
        record = json.loads(said[-1])
        assert record["models"] == ["mine"]
        assert record["url"] in said[0]
        assert "curl" in "".join(said)
        with pytest.raises(UserError, match="is taken"):
            listen("127.0.0.1", urlsplit(record["url"]).port or 0)
        body = {"prompt": "a", "temperature": 0.5, "stream": True}
        short, long = (start(record["url"], {**body, "max_tokens": tokens}) for tokens in (100, 8000))
        long.read(10)
        process.send_signal(signal.SIGTERM)
        done = short.read()
        assert done.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason": "length"' in done
        last = [event for event in long.read().split(b"\n\n") if event][-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stopping"
        assert process.wait(30) == 0
        with pytest.raises(OSError, match="refused"):
            call(record["url"], "/health")
        events = [json.loads(line)["event"] for line in process.communicate()[1].splitlines()]
        assert events[-1] == "stopped"
        assert "draining" in events
    finally:
        process.kill()


def test_mistakes_end_with_one_line(tmp_path: Path) -> None:
    options = ModelOptions()
    with pytest.raises(UserError, match="is not there"):
        open_models([str(tmp_path / "nothing")], options)
    with pytest.raises(UserError, match=r"no model here \(a model is a folder with config.json\)"):
        open_models([str(tmp_path)], options)
    folder = saved(tmp_path)
    with pytest.raises(UserError, match=r"did you mean .*model"):
        open_models([str(tmp_path)], options)
    stage, trained = tmp_path / "stages" / "train@fim-s0-1" / "model", tmp_path / "models" / "fim-s0"
    for parent in (stage.parent, trained.parent):
        parent.mkdir(parents=True)
    folder.rename(stage)
    trained.symlink_to(stage)  # as a study leaves them
    with pytest.raises(UserError, match=r"is not there; .* or one of fim-s0"):
        open_models(["mha"], options, tmp_path)
    (opened,) = open_models(["fim"], ModelOptions(rows=1), tmp_path)
    opened.close()
    assert opened.name == "fim-s0"
    folder = trained
    with pytest.raises(UserError, match="two models are called 'fim-s0'"):
        open_models([str(folder), str(folder)], options)
    with pytest.raises(UserError, match="is no name"):
        open_models([f"={folder}"], options)
    with pytest.raises(UserError, match="other machines could use"):
        check_access("0.0.0.0", (), no_key=False)
    check_access("0.0.0.0", ("k",), no_key=False)
    check_access("0.0.0.0", (), no_key=True)
    check_access("::1", (), no_key=False)
    with pytest.raises(UserError, match="no address of this machine"):
        listen("no.such.host.invalid", 0)
    keys = tmp_path / "keys"
    keys.write_text("# mine\none\n\ntwo\n")
    assert read_keys(keys, " three ") == ("three", "one", "two")
    keys.write_text("# none\n")
    with pytest.raises(UserError, match="holds no key"):
        read_keys(keys, "")
    with pytest.raises(UserError, match="header cannot carry"):
        read_keys(None, "schlüssel")
