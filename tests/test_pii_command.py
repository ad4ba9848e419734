"""`kringle redact`: files, trees, standard input, baselines; what is printed, written and returned."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kringle.errors import UserError
from kringle.pii import redact_command

SECRET = "Zq3vT9xLwB7kPn2sQhVx" + "8RjKzWcXgYdF4mJt"
TEXT = f'import os\napi_key = "{SECRET}"\nmail = "jane@corp.org"\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text(TEXT)
    (root / "src" / "clean.py").write_text("x = 1\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text(TEXT)
    (root / "image.bin").write_bytes(b"\0" + TEXT.encode())
    return root


def test_findings_are_printed_without_the_secret(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = redact_command([str(tree)])
    output = capsys.readouterr()
    path = tree / "src" / "a.py"
    assert output.out == f"{path}:2:12 key secret 0.90\n{path}:3:9 email email 0.97\n"
    assert output.err == "1 binary file not scanned\n"
    assert outcome.exit_code == 1
    assert [f["line"] for f in outcome.record["findings"]] == [2, 3]
    assert outcome.record["files"] == 2  # what version control keeps and what is binary are left out
    assert SECRET not in output.out + json.dumps(outcome.record)
    assert "jane" not in output.out + json.dumps(outcome.record)
    assert path.read_text() == TEXT


def test_a_clean_tree(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = redact_command([str(tree / "src" / "clean.py")])
    assert (outcome.exit_code, outcome.record["findings"], capsys.readouterr().out) == (0, [], "")


def test_write_redacts_and_keeps_the_mode(tree: Path) -> None:
    path = tree / "src" / "a.py"
    path.chmod(0o755)
    before = (tree / "src" / "clean.py").stat().st_mtime_ns
    assert redact_command([str(tree)], write=True).exit_code == 1
    assert SECRET not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert (tree / "src" / "clean.py").stat().st_mtime_ns == before
    assert sorted(p.name for p in (tree / "src").iterdir()) == ["a.py", "clean.py"]
    assert redact_command([str(tree)], write=True).exit_code == 0


def test_a_key_file_makes_stand_ins_repeatable(tree: Path, tmp_path: Path) -> None:
    key = tmp_path / "corpus.key"
    path = tree / "src" / "a.py"
    redact_command([str(path)], write=True, key_file=key)
    first = path.read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    path.write_text(TEXT)
    redact_command([str(path)], write=True, key_file=key)
    assert path.read_text() == first
    path.write_text(TEXT)
    redact_command([str(path)], write=True)
    assert path.read_text() != first


def test_a_baseline_accepts_what_was_found_and_nothing_new(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = tree / "accepted.json"
    assert redact_command([str(tree)], baseline=baseline, update_baseline=True).exit_code == 0
    assert SECRET not in baseline.read_text()
    assert "jane" not in baseline.read_text()
    capsys.readouterr()
    assert redact_command([str(tree)], baseline=baseline).exit_code == 0
    assert capsys.readouterr().out == ""
    path = tree / "src" / "a.py"
    path.write_text(TEXT.replace("jane", "bob"))  # the key stays accepted, the address is new
    outcome = redact_command([str(tree)], baseline=baseline)
    assert [f["kind"] for f in outcome.record["findings"]] == ["email"]
    redact_command([str(tree)], baseline=baseline, write=True)
    assert SECRET in path.read_text()
    assert "bob" not in path.read_text()


def test_a_baseline_holds_for_a_path_and_survives_a_move_of_the_tree(tree: Path, tmp_path: Path) -> None:
    baseline = tree / "accepted.json"
    redact_command([str(tree)], baseline=baseline, update_baseline=True)
    (tree / "src" / "copy.py").write_text(TEXT)
    assert len(redact_command([str(tree)], baseline=baseline).record["findings"]) == 2
    (tree / "src" / "copy.py").unlink()
    moved = tree.rename(tmp_path / "moved")
    assert redact_command([str(moved)], baseline=moved / "accepted.json").exit_code == 0


def test_updating_keeps_the_entries_of_other_files(tree: Path) -> None:
    baseline = tree / "accepted.json"
    redact_command([str(tree)], baseline=baseline, update_baseline=True)
    (tree / "src" / "b.py").write_text('mail = "bob@corp.org"\n')
    redact_command([str(tree / "src" / "b.py")], baseline=baseline, update_baseline=True)
    assert redact_command([str(tree)], baseline=baseline).exit_code == 0
    assert len(json.loads(baseline.read_text())["accepted"]) == 3


class Stream(io.TextIOWrapper):
    """Standard input or output over bytes in memory."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


def test_standard_input_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(TEXT.encode()))
    assert redact_command(["-"]).exit_code == 1
    assert capsys.readouterr().out == "-:2:12 key secret 0.90\n-:3:9 email email 0.97\n"


def test_standard_input_is_redacted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    output = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(TEXT.encode() + b"\xff\0"))
    monkeypatch.setattr(sys, "stdout", output)
    assert redact_command(["-"], write=True).exit_code == 1
    written = output.buffer.getvalue()  # type: ignore[attr-defined]
    assert written.startswith(b'import os\napi_key = "')
    assert written.endswith(b"\xff\0")
    assert SECRET.encode() not in written
    assert capsys.readouterr().err == "-:2:12 key secret 0.90\n-:3:9 email email 0.97\n"


def test_links_inside_trees_are_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_text(TEXT)
    (tree / "link.py").symlink_to(outside)
    (tree / "loop").symlink_to(tree)
    assert len(redact_command([str(tree)], write=True).record["findings"]) == 2
    assert outside.read_text() == TEXT


def test_a_link_that_is_named_is_redacted_at_its_target(tree: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(tree / "src" / "a.py")
    redact_command([str(link)], write=True)
    assert link.is_symlink()
    assert SECRET not in (tree / "src" / "a.py").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree / "src" / "clean.py"
    path.chmod(0)
    outcome = redact_command([str(tree)])
    assert outcome.record["skipped"] == [{"file": str(path), "why": "Permission denied"}]
    assert str(path) in capsys.readouterr().err


def test_mistakes(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        redact_command([str(tree / "missing")])
    with pytest.raises(UserError, match="needs --baseline"):
        redact_command([str(tree)], update_baseline=True)
    with pytest.raises(UserError, match="accepts findings"):
        redact_command([str(tree)], baseline=tmp_path / "b", update_baseline=True, write=True)
    with pytest.raises(UserError, match="standard input"):
        redact_command(["-", str(tree)])
    with pytest.raises(UserError, match="cannot be read"):
        redact_command([str(tree)], baseline=tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="no baseline"):
        redact_command([str(tree)], baseline=tmp_path / "bad.json")
    with pytest.raises(UserError, match="cannot be written"):
        redact_command([str(tree)], baseline=tmp_path / "missing" / "b.json", update_baseline=True)
    with pytest.raises(UserError, match="cannot be read or made"):
        redact_command([str(tree)], write=True, key_file=tmp_path / "missing" / "key")
    (tmp_path / "long.key").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="1 to 64 bytes"):
        redact_command([str(tree)], write=True, key_file=tmp_path / "long.key")
    assert (tree / "src" / "a.py").read_text() == TEXT


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a\n\x1b[31mb.py").write_text(TEXT)
    (tmp_path / os.fsdecode(b"c\xff.py")).write_text(TEXT)
    outcome = redact_command([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *[f"{tmp_path}/a\\n\\x1b[31mb.py"] * 2,
        *[f"{tmp_path}/c\\xff.py"] * 2,
    ]
    assert outcome.exit_code == 1


def test_what_is_no_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "loop").symlink_to(".")
    assert redact_command([str(tmp_path)]).record["files"] == 0
    assert redact_command([str(pipe)]).record["skipped"] == [{"file": str(pipe), "why": "neither a file nor a folder"}]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_bar_on_the_terminal_leaves_the_findings_to_the_pipe(tree: Path) -> None:
    import pty

    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "kringle", "redact", str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}) as run:
        os.close(terminal)
        out, _ = run.communicate(timeout=120)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a closed pseudo-terminal with an error
        while piece := os.read(main, 4096):
            shown += piece
    os.close(main)
    assert [line.split()[1] for line in out.decode().splitlines()] == ["key", "email"]
    assert b"redact" in shown
    assert b"3/3" in shown
    assert b"email" not in shown


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and cannot be read")
def test_what_cannot_be_read_fails_the_hook(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = redact_command(["/proc/self/mem", str(tree / "src" / "clean.py")])
    assert outcome.exit_code == 1
    assert [row["file"] for row in outcome.record["skipped"]] == ["/proc/self/mem"]
    assert "/proc/self/mem: not scanned: " in capsys.readouterr().err
    accepted = redact_command(["/proc/self/mem"], baseline=tree / "b.json", update_baseline=True)
    assert accepted.exit_code == 1


def test_binary_files_are_counted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = redact_command([str(tree / "image.bin")])
    assert (outcome.exit_code, outcome.record["binary"]) == (0, 1)
    assert capsys.readouterr().err == "1 binary file not scanned\n"


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_a_byte_order_mark_is_read_and_written(tmp_path: Path, coding: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(f"\ufeff{TEXT}é".encode(coding))
    outcome = redact_command([str(file)], write=True)
    assert [found["kind"] for found in outcome.record["findings"]] == ["key", "email"]
    after = file.read_bytes().decode("utf-16")
    assert SECRET not in after
    assert after.startswith("import os\n")
    assert after.endswith("é")
    assert redact_command([str(file)]).exit_code == 0


def test_a_file_that_cannot_be_rewritten_keeps_no_other_from_it(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".py", "y.py"):  # a name that leaves no room for a longer one beside it
        (tmp_path / name).write_text(TEXT)
    outcome = redact_command([str(tmp_path)], write=True)
    assert (outcome.exit_code, outcome.record["written"], outcome.record["skipped"]) == (1, 2, [])
    assert redact_command([str(tmp_path)]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("",), "a path is empty"),
        (("a" * 300,), "name too long"),
        ((".", "--key-file", "k"), "--key-file draws"),
        (("-", "--write", "--json"), "would both go to standard output"),
        ((".", "--baseline", "loop", "--update-baseline"), "loop"),
        ((".", "--baseline", "deep"), "nested too deeply"),
        ((".", "--baseline", "salt"), "no baseline of kringle redact"),
    ],
)
def test_more_mistakes_end_with_one_line(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "deep").write_text("[" * 200_000)
    (tmp_path / "salt").write_text(json.dumps({"version": 1, "salt": "ab" * 100, "accepted": []}))
    command = [sys.executable, "-m", "kringle", "redact", *arguments]
    run = subprocess.run(command, cwd=tmp_path, input="", capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert told in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "é中.py").write_text(TEXT)
    command = [sys.executable, "-m", "kringle", "redact", str(tmp_path)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert "\\xe9\\u4e2d.py:2:12 key secret 0.90" in run.stdout
