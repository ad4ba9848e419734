"""Contracts: the dialects as their clients ask them, and the `openai` clients. What editors' clients were seen to send
is in `test_serve_editors.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serve_support import call, native, running

from kringle.data.sources.packages import packages
from kringle.errors import UserError
from kringle.serve.models import NativeModel
from kringle.serve.settings import Settings

# The openai package for Node: fetched as every pinned package is, and used only if it is this one.
OPENAI_NPM = """npm:
  - name: openai
    version: '6.49.0'
    sha256: e48de0f4c5dbecebdeb864233f5ea49be07cd3e0ff3bd3e1e6745dc5e168cced
"""
NODE_CLIENT = """
import OpenAI from 'openai';
const [address, prompt, suffix] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: 'none', maxRetries: 0 });
const asked = { model: 'tiny', prompt, suffix, max_tokens: 12, temperature: 0 };
const whole = await client.completions.create({ ...asked, logprobs: 2 });
let streamed = '';
for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0].text;
}
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const fault = async (change, field) => {
  try { await client.completions.create({ ...asked, ...change }); return 'nothing'; }
  catch (error) { return `${error.constructor.name} ${error.status} ${error[field]}`; }
};
console.log(JSON.stringify({
  whole: whole.choices[0].text, streamed, models, tokens: whole.usage.completion_tokens,
  missing: await fault({ model: 'gpt' }, 'code'), refused: await fault({ best_of: 3 }, 'param'),
}));
"""
PREFIX, SUFFIX = "def add(a, b):\n    ret", "\n\n\ndef main():\n    print(add(1, 2))\n"
SENTINELS = ("<fim", "<|endoftext|>")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NativeModel:
    return native(tmp_path_factory.mktemp("model"), ends=False)


@pytest.fixture(scope="module")
def address(model: NativeModel) -> Iterator[str]:
    with running([model], Settings(most_new_tokens=64)) as address:
        yield address


def greedy(address: str, **fields: Any) -> str:
    """The text that a plain request gets."""
    answer = call(address, "/v1/completions", {"temperature": 0, "max_tokens": 12, **fields})
    assert answer.status == 200, answer.text
    text: str = answer.json["choices"][0]["text"]
    return text


def clean(text: str) -> str:
    assert text
    assert not any(sentinel in text for sentinel in SENTINELS)
    return text


def piece(text: str) -> str:
    """Two characters from inside a text, behind a whole one: a small model also writes bytes that are none."""
    return next(text[i : i + 2] for i in range(3, len(text) - 1) if "\ufffd" not in text[i - 1 : i + 2])


def joined(tokens: list[str]) -> str:
    """The text of tokens, of which those that are no characters are told as OpenAI does, as in `bytes:\\xc5`."""
    start = "bytes:"
    raw = [
        bytes.fromhex(token.removeprefix(start).replace("\\x", "")) if token.startswith(start) else token.encode()
        for token in tokens
    ]
    return b"".join(raw).decode(errors="replace")


# -- the openai clients ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_completes_and_streams_the_same(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": "tiny", "prompt": PREFIX, "max_tokens": 16, "temperature": 0.9, "seed": 7}
    whole = client.completions.create(**settings, n=3, logprobs=4)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.text for choice in whole.choices}) > 1
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 48
    texts = {0: "", 1: "", 2: ""}
    tokens: dict[int, list[str]] = {0: [], 1: [], 2: []}
    reasons, usage = {}, None
    for chunk in client.completions.create(
        **settings, n=3, logprobs=4, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens if choice.logprobs and choice.logprobs.tokens else []
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert set(reasons.values()) == {"length"}
    assert usage is not None
    assert usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        clean(choice.text)
        told = choice.logprobs
        assert told is not None
        assert told.tokens == tokens[choice.index]
        assert told.token_logprobs is not None
        assert told.top_logprobs is not None
        assert told.text_offset is not None
        assert len(told.tokens or []) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
        assert all(len(top) <= 4 for top in told.top_logprobs)
        assert all(value <= 0 for value in told.token_logprobs if value is not None)
        for token, offset in zip(told.tokens or [], told.text_offset, strict=True):
            if not token.startswith("bytes:") and "\ufffd" not in choice.text:
                assert choice.text[offset : offset + len(token)] == token


def test_openai_fills_in_stops_and_lists(client: openai.OpenAI, address: str) -> None:
    middle = client.completions.create(model="tiny", prompt=PREFIX, suffix=SUFFIX, max_tokens=12, temperature=0)
    plain = client.completions.create(model="tiny", prompt=PREFIX, max_tokens=12, temperature=0)
    assert clean(middle.choices[0].text) != clean(plain.choices[0].text)
    text = plain.choices[0].text
    stop = piece(text)
    stopped = client.completions.create(model="tiny", prompt=PREFIX, max_tokens=12, temperature=0, stop=[stop])
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (text[: text.index(stop)], "stop")
    several = client.completions.create(model="tiny", prompt=[PREFIX, "import "], max_tokens=8, temperature=0)
    assert [choice.text for choice in several.choices] == [greedy(address, prompt=p, max_tokens=8) for p in
                                                           (PREFIX, "import ")]  # fmt: skip
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_openai_echoes_with_the_scores_of_the_prompt(client: openai.OpenAI, model: NativeModel) -> None:
    prompt = "def add(a, b):\n"
    answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=0, echo=True, logprobs=1)
    (choice,) = answer.choices
    assert choice.text == prompt
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == prompt
    ids = model.encode(prompt)
    exact, _ = model.score([model._tokenizer.specials.end_of_text, *ids], 0)
    assert choice.logprobs.token_logprobs == pytest.approx(exact)
    both = client.completions.create(model="tiny", prompt=prompt, max_tokens=4, echo=True, logprobs=0, temperature=0)
    told = both.choices[0].logprobs
    assert told is not None
    assert both.choices[0].text.startswith(prompt)
    assert told.text_offset is not None
    assert told.text_offset[len(ids)] == len(prompt)
    as_ids = client.completions.create(model="tiny", prompt=ids, max_tokens=0, echo=True, logprobs=0)
    assert as_ids.choices[0].text == prompt
    assert as_ids.choices[0].logprobs is not None
    assert as_ids.choices[0].logprobs.token_logprobs is not None
    assert as_ids.choices[0].logprobs.token_logprobs[0] is None


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no such model; there are: tiny"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.BadRequestError, match="best_of above n") as caught:
        client.completions.create(model="tiny", prompt="a", best_of=4)
    assert caught.value.param == "best_of"
    for refused in ({"presence_penalty": 0.5}, {"frequency_penalty": 1.0}, {"logit_bias": {"5": 1}}, {"n": 100}):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt="a", **refused)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="attribution index"):
        client.completions.create(model="tiny", prompt="a", extra_body={"attribution": True})
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.completions.create(model="tiny", prompt="a", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="ids run from 0"):
        client.completions.create(model="tiny", prompt=[999_999])
    with pytest.raises(openai.BadRequestError, match="must also hold one new token"):
        client.completions.create(model="tiny", prompt=[5] * 1000)


def test_openai_for_node_streams_from_it_unchanged(address: str, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT TESTED: the openai client for Node, because node or npm is not installed")
    pinned = tmp_path / "packages.yaml"
    pinned.write_text(OPENAI_NPM, encoding="utf-8")
    try:
        (found,) = packages(str(pinned)).containers
    except UserError as error:
        pytest.skip(f"NOT TESTED: the openai client for Node cannot be had here: {error}")
    folder = tmp_path / "node_modules" / "openai"
    with tarfile.open(found.place) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    folder.parent.mkdir()
    (tmp_path / "unpacked" / "package").rename(folder)
    script = tmp_path / "client.mjs"
    script.write_text(NODE_CLIENT, encoding="utf-8")
    done = subprocess.run(
        ["node", str(script), address, PREFIX, SUFFIX], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["streamed"] == said["whole"] == greedy(address, prompt=PREFIX, suffix=SUFFIX)
    assert said["tokens"] == 12
    assert said["models"] == ["tiny"]
    assert said["missing"] == "NotFoundError 404 model_not_found"
    assert said["refused"] == "BadRequestError 400 best_of"


def test_mistral(address: str) -> None:
    """Its own clients read choices[0].delta.content of a chunk, DeepSeek's choices[0].text."""
    body = {"model": "tiny", "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 12, "temperature": 0, "stream": True}
    answer = call(address, "/v1/fim/completions", body, headers={"authorization": "Bearer key"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert all(event["choices"][0]["delta"]["content"] == event["choices"][0]["text"] for event in answer.events)
    content = "".join(event["choices"][0]["delta"]["content"] for event in answer.events)
    assert clean(content) == greedy(address, prompt=PREFIX, suffix=SUFFIX)
    assert answer.events[-1]["choices"][0]["finish_reason"] == "length"
    whole = call(address, "/v1/fim/completions", {**body, "stream": False}).json
    assert whole["choices"][0]["message"]["content"] == content
    for name, value in (("min_tokens", 3), ("frequency_penalty", 0.5), ("presence_penalty", -0.5)):
        refused = call(address, "/v1/fim/completions", {**body, name: value})
        assert (refused.status, refused.json["error"]["param"]) == (400, name)
    assert call(address, "/v1/fim/completions", {**body, "frequency_penalty": 0}).status == 200


def test_llama_cpp_infill(address: str) -> None:
    """A prompt that is read beforehand, then the completion, for which it is known; what is told of it."""
    extra = [{"text": "def sub(a, b):\n    return a - b\n", "filename": "sub.py"}]
    body = {
        "id_slot": 0,
        "input_prefix": "import os\n\n\ndef add(a, b):\n",
        "input_suffix": SUFFIX,
        "input_extra": extra,
        "prompt": "    ret",
        "n_predict": 0,
        "top_k": 40,
        "top_p": 0.99,
        "stream": False,
        "samplers": ["top_k", "top_p", "infill"],
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1,
        "n_indent": 4,
    }
    warm = call(address, "/infill", body)
    assert warm.status == 200, warm.text
    assert warm.json["content"] == ""
    assert warm.json["tokens_predicted"] == 0
    answer = call(address, "/infill", {**body, "n_predict": 16, "n_cmpl": 1, "t_max_predict_ms": 60_000}).json
    assert {"content", "generation_settings", "tokens_cached", "truncated", "timings", "stop_type"} <= answer.keys()
    assert {"prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_ms", "predicted_per_second"} <= (
        answer["timings"].keys()
    )
    assert answer["timings"]["cache_n"] > 0
    assert answer["generation_settings"]["n_ctx"] > 0
    assert all(not line or line.startswith("    ") for line in answer["content"].split("\n")[1:])
    several = call(address, "/infill", {**body, "n_predict": 4, "n_cmpl": 2}).json
    assert [one["index"] for one in several] == [0, 1]
    assert call(address, "/infill", {**body, "grammar": "root ::= x"}).status == 400


def test_llama_cpp_completion_vocabulary_and_props(address: str) -> None:
    """/completion as Tabby's back end reads it: {content, stop}, streamed and whole."""
    body = {"prompt": PREFIX, "n_predict": 12, "temperature": 0, "stream": True, "stop": []}
    answer = call(address, "/completion", body)
    assert [event["stop"] for event in answer.events] == [False] * (len(answer.events) - 1) + [True]
    text = "".join(event["content"] for event in answer.events)
    assert clean(text) == greedy(address, prompt=PREFIX)
    last = answer.events[-1]
    assert (last["stop_type"], last["tokens_predicted"]) == ("limit", 12)
    stop = piece(text)
    stopped = call(address, "/completion", {**body, "stream": False, "stop": [stop], "n_probs": 3}).json
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", stop)
    assert joined([one["token"] for one in stopped["completion_probabilities"]]) == stopped["content"]
    ids = call(address, "/tokenize", {"content": "häß 🍰"}).json["tokens"]
    assert call(address, "/detokenize", {"tokens": ids}).json["content"] == "häß 🍰"
    pieces = call(address, "/tokenize", {"content": "ab 🍰", "with_pieces": True}).json["tokens"]
    assert all(isinstance(piece["piece"], str | list) for piece in pieces)
    by_ids = call(address, "/completion", {"prompt": ids, "n_predict": 2}).json
    assert by_ids["tokens_evaluated"] == len(ids)
    assert call(address, "/detokenize", {"tokens": [10**6]}).status == 400
    assert call(address, "/completions", {**body, "stream": False}).json["content"] == text  # its other name
    props = call(address, "/props").json
    assert props["default_generation_settings"]["n_ctx"] > 0
    assert props["total_slots"] == 4


def test_tabby(address: str) -> None:
    """Its server's back end openai/completion."""
    body = {"model": "tiny", "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": 12, "temperature": 0.0, "stream": True}
    answer = call(address, "/v1/completions", {**body, "presence_penalty": 0.0})
    text = "".join(event["choices"][0]["text"] for event in answer.events)
    assert clean(text) == greedy(address, prompt=PREFIX, suffix=SUFFIX)
    assert answer.events[-1]["choices"][0]["finish_reason"]


def test_llm_ls(address: str) -> None:
    """Back ends tgi ({generated_text}), ollama ({response}), openai (choices) and llamacpp, which asks /completions in
    version 0.5.3 ({content}) and what openai asks later; its own template."""
    prompt = f"<fim_prefix>{PREFIX}<fim_suffix>{SUFFIX}<fim_middle>"
    wanted = greedy(address, prompt=PREFIX, suffix=SUFFIX)
    parameters = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False, "stop": ["<|endoftext|>"]}
    tgi = call(address, "/generate", {"inputs": prompt, "parameters": parameters}).json
    assert clean(tgi["generated_text"]) == wanted
    streamed = call(address, "/generate_stream", {"inputs": prompt, "parameters": parameters})
    assert "".join(event["token"]["text"] for event in streamed.events) == wanted or "bytes:" in streamed.text
    assert streamed.events[-1]["generated_text"] == wanted
    assert streamed.events[-1]["details"]["finish_reason"] == "length"
    details = call(address, "/generate", {"inputs": "a", "parameters": {**parameters, "details": True}}).json["details"]
    assert details["generated_tokens"] == 12
    assert call(address, "/generate", {"inputs": "a", "parameters": {"repetition_penalty": 1.2}}).status == 400
    options = {"num_predict": 12, "temperature": 0}
    ollama = call(address, "/api/generate", {"model": "tiny", "prompt": prompt, "stream": False, "options": options})
    assert ollama.json["response"] == wanted
    llama = call(address, "/completions", {"prompt": prompt, "n_predict": 12, "temperature": 0})
    assert llama.json["content"] == wanted
    body = {"prompt": prompt, "model": "tiny", "stream": False, "max_tokens": 12, "temperature": 0}
    assert call(address, "/v1/completions", body).json["choices"][0]["text"] == wanted


def test_ollama(address: str) -> None:
    """JSON lines; the models are listed first; a prompt in Code Llama's template."""
    assert [one["name"] for one in call(address, "/api/tags").json["models"]] == ["tiny"]
    assert "Suffix" in call(address, "/api/show", {"name": "tiny"}).json["template"]
    assert call(address, "/api/version").json["version"]
    options = {"num_predict": 12, "temperature": 0}
    body = {"model": "tiny:latest", "prompt": f"<PRE> {PREFIX} <SUF>{SUFFIX} <MID>", "stream": True, "options": options}
    lines = [json.loads(line) for line in call(address, "/api/generate", body).text.splitlines()]
    wanted = greedy(address, prompt=PREFIX, suffix=SUFFIX)
    assert "".join(line["response"] for line in lines) == wanted
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "length"
    assert lines[-1]["eval_count"] == 12
    direct = {**body, "prompt": PREFIX, "suffix": SUFFIX, "stream": False}
    assert call(address, "/api/generate", direct).json["response"] == wanted
    assert call(address, "/api/generate", {"model": "tiny"}).json["done_reason"] == "load"
    assert call(address, "/api/generate", {**body, "system": "Be nice."}).status == 400
