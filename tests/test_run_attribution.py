"""Attribution in a finished study: the index after encoding, what the models copied, whose files were trained on."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from run_fixtures import ARMS, SAMPLES, VENDORED, Study, finished_study, kringle, manifests, results

from kringle.errors import UserError
from kringle.evaluation.continuations import TEMPERATURES, openings
from kringle.serve import errors
from kringle.serve.attribution import MOST_CHARACTERS, Attribution, router
from kringle.study.attributing import attribute_file, membership_of, told, told_membership
from kringle.study.optout import opt_out


@pytest.fixture(scope="module")
def study() -> Study:
    return finished_study()


@pytest.fixture(scope="module")
def trained(study: Study) -> dict[str, dict[str, Any]]:
    """Every document that was trained on, by repository/path, with its text as it is on disk."""
    (split,) = study.work.glob("stages/split-*/split.parquet")
    parts = {row["id"]: row["split"] for row in pq.read_table(split).to_pylist()}
    (collected,) = study.work.glob("stages/collect-*/documents")
    rows = pq.read_table(collected).to_pylist()
    return {f"{d['repo']}/{d['path']}": d for d in rows if parts.get(d["id"]) == "train"}


@pytest.fixture(scope="module")
def client(study: Study) -> TestClient:
    app = FastAPI()
    errors.install(app)
    app.include_router(router(Attribution.open(study.work)))
    return TestClient(app, raise_server_exceptions=False)


def test_the_index_holds_the_training_documents_alone(study: Study, trained: dict[str, Any]) -> None:
    (table,) = study.work.glob("stages/attribution-*/index/documents.parquet")
    assert sorted(pq.read_table(table)["id"].to_pylist()) == sorted(d["id"] for d in trained.values())
    (summary,) = [m["summary"] for m in manifests(study.work).values() if m["stage"] == "attribution"]
    assert summary["documents"] == len(trained)
    assert summary["index_bytes"] > 0


def test_a_text_is_attributed_to_its_file_and_line(study: Study, trained: dict[str, Any], tmp_path: Path) -> None:
    name, document = next((n, d) for n, d in trained.items() if n.endswith(".py") and not d["copies"])
    lines = document["content"].splitlines(keepends=True)
    file = tmp_path / "answer.py"
    file.write_text("# mine\n" + "".join(lines[11:15]))
    result = attribute_file(study.work, file)
    longest = max(result["spans"], key=lambda span: span["end"] - span["start"])
    assert longest["end"] - longest["start"] >= len("".join(lines[11:15]))
    assert longest["kind"] == "exact"
    places = {f"{s['repository']}/{s['path']}": s for s in longest["sources"]}
    assert places[name]["line"] in (11, 12)  # from the line break before it, where that agrees too
    assert places[name]["licence"] == "MIT"
    shown = "\n".join(told(result))
    assert f"{name}:{places[name]['line']}  MIT" in shown
    assert "% stand in the training data" not in shown.splitlines()[0]
    done = kringle("attribution", file, "--work", study.work, "--json")
    assert done.code == 1, done.err
    assert done.result["spans"] == result["spans"]
    file.write_text("nothing that anybody wrote before, in no file at all of this corpus, I should think")
    assert attribute_file(study.work, file)["spans"] == []
    assert kringle("attribution", file, "--work", study.work).code == 0


def test_mistakes_are_told(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        attribute_file(study.work, tmp_path / "none.py")
    with pytest.raises(UserError, match="less than the 50 characters"):
        attribute_file(study.work, tmp_path / "none.py", 20)
    with pytest.raises(UserError, match="expected repository, owner or path"):
        membership_of(study.work, "x", "license")
    assert "is not a workspace" in kringle("membership", "x", "--work", tmp_path).refused()


def test_what_became_of_a_repository(study: Study, trained: dict[str, Any]) -> None:
    own = {f"{VENDORED}/{c['path']}": name for name, d in trained.items() for c in d["copies"] if c["repo"] == VENDORED}
    result = membership_of(study.work, VENDORED.upper())
    assert result["found"]
    assert result["repositories"] == [VENDORED]
    assert result["licences"] == ["MIT"]
    files = {f"{f['repository']}/{f['path']}": f for f in result["files"]}
    assert {name: f.get("as") for name, f in files.items() if "as" in f} == own
    counts = result["counts"]
    assert counts["trained on"]["files"] == sum(f["became"] == "trained on" for f in files.values())
    assert counts["trained on"]["tokens"] > 0
    on_disk = {f"{VENDORED}/{p.relative_to(study.corpus / VENDORED)}" for p in (study.corpus / VENDORED).rglob("*.*")}
    assert files.keys() == on_disk
    assert f"kringle optout repo:{VENDORED.upper()} --work" in told_membership(result)[-1]
    gone = membership_of(study.work, "gpl-tool")
    assert {f["step"] for f in gone["files"]} == {"licence"}
    assert gone["counts"]["trained on"]["files"] == 0
    assert not membership_of(study.work, "nobody")["found"]
    assert membership_of(study.work, "util/exact.py", "path")["counts"]["trained on"]["files"] >= 10


def test_an_opt_out_names_the_index(study: Study, tmp_path: Path) -> None:
    work = study.copy(tmp_path / "work")
    result = opt_out(work, ["repo-03"], "remove")
    (index,) = result["attribution_indexes"]
    assert index["index"].startswith("stages/attribution-")
    assert index["documents"] >= 10
    told = membership_of(work, "repo-03")
    assert told["opted_out"] == len(told["files"]) > 0
    assert "opted out by now" in "\n".join(told_membership(told))


def test_memorisation_is_reported_beside_held_out_text(study: Study) -> None:
    found = results(study.work)["memorisation"]
    assert {m["arm"] for m in found} == set(ARMS)
    kinds = {(m["what"], m["temperature"]) for m in found}
    assert kinds == {*(("continuation", t) for t in TEMPERATURES), ("infilling", 0.0), ("starter", 0.8)}
    for m in found:
        for by in ("written", "held_out"):
            for share in ("exact", "exact_characters", "white_space", "white_space_characters"):
                assert 0 <= m[by][share]["low"] <= m[by][share]["high"] <= 1
        if m["what"] == "starter":
            assert m["written"]["texts"] == SAMPLES * m["held_out"]["texts"]
    for stage in study.work.glob("stages/memorisation@*"):
        for row in map(json.loads, (stage / "copies.jsonl").read_text().splitlines()):
            assert row["end"] - row["start"] >= 50
            assert row["sources"]
    page = html.unescape((study.work / "report/report.html").read_text(encoding="utf-8"))
    assert "Memorisation" in page
    assert (study.work / "report/tables/memorisation.csv").exists() or list(
        study.work.glob("report/**/memorisation.csv")
    )
    assert "--from memorisation --until memorisation" in page


def test_places_to_go_on_from_are_the_same_in_any_order() -> None:
    documents = [(str(n), "r", f"{n}.py", "python", f"a = {n}\nb = 2\n\nc = 3\n") for n in range(50)]
    places = openings(documents, 8)
    assert places == openings(documents[::-1], 8)
    assert len({place.document for place in places}) == 8
    for place in places:
        (text,) = [text for id, *_, text in documents if id == place.document]
        assert place.prefix + place.rest == text
        assert text.split("\n")[place.line - 1].strip()
    assert openings([("1", "r", "x", "python", "one line")], 8) == []


# -- the endpoints -----------------------------------------------------------------------------------------------------


def test_attribution_over_http(client: TestClient, trained: dict[str, Any]) -> None:
    name, document = next((n, d) for n, d in trained.items() if n.endswith(".js"))
    text = "/* \u00fc */ " + document["content"][:400]
    answer = client.post("/v1/attribution", json={"text": text}).raise_for_status().json()
    (span,) = [span for span in answer["spans"] if span["kind"] == "exact"]
    assert text[span["start"] : span["end"]] == document["content"][:400]
    assert answer["attributed"] >= 400
    first = span["sources"][0]
    assert f"{first['repository']}/{first['path']}" == name
    assert (first["line"], first["licence"]) == (1, "MIT")
    respaced = "\n".join(line.strip() for line in document["content"].splitlines())
    both = client.post("/v1/attribution", json={"text": respaced}).json()["spans"]
    assert any(span["kind"] == "white space" for span in both)
    exact = client.post("/v1/attribution", json={"text": respaced, "whitespace": False}).json()["spans"]
    assert all(span["kind"] == "exact" for span in exact)
    assert client.post("/v1/attribution", json={"text": text, "min_characters": 5000}).json()["spans"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": 1},
        {"text": "x" * (MOST_CHARACTERS + 1)},
        {"text": "x", "min_characters": 10},
        {"text": "x", "work": "/etc"},
        [],
    ],
)
def test_other_requests_are_refused(client: TestClient, body: Any) -> None:
    answer = client.post("/v1/attribution", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_membership_over_http(client: TestClient) -> None:
    answer = client.get("/v1/membership", params={"repository": VENDORED}).raise_for_status().json()
    assert answer["found"]
    assert answer["opt_out"].startswith(f"kringle optout repo:{VENDORED} --work ")
    hostile = "../../etc/passwd'; <script>"
    answer = client.get("/v1/membership", params={"path": hostile}).raise_for_status().json()
    assert (answer["found"], answer["files"]) == (False, [])
    assert "'path:../../etc/passwd'\"'\"'; <script>'" in answer["opt_out"]  # quoted for a shell
    for params in ({}, {"repository": "a", "owner": "b"}, {"repository": " / "}):
        assert client.get("/v1/membership", params=params).status_code == 400
    assert client.get("/v1/membership", params={"repository": "a" * 501}).status_code == 422


def test_a_completion_is_followed_while_it_is_written(study: Study, trained: dict[str, Any]) -> None:
    follower = Attribution.open(study.work).follow()
    content = next(d["content"] for n, d in trained.items() if n.endswith(".py"))[:300]
    told = [span for start in range(0, 300, 20) for span in follower.feed(content[start : start + 20])]
    assert told[0].end - told[0].start < 100  # long before the end
    (last,) = [span for span in follower.finish() if span.kind == "exact"]
    assert (last.start, last.end) == (0, 300)
    assert last.as_json()["sources"][0]["repository"]
