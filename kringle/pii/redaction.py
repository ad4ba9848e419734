"""Redact one file's bytes: find, replace by stand-ins, and make sure that nothing is left to find.

Redacting is idempotent. A stand-in is known by its mark, so a second pass finds nothing; where stand-ins and their
neighbours together look like something (about 1 in 7,000 mutated files of the fuzz test, no file of real code so far),
that stretch is added to the findings and the file is redacted again, until nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kringle.errors import UserError
from kringle.pii.candidates import Candidate, Finding, Group, whole
from kringle.pii.corrected import candidates, located
from kringle.pii.replace import replace, replacement

KEY_LIMIT = 64  # bytes, BLAKE2b's longest key
ROUNDS = 100  # each widens a stretch by what it touches, or by a byte on either side; 22 are the most that were needed

Accepts = Callable[[str, bytes], bool]
"""Whether a finding of this kind with this value is accepted: not reported and not replaced."""


def nothing(_kind: str, _value: bytes) -> bool:
    """Accept no finding."""
    return False


def redact(data: bytes, key: bytes, accepts: Accepts = nothing) -> tuple[bytes, list[Finding]]:
    """`data` with every finding replaced by its stand-in, and the findings, with offsets into `data`.

    `data` is any bytes, usually a source file. `key` is the corpus key, 1 to 64 bytes: the same value gets the same
    stand-in under the same key. Raises UserError for a key of another length.
    """
    if not 1 <= len(key) <= KEY_LIMIT:
        raise UserError(f"a corpus key has 1 to {KEY_LIMIT} bytes, this one has {len(key)}")
    found = _found(data, accepts)
    for _ in range(ROUNDS):
        redacted = replace(data, found, key)
        left = _found(redacted, accepts) if found else []
        if not left:
            break
        found = _widened(data, found, left, key)
    return redacted, located(data, found)


def findings(data: bytes, accepts: Accepts = nothing) -> list[Finding]:
    """Emails, public IP addresses and keys in `data` that are not accepted, in order."""
    return located(data, _found(data, accepts))


def _found(data: bytes, accepts: Accepts) -> list[Candidate]:
    found = [c for c in candidates(data) if c.confidence > 0]
    return found if accepts is nothing else [c for c in found if not accepts(c.kind, data[c.start : c.end])]


def _widened(data: bytes, found: Sequence[Candidate], left: Sequence[Candidate], key: bytes) -> list[Candidate]:
    """`found`, with what was `left` after replacing: each as a stretch of the original, joined with what it touches."""
    marks: list[tuple[int, int, Candidate]] = []  # where each stand-in begins and ends in the redacted bytes
    shift = 0
    for c in found:
        size = len(replacement(data, c, key))
        marks.append((c.start + shift, c.start + shift + size, c))
        shift += size - (c.end - c.start)
    result = list(found)
    for new in left:
        touched = [c for start, end, c in marks if start < new.end and new.start < end]
        start = min([_original(new.start, marks), *(c.start for c in touched)])
        end = max([_original(new.end, marks), *(c.end for c in touched)])
        if any((c.start, c.end) == (start, end) for c in touched):  # alone it would be drawn alike: draw another one
            start, end = max(0, start - 1), min(len(data), end + 1)
        result = [c for c in result if c.end <= start or end <= c.start]
        if touched:
            wide = new._replace(kind="key", format="secret", groups=whole(start, end), alphabet="")
        else:
            wide = new._replace(groups=_shifted(new.groups, start - new.start))
        result.append(wide._replace(start=start, end=end))
    return sorted(result)


def _shifted(groups: Sequence[Group], by: int) -> tuple[Group, ...]:
    return tuple(tuple((start + by, end + by) for start, end in group) for group in groups)


def _original(offset: int, marks: Sequence[tuple[int, int, Candidate]]) -> int:
    """The place in the original of an offset into the redacted bytes; inside a stand-in, the end of what it stands
    for.
    """
    shift = 0
    for start, end, c in marks:
        if offset <= start:
            break
        if offset < end:
            return c.end
        shift = end - c.end
    return offset - shift
