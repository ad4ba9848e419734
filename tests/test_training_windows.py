from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import training_fixtures as shared
from fim_oracle import procedure
from fim_oracle_support import Given, OurCodec, Stateful
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import CONTEXT, Fim

from kringle.errors import UserError
from kringle.training.windows import WindowBatches, WindowDraw, permute, segments

TOKENS = shared.tokenizer()
END = TOKENS.specials.end_of_text


def made(steps: int = 40, **changes: object) -> WindowBatches:
    given = {"context": CONTEXT, "batch_tokens": 4 * CONTEXT, "fim": Fim(), "seed": 0, "steps": steps, **changes}
    store = given.pop("store", shared.store())
    return WindowBatches(store, range(len(store)), TOKENS, **given)  # type: ignore[arg-type]


share = st.floats(0, 1, exclude_max=True)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.just(END), st.integers(0, END - 1)), min_size=2, max_size=60),
    st.lists(st.tuples(st.booleans(), share, share, st.booleans()), min_size=61, max_size=61),
)
def test_any_window_comes_out_as_the_oracle_says(window: list[int], chances: list[tuple]) -> None:  # type: ignore[type-arg]
    """Random tokens: characters cut anywhere, runs of end-of-text, empty ends. Only windows of real text decode."""
    text = TOKENS.decode_bytes(window).decode("utf-8", "ignore")
    ids = TOKENS.encode(text)  # valid text, then its tokens with end-of-texts strewn in
    places = [i for i, token in enumerate(window) if token == END]
    for place in places:
        ids.insert(min(place, len(ids)), END)
    ids = ids or [END, END]
    draws = [WindowDraw(c, _draw(a, b, s)) for c, a, b, s in chances][: len(segments(np.array(ids), END))]
    (ours,) = permute([np.array(ids)], [draws], TOKENS)
    theirs = procedure(ids, OurCodec(TOKENS), lambda i: Given(draws[i]))
    assert ours.tokens.tolist() == theirs.tokens
    assert ours.rearranged == theirs.psm + theirs.spm
    assert (ours.cut, ours.filled) == (max(0, theirs.before - len(ids)), max(0, len(ids) - theirs.before))


def _draw(first: float, second: float, suffix_first: bool) -> object:
    from kringle.training.fim import Draw

    return Draw(first, second, suffix_first)


def test_batches_are_the_oracles_windows_given_the_same_draws() -> None:
    source = made(steps=60)
    order = source._order[: 60 * source.rows].tolist()
    for step in range(60):
        batch = source.batch(step)
        for row in range(source.rows):
            number = order[step * source.rows + row]
            window, _ = source.window(number)
            draws = source.draws(number, 40)
            expected = procedure(window.tolist(), OurCodec(TOKENS), lambda i, draws=draws: Given(draws[i])).tokens  # type: ignore[misc]
            assert [*batch.tokens[row], batch.targets[row, -1]] == expected
            assert batch.targets[row].tolist() == expected[1:]
        assert (batch.targets >= 0).all()
        assert batch.valid == batch.targets.size


def test_cuts_formats_and_lengths_are_distributed_as_the_oracles() -> None:
    """A short version of benchmarks/evidence/fim.py: 4,000 windows, each side with its own chance."""
    source = made(steps=1000)
    state = np.random.RandomState(1234)
    codec = OurCodec(TOKENS)
    ours, theirs = [], []
    for number in range(4000):
        window, _ = source.window(number % source.windows)
        count = len(segments(window, END))
        draws = made_draws(source, number, count)
        ours.append(procedure(window.tolist(), codec, lambda i, d=draws: Given(d[i])))  # type: ignore[misc]
        theirs.append(procedure(window.tolist(), codec, lambda i: Stateful(state, 0.5, 0.5)))
    for name in ("spm", "psm"):
        a, b = (sum(getattr(o, name) for o in side) for side in (ours, theirs))
        assert abs(a - b) < 4 * np.sqrt(a + b)
    for pick in (lambda c: c[0] / c[2], lambda c: (c[1] - c[0]) / c[2]):
        a, b = (np.sort([pick(c) for o in side for c in o.cuts if c[2]]) for side in (ours, theirs))
        grid = np.linspace(0, 1, 101)
        gap = np.abs(np.searchsorted(a, grid) / len(a) - np.searchsorted(b, grid) / len(b)).max()
        assert gap < 1.95 * np.sqrt(1 / len(a) + 1 / len(b))  # Kolmogorov-Smirnov at 0.1%
    a, b = (np.array([o.before for o in side], float) for side in (ours, theirs))
    assert abs(a.mean() - b.mean()) < 4 * np.sqrt((a.var() + b.var()) / len(a))


def made_draws(source: WindowBatches, number: int, count: int) -> list[WindowDraw]:
    return source.draws(number, count)


@pytest.mark.parametrize("steps", [1, 3, 20, 200])
def test_the_stream_holds_every_document_as_often_as_there_are_epochs(steps: int) -> None:
    source = made(steps=steps)
    lengths = np.diff(shared.store().offsets)
    epochs = len(source._stream) / len(lengths)
    assert epochs == int(epochs)
    assert np.array_equal(np.bincount(source._stream), np.full(len(lengths), int(epochs)))
    assert source.windows >= steps * source.rows
    assert sorted(source._order.tolist()) == list(range(source.windows))
    stream = np.concatenate([np.append(shared.store().document(d), END) for d in source._stream])
    for number in (0, source.windows // 2, source.windows - 1):
        window, touched = source.window(number)
        assert np.array_equal(window, stream[number * CONTEXT : number * CONTEXT + CONTEXT + 1])
        assert touched
        assert len(window) == CONTEXT + 1
    if source._apart:  # the last epoch's windows come last
        border = source._windows_before_last
        assert max(source._order[:border]) < border
    used_of_last = (steps * source.rows - source._windows_before_last) / ((source.epoch_tokens - 1) // CONTEXT)
    assert source._apart == (epochs > 1 and used_of_last < 0.8)


def test_a_batch_is_a_pure_function_of_its_step_and_of_no_order_in_the_store(tmp_path: Path) -> None:
    texts = list(shared.texts())
    other = made(store=shared.write_store(tmp_path / "store", texts[::-1]))
    source = made()
    for step in (7, 0, 39, 7):
        a, b = source.batch(step), other.batch(step)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.targets, b.targets)
        assert a.documents == b.documents
    shown = list(source.shown(40))
    assert len(shown) == 160
    assert np.array_equal(shown[29][:-1], source.batch(7).tokens[1])
    ids = {id for step in range(40) for id in source.batch(step).documents}
    assert {source.store.ids[d] for d in source.seen_documents(40)} == ids
    assert source.epochs(40) == pytest.approx(40 * 4 * CONTEXT / source.epoch_tokens)


def test_without_fim_windows_stay_as_they_are() -> None:
    source = made(fim=Fim(0.0))
    window, _ = source.window(int(source._order[0]))
    assert np.array_equal(source.batch(0).tokens[0], window[:-1])
    assert source.batch(0).utilisation == 1


def test_padding_counts_as_padding_though_it_is_a_target() -> None:
    source = made(fim=Fim(0.01), steps=200)  # a window that begins with an end-of-text loses it
    filled = [source.batch(step).filled for step in range(200)]
    assert max(filled) > 0
    step = int(np.argmax(filled))
    batch = source.batch(step)
    pads = int((batch.targets == TOKENS.specials.fim_pad).sum())
    assert batch.filled == pads
    assert batch.utilisation == 1 - pads / batch.targets.size


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="multiple of the context"):
        made(batch_tokens=CONTEXT + 1)
    with pytest.raises(UserError, match=r"training\.tokens"):
        made(steps=0)
    with pytest.raises(ValueError, match="made for 3 steps"):
        made(steps=3).batch(3)
