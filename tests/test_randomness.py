"""Draws beside the hash that defines them, fed part by part."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from kringle.randomness import uniform

PARTS = st.text() | st.integers() | st.binary()


@given(seed=st.integers(), purpose=st.text(), key=st.lists(PARTS, max_size=4))
def test_a_draw_is_the_hash_of_its_parts_and_their_lengths(
    seed: int, purpose: str, key: list[str | int | bytes]
) -> None:
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, purpose, *key):
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        digest.update({bytes: b"b", int: b"i", str: b"s"}[type(part)])
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    assert uniform(seed, purpose, *key) == int.from_bytes(digest.digest(), "little") / 2**64
