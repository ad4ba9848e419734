"""What counts as the code of a stage: all that it imports, to the end, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kringle
from kringle.code_version import CARRIERS, _closure, code_fingerprint, library_versions

ROOT = Path(kringle.__file__).parent


@pytest.mark.parametrize(
    "entry", ["data.clean", "data.collect", "data.heldout", "tokens.encode", "training.trainer", "evaluation.measure"]
)
def test_whatever_python_really_imports_is_among_the_code(entry: str) -> None:
    script = f"import sys, kringle.{entry}\nprint(*[m for m in sys.modules if m.startswith('kringle.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    really = set(done.stdout.split()) - CARRIERS
    assert f"kringle.{entry}" in really
    assert really <= _closure([entry]) | {"kringle.machine"}


def test_a_stage_does_not_depend_on_rooms_that_it_never_enters() -> None:
    for entry in ("data.clean", "tokens.encode", "training.trainer"):
        assert not [name for name in _closure([entry]) if name.startswith(("kringle.study", "kringle.evaluation"))]
    assert not [name for name in _closure(["data.collect"]) if name.startswith("kringle.training")]


def test_libraries_are_those_that_are_imported() -> None:
    versions = library_versions(["training.trainer"])
    assert {"torch", "numpy", "python"} <= versions.keys()
    assert "pygments" not in versions
    assert all(version != "absent" for version in versions.values())


ENTRIES = ("tokens.encode", "data.heldout", "study.assemble", "study.teaching")


def fingerprints(folder: Path) -> dict[str, str]:
    """Those that a copy of the package in `folder` gives to its own code."""
    script = f"from kringle.code_version import code_fingerprint as f\nprint(*[f([e]) for e in {ENTRIES!r}])"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder, env=environment
    )
    return dict(zip(ENTRIES, done.stdout.split(), strict=True))


def test_a_change_in_a_module_or_beside_it_changes_the_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "kringle", ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprints(tmp_path)

    def changed(name: str) -> set[str]:
        file = tmp_path / "kringle" / name
        content = file.read_bytes()
        file.write_bytes(content + b"\n# edited\n")
        after = fingerprints(tmp_path)
        file.write_bytes(content)
        return {entry for entry in ENTRIES if after[entry] != before[entry]}

    assert changed("tokens/store.py") == {"tokens.encode", "study.assemble", "study.teaching"}
    assert changed("data/containment.py") == {"data.heldout"}
    assert changed("training/schedule.py") == {"study.assemble", "study.teaching"}
    assert changed("study/report.css") == {"study.assemble"}
    for carrier in ("engine.py", "recipe.py", "settings.py"):
        assert changed(carrier) == set(), carrier


def test_an_entry_that_is_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match="no module"):
        code_fingerprint(["data.nothing"])


def test_what_is_kept_of_imports_is_what_they_are(tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "kringle", ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprints(tmp_path)
    (kept,) = (tmp_path / "kringle/__pycache__").glob("imports-*.json")
    written = kept.read_bytes()
    assert fingerprints(tmp_path) == before
    assert kept.read_bytes() == written  # nothing was parsed again
    module = tmp_path / "kringle/tokens/encode.py"
    text = module.read_text()
    module.write_text(text + "\nimport kringle.study.svg\n")
    changed = fingerprints(tmp_path)
    assert changed["tokens.encode"] != before["tokens.encode"]
    (tmp_path / "kringle/study/svg.py").open("a").write("\n# changed\n")
    assert fingerprints(tmp_path)["tokens.encode"] != changed["tokens.encode"]
    module.write_text(text)
    assert fingerprints(tmp_path)["tokens.encode"] == before["tokens.encode"]
    for damaged in (b"", b"[1]", b'{"kringle.engine": 3}', b"\xff"):
        kept.write_bytes(damaged)
        assert fingerprints(tmp_path)["tokens.encode"] == before["tokens.encode"]
        assert kept.stat().st_size > 10_000
    reader = tmp_path / "kringle/code_version.py"
    reader.write_text(reader.read_text() + "\n# reads otherwise\n")
    fingerprints(tmp_path)
    assert len(list((tmp_path / "kringle/__pycache__").glob("imports-*.json"))) == 2
