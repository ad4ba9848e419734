from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from data_support import folder_corpus, set_time, write_tree

from kringle.data.judged import Judged
from kringle.data.sources.candidates import Candidate
from kringle.data.survey import canonical, select, survey
from kringle.data.table import Decision
from kringle.errors import UserError
from kringle.settings import CorpusSettings, Source


def candidate(number: int, size: int = 100, **changes: Any) -> Candidate:
    return Candidate(
        "folder",
        f"repo{number % 7}",
        f"f{number}.py",
        "python",
        size,
        0,
        ("MIT",),
        "",
        None,
        "file",
        "",
        f"/x/{number}",
    )._replace(**changes)


def rows_of(judged: Iterable[Judged]) -> list[Decision]:
    """Decisions of all steps, row by row."""
    tables = [table for one in judged for table in one.tables()]
    return [Decision(**row) for table in tables for row in table.to_pylist()]


# -- the sample --------------------------------------------------------------------------------------------------------


def test_the_sample_fits_and_does_not_depend_on_order() -> None:
    candidates = canonical(candidate(i, 1 + i % 13) for i in range(500))
    corpus = folder_corpus(Path("/x"), max_bytes=1000)
    chosen, decisions, _, _ = select(candidates, corpus)
    total = sum(c.size for c in chosen)
    assert 980 < total <= 1000
    random.Random(1).shuffle(candidates)
    assert select(canonical(candidates), corpus)[0] == chosen
    sampled = {d.path: d for d in rows_of(decisions) if d.step == "sample"}
    assert len(sampled) == 500
    assert {c.path for c in chosen} == {path for path, d in sampled.items() if d.kept}
    last_in = max(d.value or 0 for d in sampled.values() if d.kept)
    first_out = min(d.value or 0 for d in sampled.values() if not d.kept)
    assert last_in < first_out


def test_a_larger_sample_holds_the_smaller_one_and_more_files_change_it_little() -> None:
    candidates = canonical(candidate(i) for i in range(500))
    small = set(select(candidates, folder_corpus(Path("/x"), max_bytes=5_000))[0])
    large = set(select(candidates, folder_corpus(Path("/x"), max_bytes=10_000))[0])
    assert len(small) == 50
    assert small < large
    more = canonical([*candidates, *(candidate(i) for i in range(500, 510))])
    assert len(small & set(select(more, folder_corpus(Path("/x"), max_bytes=5_000))[0])) >= 45


def test_without_a_limit_nothing_is_sampled() -> None:
    candidates = canonical(candidate(i) for i in range(20))
    chosen, decisions, funnel, _ = select(candidates, folder_corpus(Path("/x")))
    assert chosen == candidates
    assert not any(one.step == "sample" for one in decisions)
    assert [step["name"] for step in funnel] == ["found", "size", "licence"]


# -- sizes and licences ------------------------------------------------------------------------------------------------


def test_sizes_are_judged_inclusively() -> None:
    candidates = canonical(candidate(i, size) for i, size in enumerate((0, 1, 1000, 1001)))
    chosen, _, funnel, _ = select(candidates, folder_corpus(Path("/x"), max_file_bytes=1000))
    assert sorted(c.size for c in chosen) == [1, 1000]
    assert {d["reason"]: d["files"] for d in funnel[1]["dropped"]} == {"empty": 1, "too large": 1}


JDK = "GPL-2.0-only WITH Classpath-exception-2.0"
_LICENSED = (
    ("a", ("MIT",)),
    ("jdk", (JDK,)),
    ("jdk", (JDK,)),
    ("mine", ()),
    ("b", ("MIT", "MPL-2.0")),
    ("c", ("MIT OR GPL-3.0-only",)),
)
MIXED = canonical(candidate(i, repo=repo, licenses=licenses) for i, (repo, licenses) in enumerate(_LICENSED))


def test_permissive_leaves_out_the_rest_and_says_how_to_keep_it() -> None:
    chosen, decisions, funnel, notes = select(MIXED, folder_corpus(Path("/x"), licenses="permissive"))
    assert {c.repo for c in chosen} == {"a", "c"}
    assert {d["reason"]: d["files"] for d in funnel[2]["dropped"]} == {
        JDK: 2,
        "no licence found": 1,
        "MIT + MPL-2.0": 1,
    }
    text = "\n".join(notes)
    assert f'2 files (0.0 MB; jdk); --allow-license "{JDK}" includes them' in text
    assert "licenses: any in the recipe keeps them" in text
    witness = {d.path: (d.kept, d.witness) for d in rows_of(decisions) if d.step == "licence"}
    assert witness["f1.py"] == (False, JDK)
    assert witness["f3.py"] == (False, "no licence found")


def test_allowing_licences() -> None:
    corpus = folder_corpus(Path("/x"), licenses="permissive", allow_licenses=("gpl-2.0", "EPL-2.0"))
    chosen, decisions, _, notes = select(MIXED, corpus)
    assert {c.repo for c in chosen} == {"a", "c", "jdk"}
    assert any("EPL-2.0 matches no file" in note for note in notes)
    assert not any("GPL-2.0-only matches" in note for note in notes)
    assert {d.threshold for d in rows_of(decisions) if d.step == "licence"} == {"permissive or GPL-2.0-only or EPL-2.0"}
    everything, _, _, notes = select(MIXED, folder_corpus(Path("/x"), licenses="any", allow_licenses=("EPL-2.0",)))
    assert everything == MIXED
    assert any("changes nothing" in note for note in notes)


def test_languages_without_data_are_named() -> None:
    *_, notes = select([candidate(1), candidate(2, language="java", licenses=())], CorpusSettings(sources=()))
    assert "no Java: all 1 files were left out" in notes
    assert "no JavaScript: the sources hold no such file" in notes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"licenses": "permissive"}, "all 1 files are left out by licence: 1 under no licence found.*--allow-license"),
        ({"allow_licenses": ("GPL 2",)}, "not an SPDX licence expression.*write it as SPDX does"),
        ({"max_file_bytes": 2}, "none of 1 files has 1 to 2 bytes.*max_file_bytes"),
    ],
)
def test_selections_that_leave_nothing(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write_tree(tmp_path, {"r/a.py": "x = 1\n"})
    with pytest.raises(UserError, match=message):
        survey(folder_corpus(tmp_path, **settings))


# -- the survey as a whole ---------------------------------------------------------------------------------------------


def test_mistakes_in_the_sources(tmp_path: Path) -> None:
    (tmp_path / "empty/inner").mkdir(parents=True)
    write_tree(tmp_path, {"ruby/a.rb": "x", "ruby/b.rb": "x", "ruby/c.md": "x", "ruby/D.java": "x"})
    (tmp_path / "ruby/link.py").symlink_to("a.rb")
    with pytest.raises(UserError, match="empty: holds no files"):
        survey(folder_corpus(tmp_path / "empty"))
    with pytest.raises(UserError, match="ruby: holds no file in Python") as raised:
        survey(folder_corpus(tmp_path / "ruby", languages=("python",)))
    message = str(raised.value)
    assert "Python (.py .pyi .pyw)" in message
    assert "found instead: 1 Java, 2 .rb, 1 .md, 1 symbolic link" in message
    with pytest.raises(UserError, match="missing: no such folder"):
        survey(folder_corpus(tmp_path / "missing"))
    with pytest.raises(UserError, match="not a git repository"):
        survey(folder_corpus(tmp_path / "ruby", kind="git"))


def test_one_empty_source_among_others_is_a_mistake_too(tmp_path: Path) -> None:
    write_tree(tmp_path, {"good/a.py": "x"})
    (tmp_path / "typo").mkdir()
    with pytest.raises(UserError, match="typo"):
        survey(folder_corpus(tmp_path / "good", tmp_path / "typo"))


def test_overlapping_sources_count_a_file_once(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/b/c.py": "x", "a/d.py": "x"})
    (tmp_path / "alias").symlink_to(tmp_path / "a")
    found = survey(folder_corpus(tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a", tmp_path / "alias"))
    assert [c.member for c in found.candidates] == [str(tmp_path / "a/d.py"), str(tmp_path / "a/b/c.py")]
    swapped = survey(folder_corpus(tmp_path / "a" / "b", tmp_path / "alias"))
    assert swapped.fingerprint == found.fingerprint


def _grow(root: Path) -> None:
    (root / "r/a.py").write_text("longer than before\n")


def _touch(root: Path) -> None:
    set_time(root / "r/a.py", 5)


def _rename(root: Path) -> None:
    (root / "r/a.py").rename(root / "r/z.py")


def _license(root: Path) -> None:
    (root / "r/LICENSE").write_text("Licensed under the MIT license.")


def _add(root: Path) -> None:
    (root / "r/new.py").write_text("n\n")


def _link(root: Path) -> None:
    (root / "r/link.py").symlink_to("a.py")


@pytest.mark.parametrize("change", [_grow, _touch, _rename, _license, _add, _link])
def test_the_fingerprint_sees_every_change(tmp_path: Path, change: Callable[[Path], None]) -> None:
    write_tree(tmp_path, {"r/a.py": "x\n", "r/b.py": "y\n"})
    before = survey(folder_corpus(tmp_path)).fingerprint
    assert survey(folder_corpus(tmp_path)).fingerprint == before
    change(tmp_path)
    assert survey(folder_corpus(tmp_path)).fingerprint != before


def test_the_survey_opens_no_source_code(tmp_path: Path) -> None:
    write_tree(tmp_path, {"r/a.py": "x\n", "r/LICENSE": "Licensed under the MIT license."})
    os.utime(tmp_path / "r/a.py", ns=(1_000_000_000, 2_000_000_000))
    before = (tmp_path / "r/a.py").stat().st_atime_ns
    found = survey(folder_corpus(tmp_path))
    assert found.selected[0].licenses == ("MIT",)
    assert (tmp_path / "r/a.py").stat().st_atime_ns == before


def test_sources_that_need_a_path() -> None:
    with pytest.raises(UserError, match="needs a path"):
        survey(CorpusSettings(sources=(Source("folder"),)))
