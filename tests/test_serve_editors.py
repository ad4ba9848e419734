"""What editors' clients were seen to send, sent again; and of the answers what their code reads.

`editor_requests.json` holds requests that the clients' own code sent when it ran: with which settings, caught how, and
what that code reads of an answer. `means` is the text around the cursor that a request stands for. The clients
themselves took this server's answers and gave their editors the text that stands in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_support import Reply, call, native, running

from kringle.serve.settings import Settings

NEW_TOKENS = 64  # what all of them ask for
CLIENTS: dict[str, dict[str, Any]] = {
    one["client"]: one for one in json.loads(Path(__file__).with_name("editor_requests.json").read_text("utf-8"))
}
COMPLETIONS = [
    pytest.param(name, request, id=f"{name}: {request['name']}")
    for name, client in CLIENTS.items()
    for request in client["requests"]
    if "means" in request
]
TIMES = [f"{what}_{unit}" for what in ("prompt", "predicted") for unit in ("n", "ms", "per_second")]


def of_llama_vscode(reply: Reply) -> str:
    several = reply.json if isinstance(reply.json, list) else [reply.json]
    return min((one["content"] for one in several), key=len)


def of_llama_vim(reply: Reply) -> str:
    """It looks at the text before it reads the JSON."""
    assert re.search(r"^\s*{", reply.text)
    assert re.search(r'"content"\s*:"', reply.text)
    text: str = reply.json["content"]
    return text


def of_events(reply: Reply, read: Callable[[Any], str]) -> str:
    """Lines that begin with `data: `, up to the closing mark; none is an error."""
    lines = [line for line in reply.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert all("error" not in event for event in reply.events)
    return "".join(read(event) for event in reply.events)


def of_ollama(reply: Reply) -> str:
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert all("error" not in line for line in lines)
    return "".join(line["response"] for line in lines)


def of_choices(reply: Reply) -> str:
    return of_events(reply, lambda event: event["choices"][0]["text"])


def of_tabby(reply: Reply) -> str:
    assert reply.json["id"]
    (choice,) = reply.json["choices"]
    assert choice["index"] == 0
    text: str = choice["text"]
    return text


READERS: dict[str, Callable[[Reply], str]] = {
    "llama.vscode": of_llama_vscode,
    "llama.vim": of_llama_vim,
    "Continue, provider mistral": lambda reply: of_events(reply, lambda event: event["choices"][0]["delta"]["content"]),
    "Continue, provider openai": of_choices,
    "Continue, provider llama.cpp": lambda reply: of_events(reply, lambda event: event.get("content", "")),
    "Continue, provider ollama": of_ollama,
    "Tabby's plug-ins (tabby-agent)": of_tabby,
    "twinny": lambda reply: of_choices(reply) if reply.text.startswith("data:") else of_ollama(reply),
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = native(tmp_path_factory.mktemp("model"), "fim-s0", ends=False)
    with running([model], Settings(most_new_tokens=NEW_TOKENS)) as address:
        yield address


def send(address: str, request: dict[str, Any], **changed: Any) -> Reply:
    """A request with the headers that it was caught with."""
    body = None if request["body"] is None else {**request["body"], **changed}
    return call(address, request["path"], body, method=request["method"], headers=request["headers"])


def caught(client: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in CLIENTS[client]["requests"] if one["name"] == name]
    request: dict[str, Any] = found
    return request


@pytest.mark.parametrize(("client", "request_"), COMPLETIONS)
def test_the_text_is_what_a_plain_request_gets(address: str, client: str, request_: dict[str, Any]) -> None:
    """As it was sent; and without chance, so that the text around the cursor is seen to have been understood."""
    reply = send(address, request_)
    assert reply.status == 200, reply.text
    READERS[client](reply)
    body = request_["body"]
    changed: dict[str, Any] = {"temperature": 0}
    if "options" in body:
        changed = {"options": {**body["options"], "temperature": 0}}
    if "n_indent" in body:  # this and the time may end a text at a line
        changed |= {"n_indent": 0, "t_max_predict_ms": 0}
    text = READERS[client](send(address, request_, **changed))
    plain = {
        "prompt": request_["means"]["prefix"],
        "suffix": request_["means"]["suffix"],
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "stop": body.get("stop") or body.get("options", {}).get("stop"),
    }
    assert text
    assert text == call(address, "/v1/completions", plain).json["choices"][0]["text"]


def test_llama_vscode_shows_times_and_health(address: str) -> None:
    bar = send(address, caught("llama.vscode", "one completion, with a key")).json
    assert bar["tokens_cached"] > 0
    assert bar["generation_settings"]["n_ctx"] > 0
    assert all(bar["timings"][name] > 0 for name in TIMES if not name.startswith("prompt"))
    assert set(TIMES) <= bar["timings"].keys()
    several = send(address, caught("llama.vscode", "three completions, as its settings are at first")).json
    assert [one["index"] for one in several] == [0, 1, 2]
    assert send(address, caught("llama.vscode", "health")).json["status"] == "ok"


@pytest.mark.parametrize("client", ["llama.vscode", "llama.vim"])
def test_pieces_of_other_files_are_read_beforehand(address: str, client: str) -> None:
    reply = send(address, caught(client, "a piece of a file, read beforehand"))
    assert (reply.status, reply.json["content"], reply.json["tokens_predicted"]) == (200, "", 0)
    assert reply.json["tokens_evaluated"] > 0
    assert send(address, caught("llama.vscode", "a completion with that piece")).json["content"]


def test_llama_vim_finds_times_under_the_paths_that_it_names(address: str) -> None:
    request = caught("llama.vim", "completion")
    answer = send(address, request).json
    assert {f"timings/{name}" for name in TIMES} <= set(request["body"]["response_fields"])
    for path in request["body"]["response_fields"]:
        parent, _, name = path.rpartition("/")
        assert answer[path] == (answer[parent] if parent else answer)[name]
    odd = send(address, request, response_fields=["timings/none", "content/0", "/", "stop"]).json
    assert not odd.keys() & {"timings/none", "content/0", "/"}


def test_a_model_is_looked_for_by_name_only_where_there_are_several(
    address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """llama.vscode's setting `ai_model` is its chat model, and is sent with completions too."""
    request = caught("llama.vscode", "three completions, as its settings are at first")
    assert request["body"]["model"] == "google/gemini-2.5-flash"
    assert {one["model"] for one in send(address, request).json} == {"fim-s0"}
    two = [native(tmp_path_factory.mktemp(name), name, ends=False) for name in ("fim-s0", "fim-s1")]
    with running(two, Settings(most_new_tokens=NEW_TOKENS)) as several:
        refused = send(several, request)
        assert refused.status == 404
        assert refused.json["error"]["message"] == "no such model; there are: fim-s0, fim-s1"
        assert {one["model"] for one in send(several, request, model="fim-s1").json} == {"fim-s1"}
        assert send(several, caught("llama.vim", "completion")).json["model"] == "fim-s0"


def test_continue_learns_from_the_template_that_a_model_fills_in(address: str) -> None:
    shown = send(address, caught("Continue, provider ollama", "what the model can")).json
    assert ".Suffix" in shown["template"]
    assert shown["parameters"] == ""  # lines `num_ctx N` and `stop S` would change what it sends


def test_tabbys_plug_ins_connect_and_their_events_are_not_taken(address: str) -> None:
    client = "Tabby's plug-ins (tabby-agent)"
    version = send(address, caught(client, "health")).json["version"]["git_describe"]
    found = re.search(r"\d+\.\d+\.\d+", version)
    assert found  # newer ones ask servers from 0.9 on for settings that only Tabby's have
    assert tuple(map(int, found[0].split("."))) < (0, 9, 0)
    assert send(address, caught(client, "event")).status == 404


def test_the_docs_say_which_versions_these_are() -> None:
    text = (Path(__file__).parents[1] / "docs" / "editors.md").read_text(encoding="utf-8")
    for name, client in CLIENTS.items():
        assert f"{name.partition(',')[0].partition(' (')[0]} {client['version']}" in " ".join(text.split()), name
