"""Files of completions: every format, every flaw, resumed, shared out, in any number of workers."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jail_support import needs_jail
from score_support import BENCHMARKS, JAVA, JAVASCRIPT, PYTHON, RIGHT, read_lines, untimed, write_lines
from typer.testing import CliRunner

from kringle.cli.app import app
from kringle.errors import UserError
from kringle.evaluation.jail.verdicts import Kind, Verdict
from kringle.evaluation.samples import Flaw, Sample, detect_format, read_samples
from kringle.evaluation.suites import SHIPPED, load_suite
from kringle.evaluation.verdict_file import harness_verdict
from kringle.study.scores import compare_command, score_command

pytestmark = needs_jail


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    other = PYTHON | {"task_id": "own/1", "prompt": "def add(a: int, b: int) -> int:\n    # again\n"}
    return write_lines(tmp_path / "own.jsonl", [PYTHON, other])


def score(path: Path, suite: Path, out: Path, **options: Any) -> dict[str, Any]:
    return score_command(path, str(suite), out, quiet=True, **options).record


def test_samples_and_everything_that_is_wrong_with_them(
    tmp_path: Path, suite_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = write_lines(
        tmp_path / "samples.jsonl",
        [
            {"task_id": "own/0", "completion": RIGHT["python"]},
            {"task_id": "own/0"},
            "{not json",
            {"task_id": "own/9", "completion": ""},
            {"name": "own/1", "completion": "    return a - b\n"},
            {"task_id": "own/1", "completion": RIGHT["python"], "language": "rs"},
            {"task_id": "own/1", "completion": 3},
            [1],
            "",
            {"task_id": "own/0", "solution": "def add(a, b):\n    return b + a\n"},
        ],
    )
    out = tmp_path / "verdicts.jsonl"
    outcome = score_command(samples, str(suite_file), out, workers=2)
    said = capsys.readouterr().err
    for words in (
        "line 2: completion is missing",
        "line 3: not JSON",
        "line 4: 'own/9' is no problem",
        "line 6: a comp",
    ):
        assert words in said
    assert said.count("samples.jsonl, line") == 6
    assert outcome.record["skipped"] == 6
    rows = read_lines(out)
    assert [(row["task_id"], row["sample"], row["verdict"], row["passed"]) for row in rows] == [
        ("own/0", 0, "pass", True),
        ("own/1", 0, "fail", False),
        ("own/0", 1, "pass", True),
    ]
    assert rows[1]["evidence"].startswith("AssertionError in the tests, line 2")
    assert not list(tmp_path.glob("*.judged*"))
    value = outcome.record["pass_at_k"]["pass@1"]
    assert value["value"] == 0.5
    assert value["low"] < 0.5 < value["high"]


def test_bigcode_s_generations(tmp_path: Path, suite_file: Path) -> None:
    right = PYTHON["prompt"].strip() + "\n" + RIGHT["python"]
    again = "def add(a: int, b: int) -> int:\n    # again\n" + RIGHT["python"]
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([[right, PYTHON["prompt"] + "    return 0"], [again, again]]))
    record = score(path, suite_file, tmp_path / "out.jsonl")
    assert record["verdicts"] == {"fail": 1, "pass": 3}
    assert record["programs"] == 3  # the second problem's two are one
    path.write_text(json.dumps([[right]]))
    flaws = [item for item in read_samples(path, load_suite(suite_file)) if isinstance(item, Flaw)]
    assert "lists for 1 problems only" in flaws[0].line


def test_bigcode_s_lists_belong_to_the_problems_whose_prompts_they_begin_with(tmp_path: Path) -> None:
    """BigCode's MBPP is 500 problems of the 974: not one of its lists has the place of its problem."""
    tasks = [
        {
            "task_id": number,
            "text": f"Give back {number % 4}.",
            "code": "",
            "test_list": [f"assert f() == {number % 4}"],
        }
        for number in (1, 2, 3, 11, 12, 15)
    ]
    suite = load_suite(write_lines(tmp_path / "mbpp.jsonl", tasks))
    lists = [[suite.by_id[f"Mbpp/{number}"].prompt + "def f(): pass"] * 2 for number in (11, 12, 15)]
    lists[1][1] = "def f(): pass"
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([*lists, ["def f(): pass"]]))
    items = list(read_samples(path, suite))
    found = [(one.problem.task_id, one.number) for one in items if isinstance(one, Sample)]
    # 3, 11 and 15 have one prompt: the first of them that no list before has had.
    assert found == [("Mbpp/3", 0), ("Mbpp/3", 1), ("Mbpp/12", 0), ("Mbpp/11", 0), ("Mbpp/11", 1)]
    assert [item.line.removeprefix(f"{path}") for item in items if isinstance(item, Flaw)] == [
        ": lists for 4 problems only, mbpp has 6",
        ", list 1: text 1 does not begin with the prompt of Mbpp/12",
        ", list 3: belongs to no problem of mbpp, by its place or by a prompt in it",
    ]


GAP = {
    "name": "own_0_add",
    "language": "py",
    "prompt": "def add(a, b):",
    "suffix": "    return c",
    "canonical_solution": "    c = a + b",
    "tests": "assert add(1, 2) == 3",
}


def test_what_fills_a_gap_is_read_from_every_format(tmp_path: Path) -> None:
    suite_file = write_lines(tmp_path / "gaps.jsonl", [GAP, GAP | {"name": "own_1_add"}])
    suite = load_suite(suite_file)
    prompt, suffix = suite.problems[0].prompt, suite.problems[0].suffix
    middle = GAP["canonical_solution"]
    path = tmp_path / "generations.json"
    path.write_text(json.dumps([[middle, prompt + middle, prompt + middle + suffix, middle + suffix], [middle]]))
    items = [one for one in read_samples(path, suite) if isinstance(one, Sample)]
    assert [one.completion.text for one in items] == [middle, middle, middle, middle + suffix, middle]
    record = score(path, suite_file, tmp_path / "out.jsonl")
    assert record["verdicts"] == {"pass": 5}
    assert record["exact"]["python"]["value"] == 0.875  # by task
    results = write_lines(tmp_path / "results.jsonl", [GAP | {"result": middle + "\n", "exact_match": True}])
    (one,) = read_samples(results, suite)
    assert isinstance(one, Sample)
    assert (one.problem.task_id, one.completion.text) == ("py/own_0_add", middle + "\n")


def test_evalplus_s_rows_and_folders(tmp_path: Path, suite_file: Path) -> None:
    suite = load_suite(suite_file)
    whole = PYTHON["prompt"] + RIGHT["python"]
    row = {"task_id": "own/0", "completion": "    return 0\n", "solution": whole}
    (one,) = read_samples(write_lines(tmp_path / "both.jsonl", [row]), suite)
    assert isinstance(one, Sample)
    assert one.program == whole + "\n"
    folder = tmp_path / "made"
    for name, text in (("own_1/0.py", whole), ("own_0/10.py", ""), ("own_0/2.py", whole), ("own_7/0.py", whole)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own_1" / "1.py").write_bytes(b"\xff")
    assert detect_format(folder) == "evalplus"
    items = list(read_samples(folder, suite))
    found = [(one.problem.task_id, one.number, one.program) for one in items if isinstance(one, Sample)]
    assert found == [("own/0", 0, whole + "\n"), ("own/0", 1, "\n"), ("own/1", 0, whole + "\n")]
    flaws = [item.line for item in items if isinstance(item, Flaw)]
    assert "1.py: cannot be read: 'utf-8' codec" in flaws[0]
    assert "own_7: no problem of own has this name" in flaws[1]
    assert score(folder, suite_file, tmp_path / "out.jsonl")["verdicts"] == {"fail": 1, "pass": 2}


@pytest.mark.parametrize("name", ["deep.jsonl", "deep.json", "deep.json.gz", "folder"])
@pytest.mark.parametrize("start", ["[", '{"completions":'])
def test_json_that_is_too_deep_is_a_flaw(tmp_path: Path, suite_file: Path, name: str, start: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    text = (start * 100_000).encode()
    file = path / "a.json" if path.is_dir() else path
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    (flaw,) = read_samples(path, load_suite(suite_file))
    assert isinstance(flaw, Flaw)
    assert "\n" not in flaw.line


def test_multipl_e_s_files_bring_their_problems(tmp_path: Path) -> None:
    folder = tmp_path / "completions"
    folder.mkdir()
    row = JAVASCRIPT | {"completions": [RIGHT["js"], "  return a - b;\n}", RIGHT["js"]], "temperature": 0.2}
    (folder / "own_0_add.json.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    (folder / "own_1_cut.json.gz").write_bytes(gzip.compress(json.dumps(row).encode())[:50])
    (folder / "own_2_rust.json").write_text(json.dumps(row | {"language": "rs"}))
    (folder / "own_0_add.results.json.gz").write_bytes(b"not looked at")
    broken = {"name": "own_3", "language": "py", "prompt": "def f():\n", "tests": "def check(:", "completions": [""]}
    (folder / "own_3_broken.json").write_text(json.dumps(broken))
    outcome = score_command(folder, "multipl-e-js", tmp_path / "out.jsonl", workers=1, quiet=True)
    assert outcome.record["verdicts"] == {"fail": 1, "pass": 2}
    assert outcome.record["skipped"] == 3
    assert detect_format(folder / "own_0_add.json.gz") == "multipl-e"


def test_the_record_names_the_problems_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRINGLE_BENCHMARKS", raising=False)
    own, other = PYTHON["prompt"], PYTHON["prompt"] + "    # another edition\n"
    problem = {"name": "own_0", "language": "py", "prompt": own, "tests": "assert add(1, 2) == 3\n"}
    more = problem | {"name": "own_1"}
    suite = write_lines(tmp_path / "suite.jsonl", [problem, more])

    def record(*problems: dict[str, str], of: str = str(suite)) -> dict[str, Any]:
        rows = [one | {"completions": [RIGHT["python"]] * 2} for one in problems]
        return score_command(
            write_lines(tmp_path / "s.jsonl", rows), of, tmp_path / "out.jsonl", workers=1, quiet=True
        ).record

    whole = record(problem, more)
    assert (whole["prompts"], whole["other_edition"]) == (load_suite(suite).prompt_hash[:16], 0)
    assert record(problem)["prompts"] == whole["prompts"]  # a part of the suite is of its edition
    edited = record(problem, more | {"prompt": other})
    assert (edited["other_edition"], edited["prompts"] == whole["prompts"]) == (1, False)
    assert record(more | {"prompt": other}, problem)["prompts"] == edited["prompts"]
    assert record(problem, more | {"name": "own_2"})["other_edition"] == 1
    file = tmp_path / "own_0.json"
    file.write_text(json.dumps(problem | {"completions": [RIGHT["python"]]}))
    rules_alone = score_command(file, "multipl-e-py", tmp_path / "out.jsonl", quiet=True).record
    assert (rules_alone["other_edition"], len(rules_alone["prompts"])) == (0, 16)


def test_a_file_that_is_cut_off(tmp_path: Path, suite_file: Path) -> None:
    lines = [
        {"task_id": "own/0", "completion": f"    return {number} # {os.urandom(40).hex()}\n"} for number in range(200)
    ]
    whole = write_lines(tmp_path / "whole.jsonl.gz", lines).read_bytes()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    items = list(read_samples(path, load_suite(suite_file)))
    assert isinstance(items[-1], Flaw)
    assert "everything before it counts" in items[-1].line
    assert sum(isinstance(item, Sample) for item in items) > 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.jsonl", "", "no completion"),
        ("none.jsonl", '{"task_id": "x", "completion": ""}\n', "no completion in it that can be scored"),
        ("missing", None, "no such file"),
    ],
)
def test_nothing_to_score(tmp_path: Path, suite_file: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        score(tmp_path / name, suite_file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("", "is a folder, not a file; choose the name"), ("none/out.jsonl", "none: no such folder")]
)
def test_a_result_that_cannot_be_written_is_told_before_judging(
    tmp_path: Path, suite_file: Path, name: str, message: str
) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", [{"task_id": "own/0", "completion": RIGHT["python"]}])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match=message):
        score(samples, suite_file, out / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "own.jsonl", "samples.jsonl"]


def test_completions_are_not_overwritten_with_their_verdicts(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", [{"task_id": "own/0", "completion": RIGHT["python"]}])
    before = samples.read_bytes()
    with pytest.raises(UserError, match="is the file to be scored"):
        score(samples, suite_file, tmp_path / "." / "samples.jsonl")
    assert samples.read_bytes() == before


def mixed(count: int) -> list[dict[str, str]]:
    kinds = (
        "    return a + b # {}\n",
        "    return a - b # {}\n",
        "    return a + (b # {}\n",
        "    import os; return os.getpid() and a + b # {}\n",
        "    import os; os._exit(0) # {}\n",
        "    class Yes:\n        __eq__ = lambda *_: True # {}\n    return Yes()\n",
        "    print('x' * 10**8) # {}\n    return a + b\n",
    )
    return [
        {"task_id": f"own/{number % 2}", "completion": kinds[number % len(kinds)].format(number // 20)}
        for number in range(count)
    ]


def test_results_do_not_depend_on_workers_or_shares(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", mixed(60))
    one = score(samples, suite_file, tmp_path / "one.jsonl", workers=1)
    many = score(samples, suite_file, tmp_path / "many.jsonl", workers=16)
    assert untimed(tmp_path / "one.jsonl") == untimed(tmp_path / "many.jsonl")
    assert one == many
    assert set(one["verdicts"]) == {"pass", "fail", "syntax", "tamper", "output"}
    parts = []
    for number in (1, 2, 3):
        score(samples, suite_file, tmp_path / f"part{number}.jsonl", part=f"{number}/3")
        parts += untimed(tmp_path / f"part{number}.jsonl")
    key = ("task_id", "sample")
    assert sorted(parts, key=lambda row: [row[k] for k in key]) == sorted(
        untimed(tmp_path / "one.jsonl"), key=lambda row: [row[k] for k in key]
    )


def test_a_killed_run_goes_on(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(
        tmp_path / "samples.jsonl",
        [{"task_id": "own/0", "completion": f"    return a + b + {n % 5}\n    # {n}\n"} for n in range(3000)],
    )
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "kringle", "score", str(samples), "--suite", str(suite_file), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.jsonl.judged-wal"
    deadline = time.monotonic() + 60
    while (not journal.exists() or journal.stat().st_size < 60_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="another run is writing this file; wait for it"):
        score(samples, suite_file, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    record = score(samples, suite_file, out)
    assert record["judged_before"] > 0
    assert record["verdicts"] == {"fail": 2400, "pass": 600}
    assert [row["sample"] for row in read_lines(out)] == list(range(3000))
    assert not list(tmp_path.glob("*.judged*"))


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_no_saved_verdict(tmp_path: Path, suite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kringle.evaluation.verdict_file._SAVED_EVERY", 0.0)
    rows = [{"task_id": "own/0", "completion": f"    return a + b\n    # {n}\n"} for n in range(100)]
    samples, out = write_lines(tmp_path / "samples.jsonl", rows), tmp_path / "out.jsonl"
    with (
        files_limited_to(100_000),
        pytest.raises(UserError, match=r"\.judged: verdicts cannot be kept there"),
    ):
        score(samples, suite_file, out, workers=1)  # while judging
    saved = (tmp_path / "out.jsonl.judged").read_bytes()
    with files_limited_to(1000), pytest.raises(UserError, match="the verdicts in it stay"):
        score(samples, suite_file, out, workers=1)  # before anything is judged
    assert (tmp_path / "out.jsonl.judged").read_bytes() == saved
    record = score(samples, suite_file, out)
    assert 0 < record["judged_before"] < 100
    assert record["verdicts"] == {"pass": 100}


def test_a_database_that_is_none_is_made_anew(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", [{"task_id": "own/0", "completion": RIGHT["python"]}])
    database = tmp_path / "out.jsonl.judged"
    database.mkdir()
    with pytest.raises(UserError, match="unable to open database file"):
        score(samples, suite_file, tmp_path / "out.jsonl")
    database.rmdir()
    database.write_bytes(b"no database" * 1000)
    assert score(samples, suite_file, tmp_path / "out.jsonl")["verdicts"] == {"pass": 1}
    assert not list(tmp_path.glob("*.judged*"))


def test_other_harnesses_rules(tmp_path: Path, suite_file: Path) -> None:
    leaves = {"task_id": "own/0", "completion": "    import sys; sys.exit(0)\n"}
    equals = {"task_id": "own/0", "completion": "    class Yes:\n        __eq__ = lambda *_: True\n    return Yes()\n"}
    samples = write_lines(
        tmp_path / "samples.jsonl", [leaves, equals, {"task_id": "own/0", "completion": RIGHT["python"]}]
    )
    score(samples, suite_file, tmp_path / "a.jsonl", compat="multipl-e")
    rows = read_lines(tmp_path / "a.jsonl")
    assert [(row["verdict"], row["harness_passed"]) for row in rows] == [
        ("fail", True),
        ("tamper", True),
        ("pass", True),
    ]
    record = score(samples, suite_file, tmp_path / "b.jsonl", compat="human-eval")
    rows = read_lines(tmp_path / "b.jsonl")
    assert [row["harness_passed"] for row in rows] == [False, True, True]
    assert rows[0]["harness_result"].startswith("failed: SystemExit")
    assert record["harness"]["differing"] == 1
    with pytest.raises(UserError, match="no rules of a harness called 'apps'"):
        score(samples, suite_file, tmp_path / "c.jsonl", compat="apps")


@pytest.mark.parametrize(
    ("harness", "rules", "language", "kind", "evidence", "word"),
    [
        ("multipl-e", "multipl-e-py", "python", "syntax", "IndentationError: unexpected indent (line 2)", "Exception"),
        ("multipl-e", "multipl-e-py", "python", "syntax", "SyntaxError: invalid syntax (line 2)", "SyntaxError"),
        ("multipl-e", "multipl-e-py", "python", "fail", "SyntaxError in the program, line 1: eval", "SyntaxError"),
        ("multipl-e", "multipl-e-py", "python", "fail", "AssertionError in the tests, line 2", "Exception"),
        ("multipl-e", "multipl-e-py", "python", "output", "printed more than 16 bytes", "Timeout"),
        ("multipl-e", "humaneval", "python", "output", "printed more than 16 bytes", "Timeout"),
        ("multipl-e", "multipl-e-js", "javascript", "fail", "AssertionError: 1 == 2", "AssertionError"),
        ("multipl-e", "multipl-e-js", "javascript", "syntax", "SyntaxError: Unexpected token", "SyntaxError"),
        ("multipl-e", "multipl-e-js", "javascript", "fail", "ReferenceError: x is not defined", "ReferenceError"),
        ("multipl-e", "multipl-e-java", "java", "syntax", "cannot find symbol", "SyntaxError"),
        ("multipl-e", "multipl-e-java", "java", "fail", "AssertionError", "Exception"),
        ("multipl-e", "multipl-e-py", "python", "infrastructure", "", "not judged"),
        ("human-eval", "multipl-e-py", "python", "syntax", "SyntaxError: no", "failed: SyntaxError: no"),
        ("human-eval", "humaneval", "python", "memory", "MemoryError", "failed: MemoryError"),
        ("human-eval", "multipl-e-py", "python", "timeout", "", "timed out"),
    ],
)
def test_the_words_of_other_harnesses(
    harness: str, rules: str, language: str, kind: str, evidence: str, word: str
) -> None:
    table = yaml.safe_load((SHIPPED / f"{rules}.yaml").read_text())["verdicts"]
    own = replace(load_suite("starter"), harness_words=table)
    task = replace(own.problems[0], language=language)
    verdict = Verdict(task.task_id, Kind(kind), evidence, "reject", "full", 1.0, 1.0, None)
    assert harness_verdict(harness, own, task, verdict) == (word, False)


def test_a_harness_that_passes_nothing_has_its_say(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", [{"task_id": "own/0", "completion": "    return 0\n"}])
    found = score(samples, suite_file, tmp_path / "out.jsonl", compat="human-eval")["harness"]
    assert (found["name"], found["differing"], found["pass_at_k"]["pass@1"]["value"]) == ("human-eval", 0, 0.0)
    assert "harness" not in score(samples, suite_file, tmp_path / "out.jsonl")


def test_a_share_that_nothing_falls_into_is_an_empty_file(tmp_path: Path, suite_file: Path) -> None:
    samples = write_lines(tmp_path / "samples.jsonl", [{"task_id": "own/0", "completion": RIGHT["python"]}])
    sizes = []
    for number in (1, 2, 3):
        out = tmp_path / f"{number}.jsonl"
        outcome = score_command(samples, str(suite_file), out, part=f"{number}/3")
        sizes.append(len(read_lines(out)))
        told = f"no completion of {samples} falls into part {number} of 3: {out} is empty"
        assert (told in outcome.lines) is (sizes[-1] == 0)
        assert outcome.faults == 0
    assert sorted(sizes) == [0, 0, 1]


def test_suites_of_one_name_are_not_evaluated_into_one_folder(tmp_path: Path, suite_file: Path) -> None:
    (tmp_path / "b").mkdir()
    other = write_lines(tmp_path / "b" / suite_file.name, [PYTHON])
    suites = f"{suite_file},starter,{other}"
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--suite", suites, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError)
    assert f"{suite_file} and {other} are both called 'own'" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_two_results_compared(tmp_path: Path, suite_file: Path) -> None:
    rows = [{"task_id": f"own/{n % 2}", "completion": RIGHT["python"] if n < 3 else "    return 0\n"} for n in range(4)]
    score(write_lines(tmp_path / "s.jsonl", rows), suite_file, tmp_path / "a.jsonl")
    human_eval = [
        {
            "task_id": f"own/{n % 2}",
            "completion_id": n // 2,
            "passed": n == 0,
            "result": "passed" if n == 0 else "timed out",
        }
        for n in range(4)
    ]
    outcome = compare_command(tmp_path / "a.jsonl", write_lines(tmp_path / "b.jsonl", human_eval))
    assert outcome.record["samples_in_both"] == 4
    assert [(one["task_id"], one["sample"]) for one in outcome.record["differing"]] == [("own/1", 0), ("own/0", 1)]
    assert "a limit of time decided" in outcome.record["differing"][0]["why"]
    difference = outcome.record["difference"]["pass@1"]
    assert difference["value"] == -0.5
    assert difference["low"] <= -0.5 <= difference["high"]
    assert compare_command(tmp_path / "a.jsonl", None).record["pass_at_k"]["pass@1"]["value"] == 0.75


def human_eval_s(path: Path, passed: dict[str, list[bool]]) -> Path:
    return write_lines(path, [{"task_id": name, "passed": one} for name, each in passed.items() for one in each])


def test_results_of_unequal_problems_are_compared_over_those_in_both(tmp_path: Path) -> None:
    half = [True] * 5 + [False] * 5
    first = human_eval_s(tmp_path / "a.jsonl", {"A": half, "B": half, "C": [True]})
    second = human_eval_s(tmp_path / "b.jsonl", {"A": half, "B": [False] * 10})
    outcome = compare_command(first, second)
    record = outcome.record
    assert record["problems"] == {"first": 3, "second": 2, "both": 2}
    for name, before, after in (("pass@1", 0.5, 0.25), ("pass@10", 1.0, 0.5)):
        assert (record["first"][name]["value"], record["second"][name]["value"]) == (before, after)
        assert record["difference"][name]["value"] == after - before
    assert "  2 problems have verdicts in both, of 3 and 2: pass@k is theirs" in outcome.lines


def lines_of_functions(path: Path, right: set[int], **changes: Any) -> Path:
    """Verdicts on the lines of ten functions, five each, of which those of the functions in `right` are right."""
    rows = [
        {"task_id": f"F{n}-L{line}", "group": f"F{n}", "language": ("python", "java")[n % 2], "verdict": "fail"}
        | {"sample": 0, "passed": n in right, "exact": n in right}
        | ({"verdict": "pass"} if n in right else {})
        for n in range(10)
        for line in range(5)
    ]
    return write_lines(path, [{key: value for key, value in (row | changes).items() if value != ""} for row in rows])


def width(value: dict[str, Any]) -> float:
    return float(value["high"] - value["low"])


def test_lines_of_one_function_are_drawn_together_in_a_comparison_too(tmp_path: Path) -> None:
    some, more = set(range(5)), set(range(9))
    first, second = lines_of_functions(tmp_path / "a.jsonl", some), lines_of_functions(tmp_path / "b.jsonl", more)
    grouped = compare_command(first, second).record
    alone = {"group": "", "language": "", "exact": ""}
    loose = compare_command(
        lines_of_functions(tmp_path / "c.jsonl", some, **alone), lines_of_functions(tmp_path / "d.jsonl", more, **alone)
    ).record
    assert (grouped["difference"]["pass@1"]["problems"], grouped["difference"]["pass@1"]["groups"]) == (50, 10)
    assert loose["difference"]["pass@1"]["groups"] == 50
    for name in ("first", "second", "difference"):
        assert grouped[name]["pass@1"]["value"] == loose[name]["pass@1"]["value"]
        assert width(grouped[name]["pass@1"]) > 1.5 * width(loose[name]["pass@1"]), name
    one_grouped = compare_command(first, None).record["pass_at_k"]["pass@1"]
    assert one_grouped == grouped["first"]["pass@1"]
    half = compare_command(tmp_path / "c.jsonl", second).record  # the groups of one file do for both
    assert half["difference"] == grouped["difference"]
    assert "exact" not in half


def test_exact_matches_are_compared_by_language(tmp_path: Path) -> None:
    first = lines_of_functions(tmp_path / "a.jsonl", {0, 1, 2})
    second = lines_of_functions(tmp_path / "b.jsonl", {0, 1, 2, 4, 6, 8}, passed=False, verdict="infrastructure")
    outcome = compare_command(first, second)
    exact = outcome.record["exact"]
    assert outcome.record["difference"] == {}  # nothing of the second file was run, which exact match does without
    assert list(exact) == ["java", "python"]
    assert [exact["python"][name]["value"] for name in ("first", "second", "difference")] == [0.4, 1.0, 0.6]
    assert [exact["java"][name]["value"] for name in ("first", "second", "difference")] == [0.2, 0.2, 0.0]
    assert exact["python"]["difference"]["groups"] == 5
    assert any(line.startswith("  exact match, python 0.4000 -> 1.0000, difference +0.6") for line in outcome.lines)
    alone = compare_command(first, None)
    assert alone.record["exact"]["python"] == exact["python"]["first"]
    assert any(line.startswith("  exact match, java 0.2000   90% interval") for line in alone.lines)


def test_files_that_group_their_problems_otherwise_are_not_of_one_suite(tmp_path: Path) -> None:
    first, second = lines_of_functions(tmp_path / "a.jsonl", {0}), lines_of_functions(tmp_path / "b.jsonl", {0})
    second.write_text(second.read_text().replace('"group": "F0"', '"group": "G0"'))
    with pytest.raises(UserError, match="not of one suite: F0-L0 is of 'F0' in one, of 'G0' in the other"):
        compare_command(first, second)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"task_id": "A", "passed": true, "group": 3}', "line 1: group is no text, or another one"),
        ("a.jsonl", b'{"task_id": "A", "passed": true, "exact": true}', "line 1: a verdict on a line has no group"),
        ("a.jsonl", b'{"task_id": "A", "passed": true, "sample": "x"}', r"line 1: a sample's number is .* not 'x'"),
        ("a.jsonl", b'{"task_id": "A", "passed": true, "sample": null}', r"line 1: a sample's number is .* not None"),
        (
            "a.jsonl",
            b'{"task_id": "A", "passed": true, "verdict": "infrastructure"}',
            "line 1: a sample that was not j",
        ),
        ("a.results.json", b'{"name": "A", "results": ["OK"]}', "line 1: result 0 is not a JSON object"),
        ("a.results.json", b'{"results": []}', "line 1: not a problem's results: name is missing"),
        ("a.jsonl", b"[" * 100_000, "cannot be read"),
        ("a.jsonl.gz", gzip.compress(b"")[:10] + b"\xff" * 100, "cannot be read"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        compare_command(tmp_path / name, None)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_missing_runtime_is_one_line(tmp_path: Path) -> None:
    """In a process that finds no Java and no Node: their programs are not judged, and said so once."""
    java = JAVA | {"completions": [RIGHT["java"], "        return null;\n"]}
    path = tmp_path / "java.json"
    path.write_text(json.dumps(java))
    command = [sys.executable, "-m", "kringle", "score", str(path), "--suite", "multipl-e-java"]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/nowhere", "HOME": str(tmp_path)}
    out = tmp_path / "out.jsonl"
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.count("there is no Java here") == 1
    assert [row["verdict"] for row in read_lines(out)] == ["infrastructure", "infrastructure"]
    assert "2 samples were NOT judged" in done.stdout


def lines_to_fill_in(path: Path) -> Path:
    """Three lines of SantaCoder's kind in each of three languages, two of them of one function."""
    rows = [
        {"name": f"own_{name}-L{line}", "language": language, "prompt": prompt, "suffix": suffix, "tests": ""}
        | {"canonical_solution": solution}
        for language, prompt, solution, suffix in (
            ("py", "def add(a, b):", "    c = a + b", "    return c"),
            (
                "java",
                "class Problem {\n  static int add(int a, int b) {",
                "    int c = a + b;",
                "    return c;\n  }\n}",
            ),
            ("js", "function add(a, b) {", "  const c = a + b;", "  return c;\n}"),
        )
        for name, line in ((0, 1), (0, 2), (1, 1))
    ]
    return write_lines(path, rows)


def filled_in(path: Path, suite: Path) -> Path:
    """The right line for the first function of each language, with other white space, and a wrong one for the other."""
    return write_lines(
        path,
        [
            {"task_id": one.task_id, "completion": f" {one.canonical_solution} \n" if "own_0" in one.task_id else "x"}
            for one in load_suite(suite).problems
        ],
    )


def check_exact(record: dict[str, Any], out: Path) -> None:
    assert list(record["exact"]) == ["java", "javascript", "python"]
    for value in record["exact"].values():
        assert (value["value"], value["problems"]) == (2 / 3, 3)
        assert value["low"] < 2 / 3 < value["high"]
        assert "design effect" in value["method"]  # two functions, not three lines that have nothing in common
    assert "exact_match" not in record  # no mean over languages
    assert "are of another protocol" in record["exact_rule"]
    assert compare_command(out, None).record["exact"] == record["exact"]


def test_exact_lines_need_no_jail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(unsafe: bool) -> None:
        raise UserError("this machine cannot jail programs", hint="no matter")

    monkeypatch.setattr("kringle.evaluation.verdict_file.level_for_scoring", refuse)
    suite, out = lines_to_fill_in(tmp_path / "lines.jsonl"), tmp_path / "out.jsonl"
    outcome = score_command(filled_in(tmp_path / "s.jsonl", suite), str(suite), out, quiet=True)
    check_exact(outcome.record, out)
    assert (outcome.record["jail"], outcome.record["not_run"]) == ("none", "this machine cannot jail programs")
    assert outcome.record["verdicts"] == {"infrastructure": 9}
    assert outcome.record["pass_at_k"] == {}
    assert outcome.faults == 0
    whole = [
        {"task_id": one.task_id, "solution": f"{one.prompt}{one.canonical_solution}{one.suffix}"}
        for one in load_suite(suite).problems
    ]
    record = score(write_lines(tmp_path / "whole.jsonl", whole), suite, out)
    assert {value["value"] for value in record["exact"].values()} == {1.0}
    ours = write_lines(tmp_path / "own.jsonl", [PYTHON])
    samples = write_lines(tmp_path / "p.jsonl", [{"task_id": "own/0", "completion": RIGHT["python"]}])
    with pytest.raises(UserError, match="cannot jail"):
        score(samples, ours, out)


def test_exact_lines_need_no_runtime(tmp_path: Path) -> None:
    suite, out = lines_to_fill_in(tmp_path / "lines.jsonl"), tmp_path / "out.jsonl"
    samples = filled_in(tmp_path / "s.jsonl", suite)
    command = [sys.executable, "-m", "kringle", "score", str(samples), "--suite", str(suite), "--out", str(out)]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/nowhere", "HOME": str(tmp_path)}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout[done.stdout.index("\n{") :])
    check_exact(record, out)
    assert record["verdicts"]["infrastructure"] == 6
    assert "6 samples were NOT judged: the jail failed, or a runtime is missing; exact match needs no" in done.stdout


def test_openai_s_infilling_with_the_canonical_line(tmp_path: Path) -> None:
    path = BENCHMARKS / "HumanEval-SingleLineInfilling.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {BENCHMARKS}")
    suite = load_suite("humaneval-infilling", BENCHMARKS)
    assert len(suite.problems) == 1033
    lines = [{"task_id": one.task_id, "completion": one.canonical_solution} for one in suite.problems[::8]]
    record = score(write_lines(tmp_path / "s.jsonl", lines), path, tmp_path / "out.jsonl")
    assert record["verdicts"] == {"pass": len(lines)}
    assert record["programs"] < len(lines) * 1.01
