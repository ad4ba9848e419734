"""The engine on its own thread: streaming, cancelling, deadlines, faults; and the engine's rarer requests."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from test_generation_engine import TOKENS, Vocabulary, random_model

from kringle.errors import UserError
from kringle.generation.decoder import Decoder
from kringle.generation.engine import Engine, generate
from kringle.generation.healing import Vocabulary as Healer
from kringle.generation.requests import Completion, Request
from kringle.generation.service import Service
from kringle.generation.stops import held_back
from kringle.model.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["mqa", "mha"])
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(request.param)


def endless(attention: str = "mqa", context: int = 600) -> Transformer:
    """A model that never ends a text."""
    silent = random_model(attention, context=context)
    with torch.no_grad():
        silent.transformer.ln_f.bias[0] = 5
        silent.transformer.wte.weight[TOKENS.specials.end_of_text :] = 0
        silent.transformer.wte.weight[TOKENS.specials.end_of_text :, 0] = -10
    return silent


def test_pieces_add_up_to_the_completion(model: Transformer) -> None:
    wanted = [
        Request([1, 2, i], samples=4, max_new_tokens=20, temperature=1.0, key=str(i), stops=(b"abca", b"cc\n"), seed=4)
        for i in range(6)
    ]
    alone = {(c.request, c.sample): c for c in generate(model, TOKENS, wanted)}
    stopped = 0
    with Service(model, TOKENS, rows=3) as service:
        tickets = [service.submit(request) for request in wanted]
        for number, ticket in enumerate(tickets):
            texts, tokens = {}, {}
            for piece in ticket:
                texts[piece.sample] = texts.get(piece.sample, b"") + piece.text
                tokens.setdefault(piece.sample, []).append(piece.token)
            for completion in ticket.result(0):
                assert completion.text == texts[completion.sample] == alone[number, completion.sample].text
                assert completion.tokens == tokens[completion.sample] == alone[number, completion.sample].tokens
                assert completion.finish == alone[number, completion.sample].finish
                stopped += completion.finish == "stop"
    assert stopped > 0


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    assert held_back(b"xxab", (b"abc", b"bx")) == 2
    assert held_back(b"xxab", (b"bc",)) == 1
    assert held_back(b"xxab", (b"q",)) == 0
    assert held_back(b"a", (b"aab",)) == 1
    assert held_back(b"aa", (b"aab",)) == 2


def test_cancelling_and_deadlines_end_with_what_there_is() -> None:
    silent = endless()
    with Service(silent, TOKENS, rows=2) as service:
        long = service.submit(Request([1], max_new_tokens=550, samples=3))
        first = long.next(20)
        assert first is not None
        long.cancel()
        completions = long.result(20)
        assert [c.finish for c in completions] == ["cancelled"] * 3
        assert 1 <= len(completions[0].tokens) < 550
        assert completions[2].tokens == []  # two rows: the third had not started
        late = service.submit(Request([1], max_new_tokens=590), deadline=0.05)
        assert late.result(20)[0].finish == "deadline"
        assert service.submit(Request([1], max_new_tokens=3)).result(20)[0].finish == "length"
        long.cancel()  # of something that has ended


def test_leaving_the_service_ends_what_is_in_flight() -> None:
    with Service(endless(), TOKENS, rows=2) as service:
        ticket = service.submit(Request([1], max_new_tokens=590))
        assert ticket.next(20) is not None
    assert ticket.result(0)[0].finish == "cancelled"
    with pytest.raises(UserError, match="closed"):
        service.submit(Request([1]))


def test_faults_end_their_requests_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = endless(context=60)
    broken = threading.Event()
    prefill = Decoder.prefill

    def fail(self: Decoder, tokens: list[int]) -> object:
        if broken.is_set():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return prefill(self, tokens)

    monkeypatch.setattr(Decoder, "prefill", fail)
    with Service(silent, TOKENS, rows=2) as service:
        for bad, message in (([], "empty"), ([1] * 60, "60 tokens"), ([99], "token 99")):
            with pytest.raises(UserError, match=message):
                service.submit(Request(bad))
        other = service.submit(Request([1, 2], max_new_tokens=50))
        assert other.next(60) is not None
        broken.set()
        with pytest.raises(RuntimeError, match="allocate"):
            service.submit(Request([1, 2])).result(20)
        with pytest.raises(RuntimeError, match="allocate"):
            list(service.submit(Request([1, 2])))
        broken.clear()
        assert len(other.result(60)[0].tokens) == 50  # what was in flight went on
        assert len(service.submit(Request([1, 2], max_new_tokens=4)).result(20)[0].tokens) == 4
    with pytest.raises(UserError, match=r"16 rows take [\d,]+ bytes"):
        Service(silent, TOKENS, rows=16, memory_limit=1000)


def test_requests_from_many_threads_advance_together() -> None:
    silent, results = endless(), []
    with Service(silent, TOKENS, rows=4) as service:

        def ask(i: int) -> None:
            results.append((i, service.submit(Request([i % 9], max_new_tokens=10 + i, key=str(i))).result(60)))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted((i, len(r[0].tokens)) for i, r in results) == [(i, 10 + i) for i in range(12)]


def test_a_full_queue_refuses() -> None:
    with Service(endless(context=20_000), TOKENS, rows=1, waiting=1) as service:
        first = service.submit(Request([1], max_new_tokens=19_000))  # seconds of work, whatever the test waits for
        assert first.next(20) is not None
        service.submit(Request([1], max_new_tokens=500))
        with pytest.raises(UserError, match="1 requests are waiting"):
            service.submit(Request([1]))


def test_alternatives_are_the_most_probable_tokens(model: Transformer) -> None:
    request = Request([3, 1], max_new_tokens=6, temperature=0.7, samples=3, alternatives=4, key="a")
    for completion in generate(model, TOKENS, [request]):
        with torch.no_grad():
            logits = model(torch.tensor([[3, 1, *completion.tokens[:-1]]]))[0, 1:, : TOKENS.vocab_size]
        best = torch.log_softmax(logits, -1).topk(4)
        assert len(completion.alternatives) == len(completion.tokens)
        for row, told in enumerate(completion.alternatives):
            assert [token for token, _ in told] == best.indices[row].tolist()
            assert [value for _, value in told] == pytest.approx(best.values[row].tolist(), abs=1e-4)


def test_guesses_change_nothing(model: Transformer) -> None:
    wanted = [Request([i, 1, 2, i, 1, 2, i], max_new_tokens=30, temperature=0.0) for i in range(9)]
    steps = []
    for request in wanted:
        plain = next(iter(generate(model, TOKENS, [request])))
        guessed = next(iter(generate(model, TOKENS, [replace(request, speculate=True)])))
        assert (plain.tokens, plain.finish) == (guessed.tokens, guessed.finish)
        steps.append(len(plain.tokens))
    assert max(steps) > 10


def test_right_guesses_save_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = []
    step = Decoder.stream_step

    def count(self: Decoder, tokens: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        fed.append(len(tokens))
        return step(self, tokens, *rest)

    monkeypatch.setattr(Decoder, "stream_step", count)
    request = Request([1, 2], max_new_tokens=300, temperature=0.0, speculate=True)
    completion = next(iter(generate(endless(), TOKENS, [request])))  # soon repeats itself
    assert len(completion.tokens) == 300
    assert len(fed) < 250
    assert max(fed) == 4
    assert completion.tokens == next(iter(generate(endless(), TOKENS, [replace(request, speculate=False)]))).tokens


def test_invariant_samples_have_the_same_bits_everywhere() -> None:
    many = Vocabulary([b"x"] * 508)  # an odd number of tokens
    wanted = [
        Request([i, 2, 3 + i], samples=7, max_new_tokens=12, temperature=0.9, top_p=0.95, key=str(i)) for i in range(9)
    ]
    for attention in ("mqa", "mha"):
        wide = random_model(attention, vocab_size=513, width=64, spread=0.15)
        seen: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        for rows, threads, order in ((1, 1, 1), (5, 2, -1), (63, 2, 1), (64, 1, -1)):
            torch.set_num_threads(threads)
            asked = wanted[::order]
            for c in generate(wide, many, asked, rows=rows, invariant=True):
                got = (c.tokens, c.log_probabilities)
                assert seen.setdefault((asked[c.request].key, c.sample), got) == got
        torch.set_num_threads(1)
        assert len(seen) == 63


def test_healing_draws_the_cut_token_again() -> None:
    healer = Healer(TOKENS.token_bytes)
    assert sorted(healer.beginning(b"ab").tolist()) == [3, 5]
    assert sorted(healer.allowed(b"ab").tolist()) == [0, 3, 5]  # a, ab, abc
    assert healer.heal([6, 0, 1]) == ([6], b"ab")  # `a`, `b` may have been the beginning of `abc`
    assert healer.heal([2, 7]) == ([2, 7], b"")  # nothing longer begins with a line break
    assert healer.heal([0]) == ([0], b"")  # something must remain to go on from
    model = random_model()
    request = Request([6], samples=200, max_new_tokens=8, temperature=1.0, required=b"ab", key="h")
    firsts = set()
    for completion in generate(model, TOKENS, [request], rows=50):
        spelled = b"".join(TOKENS.token_bytes[t] for t in completion.tokens)
        assert spelled.startswith(b"ab")
        assert completion.text == spelled[2:]
        firsts.add(completion.tokens[0])
    assert firsts == {0, 3, 5}


def test_a_sample_of_healing_has_the_probability_of_its_text() -> None:
    """First tokens are drawn from the model's distribution over those that agree."""
    model = random_model()
    with torch.no_grad():
        scores = torch.softmax(model(torch.tensor([[6]]))[0, -1, [0, 3, 5]], -1)
    request = Request([6], samples=4000, max_new_tokens=1, required=b"ab")
    counts = dict.fromkeys((0, 3, 5), 0)
    for completion in generate(model, TOKENS, [request]):
        counts[completion.tokens[0]] += 1
    for expected, count in zip(scores.tolist(), counts.values(), strict=True):
        assert count / 4000 == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5 + 1e-9)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_low_precision_is_close(model: Transformer, precision: str) -> None:
    """Log-probabilities of the same tokens under rounded weights; few rows and many rows agree with each other."""
    for rows in (2, 30):
        request = Request([3, 1, 4], samples=rows, max_new_tokens=15, temperature=0.9, key="q")
        for completion in generate(model, TOKENS, [request], rows=rows, precision=precision):  # type: ignore[arg-type]
            with torch.no_grad():
                logits = model(torch.tensor([[3, 1, 4, *completion.tokens[:-1]]]))[0, 2:, : TOKENS.vocab_size]
            exact = torch.log_softmax(logits, -1)[range(len(completion.tokens)), completion.tokens]
            assert torch.allclose(exact, torch.tensor(completion.log_probabilities), atol=0.25)


def test_memory_for_one_request_is_refused_alone() -> None:
    engine = Engine(endless(), TOKENS, rows=2, columns=50)
    with pytest.raises(UserError, match="at most 21 new tokens"):
        engine.add(Request([1] * 30, max_new_tokens=40))
    engine.add(Request([1] * 30, max_new_tokens=21))
    events = [event for _ in range(30) for event in engine.advance()]
    assert engine.idle
    assert [len(e.tokens) for e in events if isinstance(e, Completion)] == [21]
