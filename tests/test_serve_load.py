"""`make evidence load`, for some seconds: what it looks for is not there, and it would see it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "evidence"))

import load  # benchmarks/evidence/load.py


def test_clients_that_come_and_go_leave_nothing_wrong() -> None:
    record = asyncio.run(load.prove(seconds=4, clients=40))
    assert record["wrong_examples"] == []
    assert record["done"]["right"] > 0
    assert record["done"]["refused"] > 0
    assert record["prompt_tokens_reused"] > 0


def test_another_text_and_another_status_are_seen() -> None:
    found = load.Found()
    answer = load.Answer(200, {"content-type": "application/json"}, b'{"choices": [{"index": 0, "text": "a"}]}')
    assert load.texts("/v1/completions", answer) == {0: "a"}
    stream = b'data: {"choices": [{"index": 1, "text": "a"}]}\n\ndata: {"choices": [{"index": 1, "text": "b"}]}\n\n'
    assert load.texts("", load.Answer(200, {"content-type": "text/event-stream"}, stream)) == {1: "ab"}
    assert load.dechunk(b"3\r\nabc\r\n0\r\n\r\n") == b"abc"
    assert not found.wrong
