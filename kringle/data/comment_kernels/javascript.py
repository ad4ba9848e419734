"""Comments of JavaScript as pygments' lexer sees them, in one pass over bytes.

A slash is a division, a regular expression or a comment, by what stands before it; that lexer looks at the last token
only, and so does this scanner. Braces inside `${...}` of a template end it at the first `}`, as there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kringle.compiled import unlocked
from kringle.data.comment_kernels.characters import SPACE, UNSURE, WORD, after_comment, characters, is_word


@unlocked
def _before_expression(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Words after which a slash begins a regular expression."""
    n = end - start
    if n == 2:
        return (
            is_word(data, start, end, b"in")
            or is_word(data, start, end, b"do")
            or is_word(data, start, end, b"if")
            or is_word(data, start, end, b"of")
        )
    if n == 3:
        return (
            is_word(data, start, end, b"var")
            or is_word(data, start, end, b"let")
            or is_word(data, start, end, b"for")
            or is_word(data, start, end, b"try")
            or is_word(data, start, end, b"new")
        )
    if n == 4:
        return (
            is_word(data, start, end, b"this")
            or is_word(data, start, end, b"else")
            or is_word(data, start, end, b"case")
            or is_word(data, start, end, b"void")
            or is_word(data, start, end, b"with")
        )
    if n == 5:
        return (
            is_word(data, start, end, b"const")
            or is_word(data, start, end, b"while")
            or is_word(data, start, end, b"break")
            or is_word(data, start, end, b"throw")
            or is_word(data, start, end, b"catch")
            or is_word(data, start, end, b"yield")
            or is_word(data, start, end, b"await")
            or is_word(data, start, end, b"async")
            or is_word(data, start, end, b"super")
            or is_word(data, start, end, b"class")
        )
    if n == 6:
        return (
            is_word(data, start, end, b"return")
            or is_word(data, start, end, b"typeof")
            or is_word(data, start, end, b"delete")
            or is_word(data, start, end, b"switch")
            or is_word(data, start, end, b"static")
            or is_word(data, start, end, b"export")
            or is_word(data, start, end, b"import")
        )
    if n == 7:
        return (
            is_word(data, start, end, b"default")
            or is_word(data, start, end, b"finally")
            or is_word(data, start, end, b"extends")
        )
    if n == 8:
        return (
            is_word(data, start, end, b"function")
            or is_word(data, start, end, b"continue")
            or is_word(data, start, end, b"debugger")
        )
    return is_word(data, start, end, b"instanceof")


@unlocked
def _regular_expression(data: NDArray[np.uint8], p: int) -> int:
    """Place after the regular expression that begins at p, -1 where the lexer finds none, -2 where only Unicode's
    tables know."""
    start = p
    p += 1
    size = len(data)
    while p < size:
        byte = data[p]
        if byte == 92:
            p += 2
        elif byte == 10:
            return -1
        elif byte == 91:
            p += 1
            while p < size and data[p] != 93:
                if data[p] == 10:
                    return -1
                p += 2 if data[p] == 92 else 1
            if p >= size:
                return -1
            p += 1
        elif byte == 47:
            if p == start + 1:
                return -1
            p += 1
            while p < size and (WORD[data[p]] or data[p] >= 128):
                if data[p] >= 128:
                    return -2
                if data[p] not in (103, 105, 109, 117, 121, 115, 100):
                    return -1
                p += 1
            return p
        else:
            p += 1
    return -1


@unlocked
def _operator_end(data: NDArray[np.uint8], p: int) -> int:
    """Place after the operator or mark at p. What matters is which `=` belongs to it: that of `==>` is no arrow's."""
    byte, size = data[p], len(data)
    q = p + 1
    if byte in (60, 62, 61, 33, 42, 124, 38):  # < > = ! * | &
        twin = 61 if byte == 33 else byte
        if q < size and data[q] == twin:
            q += 1
            if byte == 62 and q < size and data[q] == 62:
                q += 1
    elif byte == 63:  # ?, and ?? with its =
        if q >= size or data[q] != 63:
            return q
        q += 1
    elif byte not in (45, 43, 37, 94):  # - + % ^
        return q
    elif byte in (45, 43) and q < size and data[q] == byte:
        return q + 1
    if q < size and data[q] == 61:
        q += 1
    return q


@unlocked
def _string_end(data: NDArray[np.uint8], p: int) -> int:
    """Place after the string that begins at p; -1 where it never ends."""
    quote = data[p]
    p += 1
    while p < len(data):
        if data[p] == 92:
            p += 2
        elif data[p] == quote:
            return p + 1
        else:
            p += 1
    return -1


@unlocked
def javascript_comments(data: NDArray[np.uint8]) -> int:
    """Characters in comments of a text that ends with a line break; UNSURE where the lexer's ways cannot be told."""
    total, p, size = 0, 0, len(data)
    depth = 0  # of `${`, each inside a template
    in_template = False
    expression = False  # whether a slash here begins a regular expression
    if size > 2 and data[0] == 35 and data[1] == 33:
        q = 3 if data[2] == 32 else 2
        if data[q] == 47:
            while data[p] != 10:
                p += 1
    while p < size:
        byte = data[p]
        if in_template:
            if byte == 96:
                in_template = False
                expression = False
                p += 1
            elif byte == 92:
                p += 2
            elif byte == 36 and p + 1 < size and data[p + 1] == 123:
                depth += 1
                in_template = False
                expression = False
                p += 2
            else:
                p += 1
            continue
        if byte >= 128:
            return UNSURE
        opens = byte == 60 and p + 3 < size and data[p + 1] == 33 and data[p + 2] == 45 and data[p + 3] == 45  # <!--
        # A token that begins a line; white space in front of others is one too
        if (p == 0 or data[p - 1] == 10) and (SPACE[byte] or byte == 47 or opens):
            expression = True
        if SPACE[byte]:
            while p < size and SPACE[data[p]]:
                p += 1
            continue
        if byte == 47:
            following = data[p + 1] if p + 1 < size else np.uint8(0)
            if following == 47:
                q = p
                while data[q] != 10:
                    q += 1
                total += characters(data, p, q)
                p = q
                continue
            if following == 42:
                q = after_comment(data, p)
                if q > 0:
                    total += characters(data, p, q)
                    p = q
                    continue
            if expression:
                q = _regular_expression(data, p)
                if q == -2:
                    return UNSURE
                expression = False
                if q > 0:
                    p = q
                else:  # everything up to the end of the line is an error
                    while p < size and data[p] != 10:
                        p += 1
                    p += 1
                continue
            p += 2 if following == 61 else 1
            expression = True
            continue
        if opens:
            p += 4
            continue
        if byte == 34 or byte == 39:
            q = _string_end(data, p)
            p = q if 0 < q <= size else p + 1
            expression = False
        elif byte == 96:
            in_template = True
            p += 1
        elif byte == 125 and depth > 0:
            depth -= 1
            in_template = True
            p += 1
        elif WORD[byte] or byte == 36:
            q = p
            if 48 <= byte <= 57:
                if byte == 48 and p + 1 < size and data[p + 1] in (120, 88, 98, 66, 111, 79):
                    q = p + 2
                    while q < size and WORD[data[q]]:
                        digit = 48 <= data[q] <= 57 or 97 <= data[q] <= 102 or 65 <= data[q] <= 70 or data[q] == 110
                        if not digit:
                            return UNSURE  # a word right behind the number
                        q += 1
                else:
                    while q < size and 48 <= data[q] <= 57:
                        q += 1
                    if q < size and data[q] == 46:
                        q += 1
                        while q < size and 48 <= data[q] <= 57:
                            q += 1
                    if q < size and data[q] in (101, 69):
                        r = q + 1
                        if r < size and data[r] in (43, 45):
                            r += 1
                        if r < size and 48 <= data[r] <= 57:
                            q = r
                            while q < size and 48 <= data[q] <= 57:
                                q += 1
                expression = False
                p = q
                continue
            while q < size and WORD[data[q]]:
                q += 1
            if q > p and _before_expression(data, p, q):
                expression = True
                p = q
                continue
            while q < size and (WORD[data[q]] or data[q] == 36):
                q += 1
            if q < size and (data[q] >= 128 or data[q] == 92):
                return UNSURE
            expression = False
            p = q
        elif byte == 61 and p + 1 < size and data[p + 1] == 62:  # =>
            expression = False
            p += 2
        elif byte in (125, 41, 93, 46):  # } ) ] .
            expression = False
            p += 1
        elif byte == 92:
            if p + 1 < size and data[p + 1] == 10:
                expression = True
            elif p + 1 < size and data[p + 1] == 117:
                return UNSURE
            else:
                expression = False
            p += 1
        elif byte == 35 or byte == 64 or byte < 32 or byte == 127:
            expression = False
            p += 1
        else:  # an operator, or one of { ( [ ; ,
            expression = True
            p = _operator_end(data, p)
    return total
