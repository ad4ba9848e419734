"""Serving: time to the first token and tokens per second at 1, 8 and 64 clients, beside other servers, in one run.

The model has random weights and 20 million parameters (8 layers, width 448, 8 heads, multi-query, a vocabulary of 2,048
trained on this package's code), so that every server computes the same. Each request has a prompt of its own of about
256 tokens; 48 are drawn at temperature 0.8 and streamed. `typing` is one client whose prompt grows by some characters a
request, as an editor's does. All servers are asked over HTTP at `/v1/completions` by the same client on the same
machine, each with the number type that it chooses itself.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kringle.bench import Measured, Peers
from kringle.errors import UserError

LAYERS, WIDTH, HEADS, VOCABULARY, CONTEXT = 8, 448, 8, 2048, 1024
PROMPT_CHARACTERS, NEW_TOKENS = 800, 48
CLIENTS = {1: 6, 8: 24, 64: 64}  # clients: requests of all of them together
KEYSTROKES, TYPED = 16, 3  # requests, characters between them
START_SECONDS = 300.0
PEERS = ("transformers", "vllm")


def texts() -> list[str]:
    """This package's own sources."""
    return [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).resolve().parents[1].rglob("*.py"))]


def make_model(folder: Path, code: Sequence[str]) -> Path:
    """A `gpt_bigcode` folder; special tokens are improbable, so that every completion has its length."""
    import torch

    from kringle.model.exchange import save
    from kringle.model.shape import ModelConfig
    from kringle.model.transformer import Transformer
    from kringle.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(code, VOCABULARY, folder / "tokenizer")
    model = Transformer(ModelConfig(LAYERS, WIDTH, HEADS, "mqa", CONTEXT, tokenizer.vocab_size))
    model.initialise(0)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[VOCABULARY:, 0] = -5.0
    save(model, tokenizer, folder / "model")
    return folder / "model"


@dataclass(frozen=True)
class Answered:
    """One streamed request, in seconds; `complete`, whether it had all its tokens."""

    first: float
    whole: float
    complete: bool


def ask(port: int, model: str, prompt: str) -> Answered:
    """Stream one completion."""
    body = {"model": model, "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0.8, "stream": True}
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise UserError(f"status {answer.status}: {answer.read(300)!r}", where="kringle bench serve")
        first, reason = 0.0, None
        for line in answer:
            if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                continue
            for choice in json.loads(line[5:]).get("choices", ()):
                if choice.get("text") and not first:
                    first = time.perf_counter() - began
                reason = choice.get("finish_reason") or reason
        return Answered(first, time.perf_counter() - began, reason == "length")
    finally:
        connection.close()


def load(port: int, model: str, prompts: Sequence[str], clients: int) -> tuple[list[Answered], float]:
    """Every prompt once, by so many clients at a time; the answers, and the seconds that all took."""
    waiting = list(prompts)
    answers: list[Answered] = []
    faults: list[Exception] = []

    def client() -> None:
        while waiting and not faults:
            try:
                answers.append(ask(port, model, waiting.pop()))
            except IndexError:
                return
            except Exception as error:  # told by the thread that waits for all
                faults.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return answers, time.perf_counter() - began


def measure_server(port: int, model: str, code: str) -> dict[str, float]:
    """Every case of one server that has started."""

    def prompt(number: int) -> str:
        at = number * 1201 % (len(code) - PROMPT_CHARACTERS - KEYSTROKES * TYPED)
        return code[at : at + PROMPT_CHARACTERS]

    ask(port, model, prompt(1000))  # whatever is made when first needed
    rates: dict[str, float] = {}
    asked = 0
    for clients, count in CLIENTS.items():
        answers, seconds = load(port, model, [prompt(asked + i) for i in range(count)], clients)
        asked += count
        if not all(answer.complete for answer in answers):
            raise UserError("a completion ended before its length", where="kringle bench serve")
        rates[f"tokens/s, {clients} clients"] = count * NEW_TOKENS / seconds
        rates[f"first token ms, {clients} clients"] = 1000 * statistics.median(answer.first for answer in answers)
    whole = code[len(code) // 2 :]
    typed = [whole[: PROMPT_CHARACTERS + i * TYPED] for i in range(KEYSTROKES)]
    first = [ask(port, model, text).first for text in typed]
    rates["first token ms, typing"] = 1000 * statistics.median(first[1:])
    return rates


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A server as a process, until it answers; UserError with its last line if it does not."""
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1"},
        )
        try:
            limit = time.monotonic() + START_SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > limit:
                    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
                    raise UserError(f"did not start: {lines[-1][:200]}", where=command[0])
                time.sleep(0.2)
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def commands(name: str, peers: Peers, folder: Path, port: int) -> list[str]:
    """How each server is started."""
    if name == "kringle":
        rows = ["--rows", "32", "--waiting", "64"]
        return [sys.executable, "-m", "kringle", "serve", f"bench={folder}", "--port", str(port), *rows]
    tool = Path(peers.python(name)).parent / name
    if not tool.exists():
        raise UserError(
            "is not installed", where=name, hint=f"give --peer-path {name}=ENV (benchmarks/peers/serve.txt)"
        )
    arguments = {
        "transformers": [str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        "vllm": [str(folder), "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(CONTEXT)],
    }
    return [str(tool), "serve", *arguments[name]]


def measure(peers: Peers) -> Measured:
    code = texts()
    table: dict[str, dict[str, float]] = {}
    absent = []
    with tempfile.TemporaryDirectory(prefix="kringle-bench-") as scratch:
        folder = make_model(Path(scratch), code)
        for name in ("kringle", *(PEERS if peers.wanted else ())):
            port = free_port()
            try:
                with running(commands(name, peers, folder, port), port, Path(scratch) / f"{name}.log"):
                    table[name] = measure_server(port, "bench" if name == "kringle" else str(folder), "\n".join(code))
            except UserError as error:
                if name == "kringle":
                    raise
                absent.append(f"{name}: {error}")
    best = "tokens/s, 8 clients"
    return Measured(
        unit=best,
        ours=table["kringle"][best],
        peers={name: rates[best] for name, rates in table.items() if name != "kringle"},
        absent=absent,
        details={"new_tokens": NEW_TOKENS, "prompt_characters": PROMPT_CHARACTERS, "rates": table},
        lines=_lines(table, absent),
    )


def _lines(table: dict[str, dict[str, Any]], absent: Sequence[str]) -> list[str]:
    lines = []
    for name, rates in table.items():
        lines.append(f"{name}:")
        lines += [f"  {case:32} {value:10,.1f}" for case, value in rates.items()]
    return lines + [f"absent: {reason}" for reason in absent]
