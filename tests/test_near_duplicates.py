from __future__ import annotations

import errno
import hashlib
import random
import struct
import sysconfig
from pathlib import Path
from typing import Any

import near_duplicate_oracle as oracle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_support import QUIET, InProcess
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data.near_duplicates import minhash
from kringle.data.near_duplicates.bands import Bands, balanced_bands, sure_bands
from kringle.data.near_duplicates.candidates import components
from kringle.data.near_duplicates.find import Outcome, figures, find
from kringle.data.near_duplicates.inputs import Columns, Shard, ranks, texts
from kringle.data.near_duplicates.method import Method
from kringle.data.near_duplicates.minhash import legacy_minima, legacy_permutations
from kringle.data.near_duplicates.sha1 import LANES, SHORT, WORDS, sha1_low32, sha1_low32_lanes
from kringle.data.near_duplicates.shingles import common
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.workspace import ShardStore


def batch(contents: list[str]) -> tuple[Any, Any]:
    return texts(pa.chunked_array([pa.array(contents, pa.string())]), "test")


def shards_of(folder: Path, contents: list[str], rows: int, **columns: list[Any]) -> list[Shard]:
    """Parquet files of `rows` texts each."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for first in range(0, len(contents), rows):
        part = {name: values[first : first + rows] for name, values in {"content": contents, **columns}.items()}
        path = folder / f"part-{first:06d}.parquet"
        pq.write_table(pa.table(part), path)
        mark = hashlib.sha256(repr(part).encode()).hexdigest()
        names = {name: name for name in columns}
        out.append(Shard(path, "parquet", Columns("content", **names), len(part["content"]), mark))
    return out


def run(folder: Path, contents: list[str], method: Method, rows: int = 50, **columns: list[Any]) -> Outcome:
    shards = shards_of(folder / "in", contents, rows, **columns)
    return find(shards, method, ShardStore(folder / "store", "test"), InProcess(), QUIET)


def library(count: int, largest: int = 9000) -> list[str]:
    """Files of the standard library in a fixed order, some of them."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = [p for p in sorted(root.rglob("*.py")) if "site-packages" not in p.parts and p.stat().st_size < largest]
    return [p.read_text(encoding="utf-8", errors="ignore") for p in found[:: max(1, len(found) // count)]][:count]


def edited(text: str, draws: random.Random, share: float) -> str:
    """Some words replaced by others."""
    words = text.split(" ")
    for _ in range(int(len(words) * share)):
        words[draws.randrange(len(words))] = f"word{draws.randrange(10**6)}"
    return " ".join(words)


def planted(seed: int, count: int = 60) -> list[str]:
    """Files with copies of all degrees of likeness, in a mixed order; short ones and odd ones among them."""
    draws = random.Random(seed)
    out = library(count)
    for text in list(out):
        out += [edited(text, draws, share) for share in (0.0, 0.01, 0.03, 0.08) if draws.random() < 0.5]
    out += ["x = 1\n", "x = 1\n", "x=1", "", "", "   \n", "# 你好\n", "# 再见\n", "a b c d e f g h i j", "é" * 50]
    draws.shuffle(out)
    return out


# -- the original ------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(deadline=None)
def test_sha1_is_sha1(messages: list[bytes]) -> None:
    words = np.zeros(WORDS, dtype=np.uint32)
    for message in [*messages, *(bytes(n) for n in (0, 54, 55, 56, 63, 64, 65, 119, 120, 128))]:
        data = np.frombuffer(b"<" + message + b">", dtype=np.uint8)
        (expected,) = struct.unpack("<I", hashlib.sha1(message).digest()[:4])
        assert sha1_low32(data, 1, 1 + len(message), words) == expected


def test_permutations_are_those_of_the_original() -> None:
    for seed in (1, 42):
        ours, theirs = legacy_permutations(seed), oracle.permutations(seed)
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])


def test_bands_are_those_of_the_original() -> None:
    assert balanced_bands(0.7) == Bands(25, 10) == oracle.bands_and_rows(0.7)
    assert balanced_bands(0.85) == Bands(13, 19) == oracle.bands_and_rows(0.85)
    # The collision probabilities that the recipe lists.
    expected = {0.5: 0.024, 0.6: 0.14, 0.65: 0.29, 0.7: 0.51, 0.75: 0.77, 0.8: 0.94, 0.85: 0.996}
    for similarity, probability in expected.items():
        assert Bands(25, 10).collision(similarity) == pytest.approx(probability, abs=0.008)


_odd = st.text(alphabet="aB_9 .\n-é中\U0001f600\x00", max_size=120)


@given(st.lists(_odd, min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_signatures_are_bit_identical(contents: list[str]) -> None:
    contents = [*contents, "a b c d e f g h i j " * 3 + contents[0]]
    for ngram, keep_empty, seed in ((5, True, 42), (1, False, 1)):
        minima, tokens = legacy_minima(*batch(contents), ngram, keep_empty, seed)
        for text, ours, count in zip(contents, minima, tokens, strict=True):
            assert count == len(oracle.tokens(text))
            if count >= 10:
                shingles = oracle.five_grams(text) if ngram == 5 else set(oracle.tokens(text))
                assert np.array_equal(ours, oracle.signature(shingles, seed))


@pytest.mark.parametrize("seed", [0, 1])
def test_faithful_keeps_what_the_independent_implementation_keeps(tmp_path: Path, seed: int) -> None:
    contents = planted(seed)
    stronger = run(tmp_path / "a", contents, Method.of(5, 0.7, "faithful"))
    assert stronger.kept.tolist() == oracle.stronger(contents)
    base = run(tmp_path / "b", contents, Method.of(1, 0.85, "faithful"))
    assert base.kept.tolist() == oracle.base(contents)
    assert 0 < (~base.kept).sum() < len(contents)
    assert all(value >= 0.85 for value in base.similarity[~base.kept])


def test_a_faithful_n_gram_longer_than_the_shortest_file_is_refused() -> None:
    with pytest.raises(UserError, match="no n-gram may be longer"):
        Method.of(11, 0.7, "faithful")


# -- corrected ---------------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    import re

    return re.findall(r"(?:\w|[^\x00-\x7f])+", text, re.ASCII)


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    found = words_of(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


@pytest.mark.parametrize(("ngram", "threshold"), [(5, 0.7), (1, 0.85)])
def test_every_removal_is_verified_against_a_document_that_stays(tmp_path: Path, ngram: int, threshold: float) -> None:
    contents = planted(2)
    found = run(tmp_path, contents, Method.of(ngram, threshold, "corrected"))
    assert 10 < (~found.kept).sum() < len(contents)
    for i in np.flatnonzero(~found.kept):
        other = int(found.witness[i])
        assert found.kept[other]
        mine, theirs = grams(contents[i], ngram), grams(contents[other], ngram)
        if found.tokens[i] < 10:
            assert contents[i].split() == contents[other].split() or "".join(contents[i].split()) == "x=1"
            assert found.similarity[i] == 1
            continue
        assert found.similarity[i] == pytest.approx(len(mine & theirs) / len(mine | theirs))
        assert found.similarity[i] >= threshold
        assert found.contained[i] == pytest.approx(len(mine & theirs) / len(mine))


def test_no_two_that_stay_are_that_similar(tmp_path: Path) -> None:
    """With all pairs compared: at the threshold bands find 99.5%, above it more."""
    contents = planted(3)
    found = run(tmp_path, contents, Method.of(5, 0.7, "corrected"))
    sets = [grams(t, 5) for t in contents]
    kept = [i for i in np.flatnonzero(found.kept) if found.tokens[i] >= 10]
    missed = [
        (i, j) for n, i in enumerate(kept) for j in kept[:n] if len(sets[i] & sets[j]) >= 0.7 * len(sets[i] | sets[j])
    ]
    assert len(missed) <= 1


def test_no_chain_drops_what_resembles_no_survivor(tmp_path: Path) -> None:
    """A, B, C, ... in which neighbours are alike and ends are not: connected components would keep one."""
    draws = random.Random(5)
    chain = [[f"w{draws.randrange(10**9)}" for _ in range(400)]]
    for _ in range(12):
        following = list(chain[-1])
        following[:40] = []
        chain.append([*following, *(f"w{draws.randrange(10**9)}" for _ in range(40))])
    contents = [" ".join(words) for words in chain]
    verified = run(tmp_path / "a", contents, Method.of(5, 0.7, "corrected"))
    original = run(tmp_path / "b", contents, Method.of(5, 0.7, "faithful"))
    assert original.kept.sum() < verified.kept.sum()
    for i in np.flatnonzero(~verified.kept):
        assert abs(i - verified.witness[i]) == 1


def test_the_best_survives(tmp_path: Path) -> None:
    text = library(1)[0] * 2
    contents = [text + f"\n# {'x' * i}" for i in range(6)]
    columns = {
        "licenses": [[], ["GPL-3.0-only"], ["MIT"], ["MIT"], ["MIT"], ["MIT"]],
        "path": ["a.py", "a.py", "tests/a.py", "src/a.py", "src/b.py", "src/c.py"],
        "stars": [100, 100, 100, None, 7, 9],
    }
    found = run(tmp_path, contents, Method.of(5, 0.7, "corrected"), **columns)
    assert np.flatnonzero(found.kept).tolist() == [5]
    assert set(found.witness.tolist()) == {5, -1}


def test_ranks_order_licence_path_stars_length() -> None:
    table = pa.table(
        {
            "content": ["aa", "a"],
            "path": ["x.py", "x.py"],
            "repo": ["r", "r"],
            "licenses": [["MIT"]] * 2,
            "stars": [0, None],
        }
    )
    rank = ranks(table, Columns("content", None, "repo", "path", "licenses", "stars"), batch(["aa", "a"]))
    assert rank[2, 0] < rank[2, 1]  # no stars are more than unknown
    assert rank[3, 0] < rank[3, 1]


def test_recall_at_the_threshold_and_above() -> None:
    for threshold in (0.5, 0.7, 0.85, 0.95):
        bands = sure_bands(threshold)
        assert bands.permutations <= 256
        assert bands.collision(threshold) >= 0.995
    assert sure_bands(1.0).collision(1.0) == 1


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.integers(1, 40), st.randoms(use_true_random=False))
def test_survivors_do_not_depend_on_order_or_sharding(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, order: random.Random
) -> None:
    contents = planted(seed % 3, count=25)
    paths = [f"p{i}.py" for i in range(len(contents))]
    mixed = list(range(len(contents)))
    order.shuffle(mixed)
    for ngram, threshold in ((5, 0.7), (1, 0.85)):
        method = Method.of(ngram, threshold, "corrected")
        folder = tmp_path_factory.mktemp("order")
        first = run(folder / "a", contents, method, path=paths)
        other = run(folder / "b", [contents[i] for i in mixed], method, rows, path=[paths[i] for i in mixed])
        assert [contents[i] for i in sorted(np.flatnonzero(first.kept))] == [
            contents[i] for i in sorted(mixed[j] for j in np.flatnonzero(other.kept))
        ]
        back = {j: i for i, j in enumerate(mixed)}
        assert [other.similarity[back[i]] for i in range(len(mixed))] == pytest.approx(first.similarity, nan_ok=True)


def test_survivors_do_not_depend_on_workers(tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "in", planted(1), 30)
    method = Method.of(5, 0.7, "corrected")
    one = find(shards, method, ShardStore(tmp_path / "one", "t"), InProcess(), QUIET)
    two = find(shards, method, ShardStore(tmp_path / "two", "t"), Engine(2), QUIET)
    assert np.array_equal(one.kept, two.kept)
    assert np.array_equal(one.witness, two.witness)


def test_what_is_not_considered_is_nobodys_witness(tmp_path: Path) -> None:
    text = library(1)[0] * 2
    shards = shards_of(tmp_path / "in", [text, text, text + "\n#"], 2)
    method = Method.of(5, 0.7, "corrected")
    considered = np.array([False, True, True])
    found = find(shards, method, ShardStore(tmp_path / "s", "t"), InProcess(), QUIET, considered=considered)
    assert found.kept[0]
    assert 0 not in found.witness.tolist()
    assert found.kept[1:].sum() == 1
    apart = find(
        shards, method, ShardStore(tmp_path / "s", "t"), InProcess(), QUIET, group=np.array([1, 2, 3], dtype=np.uint64)
    )
    assert apart.kept.all()


def test_partitions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(0, 50, size=(3, 40), dtype=np.uint64) << np.uint64(32)
    arguments = ([keys[:, :25], keys[:, 25:]], np.array([0, 25, 40]), np.ones(40, dtype=np.bool_), None)
    whole = components(*arguments)
    monkeypatch.setattr("kringle.data.near_duplicates.candidates.ROWS_IN_MEMORY", 7)
    assert np.array_equal(components(*arguments), whole)
    assert len(np.unique(whole)) < 40


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_a_long_chain_is_one_component(order: str) -> None:
    count = 1000  # each shares a key with the next one, in one of two bands by turns
    numbers = {
        "rising": np.arange(count),
        "falling": np.arange(count)[::-1],
        "mixed": np.random.default_rng(0).permutation(count),
    }[order]
    keys = np.empty((2, count), dtype=np.uint64)
    keys[0, numbers] = np.arange(count) // 2
    keys[1, numbers] = (np.arange(count) + 1) // 2
    eligible = np.ones(count, dtype=np.bool_)
    assert not components([keys], np.array([0, count]), eligible, None).any()
    eligible[numbers[500]] = False
    found = components([keys], np.array([0, count]), eligible, None)
    assert set(found.tolist()) == {numbers[:500].min(), numbers[500], numbers[501:].min()}


@given(st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), max_size=40))
@settings(deadline=None)
def test_components_are_those_of_a_search(rows: list[list[int]]) -> None:
    keys = np.array(rows, dtype=np.uint64).reshape(-1, 3).T
    count = keys.shape[1]
    found = components([keys], np.array([0, count]), np.ones(count, dtype=np.bool_), None)
    for first in range(count):
        reached, new = {first}, [first]
        while new:
            one = new.pop()
            near = set(np.flatnonzero((keys == keys[:, one : one + 1]).any(axis=0)).tolist()) - reached
            reached |= near
            new += near
        assert found[first] == min(reached)


@pytest.mark.parametrize("method", [Method.of(1, 0.85, "corrected"), Method.of(1, 0.85, "faithful")])
def test_shingles_in_a_file_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    contents = planted(3)
    made = []
    mapped = np.memmap

    def counted(*arguments: Any, **named: Any) -> Any:
        if hasattr(arguments[0], "fileno"):  # arrays of the shards are mapped by name
            made.append(arguments)
        return mapped(*arguments, **named)

    monkeypatch.setattr("numpy.memmap", counted)
    whole = run(tmp_path / "memory", contents, method)
    assert not made
    monkeypatch.setattr("kringle.data.near_duplicates.resolve.CHUNK_SHINGLES", 1)
    spilled = run(tmp_path / "disk", contents, method)
    assert made
    assert (whole.witness >= 0).any()
    for a, b in zip(spilled, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_disk_too_full_for_shingles_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kringle.data.near_duplicates.resolve.CHUNK_SHINGLES", 1)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, planted(3), Method.of(1, 0.85, "corrected"))


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(0, 10))
@settings(deadline=None)
def test_common_counts_or_gives_up(a: set[int], b: set[int], least: int) -> None:
    shared = common(np.array(sorted(a), np.uint64), np.array(sorted(b), np.uint64), least)
    assert shared == len(a & b) or (len(a & b) < least and shared < least)


def test_figures_for_the_report(tmp_path: Path) -> None:
    contents = planted(4)
    method = Method.of(5, 0.7, "corrected")
    found = run(tmp_path, contents, method)
    sizes = np.array([len(c.encode()) for c in contents])
    told = figures(method, found, sizes, np.ones(len(contents), dtype=np.bool_))
    assert sum((size - 1) * count for size, count in told["cluster_sizes"]) == told["dropped"] == (~found.kept).sum()
    assert told["bytes_kept"][0] == [0.7, int(sizes[found.kept].sum())]
    assert told["bytes_kept"][-1][1] >= told["bytes_kept"][0][1]
    assert told["collision_curve"][-1] == [1.0, 1.0]


_NOTICE = "# Copyright 2020 Somebody\n" + "\n".join(f"# this is word {i} and that is {i * i}" for i in range(30)) + "\n"


def test_a_licence_notice_makes_no_two_files_alike(tmp_path: Path) -> None:
    bodies = [f"def {name}(first, second):\n    return [first.{name}, second]\n" for name in ("alpha", "beta")]
    contents = [f"{_NOTICE}\n{body}" for body in bodies] + [
        f"/* License: {_NOTICE[26:].replace('#', '*')} */\nclass {n} {{}}" for n in "AB"
    ]
    assert run(tmp_path / "a", contents, Method.of(5, 0.7, "corrected")).kept.all()
    assert run(tmp_path / "b", contents, Method.of(5, 0.7, "faithful")).kept.sum() == 1
    twins = [f"{_NOTICE}\n{bodies[0] * 9}", f"// License\n{bodies[0] * 9}", f"# about\n{bodies[0] * 9}"]
    assert run(tmp_path / "c", twins, Method.of(5, 0.7, "corrected")).kept.sum() == 1


def test_messages_side_by_side_have_the_sha1_of_each() -> None:
    data = np.frombuffer(np.random.default_rng(3).bytes(4000), dtype=np.uint8)
    words, states = np.ones(WORDS * LANES, np.uint32), np.ones((WORDS + 5) * LANES, np.uint32)
    out = np.zeros(LANES, dtype=np.uint32)
    sizes = [*range(SHORT + 1), *range(SHORT, -1, -1)]
    for first in range(0, len(sizes), LANES - 5):  # batches that leave lanes empty as well
        lengths = np.array(sizes[first : first + LANES - 5], dtype=np.int64)
        starts = np.arange(len(lengths), dtype=np.int64) * 61 + first
        sha1_low32_lanes(data, starts, lengths, len(lengths), words, states, out)
        expected = [
            int.from_bytes(hashlib.sha1(data[s : s + n].tobytes()).digest()[:4], "little")
            for s, n in zip(starts, lengths, strict=True)
        ]
        assert out[: len(lengths)].tolist() == expected


@pytest.mark.parametrize("t", range(8))
def test_minima_are_exact_where_the_quick_reduction_is_in_doubt(t: int) -> None:
    """Products whose low 61 bits are all ones but for the last few: `(a * h + b) mod (2^61 - 1)` wraps there."""
    a, b = legacy_permutations(42)
    hashes = np.zeros(5 + 3, dtype=np.uint64)
    hashes[:5] = [7, 1 << 31, 12345, (1 << 32) - 1, 99]
    for k in range(len(a)):
        x = ((t << 61) | ((1 << 61) - 1 - k % 10)) - int(a[k]) * int(hashes[k % 5])
        b[k] = x % (1 << 64)
    lowest = np.zeros(len(a), dtype=np.uint32)
    minhash._minima(hashes, 5, a, b, b + np.uint64(1), lowest)
    for k in range(len(a)):
        products = [(int(a[k]) * int(h) + int(b[k])) % (1 << 64) for h in hashes[:5]]
        assert lowest[k] == min(p % ((1 << 61) - 1) & 0xFFFFFFFF for p in products)
