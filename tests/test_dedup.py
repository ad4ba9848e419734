from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from test_near_duplicates import planted

from kringle.data.dedup import dedup
from kringle.errors import UserError
from kringle.progress import Reporter

QUIET = Reporter(quiet=True)
CONTENTS = planted(7, 40)


def stack_rows(contents: list[str]) -> list[dict[str, Any]]:
    """Rows with The Stack's column names."""
    return [
        {
            "hexsha": f"{i:040x}",
            "size": len(text.encode()),
            "content": text,
            "max_stars_repo_name": f"r{i % 5}",
            "max_stars_repo_path": f"src/p{i}.py",
            "max_stars_repo_licenses": ["MIT"],
            "max_stars_count": i % 7 if i % 3 else None,
        }
        for i, text in enumerate(contents)
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = (
        gzip.compress(data) if path.suffix == ".gz" else zstandard.compress(data) if path.suffix == ".zst" else data
    )
    path.write_bytes(packed)


def test_parquet_with_the_stacks_names(tmp_path: Path) -> None:
    rows = stack_rows(CONTENTS)
    (tmp_path / "in/python").mkdir(parents=True)
    for part in range(3):
        pq.write_table(
            pa.Table.from_pylist(rows[part::3]), tmp_path / f"in/python/data-{part}.parquet", row_group_size=9
        )
    told = dedup([tmp_path / "in"], tmp_path / "out", progress=QUIET)
    left = [row for file in sorted((tmp_path / "out/data/python").iterdir()) for row in pq.read_table(file).to_pylist()]
    assert told["documents"] == len(rows)
    assert told["kept"] == len(left) < len(rows)
    assert all(row in rows for row in left)
    assert told["bytes_kept"] == sum(row["size"] for row in left)
    decided = pq.read_table(tmp_path / "out/decisions.parquet").to_pylist()
    assert len(decided) == len(rows)
    kept = {row["id"] for row in decided if row["kept"]}
    assert kept == {row["hexsha"] for row in left}
    by_place = {(d["file"], d["row"]): d for d in decided}
    for row in decided:
        if row["kept"]:
            assert row["witness_id"] is None
            continue
        assert row["witness_id"] in kept
        assert by_place[row["witness_file"], row["witness_row"]]["id"] == row["witness_id"]
        assert row["similarity"] >= 0.7
    assert not list((tmp_path / "out").glob(".*"))
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".ndjson.zst"])
def test_the_format_order_and_number_of_files_do_not_matter(tmp_path: Path, suffix: str) -> None:
    rows = stack_rows(CONTENTS)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    first = dedup([tmp_path / "all.parquet"], tmp_path / "one", progress=QUIET)
    random.Random(3).shuffle(rows)
    write_lines(tmp_path / f"in/a{suffix}", rows[:50])
    write_lines(tmp_path / f"in/b/c{suffix}", rows[50:])
    other = dedup([tmp_path / "in"], tmp_path / "two", workers=2, progress=QUIET)
    assert other["survivors"] == first["survivors"]
    assert other["kept"] == first["kept"]
    raw = (tmp_path / f"two/data/a{suffix}").read_bytes()
    data = gzip.decompress(raw) if suffix.endswith("gz") else raw
    data = zstandard.ZstdDecompressor().decompressobj().decompress(raw) if suffix.endswith("zst") else data
    assert all(json.loads(line) in rows for line in data.splitlines())


def test_odd_rows_are_told_apart_or_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text(
        '{"text": "a b c"}\n\n{"text": null}\n{"other": 1}\n{"text": ""}\n{"text": "é"}'
    )
    told = dedup([tmp_path / "in"], tmp_path / "out", progress=QUIET)
    assert told["documents"] == 5
    assert (tmp_path / "out/data/a.jsonl").read_text().splitlines() == [
        '{"text": "a b c"}',
        '{"text": null}',
        '{"text": "é"}',
    ]
    (tmp_path / "in/b.jsonl").write_text("")
    assert dedup([tmp_path / "in"], tmp_path / "out2", progress=QUIET)["files"] == 2


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "bad.jsonl").write_text('{"content": "x"}\n[1]\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"content": "x"}\n' * 999)[:30])
    (tmp_path / "numbers.jsonl").write_text('{"content": 3}\n')
    (tmp_path / "named.jsonl").write_text('{"body": "x"}\n')
    pq.write_table(pa.table({"content": ["x" * 1000] * 50}), tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-9])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    for name, message in {
        "none": "does not exist",
        "empty": "holds no .parquet",
        "file.txt": "neither Parquet nor JSON",
        "bad.jsonl": "line 2: is not a JSON object",
        "cut.jsonl.gz": "cannot be read",
        "numbers.jsonl": "not strings",
        "named.jsonl": "has no column content or text or code",
        "cut.parquet": "cannot be read as Parquet",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            dedup([tmp_path / name], tmp_path / "out", progress=QUIET)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="already has something in it"):
        dedup([tmp_path / "named.jsonl"], tmp_path / "full", progress=QUIET)
    with pytest.raises(UserError, match="has no column 'text'; it has body"):
        dedup([tmp_path / "named.jsonl"], tmp_path / "out", content="text", progress=QUIET)
    with pytest.raises(UserError, match="lies inside the input"):
        dedup([tmp_path], tmp_path / "out", progress=QUIET)
    assert dedup([tmp_path / "named.jsonl"], tmp_path / "out", content="body", progress=QUIET)["kept"] == 1


def test_the_command(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", stack_rows(CONTENTS))
    command = [sys.executable, "-m", "kringle", "dedup", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--faithful", "--json"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    import near_duplicate_oracle as oracle

    assert told["kept"] == sum(oracle.stronger(CONTENTS))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1


def test_a_killed_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stack_rows(CONTENTS)
    for part in range(4):
        write_lines(tmp_path / f"in/{part}.jsonl", rows[part::4])
    whole = dedup([tmp_path / "in"], tmp_path / "whole", progress=QUIET)

    def fall(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kringle.data.dedup._write_decisions", fall)
        with pytest.raises(KeyboardInterrupt):
            dedup([tmp_path / "in"], tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / ".out.partial/shards").glob("*/keys.npy")}
    assert len(before) == 4
    (tmp_path / ".out.partial/data/other.jsonl").write_text("of another input\n")
    assert dedup([tmp_path / "in"], tmp_path / "out", progress=QUIET)["survivors"] == whole["survivors"]
    for file in sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
