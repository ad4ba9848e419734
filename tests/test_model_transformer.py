from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kringle.errors import UserError
from kringle.model import packed
from kringle.model.packed import gelu, linear_cross_entropy, span_attention, spans_of
from kringle.model.shape import ModelConfig, padded_vocabulary
from kringle.model.transformer import Transformer, document_mask, loss_sum

Kind = Literal["mqa", "mha"]
BOTH = pytest.mark.parametrize("attention", ["mqa", "mha"])


def model(attention: Kind, seed: int = 0, **changes: int) -> Transformer:
    shape = {"layers": 2, "width": 24, "heads": 3, "context": 16, "vocab_size": 128, **changes}
    made = Transformer(ModelConfig(attention=attention, **shape))
    made.initialise(seed)
    return made


def flat(lengths: list[int], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Tokens and positions (N,) of pieces end to end."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 128, (sum(lengths),), generator=generator)
    return tokens, torch.cat([torch.arange(n) for n in lengths])


def test_parameter_counts_are_santacoders() -> None:
    shape = {"layers": 24, "width": 2048, "heads": 16, "context": 2048, "vocab_size": padded_vocabulary(49_157)}
    for attention, expected in (("mqa", 1_124_886_528), ("mha", 1_313_722_368)):
        config = ModelConfig(attention=attention, **shape)  # type: ignore[arg-type]
        assert config.parameters == expected
        with torch.device("meta"):
            assert sum(p.numel() for p in Transformer(config).parameters()) == expected
    assert padded_vocabulary(49_157) == 49_280
    assert ModelConfig(attention="mqa", **shape).key_value_bytes_per_token == 12_288
    assert ModelConfig(attention="mha", **shape).key_value_bytes_per_token == 196_608


@BOTH
def test_parameter_counts_are_exact_for_any_shape(attention: Kind) -> None:
    made = model(attention, layers=3, width=20, heads=5, context=7, vocab_size=256)
    assert sum(p.numel() for p in made.parameters()) == made.config.parameters


def test_flops_count_the_matrix_products() -> None:
    """Against PyTorch's own count of a forward and backward pass; the embedding's lookup costs none."""
    from torch.utils.flop_counter import FlopCounterMode

    made = model("mha", context=16)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        made(tokens).sum().backward()
    assert counter.get_total_flops() == made.config.flops_per_token() * tokens.numel()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 5}, "width 24 is not divisible by 5 heads"), ({"layers": 0}, "layers must be at least 1")],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model("mqa", **changes)


def test_initialisation_is_shared_by_name_across_attention_kinds_and_depths() -> None:
    mqa, mha, deeper = model("mqa"), model("mha"), model("mha", layers=3)
    a, b, c = (dict(m.named_parameters()) for m in (mqa, mha, deeper))
    assert a.keys() == b.keys() < c.keys()
    for name in a:
        if "c_attn" not in name:
            assert torch.equal(a[name], b[name]), name
        if "c_proj" not in name:  # scaled by the depth
            assert torch.equal(b[name], c[name]), name
    h, d, e = 3, 8, 24
    queries = b["transformer.h.1.attn.c_attn.weight"].view(h, 3, d, e)[:, 0].reshape(e, e)
    assert torch.equal(a["transformer.h.1.attn.c_attn.weight"][:e], queries)
    other = dict(model("mqa", seed=1).named_parameters())
    assert not torch.equal(a["transformer.wte.weight"], other["transformer.wte.weight"])
    assert not torch.equal(a["transformer.h.0.mlp.c_fc.weight"], a["transformer.h.1.mlp.c_fc.weight"])


def test_initialisation_has_the_papers_deviations() -> None:
    made = model("mqa", layers=2, width=256, heads=4, vocab_size=2048)
    parameters = dict(made.named_parameters())
    for name, expected in (
        ("transformer.wte.weight", 1 / 16),
        ("transformer.h.0.attn.c_attn.weight", 1 / 16),
        ("transformer.h.1.mlp.c_proj.weight", 1 / 16 / 2),
        ("transformer.h.0.attn.c_proj.weight", 1 / 16 / 2),
    ):
        assert parameters[name].std().item() == pytest.approx(expected, rel=0.02), name
        assert abs(parameters[name].mean().item()) < 0.001
    for name, parameter in parameters.items():
        if ".ln_" in name and name.endswith("weight"):
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()


@BOTH
@pytest.mark.parametrize("lengths", [[16], [1, 1, 1], [5, 11, 3], [16, 2, 14]])
def test_pieces_end_to_end_compute_what_each_computes_alone(attention: Kind, lengths: list[int]) -> None:
    made = model(attention).double()
    tokens, positions = flat(lengths)
    together = made.hidden(tokens, positions, spans_of(lengths))
    alone = [made.hidden(part[None], torch.arange(len(part))[None])[0] for part in tokens.split(lengths)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-12)


@BOTH
def test_a_document_mask_isolates_documents(attention: Kind) -> None:
    """In both forms, changing one document's tokens leaves the logits of the others as they were, to the bit."""
    made = model(attention)
    lengths = [5, 8, 3]
    tokens, positions = flat(lengths)
    changed = tokens.clone()
    changed[5:13] = (changed[5:13] + 1) % 128
    segments = torch.tensor([0] * 5 + [1] * 8 + [2] * 3)[None]
    masked = [made(t[None], positions[None], document_mask(segments))[0] for t in (tokens, changed)]
    spanned = [made.logits(made.hidden(t, positions, spans_of(lengths))) for t in (tokens, changed)]
    for before, after in (masked, spanned):
        assert torch.equal(before[:5], after[:5])
        assert torch.equal(before[13:], after[13:])
        assert (before[5:13] != after[5:13]).all(dim=1).all()
    torch.testing.assert_close(masked[0], spanned[0], rtol=1e-4, atol=1e-5)


@BOTH
def test_attention_is_causal(attention: Kind) -> None:
    made = model(attention)
    tokens, _ = flat([16])
    changed = tokens.clone()
    changed[9] += 1
    before, after = made(tokens[None])[0], made(changed[None])[0]
    assert torch.equal(before[:9], after[:9])
    assert (before[9:] != after[9:]).any(dim=1).all()


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    groups=st.sampled_from([1, 3]),
    repeat=st.sampled_from([1, 4]),
    longest=st.sampled_from([0, 512]),
)
def test_span_attention_and_its_gradients_equal_plain_attention(
    lengths: list[int], groups: int, repeat: int, longest: int
) -> None:
    """Both ways of computing it (probabilities kept or computed anew) against a softmax under a mask."""
    n, d = sum(lengths), 8
    generator = torch.Generator().manual_seed(n)
    shapes = ((groups, n * repeat, d), (groups, n, d), (groups, n, d))
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    weights = torch.randn(shapes[0], generator=generator, dtype=torch.float64)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
        mask = document_mask(segments)[0, 0].repeat_interleave(repeat, 0)
        scores = (q @ k.mT / d**0.5).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    kept = packed.LONGEST_KEPT
    packed.LONGEST_KEPT = longest
    try:
        results = []
        for function in (lambda *x: span_attention(*x, spans_of(lengths)), plain):
            out = function(*inputs)
            gradients = torch.autograd.grad((out * weights).sum(), inputs)
            results.append([out, *gradients])
    finally:
        packed.LONGEST_KEPT = kept
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 7), st.integers(1, 5), st.sampled_from([4, 1 << 18]))
@settings(max_examples=20, deadline=None)
def test_gelu_and_its_gradient_equal_pytorchs(rows: int, columns: int, at_once: int) -> None:
    x = torch.linspace(-9, 9, rows * columns, dtype=torch.float64).view(rows, columns).requires_grad_()
    before = packed.GELU_AT_ONCE
    packed.GELU_AT_ONCE = at_once
    try:
        ours, theirs = gelu(x), F.gelu(x, approximate="tanh")
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        for a, b in zip(torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    finally:
        packed.GELU_AT_ONCE = before


@pytest.mark.parametrize("rows", [1, 63, 64, 200])
def test_the_loss_and_its_gradients_equal_pytorchs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LOGITS_AT_ONCE", 1)  # chunks of the smallest size, 64 rows
    generator = torch.Generator().manual_seed(rows)
    hidden = (torch.randn(rows, 8, generator=generator, dtype=torch.float64) * 30).requires_grad_()
    weight = torch.randn(50, 8, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(0, 50, (rows,), generator=generator)
    ours = linear_cross_entropy(hidden, weight, targets)
    theirs = loss_sum_double(hidden @ weight.T, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for a, b in zip(
        torch.autograd.grad(2.5 * ours, (hidden, weight)),
        torch.autograd.grad(2.5 * theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def loss_sum_double(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def test_the_loss_survives_logits_beyond_the_range_of_exp() -> None:
    hidden = torch.tensor([[1000.0, 0.0], [0.0, -1000.0]], requires_grad=True)
    weight = torch.eye(2).requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.tensor([1, 0]))
    assert loss.item() == 1000.0
    loss.backward()
    assert torch.isfinite(hidden.grad).all()  # type: ignore[arg-type]


def test_loss_sum_ignores_padding() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 2, -100], [-100, 0, 4]])
    picked = -logits.log_softmax(-1)
    expected = picked[0, 0, 1] + picked[0, 1, 2] + picked[1, 1, 0] + picked[1, 2, 4]
    assert loss_sum(logits, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_attention_kinds_differ_only_in_their_key_value_heads() -> None:
    """A multi-head model whose heads all have the multi-query model's keys and values computes the same."""
    mqa, mha = model("mqa"), model("mha")
    h, d, e = 3, 8, 24
    for single, several in zip(mqa.transformer.h, mha.transformer.h, strict=True):
        with torch.no_grad():
            keys_values = single.attn.c_attn.weight[e:].view(2, d, e)
            several.attn.c_attn.weight.view(h, 3, d, e)[:, 1:] = keys_values
    tokens = torch.from_numpy(np.arange(32).reshape(2, 16))
    torch.testing.assert_close(mqa(tokens), mha(tokens), rtol=1e-5, atol=1e-6)
