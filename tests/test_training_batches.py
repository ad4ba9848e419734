from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import training_fixtures as shared
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import CONTEXT, Fim, batches

from kringle.errors import UserError
from kringle.tokens.store import TokenStore
from kringle.training.batches import IGNORED, PADDING, Batch, Batches, piece_size
from kringle.training.hashing import document_keys, hashes, uniforms
from kringle.training.packing import COMPILE_FROM, pack

CODE = [*"abcdefgh ij\n()=é🍰", "return ", "def x(self):\n", "0123 ", "    "]


def sequences(batch: Batch) -> list[np.ndarray]:
    """The sequences of a batch, put together again from inputs and targets."""
    found = []
    for tokens, targets, segments in zip(batch.tokens, batch.targets, batch.segments, strict=True):
        for number in range(segments.max() + 1):
            inside = segments == number
            found.append(np.concatenate((tokens[inside][:1], targets[inside])))
    return found


def text_tokens(sequence: np.ndarray) -> bytes:
    """The bytes of a sequence in document order, whether rearranged or not."""
    tokenizer, s = shared.tokenizer(), shared.tokenizer().specials
    ids = sequence.tolist()
    if ids[0] == s.fim_prefix:
        suffix, middle = ids.index(s.fim_suffix), ids.index(s.fim_middle)
        ids = [*ids[1:suffix], *ids[middle + 1 :], *ids[suffix + 1 : middle]]
    return tokenizer.decode_bytes(ids)


def epoch_steps(made: Batches) -> int:
    """Steps after which the first epoch is complete (the last one may reach into the second)."""
    steps = 1
    while made.epochs(steps) < 1:
        steps += 1
    return steps


@settings(max_examples=25, deadline=None)
@given(
    contents=st.lists(
        st.lists(st.sampled_from(CODE), min_size=1, max_size=200).map("".join), min_size=1, max_size=8, unique=True
    ),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 5),
)
def test_an_epoch_shows_every_piece_of_every_document_once(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str], rate: float, seed: int
) -> None:
    store = shared.write_store(tmp_path_factory.mktemp("s") / "store", contents)
    made = batches(store=store, batch_tokens=CONTEXT, fim=Fim(rate), seed=seed)
    shown = sorted(text_tokens(s) for s in made.shown(epoch_steps(made)))
    size = piece_size(CONTEXT)
    pieces = []
    for i in range(len(store)):
        document = store.document(i)
        cut = [shared.tokenizer().decode_bytes(document[j : j + size]) for j in range(0, len(document), size)]
        assert b"".join(cut).decode() == contents[i]
        pieces += cut
    if rate == 0:
        assert shown == sorted(pieces)
    else:  # a rearranged piece that outgrew its room has lost a few tokens of its edges, nothing else has
        assert len(shown) == len(pieces)
        left = sorted(pieces)
        for text in sorted(shown, key=len, reverse=True):
            home = next(p for p in sorted(left, key=len) if text in p)
            assert len(home) - len(text) <= 40
            left.remove(home)


def test_a_batch_is_a_pure_function_of_its_step() -> None:
    steps = list(range(14))
    in_order = {step: made for made_by in [batches()] for step in steps for made in [made_by.batch(step)]}
    random.Random(3).shuffle(steps)
    other = batches()
    for step in steps:
        batch = other.batch(step)
        for name in ("tokens", "targets", "positions", "segments"):
            array = getattr(batch, name)
            assert array.dtype == np.int64
            assert array.shape == (4, CONTEXT)
            assert np.array_equal(array, getattr(in_order[step], name))
        assert (batch.documents, batch.rearranged, batch.left) == (
            in_order[step].documents,
            in_order[step].rearranged,
            in_order[step].left,
        )


def test_seed_and_epoch_change_order_and_cuts() -> None:
    made = batches()
    per_epoch = epoch_steps(made)
    first = {s.tobytes() for s in made.shown(per_epoch)}
    later = {s.tobytes() for step in range(per_epoch, 2 * per_epoch) for s in sequences(made.batch(step))}
    reseeded = {s.tobytes() for s in batches(seed=1).shown(per_epoch)}
    for other in (later, reseeded):
        assert 0.2 < len(first & other) / len(first) < 0.8  # about a quarter are left to right in both


def test_rows_hold_sequences_end_to_end_with_targets_one_ahead() -> None:
    made = batches()
    end = shared.tokenizer().specials.end_of_text
    several = 0
    for step in range(10):
        batch = made.batch(step)
        padding = batch.segments == PADDING
        assert np.array_equal(padding, batch.targets == IGNORED)
        assert batch.valid == (~padding).sum()
        assert batch.utilisation == batch.valid / padding.size
        assert (batch.tokens != end).any()
        for r in range(len(padding)):
            used = int((~padding[r]).sum())
            assert not padding[r, :used].any()
            numbers = batch.segments[r, :used]
            assert set(np.diff(numbers)) <= {0, 1}
            starts = np.flatnonzero(np.diff(numbers, prepend=-1))
            several += len(starts) > 1
            for a, b in zip(starts, [*starts[1:], used], strict=True):
                assert np.array_equal(batch.positions[r, a:b], np.arange(b - a))
                assert np.array_equal(batch.tokens[r, a + 1 : b], batch.targets[r, a : b - 1])
    assert several
    shown = list(made.shown(10))
    late = list(made.shown(10, 7))
    assert [s.tolist() for s in late] == [s.tolist() for s in shown[len(shown) - len(late) :]]
    assert len(list(made.shown(7))) + len(late) == len(shown)
    again = [s for step in range(10) for s in sequences(made.batch(step))]
    assert [s.tolist() for s in shown] == [s.tolist() for s in again]
    assert made.tokens_seen(10) == sum(made.batch(step).valid for step in range(10))


def test_end_of_text_stands_at_true_starts_and_ends_and_after_every_middle() -> None:
    tokenizer, s = shared.tokenizer(), shared.tokenizer().specials
    contents = shared.texts()
    starts = {tokenizer.encode(t)[0] for t in contents}
    made = batches(fim=Fim(0.5))
    seen = {"opens": 0, "closes": 0, "inside": 0, "middle": 0}
    for sequence in made.shown(epoch_steps(made)):
        ids = sequence.tolist()
        text = text_tokens(sequence).decode("utf-8", "ignore")
        if ids[0] == s.fim_prefix:
            assert ids[-1] == s.end_of_text
            assert ids.count(s.end_of_text) == 1
            seen["middle"] += 1
            continue
        assert s.end_of_text not in ids[1:-1]
        if ids[0] == s.end_of_text:
            assert ids[1] in starts
            assert any(t.startswith(text) for t in contents)
            seen["opens"] += 1
        if ids[-1] == s.end_of_text:
            assert any(t.endswith(text) for t in contents)
            seen["closes"] += 1
        if s.end_of_text not in ids:
            assert len(ids) == piece_size(CONTEXT)
            seen["inside"] += 1
    assert all(seen.values()), seen


def test_arms_share_pieces_and_cuts_on_the_documents_they_share() -> None:
    """A view of a store, the store itself and the same documents in another store: the same sequences."""
    every = batches(batch_tokens=CONTEXT)
    part = batches([1, 4, 6, 12], batch_tokens=CONTEXT)
    shown = {s.tobytes() for s in every.shown(epoch_steps(every))}
    few = [s.tobytes() for s in part.shown(epoch_steps(part))]
    assert len(few) > 10
    wrong = [s for s in few[: part.pieces] if s not in shown]
    assert wrong == []


def test_the_order_of_the_view_and_of_the_store_do_not_matter(tmp_path: Path) -> None:
    reverse = shared.write_store(tmp_path / "store", shared.texts()[::-1])
    expected = [batches().batch(i).tokens.tolist() for i in range(8)]
    n = len(shared.store())
    for other in (batches(list(range(n))[::-1]), batches(store=reverse)):
        assert [other.batch(i).tokens.tolist() for i in range(8)] == expected


def test_without_fill_in_the_middle_nothing_is_rearranged_and_the_grid_is_the_same() -> None:
    plain, always = batches(fim=Fim(0.0)), batches(fim=Fim(1.0))
    assert plain.pieces == always.pieces
    assert sum(plain.batch(i).rearranged for i in range(8)) == 0
    s = shared.tokenizer().specials
    assert not any(i in (s.fim_prefix, s.fim_middle, s.fim_suffix) for x in plain.shown(8) for i in x.tolist())
    assert all(always.batch(i).rearranged + always.batch(i).left == len(sequences(always.batch(i))) for i in range(8))
    orders = {tuple(x[x >= s.fim_prefix][:2].tolist()) for x in always.shown(8) if x[0] == s.fim_prefix}
    assert orders == {(s.fim_prefix, s.fim_suffix)}
    spm = [x[1] == s.fim_suffix and x[2] != s.fim_middle for x in always.shown(8)]
    assert 0.2 < np.mean(spm) < 0.8
    half = batches(fim=Fim(0.5))
    share = sum(half.batch(i).rearranged for i in range(8)) / sum(len(sequences(half.batch(i))) for i in range(8))
    assert 0.35 < share < 0.65


def test_epochs_and_seen_documents() -> None:
    made = batches()
    assert made.epochs(0) == 0
    assert made.epochs(1) == pytest.approx(4 / round(4 / made.epochs(1)))
    assert 1 < made.epochs(100) < made.epochs(101)
    everything = epoch_steps(made)
    assert made.seen_documents(everything) == list(range(len(shared.store())))
    for steps in (1, 3):
        ids = {id for step in range(steps) for id in made.batch(step).documents}
        assert {made.store.ids[i] for i in made.seen_documents(steps)} == ids
        assert len(ids) < len(shared.store())


def test_rows_are_well_filled() -> None:
    made = batches()
    assert np.mean([made.batch(i).utilisation for i in range(epoch_steps(made) - 1)]) > 0.85


@pytest.mark.parametrize(
    ("changes", "view", "message"),
    [
        ({"batch_tokens": CONTEXT + 1}, None, "not a multiple of the context 32; use 32"),
        ({"batch_tokens": 0}, None, "not a multiple"),
        ({"context": 8, "batch_tokens": 8}, None, "no room for a piece.*use at least 9"),
        ({"fim": Fim(1.5)}, None, r"training\.fim\.rate: must be within 0 and 1"),
        ({}, [], "no documents to train on"),
        ({"batch_tokens": 1 << 20}, None, r"corpus fills \d+ rows of 32 tokens, a batch of 1048576 tokens has 32768"),
    ],
)
def test_what_cannot_be_batched_is_refused(changes: dict[str, object], view: list[int] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(view, **changes)


def test_stores_of_other_vocabularies_and_tokenizers_are_refused(tmp_path: Path) -> None:
    rows = [("a", "python", 3, np.arange(100))]
    larger = TokenStore.write(tmp_path / "larger", rows, vocab_size=shared.VOCAB_SIZE + 1)
    with pytest.raises(UserError, match="vocabulary of 321 tokens, the tokenizer has 320"):
        batches(store=larger, batch_tokens=CONTEXT)
    foreign = TokenStore.write(tmp_path / "foreign", rows, vocab_size=shared.VOCAB_SIZE, tokenizer="0" * 64)
    with pytest.raises(UserError, match="encoded with another tokenizer"):
        batches(store=foreign, batch_tokens=CONTEXT)
    empty = TokenStore.write(tmp_path / "empty", [("a", "python", 0, np.arange(0))])
    with pytest.raises(UserError, match="hold no tokens"):
        batches(store=empty, batch_tokens=CONTEXT)


@settings(max_examples=100)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=120), st.integers(1, 8))
def test_packing_overfills_no_row_and_is_first_fit(lengths: list[int], open_rows: int) -> None:
    rows, count = pack(np.array(lengths), 50, open_rows)
    filled = np.bincount(rows, weights=lengths, minlength=count)
    assert len(filled) == count
    assert filled.max() <= 50
    assert filled.min() > 0
    unbounded, fewest = pack(np.array(lengths), 50, open_rows=len(lengths))
    expected: list[int] = []  # first fit, as its definition says
    for length, row in zip(lengths, unbounded, strict=True):
        place = next((i for i, used in enumerate(expected) if used + length <= 50), len(expected))
        if place == len(expected):
            expected.append(0)
        expected[place] += length
        assert row == place
    assert len(expected) == fewest


def test_compiled_packing_equals_interpreted_packing() -> None:
    lengths = np.random.Generator(np.random.Philox(key=5)).integers(1, 250, COMPILE_FROM)
    compiled, count = pack(lengths, 256)
    head = 3000
    interpreted, _ = pack(lengths[:head], 256)
    assert np.array_equal(compiled[:head], interpreted)
    assert np.bincount(compiled, weights=lengths).max() <= 256
    assert lengths.sum() / (count * 256) > 0.95


@pytest.mark.parametrize("lengths", [[0], [51], [3, 99]])
def test_packing_refuses_what_fits_no_row(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"within 1 \.\. 50"):
        pack(np.array(lengths), 50)


def test_keyed_hashes_are_uniform_and_sensitive_to_every_key() -> None:
    keys = document_keys([f"{i:040x}" for i in range(200)])
    starts = np.arange(0, 20_000, 100)
    grid = np.stack([hashes(7, "order", keys[:, None], starts[None, :], epoch) for epoch in range(3)])
    assert len(np.unique(grid)) == grid.size
    u = uniforms(7, "order", keys[:, None], starts[None, :], 0).ravel()
    observed = np.histogram(u, bins=64, range=(0, 1))[0]
    assert ((observed - u.size / 64) ** 2 / (u.size / 64)).sum() < 113  # 63 degrees of freedom, 1 seed in 10,000
    for other in (uniforms(8, "order", keys, 0, 0), uniforms(7, "fim", keys, 0, 0), uniforms(7, "order", keys, 0, 1)):
        assert abs(np.corrcoef(uniforms(7, "order", keys, 0, 0), other)[0, 1]) < 0.3
    assert hashes(7, "order", keys[:1], 0, 0) == hashes(7, "order", keys, 0, 0)[:1]
