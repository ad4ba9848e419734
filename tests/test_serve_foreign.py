"""Models that `transformers` computes, behind the same endpoints: the same text, streamed, cancelled, bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from serve_support import OPTIONS, call, make_model, make_tokenizer, running, saved, until

from kringle.errors import UserError
from kringle.generation.requests import Request
from kringle.generation.service import Busy
from kringle.serve.foreign import ForeignServed
from kringle.serve.models import ModelOptions, NativeModel
from kringle.serve.settings import Settings

PROMPT = "def add(a, b):\n    return "


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """One model twice: computed by transformers and by our engine."""
    folder = tmp_path_factory.mktemp("model")
    path = saved(folder, ends=False)
    foreign = ForeignServed("theirs", path, ModelOptions(waiting=2))
    tokenizer = make_tokenizer(folder / "again")
    return [foreign, NativeModel("ours", make_model(ends=False), tokenizer, OPTIONS)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def address(models: list[Any]) -> Iterator[str]:
    with running(models, Settings(heal=False)) as address:
        yield address


def test_theirs_draws_what_ours_draws(address: str, models: list[Any]) -> None:
    """Ids as they are, since only ours begins a file with an end-of-text token; gaps in the same order and spelling."""
    ids = models[1].encode(PROMPT)
    for extra in ({"prompt": ids}, {"suffix": "\n\n\nprint(add(1, 2))\n"}, {"prompt": ids, "stop": ["e"], "n": 2}):
        told = []
        for name in ("theirs", "ours"):
            body = {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 2, **extra}
            whole = call(address, "/v1/completions", body)
            assert whole.status == 200, whole.text
            choice = whole.json["choices"][0]
            streamed = call(address, "/v1/completions", {**body, "stream": True}).events
            parts = [event["choices"][0] for event in streamed if event["choices"][0]["index"] == 0]
            assert "".join(part["text"] for part in parts) == choice["text"]
            told.append((choice["text"], choice["finish_reason"], choice["logprobs"]["tokens"]))
        assert told[0] == told[1]
    cards = {card["id"]: card for card in call(address, "/v1/models").json["data"]}
    assert cards["theirs"]["owned_by"] == "transformers"
    assert cards["theirs"]["fills_gaps"]
    echoed = [
        call(
            address,
            "/v1/completions",
            {"model": name, "prompt": [5, 6, 7], "max_tokens": 0, "echo": True, "logprobs": 1},
        )
        for name in ("theirs", "ours")
    ]
    ours, theirs = (answer.json["choices"][0]["logprobs"]["token_logprobs"] for answer in echoed)
    assert ours[0] is theirs[0] is None
    assert ours[1:] == pytest.approx(theirs[1:], abs=0.02)  # the padded rows count among theirs


def test_it_is_bounded_and_cancelled_between_tokens(models: list[Any]) -> None:
    foreign: ForeignServed = models[0]
    gate, model = threading.Event(), foreign._foreign.model
    forward = model.forward
    model.forward = lambda *inputs, **named: (gate.wait(20), forward(*inputs, **named))[1]
    try:
        request = Request(foreign.encode(PROMPT), max_new_tokens=100)
        tickets = [foreign.submit(request, deadline=60, woken=lambda: None)]
        until(lambda: foreign.load.busy == 1)
        tickets += [foreign.submit(request, deadline=60, woken=lambda: None) for _ in range(2)]
        with pytest.raises(Busy):
            foreign.submit(request, deadline=60, woken=lambda: None)
        late = tickets.pop()
        for ticket in tickets:
            ticket.cancel()
        late.cancel()
    finally:
        gate.set()
        model.forward = forward
    assert {ticket.result(60)[0].finish for ticket in (*tickets, late)} == {"cancelled"}
    until(lambda: foreign.load.requests == 0)
    (ended,) = foreign.submit(request, deadline=-1, woken=lambda: None).result(60)
    assert ended.finish == "deadline"
    with pytest.raises(UserError, match="must also hold one new token"):
        foreign.submit(Request([1] * 10_000), deadline=1, woken=lambda: None)
