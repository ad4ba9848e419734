"""Which jail a machine offers, when parts of it are taken away, and for users other than root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from jail_support import needs_full_jail

from kringle.evaluation.jail.host import Jail
from kringle.evaluation.jail.levels import Name, probe

ROOT = Path(__file__).parent.parent
NOBODY = 65534

# Runs in a process of its own: takes layers away by a filter on itself, then reports what it finds.
SCRIPT = """
import json, os, sys
from kringle.errors import UserError
from kringle.evaluation.jail.inside import linux, seccomp

taken = sys.argv[1].split()
if taken:
    rules = {
        "namespaces": seccomp.Argument("clone", 0, 0x45, (seccomp.CLONE_NEW_NAMESPACE,), then_allow=False),
        "seccomp": seccomp.Argument("prctl", 0, 0x15, (linux.PR_SET_SECCOMP,), then_allow=False),
    }
    code = seccomp._assemble(linux.machine(), ["unshare"], [rules[name] for name in taken])
    linux.call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.install(code)

from kringle.evaluation.jail.levels import probe
from kringle.evaluation.score import score
from kringle.evaluation.suites import Completion, load_suite

report = probe()
suite = load_suite(sys.argv[2])
bodies = ["return 1", "return 2", "import os; os.fork()", f"return len(open({sys.argv[2]!r}).read())"]
completions = [Completion("one", f"    {body}\\n") for body in bodies]
answer = {
    "user": os.getuid(),
    "level": report.level.name,
    "way": report.level.way,
    "why": report.why_not_full,
    "layers": {layer.name: [layer.ok, layer.detail] for layer in report.layers},
}
try:
    answer["verdicts"] = [verdict.to_json() for verdict in score(suite, completions, 1)]
except UserError as error:
    answer["refused"] = str(error)
    answer["verdicts"] = [verdict.to_json() for verdict in score(suite, completions[:2], 1, unsafe=True)]
print(json.dumps(answer))
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    problem = {"task_id": "one", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n"}
    problem["test"] = "\ndef check(candidate):\n    assert candidate() == 1\n"
    (tmp_path / "small.jsonl").write_text(json.dumps(problem))
    settings: dict[str, Any] = {
        "name": "small",
        "about": "-",
        "language": "python",
        "source": "small.jsonl",
        "get": "-",
        "stop": [],
    }
    settings["limits"] = {"cpu_seconds": 0.5, "memory_mib": 64, "output_mib": 1}
    settings["protocol"] = {"strip_prompt": False, "max_new_tokens": 9, "count_prompt": False}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(settings))
    shared = Path(tempfile.gettempdir()).resolve()
    for folder in (tmp_path, *tmp_path.parents):
        if shared in folder.parents:  # pytest's own; nothing outside the folder for temporary files is touched
            folder.chmod(0o755)
    return path


def ask(suite_file: Path, *taken: str, python: str = sys.executable, **options: Any) -> dict[str, Any]:
    """What `SCRIPT` reports; without bubblewrap, which could do without the layers that are taken away."""
    environment = {"PATH": "/nowhere", "PYTHONPATH": f"{ROOT}:{Path(yaml.__file__).parent.parent}"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [python, "-c", SCRIPT, " ".join(taken), str(suite_file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", **options)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def summary(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(verdict["verdict"], verdict["evidence"], verdict["jail"]) for verdict in answer["verdicts"]]


@needs_full_jail
def test_this_machine() -> None:
    report = probe()
    assert report.why_not_full == ""
    standing = {layer.name for layer in report.layers if layer.ok}
    for name in ("user", "mount", "network", "process", "ipc", "host name"):
        assert f"{name} namespace" in standing
    assert {"read-only root", "seccomp", "no capabilities", "no new privileges", "resource limits"} <= standing


@needs_full_jail
@pytest.mark.skipif(shutil.which("unshare") is None, reason="NOT CHECKED: mounts below /tmp; there is no unshare here")
def test_what_the_host_has_mounted_below_tmp_is_in_nobodys_way() -> None:
    """The jail mounts its root over /tmp, and then has the host's mounts below it in its table, under no path."""
    folder = Path(tempfile.mkdtemp(prefix="kringle mount-"))
    try:
        inside = "from kringle.evaluation.jail.levels import probe; print(probe().level.name, probe().attempts)"
        script = 'mount -t tmpfs none "$1" && mkdir "$1/deeper" && mount -t tmpfs none "$1/deeper" && "$2" -c "$3"'
        who = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", "--mount", *who, "sh", "-c", script, "sh", str(folder), sys.executable, inside]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
        if "unshare:" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"NOT CHECKED: mounts below /tmp; {done.stderr.strip()}")
        assert done.stdout.split()[0] == "full", done.stdout + done.stderr
    finally:
        folder.rmdir()


@needs_full_jail
def test_without_namespaces_the_level_is_partial(suite_file: Path) -> None:
    answer = ask(suite_file, "namespaces")
    if not answer["layers"]["landlock"][0]:
        pytest.skip("this kernel has no Landlock")
    assert (answer["level"], answer["way"]) == ("partial", "bare")
    assert "namespaces: SystemCallError: [Errno 1] unshare" in answer["why"]
    assert "bubblewrap (the program bwrap) is not installed" in answer["why"]
    assert [verdict for verdict, _, _ in summary(answer)] == ["pass", "fail", "fail", "fail"]
    assert "PermissionError" in answer["verdicts"][3]["evidence"]
    assert {jail for _, _, jail in summary(answer)} == {"partial"}


@needs_full_jail
def test_without_namespaces_and_filter_nothing_runs_unless_unsafe(suite_file: Path) -> None:
    answer = ask(suite_file, "namespaces", "seccomp")
    assert answer["level"] == "none"
    assert "--unsafe" in answer["refused"]
    assert summary(answer)[0] == ("pass", "", "none")
    assert summary(answer)[1][0] == "fail"


@needs_full_jail
def test_bubblewrap_is_as_good() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (Debian: apt install bubblewrap)")
    with Jail("bubblewrap", 2**29) as jail:
        layers = jail.layers
    missing = [name for name, (ok, _) in layers.items() if not ok and name not in ("control group", "landlock")]
    assert not missing
    assert "read-only root" in layers


@needs_full_jail
def test_an_ordinary_user_gets_the_same_verdicts(suite_file: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user; you are an ordinary one, so the other tests have shown it")
    python = _python_for_everyone()
    if python is None:
        pytest.skip(f"an ordinary user can read neither {sys.base_prefix} nor another Python with these sources")
    mine = ask(suite_file)
    theirs = ask(suite_file, python=python, user=NOBODY, group=NOBODY, extra_groups=[])
    assert theirs["user"] == NOBODY
    assert (mine["level"], theirs["level"]) == (Name.FULL, Name.FULL)
    assert summary(mine) == summary(theirs)


def _python_for_everyone() -> str | None:
    """An interpreter of this version that the user nobody can run, with these sources."""
    for python in (
        os.path.realpath(sys.executable),
        *map(str, Path("/usr/bin").glob("python3*")),
        "/usr/local/bin/python3",
    ):
        try:
            done = subprocess.run(
                [python, "-c", "import sys, yaml, kringle.errors; print(sys.version_info[:2])"],
                capture_output=True,
                text=True,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                env={"PYTHONPATH": f"{ROOT}:{Path(yaml.__file__).parent.parent}", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        except OSError:
            continue
        if done.stdout.strip() == str(sys.version_info[:2]):
            return python
    return None
