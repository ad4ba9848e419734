"""Suite files: what is loaded, what is refused, what is hashed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jail_support import problem, suite

from kringle.errors import UserError
from kringle.evaluation.suites import SHIPPED, load_suite

ROW = {
    "task_id": "T/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "\n\ndef check(candidate):\n    assert candidate() == 1\n",
}
SETTINGS: dict[str, Any] = {
    "name": "mine",
    "about": "two of them",
    "language": "python",
    "source": "mine.jsonl",
    "get": "write some",
    "stop": ["\ndef", "\nclass"],
    "limits": {"cpu_seconds": 2, "memory_mib": 64, "output_mib": 1},
    "protocol": {"strip_prompt": True, "max_new_tokens": 100, "count_prompt": False},
}
BENCHMARKS = Path(__file__).parents[2] / "shared" / "benchmarks"


def write(folder: Path, rows: list[Any] | str | bytes, **changes: Any) -> Path:
    settings = {key: value for key, value in (SETTINGS | changes).items() if value is not None}
    text = rows if isinstance(rows, str | bytes) else "\n".join(json.dumps(row) for row in rows)
    (folder / str(settings["source"])).write_bytes(text if isinstance(text, bytes) else text.encode())
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_suite_of_one_s_own(tmp_path: Path) -> None:
    other = ROW | {"task_id": "T/1", "prompt": "def \u2028two():\n"}
    made = load_suite(write(tmp_path, [ROW, other]))
    assert [one.task_id for one in made.problems] == ["T/0", "T/1"]
    assert made.by_id["T/1"].prompt == other["prompt"]
    assert made.limits.memory_bytes == 64 * 2**20
    assert made.protocol.strip_prompt
    assert made.cut("    return 1\nclass A: pass\ndef b(): pass") == "    return 1"
    assert made.cut("    return 1") == "    return 1"


def test_the_program_is_human_eval_s() -> None:
    for test in ("\n\nMETADATA = {}\ndef check(candidate):\n    pass\n", "def check(candidate):\n    pass"):
        one = problem("T", "one")
        one = type(one)("T", "def one():\n", "one", "", test)
        human_eval = one.prompt + "    return 1" + "\n" + one.test + "\n" + f"check({one.entry_point})"
        assert one.program("    return 1") + one.tests == human_eval
        assert not one.tests.startswith("\n")


def test_gzip_and_a_data_folder(tmp_path: Path) -> None:
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    data.mkdir()
    path = write(here, gzip.compress(json.dumps(ROW).encode()), source="mine.jsonl.gz")
    (here / "mine.jsonl.gz").rename(data / "mine.jsonl.gz")
    assert len(load_suite(path, data).problems) == 1
    with pytest.raises(UserError, match=r"mine\.jsonl\.gz.*; write some"):
        load_suite(path)


def test_the_hash_covers_what_was_asked() -> None:
    first = problem("a", "f", "assert candidate() == 1")
    hashes = {
        suite(first).prompt_hash,
        suite(problem("b", "f", "assert candidate() == 1")).prompt_hash,
        suite(problem("a", "g", "assert candidate() == 1")).prompt_hash,
        suite(problem("a", "f", "assert candidate() == 2")).prompt_hash,
        suite(problem("a", "f", "assert candidate() == 1", prompt="x")).prompt_hash,
        suite(first, first).prompt_hash,
    }
    assert len(hashes) == 6
    assert suite(first).prompt_hash == suite(problem("a", "f", "assert candidate() == 1")).prompt_hash


def test_a_pinned_edition(tmp_path: Path) -> None:
    right = load_suite(write(tmp_path, [ROW])).prompt_hash
    load_suite(write(tmp_path, [ROW], prompt_hash=right))
    with pytest.raises(UserError, match="not the problems of mine"):
        load_suite(write(tmp_path, [ROW | {"prompt": "def one(): \n"}], prompt_hash=right))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'"),
        ({"name": None}, "name is missing"),
        ({"language": 3}, "language must be of type str, not 3"),
        ({"stop": [""]}, "every stop string"),
        ({"limits": {"cpu_seconds": 0, "memory_mib": 1, "output_mib": 1}}, "greater than zero"),
        ({"limits": {"cpu_seconds": 1, "memory_mib": 1.5, "output_mib": 1}}, "limits: memory_mib must be of type int"),
        ({"limits": {"cpu_seconds": 1}}, "limits: memory_mib is missing"),
        (
            {"protocol": {"strip_prompt": 1, "max_new_tokens": 1, "count_prompt": True}},
            "strip_prompt must be of type bool",
        ),
        ({"protocol": {"strip_prompt": True, "max_new_tokens": True, "count_prompt": True}}, "max_new_tokens must be"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(write(tmp_path, [ROW], **changes))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "no problems"),
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
        ("[]", "line 1: a problem must be a JSON object"),
        ([ROW, {key: ROW[key] for key in ROW if key != "test"}], "line 2: test is missing"),
        ([ROW | {"prompt": 3}], "prompt is missing or no text"),
        ([ROW, ROW], "line 2: T/0 is there twice"),
        ([ROW | {"test": "def check(:"}], "the tests of T/0 are not valid Python"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_problems_that_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(write(tmp_path, rows))


def test_a_truncated_archive(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(ROW).encode() * 50)
    with pytest.raises(UserError, match="is the file complete"):
        load_suite(write(tmp_path, whole[:40], source="mine.jsonl.gz"))


def test_unknown_and_unreadable_suites(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no suite called 'humanevil'; shipped are .*humaneval.*starter"):
        load_suite("humanevil")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_suite(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("name: 2024-13-01")
    with pytest.raises(UserError, match=r"bad\.yaml, line 1: not valid YAML: '2024-13-01' is no timestamp"):
        load_suite(tmp_path / "bad.yaml")


def test_absent_data_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KRINGLE_BENCHMARKS", raising=False)
    with pytest.raises(UserError, match="openai/human-eval"):
        load_suite("humaneval")


def test_shipped_suites() -> None:
    starter = load_suite("starter")
    assert starter.language == "python"
    assert len(starter.problems) >= 40
    if not (BENCHMARKS / "HumanEval.jsonl.gz").is_file():
        pytest.skip(f"HumanEval.jsonl.gz is not in {BENCHMARKS}")
    humaneval = load_suite("humaneval", BENCHMARKS)
    assert len(humaneval.problems) == 164
    assert set(humaneval.stop) == {"\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```"}
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {"starter", "humaneval"}


def test_the_variable_names_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write(tmp_path, [ROW])
    (tmp_path / "mine.jsonl").rename(data / "mine.jsonl")
    monkeypatch.chdir(data.parent)
    with pytest.raises(UserError, match="name its folder with --data or KRINGLE_BENCHMARKS"):
        load_suite(path)
    monkeypatch.setenv("KRINGLE_BENCHMARKS", str(data))
    assert len(load_suite(path).problems) == 1


def test_a_file_of_problems_is_a_suite() -> None:
    if not (BENCHMARKS / "HumanEval.jsonl.gz").is_file():
        pytest.skip(f"the public sets are not in {BENCHMARKS}")
    counts = {
        "HumanEval.jsonl.gz": ("python", 164),
        "HumanEval-SingleLineInfilling.jsonl.gz": ("python", 1033),
        "multipl-e-humaneval-java.jsonl": ("java", 158),
        "multipl-e-humaneval-js.jsonl": ("javascript", 161),
        "santacoder-fim-task.parquet": ("mixed", 4792),
    }
    for name, (language, count) in counts.items():
        made = load_suite(BENCHMARKS / name)
        assert (made.language, len(made.problems)) == (language, count)
        assert len({problem.key for problem in made.problems}) == count


def test_the_tasks_of_santacoder_make_whole_programs() -> None:
    """With the canonical line back in its place, every Python task passes its tests: brackets, breaks and names fit."""
    if not (BENCHMARKS / "santacoder-fim-task.parquet").is_file():
        pytest.skip(f"the public sets are not in {BENCHMARKS}")
    suite = load_suite("santacoder-fim", BENCHMARKS)
    programs = {p.program(p.canonical_solution) + p.tests: p for p in suite.problems}
    assert len(programs) < 1000
    for text, one in programs.items():
        if one.language == "python":
            assert one.entry_point
            compile(text, one.task_id, "exec")
        if one.language == "java":
            assert text.count("{") == text.count("}") or '"' in text
            assert one.closes


def test_gold_lines_survive_the_stop_strings_of_their_suite() -> None:
    """The stop of a single line takes its line break, which may be all that keeps the next line apart."""
    if not (BENCHMARKS / "HumanEval-SingleLineInfilling.jsonl.gz").is_file():
        pytest.skip(f"the public sets are not in {BENCHMARKS}")
    suite = load_suite("humaneval-infilling", BENCHMARKS)
    assert suite.infills
    for one in suite.problems:
        whole = f"{one.prompt}{one.canonical_solution}{one.suffix}"
        cut = suite.cut(one.canonical_solution, one)
        assert not cut.endswith("\n")
        assert one.program(cut) == one.program(one.canonical_solution) == one.whole(whole)
    assert one.program("    a = 1\n    b = 2") == one.whole(f"{one.prompt}    a = 1\n    b = 2{one.suffix}")


def test_answers_of_several_lines_have_no_stop_at_a_line_break(tmp_path: Path) -> None:
    gaps = [ROW | {"suffix": "\n", "canonical_solution": solution} for solution in ("    return 1", "    x\n    y\n")]
    rows = [row | {"task_id": f"T/{number}"} for number, row in enumerate(gaps)]
    path = tmp_path / "spans.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made = load_suite(path)
    assert (made.name, made.stop, made.protocol.max_new_tokens) == ("spans", (), 512)
    assert made.problems[0].program("    return 1") == "def one():\n    return 1\n\n\n\n"
    path.write_text(json.dumps(rows[0]))
    assert load_suite(path).stop == ("\n",)
    with pytest.raises(UserError, match="the stop strings cut the solution of T/1; answers of several lines"):
        load_suite(write(tmp_path, rows, format="infilling", stop=["\n"]))


@pytest.mark.parametrize(
    ("code", "prompt"),
    [
        ("def f(a):\n    # first\n    r'''Give.'''\n    return a\n", 'def f(a):\n    # first\n    """'),
        ('def f(a):\n    """Say."""\n    print "x", a\n', 'def f(a):\n    """'),
        ('def f(a):\n    """Try."""\n    except A, b: raise A, b\n', 'def f(a):\n    """'),
        ('def f(a):\n\f\n    """Feed."""\n    return """a"""\n', 'def f(a):\n\f\n    """'),
        ('def f(a): """One line."""; return a', 'def f(a): """'),
        ("def f(a): return a", 'def f(a): """'),
        (
            '@d(a=":")\nasync def f(a={"b:": lambda: ":"}, c=":)",  # :\n      d=1) -> "x:y":\n\tu"Hm."\n',
            '@d(a=":")\nasync def f(a={"b:": lambda: ":"}, c=":)",  # :\n      d=1) -> "x:y":\n\t"""',
        ),
    ],
)
def test_functions_are_cut_at_their_docstrings(tmp_path: Path, code: str, prompt: str) -> None:
    row = {"code": code, "docstring_tokens": ["x"]}
    (tmp_path / "codexglue-code-to-text-python.jsonl").write_text(json.dumps(row))
    (one,) = load_suite("codexglue-docstrings", tmp_path).problems
    assert one.prompt == prompt


def test_docstrings_may_open_with_a_line_break(tmp_path: Path) -> None:
    row = {"code": "def f(): pass", "docstring_tokens": ["x"]}
    (tmp_path / "codexglue-code-to-text-python.jsonl").write_text(json.dumps(row))
    made = load_suite("codexglue-docstrings", tmp_path)
    assert made.cut('\n    Give.\n\n    More."""\n    pass', made.problems[0]).strip().startswith("Give.")


def test_mbpp_s_prompt_ends_behind_its_quotes(tmp_path: Path) -> None:
    """Stripped, it would leave the line break to the model; with it, none of the stops lies in a right answer."""
    row = {"task_id": 11, "text": "Give one.", "code": "def f():\n    return 1", "test_list": ["assert f() == 1"]}
    made = load_suite(write(tmp_path, [row], source="mbpp.jsonl").with_name("mbpp.jsonl"))
    (one,) = made.problems
    assert not made.protocol.strip_prompt
    assert one.prompt.endswith('"""\n')
    answer = "class A:\n    pass\n\n\ndef f():\n    return 1\n"
    assert made.cut(f"{answer}\nassert f() == 1\n", one) == answer
    assert made.cut(f'{answer}"""\nMore.\n"""\n', one) == answer.removesuffix("\n")
