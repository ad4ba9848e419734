"""The documentation says what the code does: generated parts are fresh, every command and every link is real."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_in_the_readme_and_shows_examples() -> None:
    build = builder()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in build.commands():
        assert f"kringle {name}" in readme, f"the README does not mention kringle {name}"
        assert f"  kringle {name}" in build.help_of(name), f"kringle {name} --help has no example"


def test_every_command_that_the_readme_shows_exists() -> None:
    build = builder()
    shown = set(re.findall(r"^kringle ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert shown
    assert shown <= set(build.commands())


def test_help_names_every_benchmark_and_every_stage() -> None:
    from kringle.bench import names
    from kringle.study.plan import STAGES

    build = builder()
    told = build.help_of("bench")
    assert [name for name in names() if f"\n  {name} " not in told] == []
    told = build.help_of("run").partition("stages: ")[2].partition("kringle run")[0]
    assert told.replace(",", " ").split() == list(STAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", [ROOT / "docs" / "method.md", ROOT / "README.md"], ids=lambda page: page.name)
def test_stages_and_recipe_keys_in_the_docs_are_real(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    from kringle.study.plan import STAGES

    for stage in re.findall(r"--(?:from|until) ([a-z]+)", text):
        assert stage in STAGES
