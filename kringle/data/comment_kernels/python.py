"""Comments and docstrings of Python in one pass over bytes, for files that are certainly Python 3.

The definition asks a parser: a file with a syntax error has no docstrings. This scanner is none, but it follows
brackets, indentation, strings and which tokens may stand beside which, and says that it is unsure of anything out of
the ordinary (`print "x"`, `except A, e`, `0777`, two names in a row, `match` as a keyword): then a parser decides. It
gives places of docstrings and counts of comments; cleaning the docstrings is for Python, which does it in a few
microseconds each.
"""

from __future__ import annotations

import keyword

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.comment_kernels.characters import WORD

_NAME, _INFIX, _STATEMENT, _PREFIX, _CONSTANT = 0, 1, 2, 3, 4  # kinds of words
_INFIX_WORDS = ("if", "else", "and", "or", "in", "not", "is", "for", "async", "as", "from", "import")
_PREFIX_WORDS = ("lambda", "yield", "await")
_CONSTANT_WORDS = ("True", "False", "None")
_TABLE = 256
_FACTOR = 0x9E3779B97F4A7C15


def _packed_word(word: str) -> int:
    return int.from_bytes(word.encode(), "big")


def _tables() -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Keywords by a hash: the packed word (0 for a free slot) and its kind."""
    words, kinds = np.zeros(_TABLE, dtype=np.uint64), np.zeros(_TABLE, dtype=np.int64)
    for word in keyword.kwlist:
        kind = _STATEMENT
        for known, listed in ((_INFIX, _INFIX_WORDS), (_PREFIX, _PREFIX_WORDS), (_CONSTANT, _CONSTANT_WORDS)):
            kind = known if word in listed else kind
        value = _packed_word(word)
        slot = (value * _FACTOR & (2**64 - 1)) >> 56
        while words[slot]:
            slot = (slot + 1) % _TABLE
        words[slot], kinds[slot] = value, kind
    return words, kinds


_WORDS, _KINDS = _tables()
_DEF, _CLASS, _ASYNC, _EXCEPT, _RAISE, _FROM, _IMPORT, _NOT = (
    np.uint64(_packed_word(word)) for word in ("def", "class", "async", "except", "raise", "from", "import", "not")
)

# What the last token was.
_START, _OPERAND, _KEYWORD, _OPERATOR, _OPEN, _COMMA, _COLON, _DOT, _STRING = 0, 1, 2, 3, 4, 5, 6, 7, 8
_MODULE_BODY, _CLASS_BODY, _FUNCTION_BODY, _OTHER_BODY = 2, 0, 1, 9  # the first three in the original's order
_DEEPEST = 100
MOST_DOCSTRINGS = 4096


@unlocked
def _keyword(data: NDArray[np.uint8], start: int, end: int) -> tuple[int, np.uint64]:
    """(kind, packed word) of a word; `_NAME` for one that is no keyword."""
    if end - start > 8:
        return _NAME, np.uint64(0)
    value = np.uint64(0)
    for p in range(start, end):
        value = (value << np.uint64(8)) | np.uint64(data[p])
    slot = np.int64((value * np.uint64(_FACTOR)) >> np.uint64(56))
    while _WORDS[slot] != 0:
        if _WORDS[slot] == value:
            return _KINDS[slot], value
        slot = (slot + 1) % _TABLE
    return _NAME, np.uint64(0)


@unlocked
def _number_end(data: NDArray[np.uint8], p: int) -> int:
    """Place after the number that begins at p; -1 for one that Python 3 may not take."""
    size = len(data)
    start = p
    if data[p] == 48 and p + 1 < size and (data[p + 1] | 32) in (120, 98, 111):
        base = data[p + 1] | 32
        p += 2
        while p < size and WORD[data[p]]:
            c = data[p] | 32
            digit = 48 <= data[p] <= 57
            if data[p] != 95 and not (digit or (base == 120 and 97 <= c <= 102)):
                return -1
            if digit and ((base == 98 and data[p] > 49) or (base == 111 and data[p] > 55)):
                return -1
            p += 1
        return p if p > start + 2 else -1
    while p < size and (48 <= data[p] <= 57 or data[p] == 95):
        p += 1
    whole = p
    if p < size and data[p] == 46:
        p += 1
        while p < size and (48 <= data[p] <= 57 or data[p] == 95):
            p += 1
    if p < size and (data[p] | 32) == 101:
        q = p + 1
        if q < size and data[q] in (43, 45):
            q += 1
        if q >= size or not 48 <= data[q] <= 57:
            return -1
        while q < size and (48 <= data[q] <= 57 or data[q] == 95):
            q += 1
        p = q
    if p < size and (data[p] | 32) == 106:
        p += 1
    if p == whole and data[start] == 48:
        for q in range(start, p):  # 0777
            if data[q] not in (48, 95):
                return -1
    if p < size and WORD[data[p]]:
        return -1  # 10L, or 1if: whichever
    return p


@unlocked
def _string_end(data: NDArray[np.uint8], p: int, formatted: bool) -> int:
    """Place after the string whose quotes begin at p; -1 where it does not end, or where versions read it differently:
    a quote or # inside the braces of a formatted one."""
    size = len(data)
    quote = data[p]
    triple = p + 2 < size and data[p + 1] == quote and data[p + 2] == quote
    p += 3 if triple else 1
    braces = 0
    while p < size:
        byte = data[p]
        if byte == 92:
            p += 3 if p + 2 < size and data[p + 1] == 13 and data[p + 2] == 10 else 2
            if formatted and braces > 0:
                return -1
            continue
        if byte == quote:
            if not triple:
                return p + 1 if braces == 0 else -1
            if p + 2 < size and data[p + 1] == quote and data[p + 2] == quote:
                return p + 3 if braces == 0 else -1
            if braces > 0:
                return -1
        if not triple and (byte == 10 or byte == 13):
            return -1
        if formatted:
            if byte == 123:
                if braces == 0 and p + 1 < size and data[p + 1] == 123:
                    p += 1
                else:
                    braces += 1
            elif byte == 125:
                if braces > 0:
                    braces -= 1
                elif p + 1 < size and data[p + 1] == 125:
                    p += 1
                else:
                    return -1
            elif braces > 0 and byte == 35:
                return -1
        p += 1
    return -1


@unlocked
def _blank(data: NDArray[np.uint8], p: int) -> bool:
    """Whether white space beyond ASCII begins at p, as `str.strip` knows it."""
    first, second = data[p], data[p + 1]
    if first == 0xC2:
        return bool(second == 0x85 or second == 0xA0)
    third = data[p + 2]
    if first == 0xE1:
        return bool(second == 0x9A and third == 0x80)
    if first == 0xE2 and second == 0x80:
        return bool(third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF)
    wide = first == 0xE3 and second == 0x80 and third == 0x80
    return bool(wide or (first == 0xE2 and second == 0x81 and third == 0x9F))


@unlocked
def python_scan(data: NDArray[np.uint8], counts: NDArray[np.int64], docstrings: NDArray[np.int64]) -> bool:
    """Scan a file; False where a parser must decide.

    counts (3,): characters of all comments without `#`, and how many of them are white space at the beginning and at
    the end. docstrings (MOST_DOCSTRINGS + 1, 5): kind of what it belongs to, the name's first and last byte, and the
    literal's; the number of rows stands in docstrings[-1, 0].
    """
    size = len(data)
    found = 0
    characters, leading, trailing = 0, 0, 0
    columns, alternatives = np.zeros(_DEEPEST, dtype=np.int64), np.zeros(_DEEPEST, dtype=np.int64)
    bodies = np.full(_DEEPEST, _OTHER_BODY, dtype=np.int64)
    names = np.zeros((_DEEPEST, 2), dtype=np.int64)
    bodies[0] = _MODULE_BODY
    first_statement = True  # of the current block
    level = 0
    brackets = np.zeros(_DEEPEST, dtype=np.uint8)
    depth = 0
    last = _START
    operator = np.uint8(0)  # first character of the last operator
    word = np.uint64(0)  # of the last keyword
    first_word = np.uint64(0)  # of the statement
    constant = False  # whether the last operand is True, False or None, with nothing before it
    header = _OTHER_BODY  # what the block that a statement opens will be
    header_name, header_end = 0, 0
    in_header = False  # between def or class and its colon
    wants_indent = False
    line_start = True
    documented = -1  # the literal that is a docstring if nothing follows it
    documented_end = 0
    p = 0
    while True:
        if line_start:
            line_start = False
            column, alternative = 0, 0
            while p < size and data[p] in (32, 9, 12):
                if data[p] == 32:
                    column += 1
                    alternative += 1
                elif data[p] == 9:
                    column = (column // 8 + 1) * 8
                    alternative += 1
                else:
                    column, alternative = 0, 0
                p += 1
            if p >= size or data[p] in (10, 13, 35):
                pass  # an empty line, or a comment alone: no indentation
            elif data[p] == 92:
                return False
            else:
                if column > columns[level] and alternative > alternatives[level]:
                    if not wants_indent or level + 1 == _DEEPEST:
                        return False
                    level += 1
                    columns[level], alternatives[level] = column, alternative
                    bodies[level] = header
                    names[level, 0], names[level, 1] = header_name, header_end
                    first_statement = True
                elif wants_indent:
                    return False
                else:
                    while level > 0 and column < columns[level]:
                        level -= 1
                        first_statement = False
                    if column != columns[level] or alternative != alternatives[level]:
                        return False
                wants_indent = False
                header = _OTHER_BODY
        while p < size and data[p] in (32, 9, 12):
            p += 1
        at_end = p >= size
        byte = data[p] if not at_end else np.uint8(10)
        # ---- what ends a statement
        if byte == 10 or byte == 13:
            if byte == 13 and (p + 1 >= size or data[p + 1] != 10):
                return False
            p += 2 if byte == 13 else 1
            if depth > 0:
                if at_end:
                    return False
                continue
            if last != _START:
                if last == _OPERATOR and not (operator == 42 and word == _IMPORT):
                    return False
                if last == _DOT or in_header:
                    return False
                if documented >= 0:
                    if found == MOST_DOCSTRINGS:
                        return False
                    docstrings[found, 0] = bodies[level]
                    docstrings[found, 1], docstrings[found, 2] = names[level, 0], names[level, 1]
                    docstrings[found, 3], docstrings[found, 4] = documented, documented_end
                    found += 1
                    documented = -1
                first_statement = False
                if last == _COLON:
                    wants_indent = True
            last = _START
            word, first_word = np.uint64(0), np.uint64(0)
            line_start = True
            if at_end:
                break
            continue
        if byte == 35:
            while p < size and data[p] != 10 and data[p] != 13:
                c = data[p]
                if c != 35:
                    if c < 128:
                        blank = c in (9, 11, 12, 32) or 28 <= c <= 31
                        characters += 1
                        if blank:
                            leading += leading + 1 == characters
                            trailing += 1
                        else:
                            trailing = 0
                    else:
                        first = trailing > 0 or leading == characters
                        if c in (0xC2, 0xE1, 0xE2, 0xE3) and first and _blank(data, p):
                            return False
                        if (c & 0xC0) != 0x80:
                            characters += 1
                        trailing = 0
                p += 1
            continue
        if byte == 92:
            if p + 1 < size and data[p + 1] == 10:
                p += 2
            elif p + 2 < size and data[p + 1] == 13 and data[p + 2] == 10:
                p += 3
            else:
                return False
            if p >= size:
                return False
            continue
        if documented >= 0 and byte != 59:
            documented = -1
            if byte == 34 or byte == 39 or WORD[byte]:
                return False  # strings in a row are one docstring
        operand = last in (_OPERAND, _STRING)
        # ---- words and strings
        if byte >= 128:
            return False  # a name that Unicode's tables decide on
        if WORD[byte] or byte == 34 or byte == 39:
            q = p
            if not 48 <= byte <= 57:
                while q < size and WORD[data[q]]:
                    q += 1
            if q < size and data[q] >= 128:
                return False
            if byte == 34 or byte == 39 or (q < size and q - p <= 2 and q > p and (data[q] == 34 or data[q] == 39)):
                formatted, plain, raw = False, False, False
                for i in range(p, q):
                    c = data[i] | 32
                    if c == 102 and not formatted:
                        formatted = True
                    elif c == 98 and not plain:
                        plain = True
                    elif c == 114 and not raw:
                        raw = True
                    elif c != 117 or q != p + 1:
                        return False
                if formatted and plain:
                    return False
                if last in (_OPERAND, _DOT):
                    return False
                end = _string_end(data, q, formatted)
                if end < 0:
                    return False
                opens = first_statement and bodies[level] != _OTHER_BODY
                if last == _OPEN and opens and depth == 1 and first_word == 1:
                    return False  # a docstring in parentheses
                if last == _COLON and depth == 0 and header != _OTHER_BODY:
                    return False  # one behind the colon
                if last == _START:
                    first_word = np.uint64(2)
                    if opens and not formatted and not plain:
                        documented, documented_end = p, end
                last = _STRING
                constant = False
                p = end
                continue
            if 48 <= byte <= 57:
                if operand or last == _DOT:
                    return False
                p = _number_end(data, p)
                if p < 0:
                    return False
                if last == _START:
                    first_word = np.uint64(2)
                last = _OPERAND
                constant = False
                continue
            kind, packed = _keyword(data, p, q)
            if kind == _NAME:
                if operand:
                    return False
                if last == _KEYWORD and word in (_DEF, _CLASS):
                    header_name, header_end = p, q
                if last == _START:
                    first_word = np.uint64(2)
                last = _OPERAND
                constant = False
            elif kind == _CONSTANT:
                if operand or last == _DOT:
                    return False
                if last == _START:
                    first_word = np.uint64(2)
                constant = last in (_START, _OPEN, _COMMA)
                last = _OPERAND
            else:
                if last == _DOT and packed != _IMPORT:
                    return False
                if last == _OPERATOR and operator not in (43, 45, 126, 42) and kind == _INFIX and packed != _NOT:
                    return False
                if operand and kind != _INFIX:
                    return False
                after_async = last == _KEYWORD and word == _ASYNC
                if kind == _STATEMENT:
                    begins = last == _START or (last == _COLON and depth == 0)
                    if not begins and not after_async:
                        return False
                    if packed in (_DEF, _CLASS):
                        if last == _COLON:
                            return False
                        in_header = True
                        header = _CLASS_BODY if packed == _CLASS else _OTHER_BODY if after_async else _FUNCTION_BODY
                if last == _START:
                    first_word = packed
                last = _KEYWORD
                word = packed
            p = q
            continue
        # ---- punctuation
        if byte in (40, 91, 123):
            if depth + 1 == _DEEPEST or last == _DOT:
                return False
            if last == _START:
                first_word = np.uint64(1)
            brackets[depth] = byte
            depth += 1
            last = _OPEN
            p += 1
        elif byte in (41, 93, 125):
            if depth == 0 or brackets[depth - 1] != (40 if byte == 41 else byte - 2):
                return False
            if last == _DOT or (last == _OPERATOR and operator not in (42, 47)):
                return False
            depth -= 1
            last = _OPERAND
            constant = False
            p += 1
        elif byte == 44:
            if last in (_START, _OPEN, _COMMA, _DOT) or (last == _OPERATOR and operator not in (42, 47)):
                return False
            if depth == 0 and first_word in (_EXCEPT, _RAISE):
                return False
            last = _COMMA
            p += 1
        elif byte == 59:
            if depth > 0 or last in (_START, _OPERATOR, _DOT, _COLON):
                return False
            if documented >= 0:
                return False
            first_statement = False
            last = _START
            first_word = np.uint64(0)
            p += 1
        elif byte == 58:
            if p + 1 < size and data[p + 1] == 61:
                if not operand:
                    return False
                last, operator = _OPERATOR, np.uint8(58)
                p += 2
                continue
            if last in (_OPERATOR, _DOT, _START):
                return False
            if depth == 0:
                in_header = False
            last = _COLON
            p += 1
        elif byte == 46:
            if (
                p + 2 < size
                and data[p + 1] == 46
                and data[p + 2] == 46
                and last != _DOT
                and not (last == _KEYWORD and word == _FROM)
            ):
                if operand:
                    return False
                if last == _START:
                    first_word = np.uint64(2)
                last = _OPERAND
                constant = False
                p += 3
            elif p + 1 < size and 48 <= data[p + 1] <= 57 and not operand:
                p += 1
                while p < size and (48 <= data[p] <= 57 or data[p] == 95):
                    p += 1
                if p < size and (data[p] | 32) == 101:
                    return False
                if p < size and (data[p] | 32) == 106:
                    p += 1
                if p < size and WORD[data[p]]:
                    return False
                last = _OPERAND
                constant = False
            else:
                if not operand and not (last == _KEYWORD and word == _FROM) and last != _DOT:
                    return False
                last = _DOT
                p += 1
        elif byte in (33, 36, 63, 96):
            if byte != 33 or p + 1 >= size or data[p + 1] != 61 or not operand:
                return False
            last, operator = _OPERATOR, np.uint8(33)
            p += 2
        else:
            if byte not in (43, 45, 42, 47, 37, 64, 38, 124, 94, 126, 60, 62, 61):
                return False
            q = p + 1
            if byte in (42, 47, 60, 62) and q < size and data[q] == byte:
                q += 1
            arrow = byte == 45 and q < size and data[q] == 62
            if arrow or (q < size and data[q] == 61 and byte != 126):
                q += 1
            assigns = q == p + 1 and byte == 61
            compares = byte in (60, 62, 61) and q > p + 1
            if constant and last == _OPERAND and not compares and data[q - 1] == 61:
                return False
            if not operand:
                star = byte == 42 and last in (_START, _OPEN, _COMMA, _KEYWORD, _COLON, _OPERATOR)
                if last == _OPERATOR and byte == 42 and operator not in (61,):
                    return False
                slash = byte == 47 and last == _COMMA
                unpacks = assigns and last == _COMMA and depth == 0
                unary = byte in (43, 45, 126) and not arrow and q == p + 1
                decorator = byte == 64 and last == _START and q == p + 1
                if last == _DOT or not (star or slash or unary or decorator or unpacks):
                    return False
                if star and last == _COLON and depth == 0:
                    return False
            elif byte == 126:
                return False
            if last == _START:
                first_word = np.uint64(2)
            last, operator = _OPERATOR, byte
            p = q
    if depth > 0 or wants_indent:
        return False
    counts[0], counts[1], counts[2] = characters, leading, trailing
    docstrings[-1, 0] = found
    return True
