"""Comments of Java as pygments' lexer sees them, its quirks included, in one pass over bytes.

What matters is where strings, characters and comments begin. After `class`, `interface`, `record`, `module`, `var`,
`import` and `package` that lexer waits for a name and takes everything else for an error, quotes and comments included;
`module` and `record` are names in most files, so this does happen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.comment_kernels.characters import SPACE, UNSURE, WORD, after_comment, characters, is_word

_ROOT, _CLASS, _VAR, _IMPORT = 0, 1, 2, 3


@unlocked
def _is_name(byte: int) -> bool:
    return bool(WORD[byte]) or byte == 36


@unlocked
def _begins_name(byte: int) -> bool:
    return _is_name(byte) and not 48 <= byte <= 57


@unlocked
def _spaces(data: NDArray[np.uint8], p: int) -> int:
    while p < len(data) and SPACE[data[p]]:
        p += 1
    return p


@unlocked
def _word_end(data: NDArray[np.uint8], p: int) -> int:
    while p < len(data) and WORD[data[p]]:
        p += 1
    return p


@unlocked
def _is_plain_keyword(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Words that the lexer takes before it looks for a method."""
    n = end - start
    if n == 2:
        return is_word(data, start, end, b"do") or is_word(data, start, end, b"if")
    if n == 3:
        return (
            is_word(data, start, end, b"for") or is_word(data, start, end, b"new") or is_word(data, start, end, b"try")
        )
    if n == 4:
        return (
            is_word(data, start, end, b"case")
            or is_word(data, start, end, b"else")
            or is_word(data, start, end, b"goto")
            or is_word(data, start, end, b"this")
        )
    if n == 5:
        return (
            is_word(data, start, end, b"break")
            or is_word(data, start, end, b"catch")
            or is_word(data, start, end, b"throw")
            or is_word(data, start, end, b"while")
        )
    if n == 6:
        return (
            is_word(data, start, end, b"assert")
            or is_word(data, start, end, b"return")
            or is_word(data, start, end, b"switch")
        )
    if n == 7:
        return is_word(data, start, end, b"default") or is_word(data, start, end, b"finally")
    return is_word(data, start, end, b"continue") or is_word(data, start, end, b"instanceof")


@unlocked
def _method(data: NDArray[np.uint8], p: int) -> int:
    """Place after `type ... name (` that begins at p, or -1."""
    words = 0
    while p < len(data) and _begins_name(data[p]):
        q = p
        while q < len(data) and _is_name(data[q]):
            q += 1
        if words > 0:
            r = _spaces(data, q)
            if r < len(data) and data[r] == 40:
                return r + 1
        # as a part of the type, a word may go on with . [ ] < > ?
        while q < len(data) and (_is_name(data[q]) or data[q] in (46, 91, 93, 60, 62, 63)):
            q += 1
        r = _spaces(data, q)
        if r == q:
            return -1
        words += 1
        p = r
    return -1


@unlocked
def _record(data: NDArray[np.uint8], p: int) -> int:
    """Place after `record` where a line begins at p with it, modifiers before it; -1 otherwise."""
    p = _spaces(data, p)
    while True:
        q = _word_end(data, p)
        if is_word(data, p, q, b"record"):
            return q
        modifier = (
            is_word(data, p, q, b"public")
            or is_word(data, p, q, b"private")
            or is_word(data, p, q, b"protected")
            or is_word(data, p, q, b"static")
            or is_word(data, p, q, b"strictfp")
        )
        r = _spaces(data, q)
        if not modifier or r == q:
            return -1
        p = r


@unlocked
def java_comments(data: NDArray[np.uint8]) -> int:
    """Characters in comments of a text that ends with a line break; UNSURE where the lexer's ways cannot be told."""
    total, p, state = 0, 0, _ROOT
    size = len(data)
    while p < size:
        byte = data[p]
        if byte >= 128:
            return UNSURE  # a letter or not: a question for Unicode's tables
        if state != _ROOT:
            if state == _IMPORT and (WORD[byte] or byte == 46):
                while p < size and (WORD[data[p]] or data[p] == 46):
                    p += 1
                state = _ROOT
            elif state != _IMPORT and _begins_name(byte):
                while p < size and _is_name(data[p]):
                    p += 1
                state = _ROOT
            else:
                if byte == 10 and state != _CLASS:
                    state = _ROOT
                p += 1
            continue
        if p == 0 or data[p - 1] == 10:
            q = _record(data, p)
            if q > 0:
                state, p = _CLASS, q
                continue
        if byte == 47 and data[min(p + 1, size - 1)] == 47:
            q = p
            while data[q] != 10:
                q += 1
            total += characters(data, p, q)
            p = q + 1
            continue
        if byte == 47 and data[min(p + 1, size - 1)] == 42:
            q = after_comment(data, p)
            if q > 0:
                total += characters(data, p, q)
                p = q
                continue
            p += 1
        elif byte == 34:
            block = p + 3 < size and data[p + 1] == 34 and data[p + 2] == 34
            if block and data[p + 3] != 10:
                return UNSURE
            p += 4 if block else 1
            while p < size:
                if data[p] == 92 and p + 1 < size and data[p + 1] in (34, 92):
                    p += 2
                    continue
                if data[p] == 34 and (not block or (p + 2 < size and data[p + 1] == 34 and data[p + 2] == 34)):
                    break
                p += 1
            p += 3 if block else 1
        elif byte == 39:
            if p + 3 < size and data[p + 1] == 92 and data[p + 3] == 39:
                if data[p + 2] >= 128:
                    return UNSURE
                p += 4
            elif p + 2 < size and data[p + 1] != 92 and data[p + 2] == 39:
                p += 3
            elif p + 7 < size and data[p + 1] == 92 and data[p + 2] == 117 and data[p + 7] == 39:
                for i in range(3, 7):
                    h = data[p + i]
                    if not (48 <= h <= 57 or 65 <= h <= 70 or 97 <= h <= 102):
                        return UNSURE
                p += 8
            elif p + 1 < size and data[p + 1] >= 128:
                q = p + 2
                while q < size and (data[q] & np.uint8(0xC0)) == np.uint8(0x80):
                    q += 1
                if q < size and data[q] == 39:
                    p = q + 1
                else:
                    return UNSURE
            else:
                p += 1
        elif byte == 64 and p + 1 < size and (WORD[data[p + 1]] and not 48 <= data[p + 1] <= 57):
            p += 1
            while p < size and (WORD[data[p]] or data[p] == 46):
                p += 1
        elif byte == 46 and p + 1 < size and _begins_name(data[p + 1]):
            p += 1
            while p < size and _is_name(data[p]):
                p += 1
        elif _begins_name(byte):
            q = _word_end(data, p)
            if _is_plain_keyword(data, p, q):
                p = q
                continue
            r = _method(data, p)
            if r > 0:
                p = r
                continue
            if is_word(data, p, q, b"class") or is_word(data, p, q, b"interface") or is_word(data, p, q, b"module"):
                state, p = _CLASS, q
                continue
            if q < size and SPACE[data[q]]:
                if is_word(data, p, q, b"import"):
                    r = _spaces(data, q)
                    e = _word_end(data, r)
                    further = is_word(data, r, e, b"static") or is_word(data, r, e, b"module")
                    if further and e < size and SPACE[data[e]]:
                        r = _spaces(data, e)
                    state, p = _IMPORT, r
                    continue
                if is_word(data, p, q, b"package"):
                    state, p = _IMPORT, _spaces(data, q)
                    continue
                if is_word(data, p, q, b"var"):
                    state, p = _VAR, _spaces(data, q)
                    continue
            while q < size and _is_name(data[q]):
                q += 1
            p = q
        elif 48 <= byte <= 57:  # a number's letters are no words
            if byte == 48 and p + 1 < size and data[p + 1] in (120, 88, 98, 66):
                p = _word_end(data, p + 2)
            else:
                while p < size and (48 <= data[p] <= 57 or data[p] == 95):
                    p += 1
        else:
            p += 1
    return total
