"""Redaction in a run: what the later stages read, the decisions, and that a rerun gives the same bytes."""

from __future__ import annotations

import hashlib
import random
import re
import string
import sys
from pathlib import Path
from typing import Any

import pytest
from data_support import QUIET, InProcess, folder_corpus, run_collect, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from run_fixtures import kringle, manifests, write_corpus, write_recipe

from kringle.data.clean import clean
from kringle.data.decisions import read_decisions
from kringle.data.redacted import corpus_key, redact_document, require
from kringle.data.table import iter_documents
from kringle.errors import UserError
from kringle.pii import faithful_keys, findings
from kringle.settings import CleanSettings
from kringle.study.story import story
from kringle.tokens.store import TokenStore
from kringle.tokens.tokenizer import Tokenizer
from kringle.workspace import ShardStore

EMAIL = "maria.ortiz@quietharborlabs.com"
TOKEN = "glpat-" + "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=20))
SECRETS = f'OWNER = "{EMAIL}"\nHOST = "http://54.12.33.9/"\nVALUE = "{TOKEN}"\nAGAIN = "{TOKEN}"\n'
PLAIN = "def add(first, second):\n    return first + second\n"


def run_clean(tmp_path: Path, recipe: str, *, pii: bool = True) -> dict[str, Any]:
    root = write_tree(tmp_path / "in", {"r/a.py": SECRETS, "r/b.py": PLAIN, "r/c.py": f"# {EMAIL} é\n" + PLAIN})
    run_collect(folder_corpus(root), tmp_path)
    out = tmp_path / "clean"
    out.mkdir()
    shards = ShardStore(tmp_path / "clean-shards", "test")
    cleaning = CleanSettings(decontaminate=(), pii=pii)
    return clean(cleaning, tmp_path / "out/documents", out, shards, InProcess(), QUIET, {}, recipe=recipe)


def test_survivors_are_redacted_and_named_by_what_they_hold_now(tmp_path: Path) -> None:
    done = run_clean(tmp_path, "mine")
    before = {d["path"]: d for d in iter_documents(tmp_path / "out/documents")}
    after = {d["path"]: d for d in iter_documents(tmp_path / "clean/documents")}
    assert after.keys() == before.keys() == {"a.py", "b.py", "c.py"}
    for path, document in after.items():
        content = document["content"].encode()
        assert document["content_id"] == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert document["size"] == len(content)
        assert document["id"] == before[path]["id"]
        assert findings(content) == []
        assert all(secret not in document["content"] for secret in (EMAIL, TOKEN, "54.12.33.9"))
    assert after["b.py"]["content"] == PLAIN
    assert after["b.py"]["content_id"] == before["b.py"]["id"]
    a, c = after["a.py"]["content"], after["c.py"]["content"]
    stand_in = a.split('"')[1]
    assert stand_in in c  # the same address, the same stand-in in another file
    assert a.splitlines()[2].split('"')[1] == a.splitlines()[3].split('"')[1]
    assert done["pii"]["files"] == 2
    assert done["pii"]["kinds"] == {"email": 2, "ip": 1, "key": 2}
    assert done["pii"]["formats"]["gitlab-token"] == 2
    assert "2 emails, 1 IP addresses, 2 keys in 2 files" in done["notes"][-1]
    decisions = read_decisions(tmp_path / "clean").to_pylist()
    told = {d["path"]: (d["value"], d["kept"], d["witness"]) for d in decisions if d["step"] == "pii"}
    assert told == {
        "a.py": (4, True, "1 emails, 1 IP addresses, 2 keys"),
        "b.py": (0, True, None),
        "c.py": (1, True, "1 emails"),
    }


def test_without_it_no_document_is_written_again(tmp_path: Path) -> None:
    done = run_clean(tmp_path, "mine", pii=False)
    assert "pii" not in done
    assert not (tmp_path / "clean/documents").exists()


def test_stand_ins_follow_from_value_and_recipe(tmp_path: Path) -> None:
    texts = []
    for number, recipe in enumerate(("one", "one", "two")):
        run_clean(tmp_path / str(number), recipe)
        texts.append([d["content"] for d in iter_documents(tmp_path / str(number) / "clean/documents")])
    assert texts[0] == texts[1] != texts[2]
    assert corpus_key("one") != corpus_key("two")


def test_faithful_redacts_as_the_original_did() -> None:
    pytest.importorskip("detect_secrets", reason="the extra kringle[detect-secrets] is not installed")
    document = {"id": "x", "repo": "r", "path": "p", "content": f"# <{EMAIL}> at 10.1.2.3 and 54.12.33.9\n"}
    redaction = redact_document(document, b"", "faithful")
    assert re.fullmatch(r"# <[a-z]{5}@example\.com> at 10\.1\.2\.3 and [0-9.]+\n", redaction.document["content"])
    assert redaction.found == {("email", "email"): 1, ("ip", "ip"): 1}
    assert redaction.decision.value == 2


def test_faithful_without_its_extra_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    require("corrected")
    faithful_keys.default_gibberish.cache_clear()
    monkeypatch.setitem(sys.modules, "gibberish_detector.detector", None)
    with pytest.raises(UserError, match="faithful key detection needs"):
        require("faithful")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([EMAIL, TOKEN, "54.12.33.9", "ü", "中", "é@", "@", '"', "=", "\n"]), st.text(max_size=4)
        )
    )
)
def test_any_text_stays_text(pieces: list[str]) -> None:
    document = {"id": "x", "repo": "r", "path": "p", "content": "".join(pieces)}
    redacted = redact_document(document, b"key").document
    assert redacted["size"] == len(redacted["content"].encode())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpus(tmp_path_factory.mktemp("corpus"))
    for repository in sorted(path for path in root.iterdir() if path.is_dir()):
        (repository / "planted.py").write_text(SECRETS + f"# {repository.name}\n" + PLAIN)
    return root


def test_a_run_encodes_what_was_redacted_and_a_second_one_does_nothing(corpus: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "tiny.yaml", corpus)
    recipe.write_text(recipe.read_text().replace("clean:", "clean: {pii: true}\n# clean:", 1))
    work = tmp_path / "work"
    kringle("run", recipe, "--work", work, "--until", "encode").succeeded()
    (tokenizer,) = work.glob("stages/tokenizer-*")
    (encoded,) = work.glob("stages/encode-*")
    store = TokenStore.open(encoded / "store")
    text = Tokenizer.load(tokenizer).decode_bytes(store.tokens[:])
    for secret in (EMAIL, TOKEN, "54.12.33.9"):
        assert secret.encode() not in text
    assert text.count(b"OWNER = ") >= 2
    (pii,) = {(d.value, d.witness) for d in story(work, "planted.py") if d.step == "pii"}
    assert pii == (4, "1 emails, 1 IP addresses, 2 keys")
    before = manifests(work)
    again = kringle("run", recipe, "--work", work, "--until", "encode", "--json").succeeded()
    assert again.result["computed"] == []
    assert manifests(work) == before
