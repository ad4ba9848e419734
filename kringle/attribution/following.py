"""Following seeds into the token store: how far a text and a document agree around each, compiled with numba.

A document is read token by token from where a seed lies, forwards and backwards, and no further than it agrees with the
text; so following a seed costs about the same in a large document as in a small one. To get to a byte of a document
there is a checkpoint every `CHECKPOINT` tokens: the byte that the token begins at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kringle.attribution.kernels import (
    BEFORE,
    HEAVY,
    KEPT,
    NO_TAG,
    SEED,
    SHORTEST,
    SIDE,
    STEP,
    Bytes,
    seed_hash_at,
    tag_of,
)
from kringle.attribution.seeds import SeedTable
from kringle.compiled import unlocked

CHECKPOINT = 256  # tokens
CROWD = 8  # stretches that overlap at one place
PATIENCE = 4096  # seeds that are followed inside known stretches of one place until it counts as crowded
MOST_KNOWN = 64  # stretches that overlap at one place; of more, seeds are followed twice
FULLY_FOLLOWED = 64  # seeds inside a known stretch, for other places of it; further ones only to reach beyond it


class Texts(NamedTuple):
    """Documents as kernels read them, in one spelling: D documents, T tokens, a vocabulary of V, M checkpoints.

    Document d has the tokens firsts[d] to lasts[d] - 1 and the checkpoints mark_starts[d] to mark_starts[d + 1] - 1;
    token t is blob[starts[t] : starts[t + 1]].
    """

    tokens: NDArray[np.unsignedinteger]  # (T,)
    firsts: NDArray[np.int64]  # (D,)
    lasts: NDArray[np.int64]  # (D,)
    starts: NDArray[np.int64]  # (V + 1,)
    blob: Bytes
    mark_starts: NDArray[np.int64]  # (D + 1,)
    marks: NDArray[np.uint32]  # (M,): bytes


@unlocked
def checkpoints(tokens: NDArray[np.unsignedinteger], starts: NDArray[np.int64], out: NDArray[np.uint32]) -> int:
    """Fill the byte that every `CHECKPOINT`-th token begins at; returns the size of the document in bytes."""
    at = 0
    for i in range(len(tokens)):
        if i % CHECKPOINT == 0:
            out[i // CHECKPOINT] = at
        at += starts[tokens[i] + 1] - starts[tokens[i]]
    return at


@unlocked
def _token_at(
    tokens: NDArray[np.unsignedinteger], first: int, starts: NDArray[np.int64], marks: NDArray[np.uint32], place: int
) -> tuple[int, int]:
    """(number of the token, byte inside it) of the byte `place` of the document whose tokens begin at `first`."""
    low, high = 0, len(marks)
    while high - low > 1:
        middle = (low + high) // 2
        if marks[middle] <= place:
            low = middle
        else:
            high = middle
    token, at = first + low * CHECKPOINT, int(marks[low])
    while True:
        size = int(starts[tokens[token] + 1] - starts[tokens[token]])
        if place < at + size:
            return token, place - at
        at += size
        token += 1


@unlocked
def _place_in(texts: Texts, document: int, place: int) -> tuple[int, int]:
    """`_token_at` of a document."""
    marks = texts.marks[texts.mark_starts[document] : texts.mark_starts[document + 1]]
    return _token_at(texts.tokens, texts.firsts[document], texts.starts, marks, place)


@unlocked
def _agreement(text: Bytes, at: int, texts: Texts, document: int, place: int) -> tuple[int, int]:
    """(start, end) of the longest text[start:end] around `at` that the document has around its byte `place`; end == at
    where the two differ there."""
    tokens, starts, blob = texts.tokens, texts.starts, texts.blob
    first, stop = texts.firsts[document], texts.lasts[document]
    token, inside = _place_in(texts, document, place)
    end = at
    number, byte = token, starts[tokens[token]] + inside
    while end < len(text):
        if byte == starts[tokens[number] + 1]:
            number += 1
            if number == stop:
                break
            byte = starts[tokens[number]]
            continue  # a token may stand for no bytes
        if blob[byte] != text[end]:
            break
        byte += 1
        end += 1
    start = at
    number, byte = token, starts[tokens[token]] + inside
    while start > 0 and end >= at + SEED:
        if byte == starts[tokens[number]]:
            if number == first:
                break
            number -= 1
            byte = starts[tokens[number] + 1]
            continue
        if blob[byte - 1] != text[start - 1]:
            break
        byte -= 1
        start -= 1
    return start, end


@unlocked
def _compare(text: Bytes, at: int, before: int, after: int, texts: Texts, document: int, place: int) -> int:
    """-1, 0 or 1: how the document compares with the text, first in the `after` bytes from `place` and `at` on, then in
    the `before` bytes before them, the nearest first. A document that has ended comes first."""
    tokens, starts, blob = texts.tokens, texts.starts, texts.blob
    first, stop = texts.firsts[document], texts.lasts[document]
    token, inside = _place_in(texts, document, place)
    number, byte = token, starts[tokens[token]] + inside
    done = 0
    while done < after:
        if byte == starts[tokens[number] + 1]:
            number += 1
            if number == stop:
                return -1
            byte = starts[tokens[number]]
            continue
        if blob[byte] != text[at + done]:
            return -1 if blob[byte] < text[at + done] else 1
        byte += 1
        done += 1
    number, byte = token, starts[tokens[token]] + inside
    done = 0
    while done < before:
        if byte == starts[tokens[number]]:
            if number == first:
                return -1
            number -= 1
            byte = starts[tokens[number] + 1]
            continue
        if blob[byte - 1] != text[at - done - 1]:
            return -1 if blob[byte - 1] < text[at - done - 1] else 1
        byte -= 1
        done += 1
    return 0


@unlocked
def _origin(sample_starts: NDArray[np.int64], sample: int) -> tuple[int, int]:
    """(document, byte of it) that a sample was taken at."""
    low, high = 0, len(sample_starts) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if sample_starts[middle] <= sample:
            low = middle
        else:
            high = middle
    return low, (sample - sample_starts[low]) * STEP


@unlocked
def _equal_range(
    text: Bytes, at: int, before: int, after: int, low: int, high: int, through: bool, seeds: SeedTable, texts: Texts
) -> tuple[int, int]:
    """Of the sorted samples `low` to `high` - 1 those that agree with the text in `after` bytes from `at` and in
    `before` bytes before it: a range (low, high). They are entries[backward[i]] where `through`,
    else entries[i]."""
    first_equal, last_equal = high, high
    for side in range(2):
        bottom, top = low, high
        while bottom < top:
            middle = (bottom + top) // 2
            entry = np.int64(seeds.backward[middle]) if through else middle
            document, place = _origin(seeds.starts, int(np.int64(seeds.entries[entry])))
            sign = _compare(text, at, before, after, texts, document, place)
            if sign < 0 or (side == 1 and sign == 0):
                bottom = middle + 1
            else:
                top = middle
        if side == 0:
            first_equal = bottom
        else:
            last_equal = bottom
    return first_equal, last_equal


@unlocked
def _plan(
    text: Bytes,
    at: int,
    before: int,
    after: int,
    low: int,
    high: int,
    begin: int,
    seeds: SeedTable,
    texts: Texts,
    ranges: NDArray[np.int64],
) -> None:
    """Fill `ranges` (2, 2) with ranges of `backward` and of `entries`, both of one heavy bucket, that hold every seed
    that agrees with the text in `before` bytes before it, in `after` bytes from its beginning on, and in `SHORTEST` in
    all. Such a seed agrees in x bytes before it or in SHORTEST - x + 1 from its beginning on, whatever x is: of a few
    x that with the smallest ranges is taken."""
    best = -1
    for option in range(5):
        if option == 0:
            x, y = 0, after
        elif option == 1:
            x, y = before, 0
        else:
            x = 18 if option == 2 else 9 if option == 3 else 26
            y = max(after, SHORTEST - x + 1)
            x = max(before, x)
        if (option == 0 and after <= SEED) or (option == 1 and before == 0):
            continue
        left_low = left_high = right_low = right_high = 0
        if 0 < x <= at:
            left_low, left_high = _equal_range(
                text, at, min(x, BEFORE), SEED, begin, begin + high - low, True, seeds, texts
            )
        if 0 < y <= len(text) - at:
            right_low, right_high = _equal_range(text, at, 0, min(y, SHORTEST), low, high, False, seeds, texts)
        cost = left_high - left_low + right_high - right_low
        if best < 0 or cost < best:
            best = cost
            ranges[0, 0], ranges[0, 1] = left_low, left_high
            ranges[1, 0], ranges[1, 1] = right_low, right_high
        if best <= KEPT:
            break


@unlocked
def _add(known: NDArray[np.int64], count: int, start: int, end: int) -> int:
    """Add text[start:end] to the `count` known stretches (start, end), none inside another, in order; returns how many
    there are then, or -1 if it is one of them, -2 if it is inside one, -3 if there is no room."""
    for i in range(count):
        if known[i, 0] <= start and end <= known[i, 1]:
            return -1 if known[i, 0] == start and known[i, 1] == end else -2
    left = 0
    for i in range(count):
        if not (start <= known[i, 0] and known[i, 1] <= end):
            known[left, 0], known[left, 1] = known[i, 0], known[i, 1]
            left += 1
    if left == len(known):
        return -3
    i = left
    while i > 0 and known[i - 1, 0] > start:
        known[i, 0], known[i, 1] = known[i - 1, 0], known[i - 1, 1]
        i -= 1
    known[i, 0], known[i, 1] = start, end
    return left + 1


@unlocked
def search(text: Bytes, shift: int, seeds: SeedTable, texts: Texts, found: NDArray[np.int64]) -> int:
    """Fill rows (start, end, document, byte of it) of `found` (C, 4) with the stretches text[start:end], `SHORTEST`
    bytes or more, that documents share, as far as there is room; returns how many there are in all.

    Let text[a:b] be the known stretch that ends last, found at offset c. What is not inside it has a seed within `STEP`
    offsets from c (if it begins before a) or in the last `SHORTEST` - 1 before b (if it ends after b), because a common
    stretch has one among every `STEP` offsets; so the offsets between those are passed over.

    Seeds in a heavy bucket (`kringle.attribution.seeds`) are not all followed. What lies inside no known stretch
    begins before the first of those that cover the seed, or ends after the last, or begins before one and ends after
    the one before that: for each of these the seeds are found by bisection (`_plan`). A few more are followed for the
    sake of other places.

    Where stretches crowd, as in long rules of dashes, or looking for more would take long, not all are told: none that
    lies in the others together, and from the last one the look-up goes on to one that begins as late inside it as can
    be, and ends later. So all that is copied is still covered.
    """
    count = pieces = 0
    known = np.empty((MOST_KNOWN, 2), dtype=np.int64)  # stretches that were found, none inside another, in order
    ranges = np.zeros((2, 2), dtype=np.int64)
    known_end = known_from = tried = 0  # the end of the last of them, where it was found, what was followed since
    covered_from = at = ahead = 0  # from where on everything up to `known_end` lies in a stretch
    crowded, spent = False, 0  # whether stretches crowd here; what was followed inside known ones
    back = False  # whether `at` goes backwards; `ahead` is then the first offset that was not looked at before
    while at + SEED <= len(text):
        if not back:
            if known_from + STEP <= at and at < known_end - SHORTEST + 1:
                at = known_end - SHORTEST + 1
                continue
            while pieces > 0 and known[0, 1] < at + SEED:  # nothing that is still to be found lies inside it
                known[:-1] = known[1:].copy()
                pieces -= 1
            crowded = crowded or pieces >= CROWD
            if crowded and pieces > 0 and known_end - SHORTEST + 1 <= at <= known_end - SEED:
                long = known_end - covered_from >= 2 * SHORTEST
                back, ahead, at = long, at, known_end - SEED if long else at
        bucket = int(np.int64(seed_hash_at(text, at) >> np.uint64(shift)))
        low, high = int(np.int64(seeds.directory[bucket])), int(np.int64(seeds.directory[bucket + 1]))
        reach = known_end
        is_heavy = high - low > HEAVY
        begin = int(seeds.heavy[np.searchsorted(seeds.heavy[:, 0], bucket), 1]) if is_heavy else 0
        left, right = tag_of(text, at - SIDE, at), tag_of(text, at + SEED, at + SEED + SIDE)
        again = low < high
        far = back and is_heavy  # to begin with, what agrees with the text in `SHORTEST` bytes from `at` on is enough
        while again:
            again = False
            first_known, last_known = pieces, pieces  # those that cover the seed
            for i in range(pieces):
                if known[i, 0] <= at and at + SEED <= known[i, 1]:
                    first_known, last_known = min(first_known, i), i + 1
            covered = last_known - first_known if first_known < pieces else 0
            to_left = covered == 0 or at < known_from + STEP or known[last_known - 1, 1] != known_end
            to_right = covered == 0 or at >= known_end - SHORTEST + 1 or known[last_known - 1, 1] != known_end
            for gap in range(covered + 1 if is_heavy else 1):
                # Before known stretch number `gap` and after the one before it, as far as they are there.
                if covered and not is_heavy and not to_left and not to_right and tried >= FULLY_FOLLOWED:
                    break
                if is_heavy:
                    if not (to_right if gap == covered else to_left) or (back and gap < covered):
                        continue
                    before = at - known[first_known + gap, 0] + 1 if gap < covered else 0
                    if (crowded or covered >= CROWD) and gap < covered and (gap > 0 or before >= STEP):
                        continue
                    after = known[first_known + gap - 1, 1] - at + 1 if gap > 0 else 0
                    if far:
                        after = max(after, SHORTEST)
                    if before > at or after > len(text) - at:
                        continue
                    _plan(text, at, before, after, low, high, begin, seeds, texts, ranges)
                else:
                    ranges[0, 0], ranges[0, 1], ranges[1, 0], ranges[1, 1] = 0, 0, low, high
                more = -1  # seeds to follow for other places of a new stretch, before everything is planned again
                for side in range(2):
                    for entry in range(ranges[side, 0], ranges[side, 1]):
                        if not is_heavy:
                            same_left = left != NO_TAG and seeds.tags[entry, 0] == left
                            if not same_left and not (right != NO_TAG and seeds.tags[entry, 1] == right):
                                continue
                        number = np.int64(seeds.backward[entry]) if side == 0 else entry
                        document, place = _origin(seeds.starts, int(np.int64(seeds.entries[number])))
                        start, end = _agreement(text, at, texts, document, place)
                        tried += 1
                        if is_heavy and covered and not crowded:
                            spent += 1
                            if spent > PATIENCE:
                                crowded, more = True, 0
                                break
                        more -= more > 0
                        if end - start >= SHORTEST:
                            added = _add(known, pieces, start, end)
                            if added != -2:
                                if count < len(found):
                                    found[count, 0], found[count, 1] = start, end
                                    found[count, 2], found[count, 3] = document, place - (at - start)
                                count += 1
                            if added > 0:
                                pieces = added
                                more = 0 if back else KEPT
                                covered_from = start if start > known_end else min(covered_from, start)
                                if known[pieces - 1, 1] > known_end:
                                    known_end, known_from, tried = known[pieces - 1, 1], at, 0
                        if is_heavy and more == 0:
                            break
                    if is_heavy and more == 0:
                        break
                if more >= 0 and is_heavy:
                    again = not back
                    break
            if far and known_end == reach:
                far, again = False, True
        if not back:
            at += 1
        elif known_end > reach or at == ahead:
            crowded, spent = known_end > reach, 0
            back, at = False, max(ahead, known_end - SHORTEST + 1) if known_end > reach else reach - SEED + 1
        else:
            at -= 1
    return count


@unlocked
def spread(
    tokens: NDArray[np.unsignedinteger],
    first: int,
    starts: NDArray[np.int64],
    marks: NDArray[np.uint32],
    place: int,
    whole_starts: NDArray[np.int64],
    whole_blob: Bytes,
    whole_marks: NDArray[np.uint32],
) -> int:
    """Which byte of a document as it is (`whole_...`) is byte `place` of it without white space."""
    token, inside = _token_at(tokens, first, starts, marks, place)
    mark = (token - first) // CHECKPOINT
    at = int(whole_marks[mark])
    for number in range(first + mark * CHECKPOINT, token):
        at += whole_starts[tokens[number] + 1] - whole_starts[tokens[number]]
    for byte in whole_blob[whole_starts[tokens[token]] : whole_starts[tokens[token] + 1]]:
        if byte != 32 and (byte < 9 or byte > 13):
            if inside == 0:
                break
            inside -= 1
        at += 1
    return at
