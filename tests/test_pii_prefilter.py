"""Both engines of the multi-pattern scan report the same events, and the findings do not depend on the engine."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.bench.pii_labels import load
from kringle.pii import prefilter, urls
from kringle.pii.corrected import default_prefilter, find
from kringle.pii.prefilter import Anchor, Prefilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "evidence"))
from pii_fuzz import FRAGMENTS, mutate

needs_hyperscan = pytest.mark.skipif(
    default_prefilter().engine != "hyperscan", reason="hyperscan has no wheel for this platform: nothing to compare"
)


def test_events_of_overlapping_matches() -> None:
    engine = Prefilter((Anchor(rb"a.a"), Anchor(rb"KEY", any_case=True)), ((0, 1),), "re")
    assert list(engine.events(b"abaca key")) == [(3, 0), (5, 0), (9, 1)]


@needs_hyperscan
@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=3)), max_size=60).map(b"".join))
def test_events_agree_on_fragments(data: bytes) -> None:
    assert list(default_prefilter().events(data)) == list(default_prefilter("re").events(data))


@needs_hyperscan
def test_events_agree_on_real_files() -> None:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[::4]
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert list(default_prefilter().events(data)) == list(default_prefilter("re").events(data)), path


@needs_hyperscan
def test_findings_agree_on_mutated_files() -> None:
    seeds = [file.content.encode() for file in load("open")[:40]]
    for number in range(60):
        data = mutate(seeds, number)
        assert find(data) == find(data, engine="re")


@pytest.mark.parametrize("window", [1, 7, 1000, 5000])
def test_pieces_find_what_the_whole_finds(window: int) -> None:
    anchors = (Anchor(rb"a[0-9]{3}b"), Anchor(urls.ANCHOR), Anchor(rb"x"))
    whole = Prefilter(anchors, ((0, 1, 2),))
    pieces = Prefilter(anchors, ((0, 1, 2),), window=window)
    data = b"a123b x xx ://" + b"u" * 100 + b":" + b"p" * 200 + b"@ a123b" * 40
    assert len(list(whole.events(data))) == 45
    assert list(pieces.events(data)) == list(whole.events(data))


def test_without_hyperscan_the_findings_are_the_same() -> None:
    files = [file.content for file in load("open")[:12]]
    program = (
        "import json, sys; sys.modules['hyperscan'] = None\n"
        "from kringle.pii.corrected import default_prefilter, find\n"
        "assert default_prefilter().engine == 're'\n"
        "print(json.dumps([find(text.encode()) for text in json.load(sys.stdin)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(files), capture_output=True, text=True, check=True
    )
    expected = [[list(finding) for finding in find(text.encode())] for text in files]
    assert json.loads(run.stdout) == expected
    assert sum(map(len, expected)) > 20


@needs_hyperscan
def test_automata_are_kept_and_made_again_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(prefilter, "__file__", str(tmp_path / "prefilter.py"))
    anchors = (Anchor(rb"a.a"), Anchor(rb"KEY", any_case=True))
    data = b"aba key a\na KEYa.a"

    def events() -> list[tuple[int, int]]:
        return list(Prefilter(anchors, ((0,), (1,)), "hyperscan", keep=True).events(data))

    expected = list(Prefilter(anchors, ((0,), (1,)), "re").events(data))
    assert events() == expected
    kept = {file: file.read_bytes() for file in (tmp_path / "__pycache__").iterdir()}
    assert len(kept) == 2
    assert events() == expected
    for file, content in kept.items():
        file.write_bytes(content[:-9])
    assert events() == expected
    assert {file: file.read_bytes() for file in kept} == kept
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for file in kept:
        file.unlink()
    assert events() == expected
    assert not list((tmp_path / "__pycache__").iterdir())
