"""Opting out, before and after the fact: what must go goes, what need not stays byte for byte, and it stays so."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from data_support import decisions, documents, folder_corpus, run_collect, snapshot, write_tree
from run_fixtures import kringle

from kringle.data.optout import OptOuts, parse_rule, read_rules
from kringle.data.table import iter_documents
from kringle.errors import UserError
from kringle.recipe import parse_recipe
from kringle.study.optout import models_with_opted_out, opt_out, told
from kringle.workspace import unfinished_opt_out_file


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("owner/repo", "repo:owner/repo"),
        ("owner/", "owner:owner"),
        ("A" * 40, "id:" + "a" * 40),
        ("*/secret.py", "path:*/secret.py"),
        ("path:src/a.py", "path:src/a.py"),
        ("id:" + "0" * 40, "id:" + "0" * 40),
        (" repo:x ", "repo:x"),
    ],
)
def test_rules_as_people_write_them(text: str, rule: str) -> None:
    assert str(parse_rule(text)) == rule


@pytest.mark.parametrize("text", ["", "repo:", "id:123", "owner:/", "path: ", "bogus:*", "repos:a/b"])
def test_rules_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_rule(text)


@pytest.mark.parametrize(
    ("rule", "repo", "path", "named"),
    [
        ("repo:Owner/Repo", "owner/repo", "a.py", True),
        ("repo:owner/repo", "owner/repo2", "a.py", False),
        ("owner:owner", "owner/repo", "a.py", True),
        ("owner:owner", "Owner", "a.py", True),
        ("owner:own", "owner/repo", "a.py", False),
        ("path:src", "r", "src/a.py", True),
        ("path:src", "r", "src2/a.py", False),
        ("path:r/src/a.py", "r", "src/a.py", True),
        ("path:*.min.js", "r", "deep/er/x.min.js", True),
        ("path:a?.py", "r", "ab.py", True),
        ("path:A.py", "r", "a.py", False),
    ],
)
def test_what_a_rule_names(rule: str, repo: str, path: str, named: bool) -> None:
    assert OptOuts([rule]).place(repo, path) == (rule if named else None)


def test_a_file_of_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("\ufeff# by mail\nowner/repo   # ticket 7\n\npath:a#b.py\n")
    assert read_rules(tmp_path / "rules.txt", "corpus.opt_out") == ("repo:owner/repo", "path:a#b.py")
    (tmp_path / "bad.txt").write_text("ok\nid:12\n")
    with pytest.raises(UserError, match=r"bad\.txt, line 2: not a document's id"):
        read_rules(tmp_path / "bad.txt", "corpus.opt_out")


def module(seed: int) -> str:
    rng = random.Random(seed)
    return "".join(f"value_{rng.randrange(10**9)} = call_{rng.randrange(10**6)}({i})\n" for i in range(100))


def corpus(root: Path) -> Path:
    files = {f"own{r % 3}-repo{r}/m{f}.py": module(100 * r + f) for r in range(12) for f in range(8)}
    files["own0-repo0/m5.py"] += "author = 'jane.doe@corp-mail.org'\n"  # redaction keeps a table of its own
    files["copies/first.py"] = files["own0-repo0/m0.py"]
    files["zcopies/second.py"] = files["own0-repo0/m0.py"]
    return write_tree(root, files)


def test_before_the_fact_by_every_kind_of_rule(tmp_path: Path) -> None:
    root = corpus(tmp_path / "in")
    run_collect(folder_corpus(root), tmp_path / "plain")
    ids = {f"{d['repo']}/{d['path']}": d["id"] for d in documents(tmp_path / "plain")}
    rules = ("repo:own1-repo1", "path:m7.py", f"id:{ids['own2-repo2/m3.py']}")
    summary = run_collect(folder_corpus(root, opt_out=rules), tmp_path / "less")
    left = {f"{d['repo']}/{d['path']}" for d in documents(tmp_path / "less")}
    gone = {n for n in ids if n.startswith("own1-repo1/") or n.endswith("/m7.py")} | {"own2-repo2/m3.py"}
    assert left == ids.keys() - gone
    told = {d.path: d.witness for d in decisions(tmp_path / "less/out") if d.step == "opt-out"}
    assert told["m3.py"] in rules
    (step,) = [s for s in summary["funnel"] if s["name"] == "opt-out"]
    assert step["dropped"][0]["files"] == len(gone)
    with pytest.raises(UserError, match=r"all 98 files are opted out"):
        run_collect(folder_corpus(root, opt_out=("path:*",)), tmp_path / "nothing")


def test_an_id_costs_its_own_shard_alone_and_can_be_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_support import InProcess

    from kringle.data import collect as collect_module

    monkeypatch.setattr(collect_module, "TASK_BYTES", 20_000)
    root = corpus(tmp_path / "in")
    run_collect(folder_corpus(root), tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out/documents").iterdir()}
    id = next(d["id"] for d in documents(tmp_path) if d["path"] == "m3.py")
    engine = InProcess()
    run_collect(folder_corpus(root, opt_out=(f"id:{id}",)), tmp_path, engine)
    after = {p.name: p.read_bytes() for p in (tmp_path / "out/documents").iterdir()}
    assert len(set(engine.ran)) == 1  # the shard, and the part that copies are missing from
    assert len(set(before.values()) - set(after.values())) == 1
    assert id not in {d["id"] for d in documents(tmp_path)}
    run_collect(folder_corpus(root), tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out/documents").iterdir()} == before


def test_an_id_is_gone_wherever_it_lies_in_a_shard_with_copies(tmp_path: Path) -> None:
    """A part from which copies are missing is kept in the store; what is opted out must not come back with it."""
    files = {f"own-repo/m{n}.py": module(n) for n in range(6)}
    files |= {"own-repo/again.py": files["own-repo/m0.py"], "zz/second.py": files["own-repo/m0.py"]}
    root = write_tree(tmp_path / "in", files)
    run_collect(folder_corpus(root), tmp_path)
    ids = {d["id"] for d in documents(tmp_path)}
    for id in sorted(ids):
        run_collect(folder_corpus(root, opt_out=(f"id:{id}",)), tmp_path)
        assert {d["id"] for d in documents(tmp_path)} == ids - {id}


RECIPE = """
name: opt
corpus: {{sources: [{{folder: {root}}}], licenses: any, opt_out: {rules}}}
clean: {{pii: true}}
tokenizer: {{vocab_size: 260}}
model: {{layers: 1, width: 32, heads: 2, context: 128}}
training: {{tokens: 2k, batch_tokens: 256}}
ablations: {{base: {{}}}}
evaluation: {{suites: [], held_out: 10%}}
"""


def write_recipe(place: Path, root: Path, rules: str = "[]") -> Path:
    place.write_text(RECIPE.format(root=root, rules=rules))
    return place


def stage(work: Path, name: str) -> Path:
    return max(work.glob(f"stages/{name}-*"), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose corpus is collected, cleaned, split and encoded."""
    place = tmp_path_factory.mktemp("opt")
    recipe = write_recipe(place / "r.yaml", corpus(place / "in"))
    kringle("run", recipe, "--until", "encode", "--work", place / "work").succeeded()
    shutil.copytree(place / "work", place / "untouched")
    return place


def test_after_the_fact_only_the_files_that_hold_it_change(encoded: Path) -> None:
    work = encoded / "work"
    before = snapshot(work)
    done = kringle("optout", "own0-repo0", "--work", work, "--json").succeeded()
    result = done.result
    after = snapshot(work)
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    manifest = {name for name in changed if name.endswith("manifest.json")}
    assert changed - manifest == set(result["rewritten"])
    assert before.keys() - after.keys() == {
        name for name in before if any(name.startswith(f"{folder}/") for folder in result["deleted_shards"])
    }
    assert after.keys() - before.keys() == {"opt-outs.txt"}
    assert {(x["repo"], x["path"]) for x in result["removed"]} == {("own0-repo0", f"m{n}.py") for n in range(8)}
    assert {(x["repo"], x["now"]) for x in result["copies"]} == {("copies", "kept"), ("zcopies", "kept")}
    (store,) = [s for s in result["token_stores"] if s["store"].startswith("stages/")]
    assert store["documents"] == 7  # the eighth document's bytes are still wanted elsewhere
    ids = {x["id"] for x in result["removed"]} - {x["id"] for x in result["copies"]}
    split = pq.read_table(stage(work, "split") / "split.parquet").to_pylist()
    trained = any(row["id"] in ids and row["split"] == "train" for row in split)
    assert bool(result["tokenizers"]) == trained
    found = {f"{d['repo']}/{d['path']}": d for d in iter_documents(stage(work, "collect") / "documents")}
    assert not any(name.startswith("own0-repo0/") for name in found)
    assert [c["repo"] for c in found["copies/first.py"]["copies"]] == ["zcopies"]
    story = kringle("why", "own0-repo0/m5.py", "--work", work).succeeded().out
    assert "dropped opt-out" in story
    assert "repo:own0-repo0" in story
    # The same again finds nothing more to do.
    again = kringle("optout", "own0-repo0", "--work", work, "--json").succeeded().result
    assert (again["removed"], again["rewritten"]) == ([], [])
    # A later run, from the sources, leaves it out as well, and is told that it does.
    kringle("run", encoded / "r.yaml", "--from", "collect", "--until", "split", "--work", work).succeeded()
    later = {f"{d['repo']}/{d['path']}" for d in iter_documents(stage(work, "collect") / "documents")}
    assert later == found.keys()
    listed = kringle("optout", "--work", work, "--json").succeeded().result
    assert listed["rules"] == ["repo:own0-repo0"]


def test_copies_go_too_where_that_is_asked_for(encoded: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", encoded / "in")
    work = tmp_path / "work"
    kringle("run", recipe, "--until", "clean", "--work", work).succeeded()
    result = (
        kringle("optout", "path:own0-repo0/m0.py", "--copies", "remove", "--work", work, "--json").succeeded().result
    )
    assert {x["repo"] for x in result["copies"]} == {"copies", "zcopies"} or result["copies"][0]["now"] == "removed"
    kringle("run", recipe, "--from", "collect", "--until", "clean", "--work", work).succeeded()
    texts = [d["content"] for d in iter_documents(stage(work, "collect") / "documents")]
    assert (encoded / "in/own0-repo0/m0.py").read_text() not in texts
    for path in (work / "shards").rglob("documents.parquet"):
        assert (encoded / "in/own0-repo0/m0.py").read_text() not in pq.read_table(path)["content"].to_pylist()


class Killed(BaseException):
    pass


class Death:
    """A process that is killed at its `last`-th call which renames or removes: nothing that it would tidy up after
    that is tidied up."""

    def __init__(self, last: int | None, patch: pytest.MonkeyPatch) -> None:
        self.last, self.calls = last, 0
        patch.setattr(os, "getpid", lambda: 4_194_305)  # no other process's, so not that of the next call
        for name in ("replace", "unlink", "rmdir"):
            patch.setattr(os, name, self._watched(getattr(os, name)))

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.last is not None and self.calls >= self.last:
                raise Killed
            return call(*arguments, **options)

        return watched


@pytest.mark.parametrize("copies", ["keep", "remove"])
def test_a_kill_at_any_step_is_mended_by_the_same_command(encoded: Path, tmp_path: Path, copies: Any) -> None:
    """Until it is, models are not released and nothing is run; then every file is as if there had been no kill."""
    untouched, asked = encoded / "untouched", ["own0-repo0"]
    shutil.copytree(untouched, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        death = Death(None, patch)
        expected = opt_out(tmp_path / "whole", asked, copies)
    before, after = snapshot(untouched), snapshot(tmp_path / "whole")
    assert len(expected["rewritten"]) >= 3  # documents of two stages, decisions
    assert len(expected["deleted_shards"]) >= 2
    for step in range(1, death.calls + 1):
        work = tmp_path / f"killed-{step}"
        shutil.copytree(untouched, work)
        with pytest.MonkeyPatch.context() as patch:
            Death(step, patch)
            try:
                opt_out(work, asked, copies)
            except Killed:
                gc.collect()  # and with it the lock
        left = {name: data for name, data in snapshot(work).items() if not Path(name).name.startswith(".")}
        if unfinished_opt_out_file(work).exists():
            with pytest.raises(UserError, match=r"an opt-out was interrupted here; finish it: kringle optout --work"):
                models_with_opted_out(work)
        else:
            assert left in (before, after), step
        again = opt_out(work, asked, copies)
        assert snapshot(work) == after, step
        if left != after:
            same = [key for key in expected if key != "asked"]
            assert [again[key] for key in same] == [expected[key] for key in same], step
        shutil.rmtree(work)


def test_an_interrupted_opt_out_is_finished_by_any_other(encoded: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(encoded / "untouched", work)
    with pytest.MonkeyPatch.context() as patch:
        Death(5, patch)
        with pytest.raises(Killed):
            opt_out(work, ["own0-repo0"], "keep")
    gc.collect()
    recipe = write_recipe(tmp_path / "r.yaml", encoded / "in")
    assert "an opt-out was interrupted here" in kringle("run", recipe, "--work", work).refused()
    unfinished = unfinished_opt_out_file(work)
    text = unfinished.read_text()
    unfinished.write_text(text[:-20])
    assert "opt-out-unfinished.json: is damaged" in kringle("optout", "--work", work).refused()
    unfinished.write_text(text)
    result = kringle("optout", "own1-repo1", "--work", work, "--json").succeeded().result
    assert {x["repo"] for x in result["removed"]} == {"own0-repo0", "own1-repo1"}
    assert result["rules"] == ["repo:own0-repo0", "repo:own1-repo1"]
    assert not unfinished.exists()
    kringle("run", recipe, "--until", "collect", "--work", work).succeeded()


def test_decisions_that_a_killed_run_was_writing_are_no_hindrance(encoded: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(encoded / "untouched", work)
    (collect,) = (work / "stages").glob("collect-*")
    for killed in (".partial", ".part-1-of-2.partial"):
        half = collect.with_name(collect.name + killed) / "decisions"
        half.mkdir(parents=True)
        (half / "part-00000.parquet").write_bytes(b"PAR1half")
    assert len(opt_out(work, ["own0-repo0"], "keep")["removed"]) == 8


def test_what_is_held_back_is_not_nothing_where_it_cannot_be_told(encoded: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(encoded / "untouched", work)
    (work / "last-run.json").write_text("{}")
    result = opt_out(work, ["own0-repo0"], "keep")
    assert len(result["removed"]) == 8
    assert "last-run.json: is damaged" in result["held_back_unknown"]
    assert any("cannot be told" in line for line in told(result))


def test_mistakes(tmp_path: Path) -> None:
    assert "is not a workspace" in kringle("optout", "x", "--work", tmp_path / "none").refused()
    assert "expected keep or remove" in kringle("optout", "x", "--copies", "burn").refused()
    with pytest.raises(UserError, match=r"corpus\.opt_out: .*cannot be read"):
        parse_recipe(RECIPE.format(root=tmp_path, rules=json.dumps(str(tmp_path / "missing"))))


def test_what_was_dropped_for_a_removed_witness_is_listed(tmp_path: Path) -> None:
    from kringle.data.table import DECISION, Decision, write_rows
    from kringle.data.withdraw import Spot, held_back

    gone, other = "a" * 40, "b" * 40
    rows = [
        Decision(
            "1" * 40, "r", "near.py", "near-duplicate", 0.9, "similarity < 0.7", False, f"g/x.py ({gone}), which ..."
        ),
        Decision(
            "2" * 40, "r", "held.py", "held-out-copy", 0.6, "< 0.5", False, "60% of its 5-grams are in g/a file.py"
        ),
        Decision("3" * 40, "r", "kept.py", "near-duplicate", 0.1, "similarity < 0.7", True, f"g/x.py ({gone})"),
        Decision("4" * 40, "r", "else.py", "near-duplicate", 0.9, "similarity < 0.7", False, f"g/xx.py ({other})"),
        Decision(gone, "g", "x.py", "near-duplicate", 0.9, "similarity < 0.7", False, f"g/x.py ({gone})"),
        Decision("5" * 40, "r", "copy.py", "exact-duplicate", 2, "one file per content", False, "the same as g/x.py"),
    ]
    (tmp_path / "decisions").mkdir()
    write_rows(tmp_path / "decisions/part-00000.parquet", DECISION, rows)
    found = held_back([tmp_path], [Spot(gone, "g", "x.py"), Spot("c" * 40, "g", "a file.py")])
    assert [(x["path"], x["step"]) for x in found] == [("held.py", "held-out-copy"), ("near.py", "near-duplicate")]
