"""Tables on S3, read through fsspec from a server on this machine: the same documents as from a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_fixtures import kringle

LOUD = "NOT CHECKED: tables on S3 (pip install 's3fs' 'moto[server]')"
pytest.importorskip("s3fs", reason=LOUD)
pytest.importorskip("moto.server", reason=LOUD)

RECIPE = Path(__file__).parent.parent / "kringle" / "recipes" / "laptop.yaml"


def table(first: int, count: int) -> pa.Table:
    """Rows with The Stack's columns; every text another one."""
    return pa.table(
        {
            "content": [f"def f{i}(x):\n    return x + {i}\n" * (1 + i % 7) for i in range(first, first + count)],
            "lang": ["Python"] * count,
            "max_stars_repo_name": [f"owner/repo{i % 5}" for i in range(first, first + count)],
            "max_stars_repo_path": [f"src/f{i}.py" for i in range(first, first + count)],
            "max_stars_repo_licenses": [["MIT"]] * count,
        }
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two tables; the bucket `corpus`, served on loopback while it lasts, holds the same."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder = tmp_path_factory.mktemp("tables")
    for number in range(2):
        pq.write_table(table(number * 300, 300), folder / f"data-{number}.parquet", row_group_size=100)
    files = s3fs.S3FileSystem(
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        key=settings["AWS_ACCESS_KEY_ID"],
        secret=settings["AWS_SECRET_ACCESS_KEY"],
        skip_instance_cache=True,
    )
    files.mkdir("corpus")
    for path in sorted(folder.iterdir()):
        files.put(str(path), f"corpus/tables/{path.name}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        yield folder
    server.stop()


def collected(work: Path) -> dict[str, tuple[Any, ...]]:
    rows: dict[str, tuple[Any, ...]] = {}
    for part in sorted(work.glob("stages/collect-*/documents/part-*.parquet")):
        for row in pq.read_table(part, columns=["id", "content", "repo", "path", "licenses"]).to_pylist():
            rows[row["id"]] = (row["content"], row["repo"], row["path"], row["licenses"])
    return rows


def test_tables_on_s3_are_read_like_those_of_a_folder(tmp_path: Path, tables: Path) -> None:
    for source, work in ((str(tables), "local"), ("s3://corpus/tables", "remote")):
        kringle("run", RECIPE, "--source", source, "--work", tmp_path / work, "--until", "collect").succeeded()
    local, remote = collected(tmp_path / "local"), collected(tmp_path / "remote")
    assert len(local) == 600
    assert remote == local


def test_a_bucket_that_is_not_there_is_one_line(tmp_path: Path, tables: Path) -> None:
    done = kringle("run", RECIPE, "--source", "s3://nowhere/tables", "--work", tmp_path / "work", "--until", "collect")
    assert done.code == 2
    assert re.search(r"s3://nowhere", done.err)
    assert len(done.err.strip().splitlines()) == 1
    assert os.environ["AWS_ACCESS_KEY_ID"] not in done.out
