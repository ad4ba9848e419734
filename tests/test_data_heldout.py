from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from data_support import (
    QUIET,
    InProcess,
    decisions,
    documents,
    folder_corpus,
    run_collect,
    snapshot,
    write_tree,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kringle.data import collect as collect_module
from kringle.data import comparison
from kringle.data.clean import clean
from kringle.data.comparison import FEWEST_GRAMS, First, Further, Known, Place, compare, sampled
from kringle.data.containment import SKETCH_BITS, SKETCH_PARTS, Grams, Matcher, gram_hashes, may_hold, sketch, sketched
from kringle.data.division import FILE, Division, divide
from kringle.data.heldout import split
from kringle.data.table import read_table, row_group_starts, write_documents
from kringle.engine import Engine
from kringle.errors import UserError
from kringle.settings import CleanSettings
from kringle.workspace import ShardStore


class File(NamedTuple):
    repo: str
    path: str
    language: str
    size: int


def file(repo: str, path: str, size: int = 100, language: str = "python") -> File:
    return File(repo, path, language, size)


def tables(files: Sequence[File], rows: int = 7) -> list[pa.Table]:
    """The files in tables of a few rows."""
    cut = [files[first : first + rows] for first in range(0, len(files), rows)]
    return [pa.table([list(column) for column in zip(*part, strict=True)], schema=FILE) for part in cut]


def divided(files: Sequence[File], share: float, seed: int = 0) -> Division:
    return divide(lambda: tables(files), share, seed)


def held_bytes(files: Sequence[File], share: float, seed: int = 0) -> dict[str, int]:
    division = divided(files, share, seed)
    sizes: dict[str, int] = {}
    for table in tables(files):
        told = [division.holds_out(*row) for row in zip(*(table[n].to_pylist() for n in FILE.names[:3]), strict=True)]
        assert division.held(table).tolist() == told
    for f in files:
        if division.holds_out(f.repo, f.path, f.language):
            sizes[f.language] = sizes.get(f.language, 0) + f.size
    return sizes


# -- the division ------------------------------------------------------------------------------------------------------


def corpus_of(repos: int, seed: int = 0) -> list[File]:
    draw = random.Random(seed)
    files = []
    for repo in range(repos):
        for number in range(draw.randrange(1, 30)):
            language = draw.choice(["python", "python", "javascript"])
            files.append(file(f"r{repo}", f"d{number % 3}/f{number}", draw.randrange(10, 1000), language))
    return files


def test_whole_repositories_near_the_wanted_share_whatever_the_order() -> None:
    files = corpus_of(200)
    total = {x: sum(f.size for f in files if f.language == x) for x in ("python", "javascript")}
    for share in (0.02, 0.05, 0.2):
        division = divided(files, share, 0)
        assert division.repos
        assert not any(division.places.values())
        assert not division.notes
        held = held_bytes(files, share)
        for language, size in total.items():
            assert share <= held[language] / size <= 2 * share
        shuffled = files[:]
        random.Random(1).shuffle(shuffled)
        assert divided(shuffled, share, 0).repos == division.repos
    assert divided(files, 0.05, 1).repos != divided(files, 0.05, 0).repos


def test_a_repository_is_held_out_in_all_its_languages() -> None:
    files = corpus_of(100)
    division = divided(files, 0.05, 0)
    for f in files:
        assert division.holds_out(f.repo, f.path, f.language) == (f.repo in division.repos)


def test_a_repository_that_would_overshoot_is_passed_over() -> None:
    files = [file("giant", f"f{i}", 1000) for i in range(900)] + [file(f"small{i}", "f", 1000) for i in range(100)]
    for seed in range(10):
        division = divided(files, 0.05, seed)
        assert "giant" not in division.repos
        assert len(division.repos) == 50


def test_what_is_held_out_is_many_hands_work_where_it_can_be() -> None:
    large = [file(f"large{i}", f"f{j}", 1000) for i in range(20) for j in range(50)]
    files = large + [file(f"small{i}", f"f{j}", 1000) for i in range(100) for j in range(5)]
    for seed in range(10):
        division = divided(files, 0.05, seed)
        assert not any(repo.startswith("large") for repo in division.repos)
        assert len(division.repos) == 15
        assert divided(large, 0.05, seed).repos  # where all are large, large ones are taken


def test_adding_a_repository_changes_little() -> None:
    files = corpus_of(200)
    before = divided(files, 0.05, 0).repos
    after = divided([*files, *(file("new", f"f{i}", 500) for i in range(5))], 0.05, 0).repos
    assert len(before ^ after) <= 3


def test_one_huge_repository_is_split_by_directory_and_the_notes_say_so() -> None:
    files = [file("jdk", f"java.base/java/p{i % 40}/F{i}.java", 100, "java") for i in range(800)]
    files += [file(f"r{i}", "a.py") for i in range(100)]
    division = divided(files, 0.05, 0)
    assert "jdk" not in division.repos
    assert 0.05 <= held_bytes(files, 0.05)["java"] / 80_000 <= 0.1
    directories = {prefix for _, prefix in division.places["java"]}
    assert all(re.fullmatch(r"java\.base/java/p\d+", prefix) for prefix in directories)
    for f in files:  # a directory is on one side as a whole
        if f.language == "java":
            assert division.holds_out(*f[:3]) == (f.path.rpartition("/")[0] in directories)
    assert any(note.startswith("Java is in too few repositories (1 to choose from)") for note in division.notes)
    assert not any("Python" in note for note in division.notes)


def test_a_flat_folder_is_split_by_file_and_a_tiny_one_keeps_something_back() -> None:
    flat = [file("one", f"f{i}.py", 100 + i) for i in range(100)]
    total = sum(f.size for f in flat)
    assert 0.025 <= held_bytes(flat, 0.05)["python"] / total <= 0.1
    tiny = [file("one", f"f{i}.py", 100 + i) for i in range(3)]
    assert held_bytes(tiny, 0.05) == {"python": 100}
    single = [file("one", "f.py")]
    assert held_bytes(single, 0.05) == {}
    assert divided(single, 0.05, 0).notes == ["no Python is held out: there is one file of it"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 100)), max_size=40),
    st.sampled_from([0.05, 0.3, 0.9]),
)
def test_something_is_always_left_to_train_on(shape: list[tuple[int, int, int]], share: float) -> None:
    files = [file(f"r{repo}", f"d{directory}/f{i}", size) for i, (repo, directory, size) in enumerate(shape)]
    held = held_bytes(files, share).get("python", 0)
    if files:
        assert held < sum(f.size for f in files)
    if len(files) > 1:
        assert held > 0


# -- containment -------------------------------------------------------------------------------------------------------


def grams(text: str) -> set[tuple[str, ...]]:
    tokens = re.findall(r"[A-Za-z0-9_]+", text)
    if len(tokens) < 5:
        return {("short", *tokens)}
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a b c d e", "a.b(c)[d];e", True),
        ("a b c d e", "a b c d  é e", True),
        ("a b c d e", "a b c d E", False),
        ("a_b c d e f", "a b c d e f", False),
        ("a b c", "a, b, c!", True),
        ("a b c", "a b c d", False),
        ("ab c", "a bc", False),
        ("", "!?", True),
        ("a b c d e a b c d e", "a b c d e a b c d e a b c d e", True),
    ],
)
def test_what_counts_as_the_same_grams(one: str, other: str, same: bool) -> None:
    assert np.array_equal(gram_hashes(one), gram_hashes(other)) is same
    assert (grams(one) == grams(other)) is same


def test_grams_are_counted_as_a_set() -> None:
    text = "x y z\n" * 100 + "long identifier_1 here ü \U0001d11e and 42 more\n"
    assert len(gram_hashes(text)) == len(grams(text))
    hashes = gram_hashes(text)
    assert (np.diff(hashes.astype(object)) > 0).all()


def best_by_definition(texts: list[str], probes: list[str]) -> list[tuple[int, int]]:
    result = []
    for text in texts:
        own = grams(text)
        counts = [len(own & grams(probe)) for probe in probes]
        enough = [(-count, number) for number, count in enumerate(counts) if 2 * count >= len(own)]
        result.append((-min(enough)[0], min(enough)[1]) if enough else (0, -1))
    return result


def grams_of(texts: Sequence[str]) -> Grams:
    """As a shard's texts are hashed: repeated grams and all."""
    data = [text.encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in data])]).astype(np.int64)
    return Grams.of(np.frombuffer(b"".join(data), dtype=np.uint8), offsets, np.arange(len(texts)))


_documents = st.lists(st.text(alphabet="ab c", max_size=40), min_size=1, max_size=6)


@settings(deadline=None)
@given(_documents, _documents, st.integers(0, 6))
def test_the_index_finds_what_the_definition_says(texts: list[str], probes: list[str], cut: int) -> None:
    matcher = Matcher(grams_of(texts).distinct())
    matcher.add(grams_of(probes[:cut]), 0)
    matcher.add(grams_of(probes[cut:]), len(probes[:cut]))
    assert list(zip(matcher.found.tolist(), matcher.probe.tolist(), strict=True)) == best_by_definition(texts, probes)


def test_exactly_half_counts_and_boilerplate_does_not() -> None:
    header = " ".join(f"licence{i}" for i in range(60))
    texts = [" ".join(f"t{n}_{i}" for i in range(10)) for n in range(20)]  # 6 grams each
    probes = [
        " ".join(f"t0_{i}" for i in range(7)),  # 3 of 6
        " ".join(f"t1_{i}" for i in range(6)),  # 2 of 6
        header,
    ]
    long = header + " " + texts[0] * 20
    matcher = Matcher(grams_of([*texts, *(header + " " + t * 20 for t in texts)]).distinct())
    matcher.add(grams_of(probes), 0)
    assert matcher.found[0] == 3
    assert matcher.probe[0] == 0
    assert matcher.found[1] == 0
    assert not matcher.found[20:].any() or matcher.found[20] >= (len(grams(long)) + 1) // 2


@settings(deadline=None)
@given(_documents, st.lists(st.text(alphabet="ab c", max_size=40), min_size=1, max_size=20))
def test_a_sketch_misses_no_text_of_which_half_is_in_another(texts: list[str], probes: list[str]) -> None:
    may = may_hold(grams_of(texts).distinct(), sketch(grams_of(probes)))
    cuts = sketched(grams_of(probes))
    for i, (found, probe) in enumerate(best_by_definition(texts, probes)):
        if found:
            (part,) = np.flatnonzero((cuts[:-1] <= probe) & (probe < cuts[1:]))
            assert may[i] >> part & 1


def test_a_sketch_passes_few_texts_that_are_not_there() -> None:
    draws = np.random.default_rng(0)
    size = 400_000
    words = sketch(Grams(draws.integers(0, 1 << 64, size, dtype=np.uint64), np.arange(0, size + 1, 500)))
    assert 64 * words.size < 1.02 * SKETCH_BITS * size
    others = draws.integers(0, 1 << 64, size, dtype=np.uint64)
    # A word has a Poisson number of grams; each of 4 bits is set unless 4 draws a gram have missed it.
    share = 64 / SKETCH_BITS
    chances = [math.exp(-share) * share**n / math.factorial(n) for n in range(60)]
    expected = sum(chance * (1 - (63 / 64) ** (4 * n)) ** 4 for n, chance in enumerate(chances))
    passed = (may_hold(Grams(others, np.arange(size + 1)), words) > 0).mean()
    assert passed == pytest.approx(1 - (1 - expected) ** SKETCH_PARTS, rel=0.1)
    assert not may_hold(Grams(others, np.arange(0, size + 1, 40)), words).any()


def test_what_is_spread_over_many_texts_is_in_none() -> None:
    probes = [" ".join(f"t{n}_{i}" for i in range(40)) for n in range(160)]
    spread = " ".join(probes[n] for n in range(0, 160, 10))
    together = grams(" ".join(probes))
    assert len(grams(spread) & together) > 0.5 * len(grams(spread))
    assert may_hold(grams_of([spread, probes[7]]).distinct(), sketch(grams_of(probes))).astype(bool).tolist() == [
        False,
        True,
    ]


def test_a_known_sketch_finds_what_reading_everything_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of documents in every part of two row groups, and texts so short that half of them is in many."""
    places = {
        "source": "folder",
        "revision": "",
        "licenses": ["MIT"],
        "stars": None,
        "copies": [],
        "language": "python",
    }
    contents = [module(n, 5 + n % 20) for n in range(90)]
    rows = [
        {"id": f"{n:040d}", "content": text, "size": len(text), "repo": f"r{n}", "path": f"{n}.py", **places}
        for n, text in enumerate(contents)
    ]
    part = tmp_path / "part-000000.parquet"
    monkeypatch.setattr("kringle.data.table.ROW_GROUP_BYTES", sum(map(len, contents)) // 2)
    write_documents(part, rows)
    assert len(row_group_starts(part)) > 2
    place = Place(part, np.flatnonzero(np.arange(90) % 7 != 3))

    def texts(name: str, chosen: list[str]) -> Path:
        own, folder = grams_of(chosen).distinct(), tmp_path / name
        folder.mkdir()
        np.save(folder / "ids.npy", np.array([f"{n:040d}" for n in range(len(chosen))], dtype="S40"))
        np.save(folder / "grams.npy", own.grams)
        np.save(folder / "starts.npy", own.starts)
        return folder

    def compared(name: str, base: Path | None, wanted: Path) -> list[Any]:
        (tmp_path / name).mkdir()
        if base is None:
            found = compare(First(place, "mark", wanted), tmp_path / name)
        else:
            found = compare(Further([Known(place, "mark", base)], wanted), tmp_path / name)
        copies: list[Any] = found["near_copies"]["mark"]
        return copies

    compared("first", None, texts("some", [module(1000)]))
    short = [f"value_{n}_0 = call_{n}(0, name_{n}_0) value_{n}_1" for n in (8, 82)]
    wanted = texts("others", [f"{text}more = 1\n" for text in contents] + short)
    whole = compared("whole", None, wanted)
    assert len(whole) == len(place.rows) + 2
    assert compared("again", tmp_path / "first", wanted) == whole


# -- the stage ---------------------------------------------------------------------------------------------------------


def module(seed: int, lines: int = 40) -> str:
    """A little program of its own: no 5 tokens in a row are shared with another seed's."""
    return "".join(f"value_{seed}_{i} = call_{seed}({i}, name_{seed}_{i})\n" for i in range(lines))


def build(tmp_path: Path, files: dict[str, str], share: float = 0.1, engine: Engine | None = None) -> dict[str, Any]:
    root = write_tree(tmp_path / "in", files)
    run_collect(folder_corpus(root), tmp_path)
    for name in ("clean", "split"):
        (tmp_path / name).mkdir(exist_ok=True)
    shards = ShardStore(tmp_path / "more-shards", "test")
    engine = engine or InProcess()
    clean(CleanSettings(decontaminate=()), tmp_path / "out/documents", tmp_path / "clean", shards, engine, QUIET, {})
    folder, survivors = tmp_path / "out/documents", tmp_path / "clean/survivors.parquet"
    return split(share, 0, folder, survivors, tmp_path / "split", shards, engine, QUIET)


def sides(tmp_path: Path) -> dict[str, str]:
    by_id = {d["id"]: f"{d['repo']}/{d['path']}" for d in documents(tmp_path)}
    rows = read_table(tmp_path / "split/split.parquet").to_pylist()
    return {by_id[row["id"]]: row["split"] for row in rows}


def first_sides(tmp_path: Path, files: dict[str, str]) -> dict[str, str]:
    build(tmp_path, files)
    return sides(tmp_path)


BASE = {f"r{i:02d}/m{j}.py": module(100 * i + j) for i in range(30) for j in range(4)}


def test_planted_copies_of_held_out_files_are_found_and_dropped(tmp_path: Path) -> None:
    build(tmp_path / "plain", BASE)
    plain = sides(tmp_path / "plain")
    held = sorted(name for name, side in plain.items() if side == "held-out")
    assert 10 <= len(held) <= 24
    training = sorted({name.partition("/")[0] for name, side in plain.items() if side == "train"})
    late = training[-1]
    exact, near, half, less = held[:4]

    def lines(name: str, count: int) -> str:
        return "".join(BASE[name].splitlines(keepends=True)[:count])

    planted = {
        f"{late}/vendored/exact.py": BASE[exact],
        f"{late}/vendored/near.py": "# a header of its own, as vendoring adds\n"
        + BASE[near].replace("    ", "\t")
        + "end = 1\n",
        f"{late}/vendored/half.py": lines(half, 21),
        f"{late}/vendored/less.py": lines(less, 18),
    }
    summary = build(tmp_path / "planted", BASE | planted)
    after = sides(tmp_path / "planted")
    for name in (near, half):
        assert name not in after
    assert after[less] == "held-out"
    for name in (f"{late}/vendored/near.py", f"{late}/vendored/half.py", f"{late}/vendored/less.py"):
        assert after[name] == "train"
    assert exact not in after
    told = {f"{d.repo}/{d.path}": (d.value, d.witness) for d in decisions(tmp_path / "planted/split") if not d.kept}
    assert told[exact] == (1.0, f"the same as {late}/vendored/exact.py")
    assert told[near][0] == 1.0
    assert told[near][1] == f"100% of its 5-grams are in {late}/vendored/near.py"
    assert told[half][0] is not None
    assert 0.5 <= told[half][0] < 0.55
    assert len(told) == 3
    assert summary["exact_copies_dropped"] == 1
    assert summary["near_copies_dropped"] == 2
    assert summary["held_out"]["files"] == len(held) - 3
    assert summary["funnel"][0]["files"] == len(after)
    assert {path.name for path in (tmp_path / "planted/split").iterdir()} == {"split.parquet", "decisions"}


def test_a_held_out_file_that_is_too_short_to_tell_is_dropped_and_says_so(tmp_path: Path) -> None:
    held = sorted(name for name, side in first_sides(tmp_path / "plain", BASE).items() if side == "held-out")
    repo = held[0].partition("/")[0]
    words = [f"word_{n}" for n in range(FEWEST_GRAMS + 4)]
    files = BASE | {
        f"{repo}/short.py": "import " + ", \\\n".join(words[:-2]) + "\n",
        f"{repo}/enough.py": "import " + ", \\\n".join(words[::-1][:-1]) + "\n",
    }
    summary = build(tmp_path / "with", files)
    after = sides(tmp_path / "with")
    assert f"{repo}/short.py" not in after
    assert after[f"{repo}/enough.py"] == "held-out"
    assert (summary["too_short_dropped"], summary["near_copies_dropped"]) == (1, 0)
    assert [d["reason"] for d in summary["funnel"][0]["dropped"]] == ["held-out file too short to tell from a copy"]
    (told,) = [d for d in decisions(tmp_path / "with/split") if not d.kept]
    assert (told.path, told.step, told.value) == ("short.py", "held-out-length", FEWEST_GRAMS - 1)
    assert told.threshold == f">= {FEWEST_GRAMS} different 5-grams"
    assert build(tmp_path / "with", files) == summary


def test_a_corpus_of_short_files_is_compared_as_any_other(tmp_path: Path) -> None:
    files = {f"r{n}/m.py": f"name_{n} = {n}\n" for n in range(40)}
    held = sorted(name for name, side in first_sides(tmp_path / "plain", files).items() if side == "held-out")
    assert len(held) >= 3
    training = next(name for name in files if name not in held).partition("/")[0]
    planted = {f"{training}/copy.py": files[held[0]].replace("=", "=="), f"{training}/more.py": files[held[1]] * 2}
    summary = build(tmp_path / "planted", files | planted)
    after = sides(tmp_path / "planted")
    assert held[0] not in after
    assert {after[name] for name in held[1:]} == {"held-out"}
    assert (summary["too_short_dropped"], summary["near_copies_dropped"]) == (0, 1)


def test_a_copy_whose_first_place_is_in_training_stays_in_training(tmp_path: Path) -> None:
    build(tmp_path / "plain", BASE)
    held = sorted(name for name, side in sides(tmp_path / "plain").items() if side == "held-out")
    # r00 sorts before every held-out repository, so the training place is the document.
    assert sides(tmp_path / "plain")["r00/m0.py"] == "train"
    summary = build(tmp_path / "planted", BASE | {"r00/copy.py": BASE[held[0]]})
    after = sides(tmp_path / "planted")
    assert after["r00/copy.py"] == "train"
    assert held[0] not in after
    assert summary["exact_copies_dropped"] == 0
    assert summary["exact_copies_folded"] == 1


@pytest.mark.parametrize("one_in", [1, comparison.SAMPLE])
def test_the_share_of_grams_seen_in_training_is_that_of_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_in: int
) -> None:
    monkeypatch.setattr(comparison, "SAMPLE", one_in)
    everywhere = "if __name__ == '__main__':\n    import sys\n    sys.exit(main(sys.argv[1:]))\n"
    files = {name: text + everywhere for name, text in BASE.items()}
    held = sorted(name for name, side in first_sides(tmp_path / "plain", files).items() if side == "held-out")
    files["r00/copy.py"] = files[held[0]] + "more = 1\n"  # what goes as a near-copy does not count
    summary = build(tmp_path / "planted", files)
    after = sides(tmp_path / "planted")
    assert held[0] not in after
    texts = {f"{d['repo']}/{d['path']}": d["content"] for d in documents(tmp_path / "planted")}
    trained = set().union(*(grams(texts[name]) for name, side in after.items() if side == "train"))
    seen = total = 0
    for name in (name for name, side in after.items() if side == "held-out"):
        tokens = re.findall(r"[A-Za-z0-9_]+", texts[name])
        for gram in grams(texts[name]) if len(tokens) >= 5 else ():
            if sampled(gram_hashes(" ".join(gram)))[0]:
                seen += gram in trained
                total += 1
    assert total > 50
    assert summary["grams_seen_in_training"] == pytest.approx(seen / total)
    if one_in == 1:
        assert 0 < seen / total < 0.5


def test_the_split_does_not_depend_on_partition_or_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BASE | {f"r29/v/{i}.py": BASE[f"r{i:02d}/m1.py"] + "extra = 1\n" for i in range(25)}
    files |= {f"r28/v/{i}.py": BASE[f"r{i:02d}/m1.py"] + "other = 2\n" for i in range(25)}
    summary = build(tmp_path / "one", files, engine=Engine(2))
    monkeypatch.setattr(collect_module, "TASK_BYTES", 20_000)
    other = build(tmp_path / "two", files)
    assert summary["near_copies_dropped"] > 0
    assert len(list((tmp_path / "two/out/documents").iterdir())) > 10
    assert summary == other
    assert sides(tmp_path / "one") == sides(tmp_path / "two")
    assert decisions(tmp_path / "one/split") == decisions(tmp_path / "two/split")
    before = snapshot(tmp_path / "two/split")
    again = InProcess()
    assert build(tmp_path / "two", files, engine=again) == other
    assert again.ran == []
    assert snapshot(tmp_path / "two/split") == before


def test_every_survivor_has_its_side_in_the_decisions(tmp_path: Path) -> None:
    summary = build(tmp_path, BASE)
    rows = decisions(tmp_path / "split")
    assert sum(d.step == "split" for d in rows) == len(BASE)
    assert sum(d.witness == "held-out" for d in rows) == sum(d.step == "held-out-copy" for d in rows)
    by_language = {x["name"]: x for x in summary["languages"]}
    assert by_language["python"]["train"]["files"] + by_language["python"]["held-out"]["files"] == len(BASE)
    assert summary["split_by"] == "repository"


def test_corpora_too_small_to_hold_anything_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing can be held out: there is too little; add sources"):
        build(tmp_path / "single", {"r/a.py": module(1)})
    copies = {"r/a.py": module(1, 30), "s/b.py": module(1, 31)}
    with pytest.raises(UserError, match="every one of 1 held-out files has a copy"):
        build(tmp_path / "copies", copies)


# -- what is kept from run to run --------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts of a shard are read to be compared, as it happens."""
    read: list[int] = []
    hashed = comparison._hashed

    def counted(part: Path, group: int, rows: Any) -> Grams:
        read.append(len(rows))
        return hashed(part, group, rows)

    monkeypatch.setattr(comparison, "_hashed", counted)
    return read


def test_only_what_is_new_is_compared_and_nothing_else_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int]
) -> None:
    """Files come and go, and every time the outcome is that of a split that knows of nothing before."""
    monkeypatch.setattr(collect_module, "TASK_BYTES", 20_000)
    draw = random.Random(1)
    files = dict(BASE)
    work = tmp_path / "work"
    dropped = 0
    counts = []
    for step in range(6):
        root = work / "in"
        if root.exists():
            shutil.rmtree(root)
        summary = build(work, files)
        counts.append(sum(reads))
        reads.clear()
        fresh = build(tmp_path / f"fresh{step}", files)
        reads.clear()
        assert summary == fresh
        assert snapshot(work / "split") == snapshot(tmp_path / f"fresh{step}/split")
        dropped += summary["near_copies_dropped"]
        held = sorted(name for name, side in sides(work).items() if side == "held-out")
        for number in range(3):  # a repository of its own; near-copies of two files; one file less
            files[f"s{step}{number}/m.py"] = module(10_000 + 10 * step + number)
        for number, name in enumerate(draw.sample(held, 2)):
            files[f"r1{step}/copied{number}.py"] = files[name] + f"extra_{step} = {number}\n"
        del files[draw.choice(sorted(files))]
    assert dropped >= 2
    assert max(counts[1:]) < 0.8 * counts[0], counts  # six files of 120 change, in up to six of a dozen shards


def test_nothing_is_read_again_for_a_text_that_was_compared_before(tmp_path: Path, reads: list[int]) -> None:
    build(tmp_path, BASE)
    assert reads
    reads.clear()
    (tmp_path / "split").rename(tmp_path / "before")
    build(tmp_path, BASE)
    assert reads == []
    assert snapshot(tmp_path / "before") == snapshot(tmp_path / "split")


@pytest.mark.parametrize("what", ["a shard's sketch", "the record", "a set's texts", "half of the record"])
def test_what_is_lost_from_the_store_is_made_again(tmp_path: Path, what: str) -> None:
    files = BASE | {f"r29/v/{i}.py": BASE[f"r{i:02d}/m1.py"] + "extra = 1\n" for i in range(25)}
    expected = build(tmp_path, files)
    (tmp_path / "split").rename(tmp_path / "before")
    store = tmp_path / "more-shards"
    if what == "a shard's sketch":
        shutil.rmtree(next(store.glob("*/sketch.npy")).parent)
    elif what == "a set's texts":
        next(store.glob("texts-*")).unlink()
    elif what == "the record":
        next(store.glob("compared-*.json")).unlink()
    else:  # a run was killed while it wrote
        record = next(store.glob("compared-*.json"))
        record.rename(record.with_name(f".{record.name}.123"))
    assert build(tmp_path, files) == expected
    assert snapshot(tmp_path / "before") == snapshot(tmp_path / "split")
    assert not list(store.glob(".*"))
    assert len(list(store.glob("compared-*.json"))) == len(list(store.glob("texts-*"))) == 1


def test_a_shard_that_was_compared_with_many_sets_is_compared_with_all_texts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "SETS", 2)
    files = dict(BASE)
    for step in range(5):
        summary = build(tmp_path / "work", files)
        assert summary == build(tmp_path / f"fresh{step}", files)
        files |= {f"s{step}{n}/m.py": module(10_000 + 10 * step + n) for n in range(4)}
        record = json.loads(next((tmp_path / "work/more-shards").glob("compared-*.json")).read_text())
        assert max(map(len, record.values())) <= 2
