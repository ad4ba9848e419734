"""Running again: what is up to date stays untouched, and a change reruns what depends on it and nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_fixtures import (
    ARMS,
    Done,
    Study,
    changed,
    finished_study,
    kringle,
    manifests,
    models,
    results,
    stages,
    timeless,
    unfinished,
    write_recipe,
)

DATA = {"collect", "clean", "split", "annotate", "tokenizer", "encode", "attribution"}


def of_arms(*arms: str) -> set[str]:
    return {f"{kind}@{arm}-s0" for arm in arms for kind in ("train", "evaluate", "score", "memorisation")}


@pytest.fixture(scope="module")
def study() -> Study:
    return finished_study()


@pytest.fixture
def work(study: Study, tmp_path: Path) -> Iterator[Path]:
    """A workspace that is up to date with the finished study, to go on from."""
    copy = study.copy(tmp_path / "work")
    yield copy
    shutil.rmtree(copy)


def rerun(work: Path, recipe: Path, *arguments: str) -> tuple[Done, set[str]]:
    """Run, and check that exactly the stages that it names were published; returns what it says and their names."""
    before = manifests(work)
    done = kringle("run", recipe, "--work", work, "--json", *arguments).succeeded()
    after = manifests(work)
    new = {folder: manifest for folder, manifest in after.items() if manifest != before.get(folder)}
    assert {manifest["stage"] for manifest in new.values()} == set(done.result["computed"])
    assert all(after.get(folder) == manifest for folder, manifest in before.items() if folder not in new)
    assert unfinished(work) == []
    return done, set(done.result["computed"])


def test_a_second_run_does_nothing_and_says_so(study: Study, work: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in work.glob("stages/**/*") if path.is_file()}
    done, computed = rerun(work, study.recipe)
    assert computed == set()
    count = len(DATA) + len(of_arms(*ARMS)) + 1
    assert done.err.splitlines() == [
        f"Nothing to do: all {count} stages are up to date.",
        f"Report: {work}/report/report.html",
    ]
    assert done.result["report"] == f"{work}/report/report.html"
    assert {path: path.stat().st_mtime_ns for path in work.glob("stages/**/*") if path.is_file()} == files


def test_a_corpus_that_grows_is_encoded_where_it_grew_if_its_tokenizer_is_kept(study: Study, tmp_path: Path) -> None:
    corpus, work = tmp_path / "corpus", tmp_path / "work"
    shutil.copytree(study.corpus, corpus)
    (trained,) = study.work.glob("stages/tokenizer-*")
    kept = shutil.copytree(trained, tmp_path / "kept")
    recipe = write_recipe(tmp_path / "kept.yaml", corpus, licenses="any")
    text = recipe.read_text()
    recipe.write_text(re.sub(r"tokenizer: *\{[^}]*\}", f"tokenizer: {{folder: {kept}}}", text))
    assert recipe.read_text() != text
    kringle("run", recipe, "--until", "encode", "--work", work).succeeded()
    (tokenizer,) = work.glob("stages/tokenizer-*/tokenizer.json")
    assert tokenizer.read_bytes() == (kept / "tokenizer.json").read_bytes()
    before = set(work.glob("shards/encode/*"))
    for number in range(3):
        (corpus / "zz-added").mkdir(exist_ok=True)
        (corpus / "zz-added" / f"m{number}.py").write_text(f"def added_{number}(x):\n    return x + {number}\n" * 30)
    kringle("run", recipe, "--until", "encode", "--work", work).succeeded()
    added = set(work.glob("shards/encode/*")) - before
    assert 1 <= len(added) <= 2
    assert len(list(work.glob("stages/encode-*"))) == 2
    kept.rename(tmp_path / "away")
    file = next(path for path in (corpus / "zz-added").iterdir())
    assert "encode" not in kringle("why", file.name, "--work", work).succeeded().err
    (tmp_path / "away").rename(kept)
    for damaged, message in (("{", "not a tokenizer file"), (None, "no tokenizer here")):
        (kept / "tokenizer.json").unlink()
        if damaged is not None:
            (kept / "tokenizer.json").write_text(damaged)
        assert message in kringle("run", recipe, "--until", "encode", "--work", tmp_path / "other").refused()
        assert not (tmp_path / "other").exists()
        (kept / "tokenizer.json").touch()


def test_a_changed_ablation_and_an_added_one_rerun_their_own_stages(study: Study, work: Path, tmp_path: Path) -> None:
    ablations = {
        "fim": "{}",
        "no-fim": "{training: {fim: {rate: 0}}}",
        "mha": "{model: {attention: mha}, training: {learning_rate: 0.001}}",  # changed
        "comments": "{filter: {comments: {above: 0.01, below: 0.80}}}",
        "deep": "{model: {layers: 3}}",  # added
    }
    recipe = write_recipe(tmp_path / "changed.yaml", study.corpus, ablations=ablations, suites="[starter]")
    before = models(work)
    done, computed = rerun(work, recipe)
    assert computed == {*of_arms("mha", "deep"), "report"}
    shown = {arm["name"]: arm for arm in results(work)["arms"]}
    assert list(shown) == list(ablations)
    assert shown["mha"]["changes"] == {"model.attention": "mha", "training.learning_rate": "0.001"}
    cached = {stage["name"]: stage["cached"] for stage in results(work)["stages"]}
    assert cached == {name.replace("@", " "): name not in computed for name in DATA | of_arms(*ablations)}
    after = models(work)
    assert {name for name in after if after[name] != before.get(name)} == {"mha-s0", "deep-s0"}

    # Back to the first recipe: its stages are all still there, and so must its report and its models be.
    done, computed = rerun(work, study.recipe)
    assert computed == set()
    assert "Nothing to do" in done.err
    assert [arm["name"] for arm in results(work)["arms"]] == list(ARMS)
    assert {name: model for name, model in models(work).items() if name != "deep-s0"} == before


def test_a_changed_source_file_reruns_what_depends_on_it(study: Study, work: Path) -> None:
    file = next(study.corpus.glob("repo-00/lib/*_0.py"))
    with changed(file, file.read_text() + "\n\ndef added(value):\n    return value + 1\n"):
        _, computed = rerun(work, study.recipe, "--only", "no-fim")
        assert computed == DATA | of_arms("fim", "no-fim") | {"report"}
        told = kringle("why", file, "--work", work).succeeded()
        assert f"{file.stat().st_size:,} (UTF-8 text)" in told.out
    assert timeless(results(work))["arms"] != timeless(results(study.work))["arms"][:2]
    assert [arm["name"] for arm in results(work)["arms"]] == ["fim", "no-fim"]

    _, computed = rerun(work, study.recipe)  # the file is as it was
    assert computed == set()
    assert timeless(results(work)["arms"][0]["training"]) == timeless(results(study.work)["arms"][0]["training"])


def test_a_study_in_parts_is_the_study_in_one_go(study: Study, tmp_path: Path) -> None:
    work = tmp_path / "work"
    done, computed = rerun(work, study.recipe, "--until", "split")
    assert computed == {"collect", "clean", "split"} == stages(work)
    assert done.result["report"] is None
    assert not (work / "report").exists()
    refused = kringle("report", "--work", work).refused()
    assert "not up to date: annotate, tokenizer, encode" in refused

    # One arm alone has all cores to itself; its model must be the one that it becomes beside others all the same.
    _, computed = rerun(work, study.recipe, "--until", "train", "--only", "fim")
    assert computed == {"annotate", "tokenizer", "encode", "attribution", "train@fim-s0"}
    done, computed = rerun(work, study.recipe, "--until", "train", "--only", "fim")
    assert computed == set()
    assert "Nothing to do: all 8 stages are up to date." in done.err

    _, computed = rerun(work, study.recipe, "--only", "no-fim")
    assert computed == {"train@no-fim-s0", "report", *of_arms("fim", "no-fim")} - {"train@fim-s0"}
    assert [arm["name"] for arm in results(work)["arms"]] == ["fim", "no-fim"]

    done, computed = rerun(work, study.recipe, "--workers", "1")
    assert computed == {"report", *of_arms("mha", "comments")}
    assert models(work) == models(study.work)
    mine, theirs = (timeless(results(w)) for w in (work, study.work))
    for part in ("findings", "corpus", "funnel", "held_out", "tokenizer", "comparisons", "examples"):
        assert mine[part] == theirs[part]
    for one, other in zip(mine["arms"], theirs["arms"], strict=True):
        assert {**one, "command": ""} == {**other, "command": ""}


def test_from_does_a_stage_and_later_ones_again_with_the_same_result(study: Study, work: Path) -> None:
    before, trained = manifests(work), models(work)
    _, computed = rerun(work, study.recipe, "--from", "tokenizer", "--until", "encode")
    assert computed == {"tokenizer", "encode"}
    _, computed = rerun(work, study.recipe, "--from", "evaluate", "--only", "mha")
    assert computed == {*of_arms("fim", "mha"), "report"} - {"train@fim-s0", "train@mha-s0"}
    _, computed = rerun(work, study.recipe)
    assert computed == set()
    assert before.keys() < manifests(work).keys()  # the report on two arms has come in addition
    assert models(work) == trained
    for folder in ("evaluate@fim-s0", "evaluate@mha-s0", "score@mha-s0"):
        (mine,), (theirs,) = (list(w.glob(f"stages/{folder}-*")) for w in (work, study.work))
        for file in (path for path in theirs.iterdir() if path.name != "manifest.json"):
            assert (mine / file.name).read_bytes() == file.read_bytes(), file


def test_models_of_what_is_opted_out_since_are_not_released(study: Study, work: Path, tmp_path: Path) -> None:
    kringle("optout", "path:*", "--work", work).succeeded()
    refused = kringle("release", tmp_path / "out", "--work", work, "--despite-notice")
    assert refused.code == 2
    assert "fim-s0" in refused.err
    assert "opted out by now" in refused.err
    assert not (tmp_path / "out").exists()
