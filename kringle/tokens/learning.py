"""Learning merges from counted words: byte-pair encoding with the ties of the `tokenizers` library, so the same merges.

Always the pair of neighbours that occurs most often becomes a token; of pairs that occur equally often, the one whose
ids are smaller. What the library does where that rule alone would not say is done here too (tokenizers,
models/bpe/trainer.rs): a pair that spells a token that is there already becomes that token; a queue entry covers
the words that its pair was found in when it was queued; the count of a merged pair stays as it is.

Counts have 64 bits, where the library's have 32 and would run over on some hundred gigabytes of source code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import compiled, inlined
from kringle.tokens.words import Words

_PRIME = np.uint64(0x9FB21C651E98DF25)  # as in the encoder
_SEED = np.uint64(0x9E3779B97F4A7C15)
_S32, _S29 = np.uint64(32), np.uint64(29)


def learn(words: Words, single: Sequence[int], vocab_size: int) -> tuple[list[bytes], list[tuple[int, int]]]:
    """The spelling of every token, and the merges (left, right) in order of rank.

    `single` are the ids of the 256 bytes, which are the numbers below 256. Stops at `vocab_size` tokens, or where no
    pair is left: the caller sees that the vocabulary is smaller.
    """
    ids = np.array(single, dtype=np.int32)
    starts = words.offsets[:-1]
    lengths = np.diff(words.offsets).astype(np.int32)
    merges, spelled, ends = _learn(
        ids[words.bytes], starts, lengths, words.counts, np.argsort(ids).astype(np.uint8), vocab_size
    )
    raw = spelled.tobytes()
    spellings = [raw[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    last = dict.fromkeys(map(tuple, reversed(merges.tolist())))  # a pair learnt twice has its later rank
    return spellings, list(reversed(last))


@inlined
def _slot_of(key: Any, slots: NDArray[np.int32], keys: NDArray[np.uint64]) -> Any:
    """The slot that holds the pair `key`, or the free one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = ((key * _PRIME) >> _S29) & mask
    while slots[slot] != 0 and keys[slots[slot] - 1] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@inlined
def _before(a: Any, b: Any, counts: NDArray[np.int64], keys: NDArray[np.uint64]) -> Any:
    """Whether entry `a` of the queue comes before entry `b`."""
    return counts[a] > counts[b] or (counts[a] == counts[b] and keys[a] < keys[b])


@compiled
def _swap(a: int, b: int, counts: NDArray[np.int64], keys: NDArray[np.uint64], lists: NDArray[np.int32]) -> None:
    counts[a], counts[b] = counts[b], counts[a]
    keys[a], keys[b] = keys[b], keys[a]
    lists[a], lists[b] = lists[b], lists[a]


@compiled
def _rise(place: int, counts: NDArray[np.int64], keys: NDArray[np.uint64], lists: NDArray[np.int32]) -> None:
    while place > 0 and _before(place, (place - 1) // 2, counts, keys):
        _swap(place, (place - 1) // 2, counts, keys, lists)
        place = (place - 1) // 2


@compiled
def _sink(place: int, size: int, counts: NDArray[np.int64], keys: NDArray[np.uint64], lists: NDArray[np.int32]) -> None:
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _before(child + 1, child, counts, keys):
            child += 1
        if not _before(child, place, counts, keys):
            return
        _swap(place, child, counts, keys, lists)
        place = child


@compiled
def _doubled_slots(keys: NDArray[np.uint64], pairs: int, size: int) -> NDArray[np.int32]:
    slots = np.zeros(2 * size, dtype=np.int32)
    for pair in range(pairs):
        slots[_slot_of(keys[pair], slots, keys)] = pair + 1
    return slots


@compiled
def _spelling_id(spelled: NDArray[np.uint8], ends: NDArray[np.int64], tokens: int, slots: NDArray[np.int32]) -> Any:
    """The id of the token spelled like number `tokens`, the newest; that number itself, now known, if there is none."""
    start, end = ends[tokens], ends[tokens + 1]
    hash = _SEED
    for k in range(start, end):
        hash = (hash ^ np.uint64(spelled[k])) * _PRIME
    mask = np.uint64(len(slots) - 1)
    slot = (hash ^ (hash >> _S32)) & mask
    while slots[slot] != 0:
        other = slots[slot] - 1
        if ends[other + 1] - ends[other] == end - start:
            same = True
            for k in range(end - start):
                if spelled[ends[other] + k] != spelled[start + k]:
                    same = False
                    break
            if same:
                return other
        slot = (slot + np.uint64(1)) & mask
    slots[slot] = tokens + 1
    return tokens


@compiled
def _learn(
    symbols: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    weights: NDArray[np.int64],
    alphabet: NDArray[np.uint8],
    vocab_size: int,
) -> tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """Merges (M, 2), the tokens' spellings end to end, and the border of each. `alphabet` (256,) has each id's byte.

    `symbols` and `lengths` are changed. Pairs are numbered as they are met: `keys`, `counts`, and `fresh`, the list of
    words that a pair was newly found in. Lists are linked nodes (word, next).
    """
    spelled = np.empty(1 << 20, dtype=np.uint8)
    ends = np.zeros(max(vocab_size, 256) + 2, dtype=np.int64)
    spellings = np.zeros(4 * (1 << np.int64(np.ceil(np.log2(max(vocab_size, 256))))), dtype=np.int32)
    tokens = 0
    for id in range(256):
        spelled[id] = alphabet[id]
        ends[id + 1] = id + 1
        _spelling_id(spelled, ends, id, spellings)
        tokens += 1

    slots = np.zeros(1 << 17, dtype=np.int32)
    keys = np.empty(1 << 16, dtype=np.uint64)
    counts = np.zeros(1 << 16, dtype=np.int64)
    fresh = np.full(1 << 16, -1, dtype=np.int32)
    pairs = 0
    nodes = np.empty((max(1 << 16, len(symbols)), 2), dtype=np.int32)
    used, free = 0, -1
    touched = np.empty(1 << 16, dtype=np.int32)
    changed = 0
    heap_counts = np.empty(1 << 16, dtype=np.int64)
    heap_keys = np.empty(1 << 16, dtype=np.uint64)
    heap_lists = np.empty(1 << 16, dtype=np.int32)
    size = 0
    merges = np.empty((1 << 16, 2), dtype=np.int32)
    learnt = 0

    # What a merge (or, before the first one, reading the words) changes: (pair, by how much).
    change_keys = np.empty(1 << 16, dtype=np.uint64)
    change_by = np.empty(1 << 16, dtype=np.int64)

    word = 0
    queue = -1  # the words of the merge under way
    left = right = made = np.int32(-1)
    while True:
        # -- 1. the changes of one word
        if made < 0 and word == len(starts):
            made = np.int32(0)  # all words are read
        reading = made < 0
        if reading or queue >= 0:
            if not reading:
                word = nodes[queue, 0]
                following = nodes[queue, 1]
                nodes[queue, 1] = free
                free = queue
                queue = following
            start, length = starts[word], lengths[word]
            if 4 * length + 4 > len(change_keys):
                change_keys = np.empty(8 * length, dtype=np.uint64)
                change_by = np.empty(8 * length, dtype=np.int64)
            n = 0
            if reading:
                for i in range(length - 1):
                    change_keys[n] = np.uint64(symbols[start + i]) << _S32 | np.uint64(symbols[start + i + 1])
                    change_by[n] = 1
                    n += 1
            else:
                i = kept = 0
                while i < length:
                    if i + 1 < length and symbols[start + i] == left and symbols[start + i + 1] == right:
                        if kept > 0:
                            previous = np.uint64(symbols[start + kept - 1]) << _S32
                            change_keys[n], change_by[n] = previous | np.uint64(left), -1
                            change_keys[n + 1], change_by[n + 1] = previous | np.uint64(made), 1
                            n += 2
                        if i + 2 < length:
                            next_symbol = np.uint64(symbols[start + i + 2])
                            change_keys[n], change_by[n] = np.uint64(right) << _S32 | next_symbol, -1
                            change_keys[n + 1], change_by[n + 1] = np.uint64(made) << _S32 | next_symbol, 1
                            n += 2
                        symbols[start + kept] = made
                        i += 2
                    else:
                        symbols[start + kept] = symbols[start + i]
                        i += 1
                    kept += 1
                lengths[word] = kept
            # -- 2. their effect on the counts, and on the lists of words to look at
            for c in range(n):
                slot = _slot_of(change_keys[c], slots, keys)
                if slots[slot] == 0:
                    if pairs == len(keys):
                        keys = np.concatenate((keys, np.empty(pairs, dtype=np.uint64)))
                        counts = np.concatenate((counts, np.zeros(pairs, dtype=np.int64)))
                        fresh = np.concatenate((fresh, np.full(pairs, -1, dtype=np.int32)))
                    keys[pairs] = change_keys[c]
                    slots[slot] = pairs + 1
                    pairs += 1
                    pair = pairs - 1
                    if 2 * pairs > len(slots):
                        slots = _doubled_slots(keys, pairs, len(slots))
                else:
                    pair = slots[slot] - 1
                counts[pair] += change_by[c] * weights[word]
                if change_by[c] > 0 and (fresh[pair] < 0 or nodes[fresh[pair], 0] != word):
                    if fresh[pair] < 0:
                        if changed == len(touched):
                            touched = np.concatenate((touched, np.empty(changed, dtype=np.int32)))
                        touched[changed] = pair
                        changed += 1
                    if free >= 0:
                        node = free
                        free = nodes[node, 1]
                    else:
                        if used == len(nodes):
                            nodes = np.concatenate((nodes, np.empty((used, 2), dtype=np.int32)))
                        node = used
                        used += 1
                    nodes[node, 0], nodes[node, 1] = word, fresh[pair]
                    fresh[pair] = node
            if reading:
                word += 1
            continue
        # -- 3. the pairs found join the queue
        for c in range(changed):
            pair = touched[c]
            if counts[pair] > 0:
                if size == len(heap_counts):
                    heap_counts = np.concatenate((heap_counts, np.empty(size, dtype=np.int64)))
                    heap_keys = np.concatenate((heap_keys, np.empty(size, dtype=np.uint64)))
                    heap_lists = np.concatenate((heap_lists, np.empty(size, dtype=np.int32)))
                heap_counts[size], heap_keys[size], heap_lists[size] = counts[pair], keys[pair], fresh[pair]
                _rise(size, heap_counts, heap_keys, heap_lists)
                size += 1
            fresh[pair] = -1
        changed = 0
        # -- 4. the next merge
        found = False
        while size > 0 and tokens < vocab_size:
            pair = slots[_slot_of(heap_keys[0], slots, keys)] - 1
            if heap_counts[0] != counts[pair]:  # it has changed since it was queued
                heap_counts[0] = counts[pair]
                _sink(0, size, heap_counts, heap_keys, heap_lists)
                continue
            found = heap_counts[0] >= 1
            break
        if not found:
            break
        left, right = np.int32(heap_keys[0] >> _S32), np.int32(heap_keys[0] & np.uint64(0xFFFFFFFF))
        queue = heap_lists[0]
        size -= 1
        _swap(0, size, heap_counts, heap_keys, heap_lists)
        _sink(0, size, heap_counts, heap_keys, heap_lists)
        length = ends[left + 1] - ends[left] + ends[right + 1] - ends[right]
        if ends[tokens] + length > len(spelled):
            spelled = np.concatenate((spelled, np.empty(max(length, len(spelled)), dtype=np.uint8)))
        at = ends[tokens]
        for part in (left, right):
            for k in range(ends[part], ends[part + 1]):
                spelled[at] = spelled[k]
                at += 1
        ends[tokens + 1] = at
        made = np.int32(_spelling_id(spelled, ends, tokens, spellings))
        if made == tokens:
            tokens += 1
        if learnt == len(merges):
            merges = np.concatenate((merges, np.empty((learnt, 2), dtype=np.int32)))
        merges[learnt, 0], merges[learnt, 1] = left, right
        learnt += 1
    return merges[:learnt].copy(), spelled[: ends[tokens]].copy(), ends[: tokens + 1].copy()
