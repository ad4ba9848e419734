"""The encoder: text to ids by byte-level BPE, the same ids as the `tokenizers` library, many times as fast.

Covers tokenizers of SantaCoder's form: digits apart, GPT-2's pattern, bytes, merges in order of rank. Anything else (a
normaliser, another pattern, dropout, tokens that text may spell) is told apart from the file: `Encoder.read` returns
None, and whoever wants to encode with such a tokenizer asks the library.

A pre-token's ids are computed once and kept in a hash table, because source code repeats itself: about one pre-token in
two hundred is new. What is not found there is merged by rank: short ones by looking through all neighbours, long ones
with a heap, so that ten megabytes of spaces take O(n log n). The table holds a bounded number of pre-tokens and
starts afresh when it is full; a lookup inspects a bounded number of places, whatever the input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import compiled, inlined
from kringle.tokens.character_classes import class_table
from kringle.tokens.pretokens import Bytes, next_border

Ids = NDArray[np.int32]

SLOTS = 1 << 18  # of the table of known pre-tokens: 8 MB, half of them in use at most
PROBES = 16  # places that a lookup inspects; what is not found there is merged anew
LONGEST_KEPT = 64  # bytes; longer pre-tokens are rare and not kept
KEY_BYTES = SLOTS // 2 * 16  # room for the bytes of the pre-tokens; the table starts afresh when it is used up
KEPT_IDS = SLOTS // 2 * 6
LOOK_THROUGH = 48  # bytes up to which looking through all neighbours beats a heap

_NONE = np.int32(np.iinfo(np.int32).max)  # the rank of a pair that does not merge
_PRIME = np.uint64(0x9FB21C651E98DF25)  # odd, with well-mixed bits (a constant of the XXH3 hash)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_S32, _S29 = np.uint64(32), np.uint64(29)
_LOW32 = np.uint64(0xFFFFFFFF)


class Merges(NamedTuple):
    """What merges: `single` (256,) the id of each byte; `keys` and `ranks`, an open-addressing table from a pair of ids
    (left << 32 | right, plus one, so that 0 is free) to its rank; `results` (merges,) the id that each rank makes."""

    single: Ids
    keys: NDArray[np.uint64]
    ranks: Ids
    results: Ids


class Known(NamedTuple):
    """The table of known pre-tokens. `rows` (SLOTS, 3) are hash, place << 8 | length in `bytes`, place << 8 | count in
    `ids`; a row with a length of 0 is free. `used` (3,) counts rows, bytes and ids in use."""

    rows: NDArray[np.uint64]
    bytes: Bytes
    ids: Ids
    used: NDArray[np.int64]


@inlined
def _rank(left: Any, right: Any, merges: Merges) -> Any:
    key = (np.uint64(left) << _S32 | np.uint64(right)) + np.uint64(1)
    mask = np.uint64(len(merges.keys) - 1)
    slot = ((key * _PRIME) >> _S29) & mask
    while merges.keys[slot] != 0:
        if merges.keys[slot] == key:
            return merges.ranks[slot]
        slot = (slot + np.uint64(1)) & mask
    return _NONE


@compiled
def _fill(keys: NDArray[np.uint64], ranks: Ids, lefts: Ids, rights: Ids) -> None:
    mask = np.uint64(len(keys) - 1)
    for rank in range(len(lefts)):
        key = (np.uint64(lefts[rank]) << _S32 | np.uint64(rights[rank])) + np.uint64(1)
        slot = ((key * _PRIME) >> _S29) & mask
        while keys[slot] != 0 and keys[slot] != key:  # a merge that is listed twice has its later rank
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = key
        ranks[slot] = rank


@compiled
def _merge_short(data: Bytes, start: int, end: int, merges: Merges, out: Ids, at: int) -> int:
    """Write the ids of a pre-token to `out` from `at` on, looking through all neighbours for the lowest rank."""
    count = end - start
    ranks = np.empty(LOOK_THROUGH, dtype=np.int32)
    for i in range(count):
        out[at + i] = merges.single[data[start + i]]
    for i in range(count - 1):
        ranks[i] = _rank(out[at + i], out[at + i + 1], merges)
    while count > 1:
        best = 0
        for i in range(1, count - 1):
            if ranks[i] < ranks[best]:
                best = i
        if ranks[best] == _NONE:
            break
        out[at + best] = merges.results[ranks[best]]
        count -= 1
        for i in range(best + 1, count):
            out[at + i] = out[at + i + 1]
        for i in range(best + 1, count - 1):
            ranks[i] = ranks[i + 1]
        if best > 0:
            ranks[best - 1] = _rank(out[at + best - 1], out[at + best], merges)
        if best < count - 1:
            ranks[best] = _rank(out[at + best], out[at + best + 1], merges)
    return at + count


@inlined
def _sink(heap: NDArray[np.uint64], place: int, size: int) -> None:
    item = heap[place]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= item:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = item


@compiled
def _merge_long(data: Bytes, start: int, end: int, merges: Merges, out: Ids, at: int) -> int:
    """As `_merge_short` with a heap of (rank, place) over a linked list: O(n log n) for n bytes, 24 bytes of memory
    each. An entry is stale unless its place still begins a pair of that rank; a rank belongs to one pair alone."""
    n = end - start
    following = np.empty(n, dtype=np.int32)
    before = np.empty(n, dtype=np.int32)
    ranks = np.empty(n, dtype=np.int32)
    heap = np.empty(n, dtype=np.uint64)
    size = 0
    for i in range(n):
        out[at + i] = merges.single[data[start + i]]
        following[i], before[i] = i + 1, i - 1
    for i in range(n):
        ranks[i] = _rank(out[at + i], out[at + i + 1], merges) if i + 1 < n else _NONE
        if ranks[i] != _NONE:
            heap[size] = np.uint64(ranks[i]) << _S32 | np.uint64(i)
            size += 1
    for place in range(size // 2 - 1, -1, -1):
        _sink(heap, place, size)
    while size > 0:
        top = heap[0]
        size -= 1
        heap[0] = heap[size]
        _sink(heap, 0, size)
        i = int(top & _LOW32)
        rank = np.int32(top >> _S32)
        if ranks[i] != rank:
            continue
        out[at + i] = merges.results[rank]
        gone = following[i]
        ranks[gone] = _NONE
        following[i] = following[gone]
        if following[i] < n:
            before[following[i]] = i
            ranks[i] = _rank(out[at + i], out[at + following[i]], merges)
        else:
            ranks[i] = _NONE
        for k in range(2):
            changed = np.int64(i) if k == 0 else np.int64(before[i])
            if k == 1:
                if changed < 0:
                    break
                ranks[changed] = _rank(out[at + changed], out[at + i], merges)
            if ranks[changed] == _NONE:
                continue
            if size == len(heap):
                heap = _grown(heap)
            place = size
            size += 1
            item = np.uint64(ranks[changed]) << _S32 | np.uint64(changed)
            while place > 0 and heap[(place - 1) // 2] > item:
                heap[place] = heap[(place - 1) // 2]
                place = (place - 1) // 2
            heap[place] = item
    count, place = 0, 0
    while place < n:
        out[at + count] = out[at + place]
        count += 1
        place = following[place]
    return at + count


@compiled
def _grown(heap: NDArray[np.uint64]) -> NDArray[np.uint64]:
    larger = np.empty(2 * len(heap), dtype=np.uint64)
    larger[: len(heap)] = heap
    return larger


@compiled
def encode_bytes(
    data: Bytes,
    offsets: NDArray[np.int64],
    classes: Bytes,
    merges: Merges,
    known: Known,
    out: Ids,
    ends: NDArray[np.int64],
) -> int:
    """Encode the texts `data[offsets[d] : offsets[d + 1]]` into `out`, which has room for an id a byte; the ids of text
    d end at `ends[d]`. Returns the number of ids."""
    mask = np.uint64(SLOTS - 1)
    at = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            border = next_border(data, i, end, classes)
            length = border - i
            if length == 1:
                out[at] = merges.single[data[i]]
                at += 1
                i = border
                continue
            if length > LONGEST_KEPT:
                at = _merge_long(data, i, border, merges, out, at)
                i = border
                continue
            hash = _SEED ^ np.uint64(length)
            for k in range(i, border):
                hash = (hash ^ np.uint64(data[k])) * _PRIME
            hash ^= hash >> _S32
            slot = hash & mask
            free = np.int64(-1)
            found = False
            for _ in range(PROBES):
                where = known.rows[slot, 1]
                if where == 0:
                    free = np.int64(slot)
                    break
                if known.rows[slot, 0] == hash and np.int64(where & np.uint64(255)) == length:
                    place = np.int64(where >> np.uint64(8))
                    same = True
                    for k in range(length):
                        if known.bytes[place + k] != data[i + k]:
                            same = False
                            break
                    if same:
                        what = known.rows[slot, 2]
                        place = np.int64(what >> np.uint64(8))
                        for k in range(np.int64(what & np.uint64(255))):
                            out[at] = known.ids[place + k]
                            at += 1
                        found = True
                        break
                slot = (slot + np.uint64(1)) & mask
            if found:
                i = border
                continue
            before = at
            if length <= LOOK_THROUGH:
                at = _merge_short(data, i, border, merges, out, at)
            else:
                at = _merge_long(data, i, border, merges, out, at)
            if free >= 0:
                count = at - before
                rows, bytes, ids = known.used
                if 2 * rows >= SLOTS or bytes + length > len(known.bytes) or ids + count > len(known.ids):
                    known.rows[:] = 0
                    rows = bytes = ids = 0
                    free = np.int64(hash & mask)
                known.bytes[bytes : bytes + length] = data[i:border]
                known.ids[ids : ids + count] = out[before:at]
                known.rows[free, 0] = hash
                known.rows[free, 1] = np.uint64(bytes) << np.uint64(8) | np.uint64(length)
                known.rows[free, 2] = np.uint64(ids) << np.uint64(8) | np.uint64(count)
                known.used[0], known.used[1], known.used[2] = rows + 1, bytes + length, ids + count
            i = border
        ends[d] = at
    return at


class Encoder:
    """Encodes text with one vocabulary and its merges. Keeps the pre-tokens that it has met; not for use by two threads
    at once (the interpreter's lock is held while it works)."""

    def __init__(self, single: Sequence[int], merges: Sequence[tuple[int, int, int]]) -> None:
        """`single` are the ids of the 256 bytes; `merges` are (left, right, result) in order of rank."""
        lefts, rights, results = (np.array([m[k] for m in merges], dtype=np.int32) for k in range(3))
        slots = 1 << max(4, (2 * len(merges)).bit_length())
        self._merges = Merges(
            np.array(single, dtype=np.int32), np.zeros(slots, dtype=np.uint64), np.zeros(slots, dtype=np.int32), results
        )
        _fill(self._merges.keys, self._merges.ranks, lefts, rights)
        self._classes = class_table()
        self._known = Known(
            np.zeros((SLOTS, 3), dtype=np.uint64),
            np.empty(KEY_BYTES, dtype=np.uint8),
            np.empty(KEPT_IDS, dtype=np.int32),
            np.zeros(3, dtype=np.int64),
        )

    @classmethod
    def read(cls, file: str, byte_of: Mapping[str, int]) -> Encoder | None:
        """From the text of a `tokenizer.json`; None where the tokenizer is of another form than this encoder's.

        `byte_of` gives the byte behind each character of a byte-level vocabulary.
        """
        described = json.loads(file)
        if not _has_our_form(described):
            return None
        vocabulary: dict[str, int] = described["model"]["vocab"]
        if any(character not in vocabulary for character in byte_of):
            return None
        single = [0] * 256
        for character, byte in byte_of.items():
            single[byte] = vocabulary[character]
        merges = []
        for entry in described["model"]["merges"]:
            left, right = (
                entry.split(" ") if isinstance(entry, str) else entry
            )  # files before and after tokenizers 0.20
            merges.append((vocabulary[left], vocabulary[right], vocabulary[left + right]))
        return cls(single, merges)

    def encode(self, data: bytes) -> NDArray[np.int32]:
        """Ids (T,) of one text in UTF-8. Bytes that are no valid UTF-8 are encoded as they are."""
        ids, _ = self.encode_many(np.frombuffer(data, dtype=np.uint8), np.array([0, len(data)], dtype=np.int64))
        return ids

    def encode_many(self, data: Bytes, offsets: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids (T,) of the texts `data[offsets[d] : offsets[d + 1]]`, one after the other, and where each ends (D + 1,).

        The offsets are those of an Arrow array of strings: D + 1 rising places in `data`. ValueError if they are not.
        """
        if len(offsets) < 1 or offsets[0] < 0 or offsets[-1] > len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("offsets must rise from 0 to the length of the data at most")
        out = np.empty(int(offsets[-1] - offsets[0]), dtype=np.int32)
        ends = np.zeros(len(offsets), dtype=np.int64)
        count = encode_bytes(data, offsets, self._classes, self._merges, self._known, out, ends[1:])
        return out[:count], ends


def _has_our_form(described: Mapping[str, Any]) -> bool:
    """Whether a tokenizer file says: no normaliser, digits apart, GPT-2's pattern, bytes, plain BPE."""
    model, pre = described["model"], described.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers") or []
    return bool(
        described.get("normalizer") is None
        and all(token["special"] for token in described.get("added_tokens") or [])
        and pre.get("type") == "Sequence"
        and [step["type"] for step in steps] == ["Digits", "ByteLevel"]
        and steps[0]["individual_digits"]
        and not steps[1]["add_prefix_space"]
        and steps[1].get("use_regex", True)
        and model["type"] == "BPE"
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not model.get("ignore_merges")
    )
