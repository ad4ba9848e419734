"""The sampling engine: where completions end, who shares what, and that a sample depends on nothing but itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kringle.errors import UserError
from kringle.generation.decoder import Decoder, Sharing
from kringle.generation.engine import free_memory, generate
from kringle.generation.fim import infilling_prompt, left_to_right_prompt
from kringle.generation.memory import aligned
from kringle.generation.requests import Completion, Request
from kringle.generation.stops import completing_tokens, first_stop
from kringle.generation.weights import Precision
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import stream, torch_seed
from kringle.tokens.tokenizer import Specials, train_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


class Vocabulary:
    """A few letters and pieces of several letters, then the special tokens."""

    def __init__(self, pieces: Sequence[bytes] = (b"a", b"b", b"c", b"ab", b"bc", b"abc", b"ca", b"\n", b"aab", b"cc")):
        self.specials = Specials.after(len(pieces))
        self.token_bytes = [*pieces, *[b""] * 5]
        self.vocab_size = len(self.token_bytes)


TOKENS = Vocabulary()
CONTEXT = 40


def random_model(
    attention: str = "mqa", *, vocab_size: int = 32, context: int = CONTEXT, width: int = 32, spread: float = 0.3
) -> Transformer:
    """Every parameter at random, biases and LayerNorms too, so that a forgotten one shows."""
    model = Transformer(ModelConfig(2, width, 4, attention, context, vocab_size))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(torch_seed(7, "test", name))
            parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, spread, generator=generator)
    return model


def requests(count: int = 6, *, longest: int = 30, **settings: object) -> list[Request]:
    """Prompts of different lengths."""
    random = stream(0, "test", "prompts")
    base = {"samples": 9, "max_new_tokens": 20, "seed": 3, **settings}
    return [
        Request(random.integers(0, 10, int(random.integers(1, longest))).tolist(), key=f"problem {i}", **base)
        for i in range(count)
    ]


def by_name(completions: Sequence[Completion], wanted: Sequence[Request]) -> dict[tuple[str, int], Completion]:
    found = {(wanted[c.request].key, c.sample): c for c in completions}
    assert len(found) == len(completions) == sum(request.samples for request in wanted)
    return found


@pytest.fixture(scope="module", params=["mqa", "mha"])
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(request.param)


def test_log_probabilities_are_those_of_the_uncached_model(model: Transformer) -> None:
    """Parity of the cached forward pass at every position, whatever rows came and went meanwhile."""
    wanted = requests(temperature=0.9, top_p=0.95)
    for completion in generate(model, TOKENS, wanted, rows=7):
        prompt = list(wanted[completion.request].prompt)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion.tokens[:-1]]))[0, len(prompt) - 1 :, : TOKENS.vocab_size]
        exact = torch.log_softmax(logits, -1)[range(len(completion.tokens)), completion.tokens]
        assert torch.allclose(exact, torch.tensor(completion.log_probabilities), atol=1e-4)
        assert completion.log_probability == pytest.approx(sum(exact.tolist()), abs=1e-3)


def test_each_drawn_token_is_fed_once_and_each_prompt_once(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished rows are dropped at once: the rows of all steps together are the tokens drawn, less the last ones."""
    fed, prompts = [], []
    step, prefill = Decoder.step, Decoder.prefill

    def count_step(self: Decoder, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        fed.append(len(tokens))
        return step(self, tokens, *rest)  # type: ignore[arg-type]

    def count_prefill(self: Decoder, tokens: list[int]) -> object:
        prompts.append(tuple(tokens))
        return prefill(self, tokens)

    monkeypatch.setattr(Decoder, "step", count_step)
    monkeypatch.setattr(Decoder, "prefill", count_prefill)
    wanted = requests()
    completions = list(generate(model, TOKENS, wanted, rows=8))
    assert {c.finish for c in completions} >= {"end", "length"}  # rows end at different times
    assert sum(fed) == sum(len(c.tokens) - 1 for c in completions)
    assert max(fed) == 8
    assert prompts == [tuple(request.prompt) for request in wanted]


def test_shared_prompts_change_nothing() -> None:
    """Wide prompts are read once for all samples; alone, a sample has its own copy. The tokens are the same."""
    wide = random_model("mha", width=256, context=170, spread=0.08)
    prompt = stream(0, "test", "shared").integers(0, 10, 150).tolist()
    shared = Request(prompt, samples=40, max_new_tokens=20, temperature=0.8, top_p=0.95, key="a")
    other = replace(shared, prompt=prompt[:140], key="b")
    single = [replace(shared, key="c", samples=1), replace(other, key="d", samples=1)]
    together = by_name(
        list(generate(wide, TOKENS, [shared, single[0], other, single[1]], rows=50)),
        [shared, single[0], other, single[1]],
    )
    same = 0
    for request in (shared, other):
        for sample in range(0, 40, 8):
            with torch.no_grad():
                completion = together[request.key, sample]
                logits = wide(torch.tensor([list(request.prompt) + completion.tokens[:-1]]))[
                    0, len(request.prompt) - 1 :
                ]
            exact = torch.log_softmax(logits[:, : TOKENS.vocab_size], -1)[
                range(len(completion.tokens)), completion.tokens
            ]
            same += torch.allclose(exact, torch.tensor(completion.log_probabilities), atol=1e-4)
    assert same == 10


def test_a_sample_is_what_its_definition_says(model: Transformer) -> None:
    """Written out: uncached logits, temperature, nucleus by sorting, draw by the sample's uniform for that position."""
    request = Request([3, 1, 4], samples=25, max_new_tokens=12, temperature=0.8, top_p=0.9, seed=5, key="k")
    longest = 0
    for completion in generate(model, TOKENS, [request], rows=9):
        uniforms = stream(5, "sample", "k", completion.sample).random(12)
        tokens: list[int] = []
        while len(tokens) < len(completion.tokens):
            with torch.no_grad():
                logits = model(torch.tensor([[3, 1, 4, *tokens]]))[0, -1, : TOKENS.vocab_size]
            probabilities = torch.softmax(logits.double() / 0.8, -1).tolist()
            kept, mass = [], 0.0
            for token in sorted(range(TOKENS.vocab_size), key=lambda t: -probabilities[t]):
                if mass < 0.9:
                    kept.append(token)
                    mass += probabilities[token]
            target, at = uniforms[len(tokens)] * mass, 0.0
            for token in sorted(kept):
                at += probabilities[token]
                if at > target:
                    tokens.append(token)
                    break
        assert completion.tokens == tokens
        longest = max(longest, len(tokens))
    assert longest > 5


@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_samples_do_not_depend_on_rows_or_order(attention: str, record_property: Callable[[str, object], None]) -> None:
    """Long samples from a wide vocabulary: many borders that a rounding could carry a uniform over."""
    many = Vocabulary([b"x"] * 507)
    wide = random_model(attention, vocab_size=512, width=64, spread=0.15)
    wanted = requests(12, samples=100, longest=14, max_new_tokens=26, temperature=0.8, top_p=0.95)
    reference = by_name(list(generate(wide, many, wanted, rows=256)), wanted)
    same = total = 0
    for rows, order in ((1000, 1), (37, -1)):
        others = wanted[::order]
        for name, completion in by_name(list(generate(wide, many, others, rows=rows)), others).items():
            same += completion.tokens == reference[name].tokens
            total += 1
    record_property("samples that are the same", f"{same} of {total}")
    assert same / total >= 0.999
    assert len({tuple(c.tokens) for c in reference.values()}) > 0.95 * len(reference)
    assert sum(len(c.tokens) for c in reference.values()) > 20 * len(reference)


def test_seed_key_and_sample_number_make_the_sample(model: Transformer) -> None:
    base = Request([1, 2, 3], samples=8, max_new_tokens=15, seed=1, key="p")

    def tokens(*wanted: Request) -> list[list[int]]:
        return [c.tokens for c in sorted(generate(model, TOKENS, wanted), key=lambda c: (c.request, c.sample))]

    eight = tokens(base)
    assert tokens(replace(base, samples=3)) == eight[:3]
    assert [t[:5] for t in eight] == tokens(replace(base, max_new_tokens=5))
    assert tokens(base, base) == eight + eight
    assert tokens(replace(base, seed=2)) != eight
    assert tokens(replace(base, key="q")) != eight


def test_stop_strings_end_the_text_wherever_tokens_fall(model: Transformer) -> None:
    """Against cutting the text of unstopped samples afterwards, token by token."""
    wanted = requests(16, samples=20, temperature=1.0)
    free = by_name(list(generate(model, TOKENS, wanted)), wanted)
    spanning = 0
    for stops in ((b"abca",), (b"bb", b"a\n"), (b"cabc", b"ccc", b"\n"), (b"a", b"abc"), (b"b",), (b"zz",)):
        stopping = [replace(request, stops=stops) for request in wanted]
        for name, completion in by_name(list(generate(model, TOKENS, stopping, rows=33)), stopping).items():
            tokens, text = [], b""
            for token in free[name].tokens:
                tokens.append(token)
                text += TOKENS.token_bytes[token]
                if any(stop in text for stop in stops):
                    break
            at = min((text.find(stop) for stop in stops if stop in text), default=None)
            assert (completion.tokens, completion.text) == (tokens, text[:at])
            assert completion.finish == ("stop" if at is not None else free[name].finish)
            spanning += at is not None and len(text) - at > len(TOKENS.token_bytes[tokens[-1]])
    assert spanning > 50  # stops that began in an earlier token than the one that completed them


def test_table_of_completing_tokens_is_exact() -> None:
    """True exactly where some text ends in the token and a stop string ends within its bytes."""
    stops = (b"\ndef", b"ab", b"cab")
    pieces = [b"f", b"ef", b"def x", b"x\ndef", b"de", b"\n", b"b", b"ba", b"abx", b"xab", b"ca", b"q", b"", b"ef ab"]
    table = completing_tokens(pieces, stops)
    for piece, may in zip(pieces, table, strict=True):
        texts = [stop[:cut] + piece for stop in stops for cut in range(len(stop))]
        starts = [cut for stop in stops for cut in range(len(stop))]
        ends = any(
            (at := text.find(stop)) >= 0 and at + len(stop) > before
            for text, before in zip(texts, starts, strict=True)
            for stop in stops
        )
        assert may == ends, piece
    assert first_stop(b"xxabcab", stops) == 2
    assert first_stop(b"none", stops) == -1


def test_special_tokens_end_the_text(model: Transformer) -> None:
    completions = list(generate(model, TOKENS, requests(samples=40, temperature=1.5)))
    first_special = TOKENS.specials.end_of_text
    for completion in completions:
        assert all(token < first_special for token in completion.tokens[:-1])
        assert (completion.finish == "end") == (completion.tokens[-1] >= first_special)
        assert completion.text == b"".join(TOKENS.token_bytes[token] for token in completion.tokens)
        assert max(completion.tokens) < TOKENS.vocab_size  # never a padded row of the embedding
    assert {TOKENS.specials.end_of_text, TOKENS.specials.fim_middle} <= {c.tokens[-1] for c in completions}


def test_budget_and_context_end_the_text(model: Transformer) -> None:
    silent = random_model(model.config.attention)
    with torch.no_grad():  # special tokens get logits near -50, so that nothing else ends a sample
        silent.transformer.ln_f.bias[0] = 5
        silent.transformer.wte.weight[TOKENS.specials.end_of_text :] = 0
        silent.transformer.wte.weight[TOKENS.specials.end_of_text :, 0] = -10
    wanted = [
        Request([1, 2], max_new_tokens=1, samples=3, key="one"),
        Request([1] * (CONTEXT - 5), max_new_tokens=5, key="exact"),
        Request([1] * (CONTEXT - 5), max_new_tokens=6, key="over"),
        Request([1] * (CONTEXT - 1), max_new_tokens=9, key="full", temperature=0.0),
    ]
    found = by_name(list(generate(silent, TOKENS, wanted)), wanted)
    assert [(c.finish, len(c.tokens)) for c in found.values() if c.request == 0] == [("length", 1)] * 3
    assert (found["exact", 0].finish, len(found["exact", 0].tokens)) == ("length", 5)
    assert (found["over", 0].finish, len(found["over", 0].tokens)) == ("context", 5)
    assert (found["full", 0].finish, len(found["full", 0].tokens)) == ("context", 1)


def test_memory_limit_refuses_clearly_and_is_kept(model: Transformer) -> None:
    wanted = requests()
    with pytest.raises(UserError, match=r"20 rows take [\d,]+ bytes.*1,000 are allowed.*not even one row"):
        generate(model, TOKENS, wanted, rows=20, memory_limit=1000)
    with pytest.raises(UserError, match=r"hint|rows fit") as refusal:
        generate(model, TOKENS, wanted, rows=20, memory_limit=200_000 if model.config.attention == "mha" else 60_000)
    fit = int(str(refusal.value).split(";")[-1].split()[0])
    assert 1 <= fit < 20
    limit = 200_000 if model.config.attention == "mha" else 60_000
    fewer = by_name(list(generate(model, TOKENS, wanted, rows=fit, memory_limit=limit)), wanted)
    assert {name: c.tokens for name, c in fewer.items()} == {
        name: c.tokens for name, c in by_name(list(generate(model, TOKENS, wanted)), wanted).items()
    }


def test_prompts_that_are_copied_do_not_stay(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for all rows and one prompt, twelve prompts of one sample each fill twelve rows at once."""
    wanted = [Request([1] * 20, max_new_tokens=4, key=str(i)) for i in range(12)]
    token_bytes = model.config.key_value_bytes_per_token * 2  # float32
    row_bytes = aligned(23) * token_bytes + TOKENS.vocab_size * 4
    fed = []
    step = Decoder.step

    def watch(self: Decoder, tokens: torch.Tensor, *rest: object) -> torch.Tensor:
        fed.append(len(tokens))
        return step(self, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "step", watch)
    limit = 12 * row_bytes + 20 * token_bytes
    completions = list(generate(model, TOKENS, wanted, memory_limit=limit))
    assert fed[0] == 12 - sum(len(c.tokens) == 1 for c in completions) > 6
    with pytest.raises(UserError, match="11 rows fit"):
        generate(model, TOKENS, wanted, memory_limit=limit - 1)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["mqa", "mha"])
def test_a_row_has_the_same_bits_beside_longer_ones(attention: str, precision: Precision, shared: bool) -> None:
    """Whatever another row's prompt and place: sums over columns do not depend on how many are looked at. With heads of
    64, as released models have them; for 8 or 16 PyTorch takes another product where columns are few."""
    model = random_model(attention, context=256, width=256, spread=0.1)
    for length in range(1, 40, 5):
        seen = set()
        for other, column in ((1, 0), (5, 31), (70, 3), (111, 90)):
            decoder = Decoder(model, rows=2, columns=150, vocab_size=TOKENS.vocab_size, precision=precision)
            prompts = [decoder.prefill([i % 10 for i in range(size)]) for size in (length, other)]
            together, offset = [], torch.tensor([length, other])
            for row, prompt in enumerate(prompts):
                if shared:
                    together.append(Sharing(prompt, torch.tensor([row])))
                else:
                    decoder.store(prompt, torch.tensor([row]))
            for at in range(20):
                position = torch.tensor([at, min(column, 30)]) + offset
                columns = torch.tensor([at, column]) if shared else position
                logits = decoder.step(torch.tensor([at % 7, 3]), position, columns, together)
                seen.add((at, *logits[0].float().tolist()))
        assert len(seen) == 20


def test_prompts_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one shared prompt at a time, the second is run after the rows of the first have ended."""
    wide = random_model("mha", width=256, context=170, spread=0.08)
    wanted = [Request([i] * 150, samples=40, max_new_tokens=8, key=str(i)) for i in range(3)]
    prompt_bytes = 150 * 2 * 2 * 256 * 4  # positions, layers, keys and values, width, float32
    row_bytes = aligned(7) * 2 * 2 * 256 * 4 + TOKENS.vocab_size * 4
    held = []
    step = Decoder.step

    def watch(self: Decoder, *arguments: object) -> torch.Tensor:
        held.append(len(arguments[3]))  # type: ignore[arg-type]
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "step", watch)
    completions = list(generate(wide, TOKENS, wanted, rows=60, memory_limit=60 * row_bytes + prompt_bytes + 1000))
    assert len(completions) == 120
    assert max(held) == 1
    list(generate(wide, TOKENS, wanted, rows=60))
    assert max(held) > 1


def test_mistakes_are_refused_before_any_work(model: Transformer) -> None:
    def refused(pattern: str, **settings: object) -> None:
        with pytest.raises(UserError, match=pattern):
            generate(model, TOKENS, [Request(**{"prompt": [1], "key": "p7", **settings})])

    refused("'p7'.*the prompt is empty", prompt=[])
    refused(f"'p7'.*{CONTEXT} tokens.*cut the prompt to at most {CONTEXT - 1}", prompt=[1] * CONTEXT)
    refused("token 15.*from 0 to 14", prompt=[1, 15])
    refused("token -1", prompt=[-1])
    for temperature in (-0.1, float("nan"), float("inf")):
        refused("temperature", temperature=temperature)
    for top_p in (0.0, 1.1, float("nan")):
        refused("top_p", top_p=top_p)
    refused("top_k", top_k=0)
    refused("samples", samples=0)
    refused("max_new_tokens", max_new_tokens=0)
    refused("stop string is empty", stops=(b"",))
    with pytest.raises(UserError, match="stop strings are bytes"):
        Request([1], stops=("text",))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rows"):
        generate(model, TOKENS, [Request([1])], rows=0)
    with pytest.raises(UserError, match="do not belong together"):
        generate(random_model(vocab_size=8), TOKENS, [Request([1])])
    assert list(generate(model, TOKENS, [])) == []


def test_damaged_weights_are_an_error_not_text() -> None:
    broken = random_model()
    with torch.no_grad():
        broken.transformer.h[1].ln_2.weight[3] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        list(generate(broken, TOKENS, [Request([1, 2])]))


def test_the_consumer_keeps_its_own_gradient_mode(model: Transformer) -> None:
    for completion in generate(model, TOKENS, requests(2)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        if completion.sample == 3:
            break  # a caller may stop at any time
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert model.transformer.wte.weight.grad is not None
    model.zero_grad()


def test_free_memory_is_what_the_system_reports() -> None:
    free = free_memory(torch.device("cpu"))
    if sys.platform == "linux":
        assert free is not None
        assert 1 << 20 < free < 1 << 50


def test_a_real_tokenizer_samples_text_and_fills_in(tmp_path: Path) -> None:
    files = sorted(Path(__file__).parent.glob("test_generation_*.py"))
    tokenizer = train_tokenizer((file.read_text() for file in files), 400, tmp_path)
    real = random_model(vocab_size=512, context=64)
    text = files[0].read_text()
    prompts = [
        left_to_right_prompt(tokenizer, text, context=64, new_tokens=24),
        infilling_prompt(tokenizer, text[:300], text[320:], mode="psm", context=64, new_tokens=24),
        infilling_prompt(tokenizer, "def f(x):\n    return ", "\n", mode="spm", context=64, new_tokens=24),
    ]
    wanted = [Request(p, samples=5, max_new_tokens=24, stops=(b"\n",), key=str(i)) for i, p in enumerate(prompts)]
    for completion in generate(real, tokenizer, wanted):
        text_tokens = completion.tokens[:-1] if completion.finish == "end" else completion.tokens
        whole = tokenizer.decode_bytes(text_tokens)
        assert completion.text == (whole.split(b"\n")[0] if completion.finish == "stop" else whole)
        assert b"\n" not in completion.text


def test_the_same_samples_without_numba(model: Transformer) -> None:
    """In a process that cannot import numba, nor anything else that this room must do without."""
    script = f"""
import sys
for name in ("numba", "pyarrow", "pydantic", "rich", "transformers", "duckdb", "scipy"):
    sys.modules[name] = None
import json, torch
from kringle.generation import engine, fim, requests
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer
from kringle.randomness import torch_seed
from kringle.tokens.tokenizer import Specials
class Vocabulary: pass
tokens = Vocabulary()
tokens.specials, tokens.token_bytes, tokens.vocab_size = Specials.after(10), {TOKENS.token_bytes!r}, 15
model = Transformer(ModelConfig(2, 32, 4, {model.config.attention!r}, {CONTEXT}, 32))
with torch.no_grad():
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(torch_seed(7, "test", name))
        parameter.normal_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0, 0.3, generator=generator)
wanted = [requests.Request([1, 2, 3], samples=50, max_new_tokens=20, temperature=0.8, top_p=0.9, top_k=9, key="p")]
completions = sorted(engine.generate(model, tokens, wanted), key=lambda c: c.sample)
print(json.dumps([c.tokens for c in completions]))
"""
    lone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    wanted = [Request([1, 2, 3], samples=50, max_new_tokens=20, temperature=0.8, top_p=0.9, top_k=9, key="p")]
    here = sorted(generate(model, TOKENS, wanted), key=lambda c: c.sample)
    assert lone.stdout.strip() == str([c.tokens for c in here])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_the_same_greedy_text(model: Transformer) -> None:
    wanted = requests(temperature=0.0, samples=1)
    here = by_name(list(generate(model, TOKENS, wanted)), wanted)
    there = by_name(list(generate(random_model(model.config.attention).cuda(), TOKENS, wanted)), wanted)
    assert {name: c.tokens for name, c in here.items()} == {name: c.tokens for name, c in there.items()}
