"""Find and redact: one file's bytes, or whole trees.

Redacting is idempotent. A stand-in is known by its mark, so a second pass finds nothing; where a stand-in and its
neighbours would together look like something (which takes a coincidence), the stretch is widened and drawn again until
nothing is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from kringle.errors import UserError
from kringle.pii.candidates import Candidate, Finding, Group, whole
from kringle.pii.corrected import candidates, located
from kringle.pii.replace import replace, replacement

KEY_LIMIT = 64  # bytes, BLAKE2b's longest key
ROUNDS = 20
SKIPPED_FOLDERS = frozenset(
    (".git", ".hg", ".svn", ".tox", ".nox", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
)
PEEK = 8192  # bytes in which a zero byte makes a file binary, as git judges it
LONGEST_FILE = 1 << 30


def redact(data: bytes, key: bytes) -> tuple[bytes, list[Finding]]:
    """`data` with every finding replaced by its stand-in, and the findings, with offsets into the original.

    `key` is the corpus key, 1 to 64 bytes: the same value gets the same stand-in under the same key.
    """
    _check_key(key)
    found = _findings(data)
    for _ in range(ROUNDS):
        redacted = replace(data, found, key)
        left = _findings(redacted) if found else []
        if not left:
            break
        found = _widened(data, found, left, key)
    return redacted, located(data, found)


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= KEY_LIMIT:
        raise UserError(f"a corpus key has 1 to {KEY_LIMIT} bytes, this one {len(key)}")


def _findings(data: bytes) -> list[Candidate]:
    return [c for c in candidates(data) if c.confidence > 0]


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
        result = [c for c in result if c.end <= start or end <= c.start]
        shifted = new._replace(start=start, end=end, groups=_shifted(new.groups, start - new.start))
        result.append(
            new._replace(start=start, end=end, kind="key", format="secret", groups=whole(start, end), alphabet="")
            if touched
            else shifted
        )
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
