"""What a study was trained on beyond permissive code is said wherever its models are: in the report and the results."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from run_fixtures import (
    GPL,
    JDK_LICENSE,
    JDK_LIKE,
    UNLICENSED,
    Done,
    kringle,
    results,
    shared_corpus,
    write_recipe,
)

QUICK = {"steps": 10, "lines": 10, "ablations": {"fim": "{}", "mha": "{model: {attention: mha}}"}}


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A study that was told to include what is under a JDK's licence."""
    folder = tmp_path_factory.mktemp("allowed")
    recipe = write_recipe(folder / "recipe.yaml", shared_corpus(), **QUICK)
    done = kringle("run", recipe, "--work", folder / "work", "--allow-license", JDK_LICENSE).succeeded()
    return folder / "work", done


def test_an_allowed_licence_lets_its_files_in_and_stamps_report_and_results(allowed: tuple[Path, Done]) -> None:
    work, done = allowed
    found = results(work)
    note = "Not for permissive release: trained on code under GPL-2.0-only WITH Classpath-exception-2.0"
    assert found["release_note"] == note
    page = html.unescape((work / "report/report.html").read_text(encoding="utf-8"))
    assert note in page
    assert "1 more" not in note
    shares = {share["name"]: share["files"] for share in found["corpus"]["licenses"]}
    assert shares.keys() == {"MIT", JDK_LICENSE}
    assert shares[JDK_LICENSE] == 2
    assert any("not for permissive release" in line for line in found["corpus"]["notes"])
    assert f"--allow-license '{JDK_LICENSE}'" in found["command_line"]

    told = kringle("why", f"{JDK_LIKE}/main.py", "--work", work).succeeded().out.splitlines()
    (licence,) = [line for line in told if line.split()[1] == "licence"]
    assert licence.split() == ["kept", "licence", *f"(permissive or {JDK_LICENSE}) {JDK_LICENSE}".split()]
    left_out = [line for line in done.err.splitlines() if line.startswith("note: left out")]
    assert len(left_out) == 2
    assert not any(JDK_LIKE in line for line in left_out)
    assert any(GPL in line for line in left_out)
    assert any(UNLICENSED in line for line in left_out)


def test_the_report_keeps_its_stamp_when_it_is_written_again(allowed: tuple[Path, Done]) -> None:
    work, _ = allowed
    before = results(work)["release_note"]
    kringle("report", "--work", work).succeeded()
    assert results(work)["release_note"] == before is not None


def test_every_model_carries_the_stamp_with_it(allowed: tuple[Path, Done]) -> None:
    work, _ = allowed
    notices = {path.parent.name: path.read_text().strip() for path in sorted(work.glob("models/*/NOTICE"))}
    assert notices == dict.fromkeys(("fim-s0", "mha-s0"), results(work)["release_note"])
