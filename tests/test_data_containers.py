"""Archives and tables as sources: every way to be broken is one line, and nothing beside the broken part is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from data_support import decisions, documents, folder_corpus, run_collect, write_tree

from kringle.data.sources import archives, stack, table_rows
from kringle.data.sources.archives import ESCAPES
from kringle.errors import UserError
from kringle.settings import CorpusSettings, source_of

CODE = "def area(width, height):\n    return width * height\n"
MIT = {"license": "MIT", "name": "p"}


def code(number: int) -> str:
    return CODE.replace("area", f"area_{number}")


def table_corpus(*places: Path | str, **settings: Any) -> CorpusSettings:
    settings.setdefault("licenses", "any")
    return CorpusSettings(sources=tuple(source_of("stack", str(place)) for place in places), **settings)


def paths(work: Path) -> set[str]:
    return {f"{d['repo']}/{d['path']}" for d in documents(work)}


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: Mapping[str, bytes | str], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


# -- archives ----------------------------------------------------------------------------------------------------------

KINDS = [
    ("a.zip", zipped),
    ("a-1.0-py3-none-any.whl", zipped),
    ("a-sources.jar", zipped),
    ("a.tar", tarred),
    ("a.tar.gz", lambda files: tarred(files, "w:gz")),
    ("a.tgz", lambda files: tarred(files, "w:gz")),
    ("a.tar.xz", lambda files: tarred(files, "w:xz")),
    ("a.tar.bz2", lambda files: tarred(files, "w:bz2")),
    ("a.tar.zst", lambda files: zstandard.compress(tarred(files))),
]


@pytest.mark.parametrize(("name", "make"), KINDS)
def test_every_kind_of_archive_is_read_like_a_folder(tmp_path: Path, name: str, make: Any) -> None:
    files = {"p/package.json": json.dumps(MIT), "p/a.js": "let a = 1;\n", "q/b.py": CODE, "q/c.txt": "no"}
    root = write_tree(tmp_path / "in", {f"r/{name}": make(files), "r/own.py": code(1)})
    run_collect(folder_corpus(root), tmp_path)
    assert paths(tmp_path) == {f"r/{name}/p/a.js", f"r/{name}/q/b.py", "r/own.py"}
    licenses = {d["path"]: d["licenses"] for d in documents(tmp_path)}
    assert licenses[f"{name}/p/a.js"] == ["MIT"]
    assert licenses[f"{name}/q/b.py"] == []


def test_licences_in_archives_decide_file_by_file(tmp_path: Path) -> None:
    files = {
        "free/package.json": json.dumps(MIT),
        "free/a.js": "let a = 1;\n",
        "free/deep/er/b.js": "let b = 1;\n",
        "bound/package.json": json.dumps({"license": "GPL-3.0-only"}),
        "bound/c.js": "let c = 1;\n",
        "choice/package.json": json.dumps({"license": "(MIT OR GPL-3.0-only)"}),
        "choice/d.js": "let d = 1;\n",
        "unknown/e.js": "let e = 1;\n",
    }
    root = write_tree(tmp_path / "in", {"r/a.zip": zipped(files)})
    summary = run_collect(folder_corpus(root, licenses="permissive"), tmp_path)
    assert {d["path"] for d in documents(tmp_path)} == {
        "a.zip/free/a.js",
        "a.zip/free/deep/er/b.js",
        "a.zip/choice/d.js",
    }
    dropped = {d["reason"]: d["files"] for d in next(s for s in summary["funnel"] if s["name"] == "licence")["dropped"]}
    assert dropped == {"GPL-3.0-only": 1, "no licence found": 1}


def test_names_that_lead_out_links_and_devices_are_left_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("../up.py", "/etc/root.py", "a/../../b.py", "C:\\c.py", "good.py"):
            info = tarfile.TarInfo(name)
            info.size = len(CODE)
            archive.addfile(info, io.BytesIO(CODE.encode()))
        for name, kind in (("link.py", tarfile.SYMTYPE), ("hard.py", tarfile.LNKTYPE), ("pipe.py", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    root = write_tree(tmp_path / "in", {"r/a.tar.gz": out.getvalue()})
    run_collect(folder_corpus(root), tmp_path)
    assert paths(tmp_path) == {"r/a.tar.gz/good.py"}
    told = {d.path: d.witness for d in decisions(tmp_path / "out") if not d.kept}
    assert [told[f"a.tar.gz/{name}"] for name in ("../up.py", "/etc/root.py", "a/../../b.py")] == [ESCAPES] * 3
    assert told["a.tar.gz/link.py"] == told["a.tar.gz/hard.py"] == "symbolic link, not followed"
    assert told["a.tar.gz/pipe.py"] == "not a regular file"
    assert not (tmp_path / "up.py").exists()


def test_a_bomb_is_one_line_and_the_rest_of_the_corpus_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 4 << 20)
    bomb = tarred({"first.py": CODE, "zeros.bin": b"\0" * (64 << 20), "late.py": code(2)}, "w:gz")
    assert len(bomb) < 100_000
    root = write_tree(tmp_path / "in", {"r/bomb.tar.gz": bomb, "r/own.py": code(1)})
    summary = run_collect(folder_corpus(root), tmp_path)
    assert paths(tmp_path) == {"r/bomb.tar.gz/first.py", "r/own.py"}
    (line,) = summary["faults"]
    assert "archive bomb" in line
    assert "bomb.tar.gz" in line


def test_archives_in_archives_are_opened_once_and_no_deeper(tmp_path: Path) -> None:
    inner = zipped({"in.py": code(1), "deeper.zip": zipped({"never.py": code(2)})})
    root = write_tree(tmp_path / "in", {"r/a.zip": zipped({"lib/inner.zip": inner, "out.py": code(3)})})
    summary = run_collect(folder_corpus(root), tmp_path)
    assert paths(tmp_path) == {"r/a.zip/lib/inner.zip/in.py", "r/a.zip/out.py"}
    (line,) = summary["faults"]
    assert "deeper.zip" in line


@pytest.mark.parametrize("broken", ["empty", "garbage", "cut at once", "cut in the middle"])
@pytest.mark.parametrize(("name", "make"), KINDS)
def test_a_broken_archive_is_one_line(tmp_path: Path, name: str, make: Any, broken: str) -> None:
    rng = random.Random(1)
    noise = "".join(f"x_{rng.random()} = {rng.random()}\n".replace("0.", "") for _ in range(9000))
    whole = make({"a.py": code(1), "noise.py": noise, "b.py": code(2)})
    data = {
        "empty": b"",
        "garbage": b"x\n",
        "cut at once": whole[:10],
        "cut in the middle": whole[: len(whole) // 2],
    }[broken]
    inner = {f"lib/{name}": data, "beside.py": code(4)}
    root = write_tree(tmp_path / "in", {f"r/{name}": data, "r/own.py": code(3), "r/outer.zip": zipped(inner)})
    summary = run_collect(folder_corpus(root), tmp_path)
    kept = {"r/own.py", "r/outer.zip/beside.py"}
    if broken == "cut in the middle" and not name.endswith((".zip", ".whl", ".jar", ".bz2")):
        kept.add(f"r/{name}/a.py")  # a zip's list of files is at its end, and bzip2's blocks are large
    assert paths(tmp_path) == kept
    assert len(summary["faults"]) == 2, summary["faults"]


def test_a_vanished_and_a_damaged_member_are_one_line_each(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.py": CODE * 50, "b.py": code(2)}))
    data[60] ^= 0xFF  # inside the first member's compressed bytes
    root = write_tree(tmp_path / "in", {"r/a.zip": bytes(data), "r/gone.zip": zipped({"g.py": code(4)})})
    from kringle.data.collect import collect
    from kringle.data.survey import survey
    from kringle.workspace import ShardStore

    corpus = folder_corpus(root)
    found = survey(corpus)
    (root / "r/gone.zip").unlink()
    from data_support import QUIET, InProcess

    (tmp_path / "out").mkdir()
    summary = collect(found, corpus, tmp_path / "out", ShardStore(tmp_path / "shards", "t"), InProcess(), QUIET)
    assert paths(tmp_path) == {"r/a.zip/b.py"}
    assert summary["faults"] == [f"{root}/r/gone.zip: vanished since it was listed"]
    (lost,) = [d for d in decisions(tmp_path / "out") if d.path == "a.zip/a.py" and not d.kept]
    assert (lost.witness or "").startswith("unreadable: ")


@pytest.mark.parametrize("name", ["huge.py", "huge.zip", "huge.tar", "huge.tar.gz", "huge.parquet", "huge.jsonl"])
def test_three_gigabytes_of_nothing_cost_one_line(tmp_path: Path, name: str) -> None:
    root = write_tree(
        tmp_path / "in", {"r/own.py": code(1), "tables/t.jsonl": json.dumps({"content": CODE, "path": "t.py"})}
    )
    place = root / ("tables" if name.endswith((".parquet", ".jsonl")) else "r") / name
    with place.open("wb") as file:
        file.truncate(3 << 30)
    if place.parent.name == "tables":
        if name.endswith(".jsonl"):
            os.truncate(place, 200 << 20)  # 3 GB of one line are read through in about 10 s: too long for a test
        corpus = table_corpus(root / "tables")
    else:
        corpus = folder_corpus(root / "r", leave_out=())
    run_collect(corpus, tmp_path)
    assert len(documents(tmp_path)) == 1
    lines = [d for d in decisions(tmp_path / "out") if not d.kept and "huge" in f"{d.path}{d.witness}"]
    assert lines or name == "huge.tar"  # zeros are a tar archive's regular end


# -- tables ------------------------------------------------------------------------------------------------------------


def v1_row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "hexsha": f"{number:040x}",
        "size": 1,
        "ext": "py",
        "lang": "Python",
        "max_stars_repo_path": f"src/m{number}.py",
        "max_stars_repo_name": f"owner/repo{number % 3}",
        "max_stars_repo_head_hexsha": "c" * 40,
        "max_stars_repo_licenses": ["MIT"],
        "max_stars_count": float(number) if number % 2 else None,
        "content": code(number),
        **changes,
    }


def v2_row(number: int) -> dict[str, Any]:
    return {
        "blob_id": f"{number:040x}",
        "path": f"/src/m{number}.java",
        "repo_name": f"owner/repo{number % 3}",
        "language": "Java",
        "extension": "java",
        "detected_licenses": ["Apache-2.0", "MIT"],
        "license_type": "permissive",
        "star_events_count": number,
        "revision_id": "d" * 40,
        "content": f"class A{number} {{ }}\n",
    }


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    name = path.name
    path.write_bytes(
        gzip.compress(text) if name.endswith(".gz") else zstandard.compress(text) if name.endswith(".zst") else text
    )
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_the_stacks_columns_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    rows = [v1_row(n) for n in range(10)]
    rows += [v1_row(10, lang="TypeScript", ext="ts"), v1_row(11, max_stars_repo_licenses=["GPL-3.0"])]
    rows += [v1_row(12, max_stars_repo_licenses=[]), v1_row(13, max_stars_repo_licenses=["MIT", "no such licence"])]
    path = tmp_path / "in" / name
    if name.endswith(".parquet"):
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    else:
        write_jsonl(path, rows)
    run_collect(table_corpus(path, licenses="permissive"), tmp_path)
    found = sorted(documents(tmp_path), key=lambda d: d["path"])
    assert [d["path"] for d in found] == [f"src/m{n}.py" for n in range(10)]
    third = found[3]
    assert third["content"] == code(3)
    assert (third["repo"], third["licenses"], third["stars"]) == ("owner/repo0", ["MIT"], 3)
    assert (third["revision"], third["language"], third["source"]) == ("c" * 40, "python", "stack")
    assert found[2]["stars"] is None
    assert third["content_id"] == third["id"] != f"{3:040x}"


def test_version_twos_names_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist([v2_row(n) for n in range(4)]), path)
    run_collect(table_corpus(path, licenses="permissive"), tmp_path)
    found = sorted(documents(tmp_path), key=lambda d: d["path"])
    assert [(d["language"], d["stars"], d["revision"]) for d in found] == [("java", n, "d" * 40) for n in range(4)]
    assert found[0]["licenses"] == ["Apache-2.0", "MIT"]


def test_survivors_do_not_depend_on_how_a_table_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [v1_row(n, content=code(n % 40)) for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet", row_group_size=7)
    random.Random(1).shuffle(rows)
    write_jsonl(tmp_path / "two" / "a.jsonl", rows[:25])
    pq.write_table(pa.Table.from_pylist(rows[25:]), tmp_path / "two" / "b.parquet", row_group_size=30)
    monkeypatch.setattr(stack, "RANGE_BYTES", 1000)
    places = []
    for name, place in (("w1", tmp_path / "one.parquet"), ("w2", tmp_path / "two")):
        run_collect(table_corpus(place), tmp_path / name)
        places.append({(d["id"], d["repo"], d["path"], len(d["copies"])) for d in documents(tmp_path / name)})
    assert places[0] == places[1]
    assert len(places[0]) == 40


def test_every_line_of_jsonl_is_in_one_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "t.jsonl", [v1_row(n) for n in range(50)])
    size = (tmp_path / "t.jsonl").stat().st_size
    for step in (size, size // 2, size // 7, size // 50):
        monkeypatch.setattr(stack, "RANGE_BYTES", step)
        run_collect(table_corpus(tmp_path / "t.jsonl"), tmp_path / f"w{step}")
        assert len(documents(tmp_path / f"w{step}")) == 50


def test_a_truncated_parquet_is_one_line_and_loses_nothing_else(tmp_path: Path) -> None:
    good, cut = tmp_path / "in" / "good.parquet", tmp_path / "in" / "cut.parquet"
    good.parent.mkdir()
    pq.write_table(pa.Table.from_pylist([v1_row(n) for n in range(5)]), good)
    cut.write_bytes(good.read_bytes()[:-100])
    summary = run_collect(table_corpus(good.parent), tmp_path)
    assert len(documents(tmp_path)) == 5
    (line,) = [note for note in summary["notes"] if "cut.parquet" in note]
    assert "no Parquet, cut short or damaged" in line


def test_a_damaged_row_group_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = pa.Table.from_pylist([v1_row(n, content=code(n) * 20) for n in range(30)])
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pq.write_table(rows, path, row_group_size=10, **plain)
    content = pq.read_schema(path).get_field_index("content")
    place = pq.ParquetFile(path).metadata.row_group(1).column(content).data_page_offset
    data = bytearray(path.read_bytes())
    data[place + 500] ^= 0x55
    path.write_bytes(bytes(data))
    summary = run_collect(table_corpus(path), tmp_path)
    assert {d["path"] for d in documents(tmp_path)} == {f"src/m{n}.py" for n in (*range(10), *range(20, 30))}
    (line,) = summary["faults"]
    assert "(part 1)" in line


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.jsonl.zst"])
def test_a_truncated_stream_keeps_what_came_before(tmp_path: Path, name: str) -> None:
    rng = random.Random(1)
    rows = [v1_row(n, content=f"x = '{rng.randbytes(2000).hex()}'\n") for n in range(400)]
    path = write_jsonl(tmp_path / name, rows)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    summary = run_collect(table_corpus(path, max_file_bytes=10_000), tmp_path)
    kept = {d["path"] for d in documents(tmp_path)}
    assert kept == {f"src/m{n}.py" for n in range(len(kept))}
    assert 100 < len(kept) < 300
    assert len(summary["faults"]) == 1


def test_missing_columns_are_one_line_each(tmp_path: Path) -> None:
    for name, lost in (
        ("no-text", "content"),
        ("no-licence", "max_stars_repo_licenses"),
        ("no-stars", "max_stars_count"),
    ):
        rows = pa.Table.from_pylist([v1_row(n) for n in range(3)]).drop_columns([lost])
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"content": [CODE]}), tmp_path / "no-language.parquet")
    summary = run_collect(table_corpus(*sorted(tmp_path.glob("*.parquet"))), tmp_path)
    assert sorted(line.rpartition("/")[2] for line in summary["faults"]) == [
        "no-language.parquet (part 0): lacks a column with the language, the extension or the path",
        "no-text.parquet (part 0): lacks the column content; it has hexsha, size, ext, lang, max_stars_repo_path, "
        "max_stars_repo_name, max_stars_repo_head_hexsha, max_stars_repo_licenses",
    ]
    assert len(documents(tmp_path)) == 3  # the two others hold the same three texts


def test_wrong_types_are_one_line_each_and_count_as_unknown(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([v1_row(n) for n in range(3)])
    stars = rows.set_column(rows.schema.get_field_index("max_stars_count"), "max_stars_count", pa.array([[1]] * 3))
    text = rows.set_column(rows.schema.get_field_index("content"), "content", pa.array([1, 2, 3]))
    pq.write_table(stars, tmp_path / "stars.parquet")
    pq.write_table(text, tmp_path / "text.parquet")
    write_jsonl(
        tmp_path / "lines.jsonl", ["{", "[]", v1_row(7), v1_row(8, content=5), v1_row(9, max_stars_count="many")]
    )
    summary = run_collect(table_corpus(*sorted(tmp_path.glob("*.*"))), tmp_path)
    assert [line.rpartition("/")[2].replace("\n", "") for line in sorted(summary["faults"])] == [
        "lines.jsonl (part 0-1258): line 1 of this part is no JSON; such lines are passed over".replace(
            "1258", str((tmp_path / "lines.jsonl").stat().st_size)
        ),
        f"lines.jsonl (part 0-{(tmp_path / 'lines.jsonl').stat().st_size}): line 2 of this part is no JSON object; "
        "such lines are passed over",
        f"lines.jsonl (part 0-{(tmp_path / 'lines.jsonl').stat().st_size}): line 4 of this part has a content of the "
        "type int; such lines are passed over",
        "stars.parquet (part 0): the column max_stars_count has the type list<element: int64>, so it counts as unknown",
        "text.parquet (part 0): the column content has the type int64, so nothing of it is read",
    ]
    found = {d["path"]: d["stars"] for d in documents(tmp_path)}
    assert found == {"src/m0.py": None, "src/m1.py": None, "src/m2.py": None, "src/m7.py": 7, "src/m9.py": None}


def test_a_line_without_end_is_passed_over_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "MAX_LINE_BYTES", 4096)
    write_jsonl(tmp_path / "t.jsonl", [v1_row(1), json.dumps(v1_row(2, content="x" * 50_000)), v1_row(3)])
    summary = run_collect(table_corpus(tmp_path / "t.jsonl"), tmp_path)
    assert {d["path"] for d in documents(tmp_path)} == {"src/m1.py", "src/m3.py"}
    assert len(summary["faults"]) == 1


def test_a_sample_of_tables_and_files_is_one_sample(tmp_path: Path) -> None:
    rows = [v1_row(n, content=code(n)) for n in range(100)]
    write_jsonl(tmp_path / "t" / "t.jsonl", rows)
    root = write_tree(tmp_path / "in", {f"r/f{n}.py": code(1000 + n) for n in range(100)})
    both = CorpusSettings(
        sources=(source_of("folder", str(root)), source_of("stack", str(tmp_path / "t"))),
        licenses="any",
        max_bytes=5000,
    )
    run_collect(both, tmp_path)
    found = documents(tmp_path)
    assert 4900 < sum(d["size"] for d in found) <= 5000
    assert {d["source"] for d in found} == {"folder", "stack"}
    told = {d.path: d.kept for d in decisions(tmp_path / "out") if d.step == "sample"}
    assert len(told) == 200
    assert {path for path, kept in told.items() if kept} == {d["path"] for d in found}


def test_urls_go_through_fsspec(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    write_jsonl(tmp_path / "in" / "t.jsonl.gz", [v1_row(n) for n in range(3)])
    pq.write_table(pa.Table.from_pylist([v1_row(n) for n in range(3, 6)]), tmp_path / "in" / "t.parquet")
    run_collect(table_corpus(f"file://{tmp_path}/in/*"), tmp_path)
    assert len(documents(tmp_path)) == 6


def test_without_fsspec_a_url_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UserError, match="needs the package fsspec, which is not installed; pip install"):
        stack.stack("hf://datasets/a/b")


def test_mistakes_in_places_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        stack.stack(str(tmp_path / "nothing" / "*.parquet"))
    (tmp_path / "x.txt").write_text("no table")
    with pytest.raises(UserError, match="holds no Parquet or JSONL file"):
        stack.stack(str(tmp_path))
