from __future__ import annotations

import hashlib
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
from data_support import (
    InProcess,
    decisions,
    documents,
    dropped,
    folder_corpus,
    run_collect,
    set_time,
    snapshot,
    write_tree,
)

from kringle.data import collect as collect_module
from kringle.data.collect import partition, terms_of
from kringle.data.gather import gather_candidates
from kringle.data.reading import CHANGED, Reader, Unreadable, blob_id, decode
from kringle.data.sources.candidates import Candidate
from kringle.data.survey import survey
from kringle.engine import Engine
from kringle.errors import UserError

HOSTILE: dict[str, bytes] = {
    "plain.py": b"x = 1\n",
    "crlf.py": b"x = 1\r\ny = 2\r\n",
    "mac.py": b"x = 1\ry = 2\r",
    "bom.py": b"\xef\xbb\xbfx = 1\n",
    "no_newline.py": b"x = 1",
    "two words.py": b"a = 1\n",
    "new\nline.py": b"b = 1\n",
    "<|endoftext|>.py": b"c = '<|endoftext|> <fim_prefix>'\n",
    "utf8.py": "naïve = '𝄞 \u2028'\n".encode(),
    "one_line.py": b"d = [" + b"1, " * 300_000 + b"]\n",
    "nul.py": b"x = 1\0\n",
    "elf.py": b"\x7fELF\x02\x01\x00",
    "latin1.py": b"# caf\xe9\n",
    "surrogate.py": b"x = '\xed\xa0\x80'\n",
    "utf16.py": "x = 1\n".encode("utf-16"),
    "utf16be.py": b"\xfe\xff" + "x = 1\n".encode("utf-16-be"),
    "utf32.py": "x = 1\n".encode("utf-32"),
    "lfs.js": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "empty.py": b"",
    "huge.py": b"e = 1\n" * 200_000,
}


def test_hostile_files_are_kept_exactly_or_dropped_with_a_reason(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {f"r/{name}": content for name, content in HOSTILE.items()})
    (root / "r/loop.py").symlink_to("loop.py")
    os.mkfifo(root / "r/pipe.py")
    summary = run_collect(folder_corpus(root), tmp_path)
    kept = {d["path"]: d for d in documents(tmp_path)}
    names = [name for name in HOSTILE if name.partition(".")[0] not in dropped_names()]
    assert set(kept) == {name.replace("\n", "\\n") for name in names}
    for name in names:
        document = kept[name.replace("\n", "\\n")]
        assert document["content"].encode("utf-8") == HOSTILE[name]
        assert document["size"] == len(HOSTILE[name])
        assert document["id"] == hashlib.sha1(b"blob %d\0" % len(HOSTILE[name]) + HOSTILE[name]).hexdigest()
    text = "UTF-8 text"
    assert dropped(tmp_path / "out") == {
        "nul.py": ("read", "binary: a NUL byte at offset 5"),
        "elf.py": ("read", "binary: a NUL byte at offset 6"),
        "latin1.py": ("read", "not UTF-8: byte 0xe9 at offset 5"),
        "surrogate.py": ("read", "not UTF-8: byte 0xed at offset 5"),
        "utf16.py": ("read", "UTF-16 text (it begins with that byte-order mark), not UTF-8"),
        "utf16be.py": ("read", "UTF-16 text (it begins with that byte-order mark), not UTF-8"),
        "utf32.py": ("read", "UTF-32 text (it begins with that byte-order mark), not UTF-8"),
        "lfs.js": ("read", "a Git LFS pointer; the file itself is elsewhere"),
        "empty.py": ("size", None),
        "huge.py": ("size", None),
        "loop.py": ("survey", "symbolic link, not followed"),
        "pipe.py": ("survey", "not a regular file"),
    }
    assert {d.threshold for d in decisions(tmp_path / "out") if d.step == "read"} == {text}
    counts = {d["reason"]: d["files"] for d in summary["funnel"][-2]["dropped"]}
    assert counts == {
        "binary": 2,
        "not UTF-8": 2,
        "UTF-16 text": 2,
        "UTF-32 text": 1,
        "a Git LFS pointer; the file itself is elsewhere": 1,
    }
    notes = "\n".join(summary["notes"])
    assert "1 x symbolic link, not followed (such as r/loop.py)" in notes
    assert "2 x binary" in notes


def dropped_names() -> set[str]:
    return {"nul", "elf", "latin1", "surrogate", "utf16", "utf16be", "utf32", "lfs", "empty", "huge"}


def test_every_candidate_has_a_decision_per_step(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {f"r{i % 3}/f{i}.py": f"x = {i}\n" for i in range(30)})
    run_collect(folder_corpus(root, max_bytes=100), tmp_path)
    rows = decisions(tmp_path / "out")
    sampled = {d.path for d in rows if d.step == "sample" and d.kept}
    assert {step: sum(d.step == step for d in rows) for step in {d.step for d in rows}} == {
        "size": 30,
        "licence": 30,
        "sample": 30,
        "read": len(sampled),
        "origin": len(sampled),
        "exact-duplicate": len(sampled),
    }
    assert {d["path"] for d in documents(tmp_path)} == sampled


# -- exact duplicates --------------------------------------------------------------------------------------------------


def test_one_row_per_content_with_all_copies(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "in",
        {
            "zoo/a.py": "same\n",
            "alpha/z.py": "same\n",
            "alpha/b.py": "same\n",
            "alpha/LICENSE": "Licensed under the MIT license.",
            "mid/c.js": "same\n",
            "mid/d.py": "other\n",
        },
    )
    summary = run_collect(folder_corpus(root), tmp_path)
    rows = documents(tmp_path)
    assert [(d["repo"], d["path"]) for d in rows] == [("alpha", "b.py"), ("mid", "d.py")]
    assert rows[0]["licenses"] == ["MIT"]
    assert [(c["repo"], c["path"], c["licenses"]) for c in rows[0]["copies"]] == [
        ("alpha", "z.py", ["MIT"]),
        ("mid", "c.js", []),
        ("zoo", "a.py", []),
    ]
    assert rows[1]["copies"] == []
    twins = {d.path: (d.kept, d.witness) for d in decisions(tmp_path / "out") if d.step == "exact-duplicate"}
    assert twins["b.py"] == (True, "has 3 more copies")
    assert twins["a.py"] == (False, "the same as alpha/b.py")
    assert summary["funnel"][-1]["dropped"] == [{"reason": "copy of another file", "files": 3, "bytes": 15}]
    assert summary["files"] == 2


def test_results_do_not_depend_on_order_partition_or_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    files = {f"r{draw.randrange(9)}/d{draw.randrange(5)}/f{i}.py": f"x = {draw.randrange(40)}\n" for i in range(120)}
    names = list(files)
    draw.shuffle(names)
    first = write_tree(tmp_path / "one" / "in", dict(sorted(files.items())))
    second = write_tree(tmp_path / "two" / "in", {name: files[name] for name in names})
    for root in (first, second):
        for path in root.rglob("*.py"):
            set_time(path, 1_600_000_000)
    a = run_collect(folder_corpus(first), tmp_path / "one", Engine(2))
    monkeypatch.setattr(collect_module, "TASK_BYTES", 50)
    engine = InProcess()
    b = run_collect(folder_corpus(second), tmp_path / "two", engine)
    assert len(engine.ran) > 5
    assert documents(tmp_path / "one") == documents(tmp_path / "two")
    assert sorted(decisions(tmp_path / "one" / "out"), key=str) == sorted(decisions(tmp_path / "two" / "out"), key=str)
    assert {k: v for k, v in a.items() if k != "fingerprint"} == {k: v for k, v in b.items() if k != "fingerprint"}
    ids = [d["id"] for d in documents(tmp_path / "one")]
    assert len(set(ids)) == len(ids) <= 40
    order = [(d["repo"], d["path"], d["id"]) for d in documents(tmp_path / "one")]
    assert order == sorted(order)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {f"r/f{i}.py": f"x = {i // 2}\n" for i in range(20)})
    run_collect(folder_corpus(root), tmp_path / "one")
    run_collect(folder_corpus(root), tmp_path / "two")
    assert snapshot(tmp_path / "one/out") == snapshot(tmp_path / "two/out")
    (tmp_path / "two/out/documents/part-00099.parquet").write_bytes(b"left by a killed run")
    run_collect(folder_corpus(root), tmp_path / "two")
    assert snapshot(tmp_path / "one/out") == snapshot(tmp_path / "two/out")


# -- tasks -------------------------------------------------------------------------------------------------------------


def candidate(number: int, size: int, **changes: Any) -> Candidate:
    return Candidate(
        "folder", "r", f"f{number:05d}.py", "python", size, 0, (), "", None, "file", "", f"/x/{number}"
    )._replace(**changes)


def test_tasks_cover_everything_once_in_order_and_are_bounded() -> None:
    draw = random.Random(5)
    candidates = [candidate(i, draw.randrange(1, 200_000)) for i in range(2000)]
    chunks = partition(candidates)
    assert [c for chunk in chunks for c in chunk] == candidates
    sizes = [sum(c.size for c in chunk) for chunk in chunks]
    assert max(sizes) <= 8 * collect_module.TASK_BYTES + 200_000
    assert collect_module.TASK_BYTES / 2 < sum(sizes) / len(sizes) < collect_module.TASK_BYTES * 2
    assert partition([]) == []


@pytest.mark.parametrize(("megabytes", "tasks", "average"), [(250, 60, 4), (1_000, 120, 8), (16_000, 480, 32)])
def test_a_larger_corpus_has_more_tasks_and_larger_ones(megabytes: int, tasks: int, average: int) -> None:
    size = megabytes * 200  # 5,000 files
    chunks = partition([candidate(i, size) for i in range(5000)])
    assert tasks * 0.75 < len(chunks) < tasks * 1.25
    assert average * 0.75 < megabytes / len(chunks) < average * 1.5


def test_one_change_moves_only_the_borders_next_to_it() -> None:
    candidates = [candidate(i, 40_000) for i in range(3000)]
    before = {tuple(chunk) for chunk in partition(candidates)}
    for changed in (
        [c for c in candidates if c.path != "f01500.py"],
        sorted([*candidates, candidate(1500, 7, path="f01500a.py")]),
    ):
        after = {tuple(chunk) for chunk in partition(sorted(changed, key=lambda c: c.path))}
        assert len(after - before) <= 2


def test_files_of_one_name_stay_in_one_task() -> None:
    twins = [candidate(i // 3, 10_000_000, source=f"s{i % 3}") for i in range(60)]
    for chunk in partition(twins):
        assert len(chunk) % 3 == 0


def test_a_changed_file_redoes_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_module, "TASK_BYTES", 200)
    root = write_tree(tmp_path / "in", {f"r/f{i:03d}.py": f"x = {i}\n" * 5 for i in range(100)})
    corpus = folder_corpus(root)
    first, second, third = InProcess(), InProcess(), InProcess()
    run_collect(corpus, tmp_path, first)
    run_collect(corpus, tmp_path, second)
    (root / "r/f050.py").write_text("y = 0\n" * 5)
    set_time(root / "r/f050.py", 1_700_000_000)
    run_collect(corpus, tmp_path, third)
    assert len(first.ran) > 10
    assert second.ran == []
    assert len(third.ran) == 1
    assert "y = 0\n" * 5 in {d["content"] for d in documents(tmp_path)}


# -- what can happen between survey and reading ------------------------------------------------------------------------


def test_files_that_vanish_or_change_are_dropped_with_the_reason(tmp_path: Path) -> None:
    names = ("vanished", "grown", "shrunk", "touched", "linked", "piped", "fine")
    root = write_tree(tmp_path / "in", {f"r/{name}.py": "x = 1\n" for name in names})
    found = survey(folder_corpus(root))
    (root / "r/vanished.py").unlink()
    (root / "r/grown.py").write_text("x = 1\ny = 2\n")
    (root / "r/shrunk.py").write_text("x\n")
    set_time(root / "r/touched.py", 5)
    (root / "r/linked.py").unlink()
    (root / "r/linked.py").symlink_to("fine.py")
    (root / "r/piped.py").unlink()
    os.mkfifo(root / "r/piped.py")
    out = tmp_path / "task"
    out.mkdir()
    task = (list(found.selected), terms_of(folder_corpus(root)))
    assert gather_candidates(task, out)["documents"] == 1
    reasons = {path: witness for path, (_, witness) in dropped(out).items()}
    assert reasons.pop("linked.py", "").startswith("unreadable: ")
    assert reasons == {
        "vanished.py": "vanished since it was listed",
        "grown.py": CHANGED,
        "shrunk.py": CHANGED,
        "touched.py": CHANGED,
        "piped.py": "unreadable: not a regular file",
    }


def test_an_unreadable_file_is_dropped_with_the_reason(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"r/secret.py": "x = 1\n", "r/fine.py": "y = 1\n"})
    found = survey(folder_corpus(root))
    (root / "r/secret.py").chmod(0)
    for parent in root.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o755)
    privileged = os.geteuid() == 0
    reasons = {}
    with Reader() as reader:
        for c in found.selected:
            try:
                if privileged:
                    os.seteuid(65534)  # root reads everything; nobody does not
                reader.read(c)
            except Unreadable as error:
                reasons[c.path] = str(error)
            finally:
                if privileged:
                    os.seteuid(0)
    assert reasons == {"secret.py": "unreadable: Permission denied"}


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "src.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/A.java", "class A { int padding = 0; }")
        archive.writestr("a/B.java", "class B {}")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"padding", b"PADDING", 1))
    stamp = path.stat().st_mtime_ns
    java = {"reader": "zip", "container": str(path), "mtime_ns": stamp, "language": "java"}
    with Reader() as reader:
        assert reader.read(candidate(1, 10, member="a/B.java", **java)) == b"class B {}"
        with pytest.raises(Unreadable, match="Bad CRC"):
            reader.read(candidate(2, 28, member="a/A.java", **java))
        with pytest.raises(Unreadable, match="unreadable"):
            reader.read(candidate(3, 10, member="a/C.java", **java))
        with pytest.raises(Unreadable, match="changed since"):
            reader.read(candidate(4, 10, member="a/B.java", **(java | {"mtime_ns": 1})))
        with pytest.raises(Unreadable, match="vanished"):
            reader.read(candidate(5, 10, member="a/B.java", **(java | {"container": str(tmp_path / "gone.zip")})))
    path.write_bytes(data[:100])
    with Reader() as reader, pytest.raises(Unreadable, match="unreadable: File is not a zip file"):
        reader.read(candidate(6, 10, member="a/B.java", **java))


def test_an_archive_member_cannot_outgrow_what_was_declared(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A.java", "x" * 10_000_000)
    bomb = {"reader": "zip", "container": str(path), "mtime_ns": path.stat().st_mtime_ns, "member": "A.java"}
    with Reader() as reader, pytest.raises(Unreadable):
        reader.read(candidate(1, 100, **bomb))


def test_nothing_readable_is_a_mistake(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"r/a.py": b"\0", "r/b.py": b"\xff\xfe\0"})
    with pytest.raises(UserError, match="none of 2 files is UTF-8 text: 1 x binary, 1 x UTF-16 text"):
        run_collect(folder_corpus(root), tmp_path)


def test_blob_ids_are_gits() -> None:
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert decode(b"a\r\n") == "a\r\n"
    with pytest.raises(Unreadable, match="empty"):
        decode(b"")


def test_the_stamp_for_release(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"r/a.py": "x = 1\n", "r/LICENSE": "Licensed under the MIT license."})
    assert run_collect(folder_corpus(root), tmp_path / "one")["permissive"] is True
    write_tree(root, {"s/b.py": "y = 1\n"})
    summary = run_collect(folder_corpus(root), tmp_path / "two")
    assert summary["permissive"] is False
    assert any("not for permissive release" in note and "no licence found" in note for note in summary["notes"])
    assert summary["licenses"] == [
        {"name": "MIT", "files": 1, "bytes": 6},
        {"name": "no licence found", "files": 1, "bytes": 6},
    ]
    assert summary["languages_without_data"] == ["java", "javascript"]
