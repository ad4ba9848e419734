"""Sixty-four clients for ten minutes on one server: right answers, proper statuses, no leak, a clean end.

    make evidence load                                       ten minutes
    make evidence load EVIDENCE_ARGS='--seconds 60'          one

`kringle serve --invariant` with a small random model and a queue shorter than the number of clients. Each client goes
on choosing at random: a request whose text must be that of the same request asked alone, whole or streamed, greedy or
seeded, left to right or filling in; one that it leaves, before the first byte or after some; one that must be refused
with a certain status. At the end memory and descriptors are compared with those after warming up, nothing may run any
more, and SIGTERM must let what runs finish. Writes benchmarks/results/load.json; the exit code is 1 where anything was
wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common

ROWS, WAITING, CONTEXT, VOCABULARY = 16, 24, 512, 600
REQUESTS = 48  # different ones that are asked again and again
LONGEST = 60.0  # seconds after which a request is stuck; the server's own deadline is shorter
DEADLINE = 45
MARK = "zq_marker_that_no_log_may_hold"
SAMPLE_SECONDS = 1.0
# Memory may grow by so much after the first third: buffers of the allocator, a thread's stack.
MOST_GROWTH = 0.05


def make_model(folder: Path) -> Path:
    """A saved model with random weights that hardly ever ends a text itself, and a tokenizer of this package's code."""
    import torch

    from kringle.model.exchange import save
    from kringle.model.shape import ModelConfig
    from kringle.model.transformer import Transformer
    from kringle.tokens.tokenizer import train_tokenizer

    sources = [path.read_text(encoding="utf-8") for path in sorted((common.ROOT / "kringle/serve").glob("*.py"))]
    tokenizer = train_tokenizer(sources, VOCABULARY, folder / "tokenizer")
    model = Transformer(ModelConfig(2, 64, 4, "mqa", CONTEXT, VOCABULARY + 8))
    model.initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)  # sharp enough that texts differ
    save(model, tokenizer, folder / "model")
    return folder / "model"


@dataclass
class Found:
    """What was seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


@dataclass(frozen=True)
class Answer:
    """One answer; `body` is cut where the client left."""

    status: int
    headers: dict[str, str]
    body: bytes


class Gone(Exception):
    """The server closed the connection before the answer's end."""


async def ask(
    port: int,
    path: str,
    body: bytes,
    *,
    method: str = "POST",
    headers: Sequence[tuple[str, str]] = (),
    leave_after: int | None = None,
    send: int | None = None,
) -> Answer | None:
    """One request on a connection of its own; None where this client left: after `send` bytes of its body, or after
    `leave_after` bytes of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        sent = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(body))}
        sent |= dict(headers)
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"{head}connection: close\r\n\r\n".encode() + (body if send is None else body[:send]))
        await writer.drain()
        if send is not None:
            return None
        if leave_after is not None:
            await reader.read(leave_after) if leave_after else await asyncio.sleep(random.random() / 20)
            return None
        raw = await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    top, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        raise Gone(raw[:80])
    lines = top.decode().split("\r\n")
    found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if found.get("transfer-encoding") == "chunked":
        rest = dechunk(rest)
    elif len(rest) != int(found.get("content-length", len(rest))):
        raise Gone(raw[:80])
    return Answer(int(lines[0].split()[1]), found, rest)


def dechunk(raw: bytes) -> bytes:
    parts = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            return b"".join(parts)
        parts.append(raw[:count])
        raw = raw[count + 2 :]
    raise Gone(b"no last chunk")


def make_requests() -> list[tuple[str, dict[str, Any]]]:
    """Path and body of requests whose text is a function of themselves."""
    draw = random.Random(1)
    code = (common.ROOT / "kringle/serve/guard.py").read_text(encoding="utf-8")
    made: list[tuple[str, dict[str, Any]]] = []
    for number in range(REQUESTS):
        at = draw.randrange(len(code) - 2000)
        prefix, suffix = (
            f"# {MARK}\n" + code[at : at + draw.randrange(1, 900)],
            code[at + 900 : at + 900 + draw.randrange(300)],
        )
        tokens, seed = draw.randrange(4, 64), draw.randrange(1000)
        temperature = draw.choice([0, 0, 0.8, 1.2])
        kind = number % 6
        if kind <= 2:
            body: dict[str, Any] = {"prompt": prefix, "max_tokens": tokens, "temperature": temperature, "seed": seed}
            body |= {"suffix": suffix} if kind else {}
            body |= {"n": 3, "logprobs": 2} if kind == 2 else {}
            body |= {"stop": ["\n\n", "return"]} if number % 4 == 0 else {}
            made.append(("/v1/completions", body))
        elif kind == 3:
            body = {"prompt": prefix, "suffix": suffix, "max_tokens": tokens, "temperature": temperature}
            made.append(("/v1/fim/completions", {**body, "random_seed": seed}))
        elif kind == 4:
            body = {"input_prefix": prefix, "input_suffix": suffix, "prompt": "    x", "n_predict": tokens}
            made.append(("/infill", {**body, "temperature": temperature, "seed": seed}))
        else:
            options = {"num_predict": tokens, "temperature": temperature, "seed": seed}
            made.append(("/api/generate", {"model": "load", "prompt": prefix, "options": options}))
    return made


def texts(path: str, answer: Answer) -> dict[int, str]:
    """The text of each choice, whichever way it came."""
    kind = answer.headers["content-type"]
    if kind.startswith("text/event-stream"):
        lines = [line[5:].strip() for line in answer.body.decode().split("\n") if line.startswith("data:")]
        parts = [json.loads(line) for line in lines if line != "[DONE]"]
    elif kind.startswith("application/x-ndjson"):
        parts = [json.loads(line) for line in answer.body.decode().splitlines()]
    else:
        parts = [json.loads(answer.body)]
    found: Counter[int] = Counter()
    told: dict[int, str] = {}
    for part in parts:
        if "error" in part:
            raise ValueError(part["error"])
        for choice in part.get("choices", [part]):
            index = choice.get("index", 0)
            text = choice.get("text", choice.get("content", choice.get("response")))
            told[index] = told.get(index, "") + text
            found[index] += 1
    return told


BAD: list[tuple[int, str, str, bytes, list[tuple[str, str]]]] = [
    (400, "POST", "/v1/completions", b"{", []),
    (400, "POST", "/v1/completions", b'{"prompt": "a", "best_of": 4}', []),
    (400, "POST", "/v1/completions", b'{"prompt": [99999]}', []),
    (400, "POST", "/v1/completions", json.dumps({"prompt": [1] * 5000}).encode(), []),
    (422, "POST", "/v1/completions", b'{"prompt": {"a": 1}}', []),
    (422, "POST", "/infill", b'{"n_predict": "many"}', []),
    (422, "POST", "/v1/completions", b'{"prompt": "\\ud800"}', []),
    (404, "POST", "/v1/completions", b'{"model": "gpt", "prompt": "a"}', []),
    (404, "GET", "/../../etc/passwd", b"", []),
    (405, "GET", "/v1/completions", b"", []),
    (413, "POST", "/v1/completions", json.dumps({"prompt": "x" * 300_000}).encode(), []),
    (415, "POST", "/v1/completions", b"prompt=a", [("content-type", "application/x-www-form-urlencoded")]),
    (403, "POST", "/v1/completions", b'{"prompt": "a"}', [("origin", "https://evil.example")]),
    (403, "GET", "/health", b"", [("host", "evil.example")]),
]


class Server:
    """`kringle serve` as a process."""

    def __init__(self, folder: Path) -> None:
        model = make_model(folder)
        self.log = folder / "log.jsonl"
        command = [sys.executable, "-m", "kringle", "serve", f"load={model}", "--port", "0", "--json", "--invariant"]
        command += ["--rows", str(ROWS), "--waiting", str(WAITING), "--deadline", str(DEADLINE), "--log", str(self.log)]
        command += ["--most-body", "200kB", "--prefix-cache", "20MB", "--grace", "30"]
        environment = {**os.environ, "PYTHONPATH": str(common.ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.port = int(json.loads(line)["url"].rsplit(":", 1)[1])
                return
        raise SystemExit("the server did not start")

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


async def metric(port: int, name: str) -> float:
    answer = await ask(port, "/metrics", b"", method="GET")
    assert answer is not None
    lines = [line for line in answer.body.decode().splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def client(
    port: int, draw: random.Random, asked: list[tuple[str, dict[str, Any]]], alone: list[dict[int, str]],
    found: Found, goes_on: Callable[[], bool],
) -> None:  # fmt: skip
    while goes_on():
        number = draw.randrange(len(asked))
        path, body = asked[number]
        choice, began = draw.random(), time.monotonic()
        try:
            async with asyncio.timeout(LONGEST):
                if choice < 0.70:
                    await ordinary(port, path, {**body, "stream": draw.random() < 0.6}, alone[number], found)
                elif choice < 0.80:
                    await ask(
                        port, path, json.dumps({**body, "stream": True}).encode(), leave_after=draw.randrange(1, 2000)
                    )
                    found.done["left while it was written"] += 1
                elif choice < 0.86:
                    await ask(port, path, json.dumps({**body, "stream": False}).encode(), leave_after=0)
                    found.done["left before the answer"] += 1
                elif choice < 0.90:
                    await ask(port, path, json.dumps(body).encode(), send=draw.randrange(20))
                    found.done["left in the body"] += 1
                else:
                    await refused(port, draw.choice(BAD), found)
        except TimeoutError:
            found.wrong.append(f"stuck: {path} for {LONGEST} s")
        except (Gone, ConnectionError, ValueError, KeyError) as error:
            found.wrong.append(f"{path}: {type(error).__name__} {error}")
        found.slowest = max(found.slowest, time.monotonic() - began)


async def ordinary(port: int, path: str, body: dict[str, Any], wanted: dict[int, str], found: Found) -> None:
    answer = await ask(port, path, json.dumps(body).encode())
    assert answer is not None
    found.statuses[str(answer.status)] += 1
    if answer.status == 429:
        if int(answer.headers.get("retry-after", "0")) < 1 or b"queue_full" not in answer.body:
            found.wrong.append("429 without its reason and Retry-After")
        await asyncio.sleep(random.random() / 2)
    elif answer.status != 200:
        found.wrong.append(f"{path}: status {answer.status} {answer.body[:200]!r}")
    elif texts(path, answer) != wanted:
        found.wrong.append(f"{path}: another text than alone")
    else:
        found.done["right"] += 1


async def refused(port: int, bad: tuple[int, str, str, bytes, list[tuple[str, str]]], found: Found) -> None:
    status, method, path, body, headers = bad
    answer = await ask(port, path, body, method=method, headers=headers)
    assert answer is not None
    found.statuses[str(answer.status)] += 1
    if answer.status != status or not json.loads(answer.body)["error"]["message"]:
        found.wrong.append(f"{path} {body[:40]!r}: status {answer.status} instead of {status}")
    else:
        found.done["refused"] += 1


async def drained(server: Server, asked: list[tuple[str, dict[str, Any]]], alone: list[dict[int, str]]) -> list[str]:
    """What was wrong when SIGTERM came while streams ran."""
    chosen = [i for i, (path, body) in enumerate(asked) if path == "/v1/completions" and "n" not in body][:ROWS]
    running = [
        asyncio.create_task(ask(server.port, asked[i][0], json.dumps({**asked[i][1], "stream": True}).encode()))
        for i in chosen
    ]
    while await metric(server.port, "kringle_requests_running") < 1 and not all(task.done() for task in running):
        await asyncio.sleep(0.005)
    server.process.send_signal(signal.SIGTERM)
    wrong = []
    for i, task in zip(chosen, running, strict=True):
        try:
            answer = await task
        except ConnectionError:
            continue  # was not taken any more
        assert answer is not None
        if answer.status == 503:
            continue
        if texts(asked[i][0], answer) != alone[i] or not answer.body.endswith(b"data: [DONE]\n\n"):
            wrong.append("a stream was not finished after SIGTERM")
    code = await asyncio.to_thread(server.process.wait, 60)
    return wrong + ([f"exit code {code} after SIGTERM"] if code else [])


async def prove(seconds: float, clients: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="kringle-load-") as scratch:
        server = Server(Path(scratch))
        try:
            return await _prove(server, seconds, clients)
        finally:
            server.process.kill()


async def _prove(server: Server, seconds: float, clients: int) -> dict[str, Any]:
    asked, found = make_requests(), Found()
    alone = []
    for path, body in asked:
        answer = await ask(server.port, path, json.dumps({**body, "stream": False}).encode())
        assert answer is not None
        assert answer.status == 200, answer.body
        alone.append(texts(path, answer))
    idle_descriptors = server.descriptors()
    end = time.monotonic() + seconds
    tasks = [
        asyncio.create_task(client(server.port, random.Random(i), asked, alone, found, lambda: time.monotonic() < end))
        for i in range(clients)
    ]
    memory = []
    while time.monotonic() < end:
        await asyncio.sleep(min(SAMPLE_SECONDS, seconds / 10))
        memory.append(server.memory())
    await asyncio.gather(*tasks)
    limit = time.monotonic() + 10
    while await metric(server.port, "kringle_requests_running") and time.monotonic() < limit:
        await asyncio.sleep(0.05)
    left = {name: await metric(server.port, f"kringle_{name}") for name in ("requests_running", "rows_busy")}
    descriptors = server.descriptors()
    tokens = await metric(server.port, "kringle_completion_tokens_total")
    reused = await metric(server.port, "kringle_prompt_tokens_reused_total")
    third = len(memory) // 3
    before, after = max(memory[: third + 1]), max(memory[-third - 1 :])
    growth = after / before - 1
    wrong = list(found.wrong)
    if any(left.values()):
        wrong.append(f"still running when all clients had left: {left}")
    if descriptors > idle_descriptors + 2:
        wrong.append(f"{descriptors} descriptors at the end, {idle_descriptors} before")
    if seconds >= 60 and growth > MOST_GROWTH:
        wrong.append(f"memory grew by {growth:.1%}")
    wrong += await drained(server, asked, alone)
    log = server.log.read_text(encoding="utf-8")
    events = Counter(json.loads(line)["event"] for line in log.splitlines())
    if MARK in log:
        wrong.append("the log holds what a client wrote")
    if events["fault"] or events["stopped"] != 1:
        wrong.append(f"the log tells of {events['fault']} faults and {events['stopped']} ends")
    return {
        "seconds": seconds,
        "clients": clients,
        "requests": events["request"],
        "statuses": dict(found.statuses),
        "done": dict(found.done),
        "slowest_seconds": round(found.slowest, 2),
        "tokens": int(tokens),
        "tokens_per_second": round(tokens / seconds, 1),
        "prompt_tokens_reused": int(reused),
        "memory_first_third": before,
        "memory_last_third": after,
        "memory_growth": round(growth, 4),
        "descriptors": [idle_descriptors, descriptors],
        "wrong": len(wrong),
        "wrong_examples": wrong[:10],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=64)
    chosen = parser.parse_args(arguments)
    record = asyncio.run(prove(chosen.seconds, chosen.clients))
    print(json.dumps(record, indent=2))
    print(common.write("load", record))
    return 1 if record["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
