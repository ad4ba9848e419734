"""Prompts that were run before: what is taken over, what is let go, and that it changes no bit where none may."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_generation_engine import TOKENS, random_model

from kringle.generation.decoder import BLOCK, Decoder, Prompt
from kringle.generation.engine import STOP_SETS, Engine, generate
from kringle.generation.prefixes import RETYPED, PrefixCache
from kringle.generation.requests import Completion, Request
from kringle.generation.service import Service
from kringle.model.transformer import Transformer
from kringle.randomness import stream

pytestmark = pytest.mark.usefixtures("one_thread")

LONG = stream(0, "test", "typed").integers(0, 10, 300).tolist()


@pytest.fixture(scope="module", params=["mqa", "mha"])
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(request.param, context=400)


def prompt_of(length: int) -> Prompt:
    return Prompt(torch.zeros(1, 1, length, 4), torch.zeros(1, 1, length, 4), torch.zeros(8))


def test_the_longest_common_beginning_is_found_in_whole_blocks() -> None:
    cache = PrefixCache(1 << 20)
    cache.keep([1, 2, 3, 4] + [9] * 40, prompt_of(44))
    cache.keep([1, 2, 7] + [9] * 40, prompt_of(43))
    assert cache.find([1, 2, 7, 5])[1] == 3
    assert cache.find([1, 2, 7])[1] == 2  # the logits after the last token are another prompt's
    assert cache.find([1, 2, 7] + [9] * 40)[1] == 43
    assert cache.find([5]) == (None, 0)
    blocks = PrefixCache(1 << 20, block=4)
    blocks.keep(list(range(50)), prompt_of(50))
    assert blocks.find([*range(11), 0])[1] == 8
    assert blocks.find(list(range(50)))[1] == 50
    assert blocks.find([0, 1, 2, 9]) == (None, 0)


def test_it_is_bounded_and_lets_go_what_was_used_longest_ago() -> None:
    size = sum(part.nbytes for part in prompt_of(100))
    cache = PrefixCache(3 * size)
    for first in range(3):
        cache.keep([first] * 100, prompt_of(100))
    cache.find([0] * 100)
    cache.keep([3] * 100, prompt_of(100))
    assert cache.bytes == 3 * size
    assert cache.find([1] * 100) == (None, 0)
    assert cache.find([0] * 100)[1] == 100
    cache.keep([0] * (100 + RETYPED), prompt_of(100 + RETYPED))  # in place of its own beginning
    assert len(cache) == 3 - 1  # which made it too large for the third
    cache.keep([8] * 1000, prompt_of(1000))
    assert cache.find([8] * 1000) == (None, 0)


def ask(engine: Engine, request: Request) -> Completion:
    engine.add(request)
    while True:
        for event in engine.advance():
            assert isinstance(event, Completion)
            return event


def test_typing_on_runs_the_new_tokens_alone_and_draws_the_same(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit where the engine is invariant, to a rounding where it is not."""
    run: list[int] = []
    whole = Decoder._prefill

    def count(self: Decoder, ids: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: slice) -> torch.Tensor:
        run.append(part.stop - part.start)
        return whole(self, ids, keys, values, part)

    monkeypatch.setattr(Decoder, "_prefill", count)
    typed = [Request(LONG[:end], max_new_tokens=20, temperature=0.8) for end in (200, 203, 210, 203, 260)]
    for invariant in (False, True):
        engine = Engine(model, TOKENS, rows=2, invariant=invariant, prefix_bytes=1 << 24)
        completions = []
        work = []
        for request in typed:
            run.clear()
            completions.append(ask(engine, request))
            work.append(sum(run))
        if invariant:
            assert work == [200, 203 % BLOCK, 210 % BLOCK, 203 % BLOCK, 260 - 203 // BLOCK * BLOCK]
        else:
            assert work == [200, 3, 7, 1, 260 - 203]
        assert [c.known for c in completions] == [len(r.prompt) - w for r, w in zip(typed, work, strict=True)]
        for request, completion in zip(typed, completions, strict=True):
            (alone,) = generate(model, TOKENS, [request], rows=1, invariant=invariant)
            assert alone.tokens == completion.tokens
            if invariant:
                assert alone.log_probabilities == completion.log_probabilities
            else:
                assert alone.log_probabilities == pytest.approx(completion.log_probabilities, abs=1e-4)


def test_a_service_keeps_prompts_and_wakes_its_caller(model: Transformer) -> None:
    calls: list[int] = []
    with Service(model, TOKENS, rows=2, prefix_bytes=1 << 24) as service:
        service.submit(Request(LONG[:100], max_new_tokens=4)).result(60)
        ticket = service.submit(Request(LONG[:104], max_new_tokens=4), woken=lambda: calls.append(1))
        (completion,) = ticket.result(60)
        assert completion.known == 100
    assert len(calls) == len(completion.tokens) + 1


def test_any_number_of_stop_strings_while_rows_are_busy(model: Transformer) -> None:
    """Tables of stop strings that nobody needs any more are let go, and those in use keep their meaning."""
    engine = Engine(model, TOKENS, rows=2)
    base = Request([1, 2, 3], max_new_tokens=300, temperature=1.0, stops=(b"abcaab",), seed=5)
    (alone,) = generate(model, TOKENS, [base], rows=1)
    engine.add(base)
    for number in range(STOP_SETS * 2):
        engine.cancel(engine.add(replace(base, stops=(b"x%d" % number,))))
    assert len(engine.may_stop) <= STOP_SETS
    events: list[object] = []
    while not engine.idle:
        events += list(engine.advance())
    (completion,) = [event for event in events if isinstance(event, Completion)]
    assert (completion.text, completion.finish) == (alone.text, alone.finish)
