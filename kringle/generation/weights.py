"""A model's weights in the precision in which they are read, laid out for the two ways of running a step.

Sampling is bound by reading weights where few rows advance together and by arithmetic where many do, so there are two
layouts, each made when it is first needed: matrices packed for the library's blocked product (`Matrix`, many rows, any
device) and plain stacked arrays for the kernel that streams them once for a few rows (`Streams`, CPU, numba).

Precisions: `fp32`; `bf16`, products in bfloat16 with residual stream, LayerNorm and softmax in fp32; `int8`, weights
rounded to 8 bits with one scale per output (symmetric, largest absolute value on 127), activations not rounded. What is
rounded are the five matrices' weights, the embedding included, because it is the output matrix; biases and LayerNorms
never are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kringle.errors import UserError
from kringle.model.shape import ModelConfig
from kringle.model.transformer import Transformer

Precision = Literal["fp32", "bf16", "int8"]
INT8_LARGEST = 127
# Packed products are 10 to 100% faster than plain ones; below this many weights the difference is lost in the call.
WORTH_PACKING = 1 << 16


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto` is bfloat16 where the device multiplies it natively, else fp32. UserError for what cannot run here."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
    if name == "auto":
        return "bf16" if native else "fp32"
    if name not in get_args(Precision):
        raise UserError(f"precision is auto, fp32, bf16 or int8, not '{name}'", where="--precision")
    if name == "bf16" and not native:
        raise UserError(
            "this processor has no bfloat16 instructions, and emulating them is slower than fp32",
            where="--precision bf16",
            hint="use fp32 or int8",
        )
    if name == "int8" and device.type != "cpu":
        raise UserError("int8 weights are for CPUs", where="--precision int8", hint="use bf16 on a GPU")
    return name  # type: ignore[return-value]  # checked against the literal's values above


def _cpu_multiplies_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.cpu.get_cpu_capability() == "AVX512"


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) float -> int8 (N, K) and scales (N,) float32 with weight ~ int8 * scale, row by row."""
    weight = weight.detach().float()
    scale = weight.abs().amax(dim=1) / INT8_LARGEST
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight / scale[:, None]).round_().clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8), scale


def effective(weight: Tensor, precision: Precision) -> Tensor:
    """The matrix that a precision really multiplies by, in float32 or bfloat16."""
    if precision == "bf16":
        return weight.detach().to(torch.bfloat16)
    if precision == "int8":
        quantised, scale = int8_rows(weight)
        return quantised.float() * scale[:, None]
    return weight.detach()


class Matrix:
    """A linear map (N, K) for many rows: x (R, K) float -> (R, N) in the precision's own type."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int) -> None:
        self.weight: Tensor | None = weight.to(dtype)
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed: Tensor | None = None
        if weight.device.type == "cpu" and weight.numel() >= WORTH_PACKING and torch._C._has_mkldnn:
            with torch.no_grad():
                self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
            self.weight = None

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.weight is not None:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def gelu(self, x: Tensor) -> Tensor:
        """The map followed by GELU's tanh form. On a CPU tanh takes as long as the product before it;
        x * sigmoid(2 z) is the same function, x * (1 + tanh(z)) / 2 with z = sqrt(2 / pi) * (x + 0.044715 x^3)."""
        y = self(x)
        if y.device.type != "cpu":
            return F.gelu(y, approximate="tanh")
        if self.packed is not None and self.dtype == torch.bfloat16:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(
                x.to(self.dtype), self.packed, self.bias, "gelu", [], "tanh"
            )
            return out
        linear = (8 / np.pi) ** 0.5
        return (y * y).mul_(0.044715 * linear).add_(linear).mul_(y).sigmoid_().mul_(y)


@dataclass(frozen=True)
class Streams:
    """All weights as plain arrays for `kringle.generation.row_kernel`; matrices are float32, uint16 (bfloat16) or int8.

    `attention` has rows [queries, head-major | keys | values] for both kinds of attention.
    """

    embedding: np.ndarray  # (V, E)
    embedding_scale: np.ndarray  # (V,)
    positions: np.ndarray  # (context, E) float32
    attention: np.ndarray  # (L, E + 2 G D, E)
    attention_scale: np.ndarray  # (L, E + 2 G D)
    attention_bias: np.ndarray
    projection: np.ndarray  # (L, E, E)
    projection_scale: np.ndarray
    projection_bias: np.ndarray
    mlp_in: np.ndarray  # (L, 4 E, E)
    mlp_in_scale: np.ndarray
    mlp_in_bias: np.ndarray
    mlp_out: np.ndarray  # (L, E, 4 E)
    mlp_out_scale: np.ndarray
    mlp_out_bias: np.ndarray
    norms: np.ndarray  # (L, 4, E) float32: weight and bias of the first LayerNorm, then of the second
    final: np.ndarray  # (2, E) float32

    @property
    def matrix_bytes(self) -> int:
        """Bytes that one step reads however many rows it advances."""
        parts = (self.embedding, self.attention, self.projection, self.mlp_in, self.mlp_out)
        return sum(part.nbytes for part in parts)

    @classmethod
    def of(cls, model: Transformer, precision: Precision, vocab_size: int) -> Streams:
        c = model.config
        named = {name.removeprefix("transformer."): tensor.detach() for name, tensor in model.named_parameters()}

        def stack(part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            reorder = part == "attn.c_attn"
            weights = [named[f"h.{i}.{part}.weight"] for i in range(c.layers)]
            biases = [named[f"h.{i}.{part}.bias"].float() for i in range(c.layers)]
            if reorder:
                weights, biases = ([_head_major(x, c) for x in some] for some in (weights, biases))
            arrays = [_stored(weight, precision) for weight in weights]
            return np.stack([a for a, _ in arrays]), np.stack([s for _, s in arrays]), torch.stack(biases).numpy()

        embedding, embedding_scale = _stored(named["wte.weight"][:vocab_size], precision)
        norms = [
            [named[f"h.{i}.ln_{n}.{kind}"] for n in (1, 2) for kind in ("weight", "bias")] for i in range(c.layers)
        ]
        return cls(
            embedding,
            embedding_scale,
            named["wpe.weight"].float().contiguous().numpy(),
            *stack("attn.c_attn"),
            *stack("attn.c_proj"),
            *stack("mlp.c_fc"),
            *stack("mlp.c_proj"),
            norms=torch.stack([torch.stack(layer) for layer in norms]).float().numpy(),
            final=torch.stack([named["ln_f.weight"], named["ln_f.bias"]]).float().numpy(),
        )


def _stored(weight: Tensor, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    """One matrix as an array of the precision's storage type, and its scales."""
    if precision == "int8":
        quantised, scale = int8_rows(weight)
        return quantised.contiguous().numpy(), scale.numpy()
    ones = np.ones(weight.shape[0], np.float32)
    if precision == "bf16":
        return weight.to(torch.bfloat16).contiguous().view(torch.uint16).numpy(), ones
    return weight.float().contiguous().numpy(), ones


def _head_major(x: Tensor, config: ModelConfig) -> Tensor:
    """`c_attn`'s rows (weight or bias) as [queries | keys | values]; multi-head models store (head, 3, D)."""
    if config.attention == "mqa":
        return x
    h, d = config.heads, config.head_size
    return x.view(h, 3, d, *x.shape[1:]).transpose(0, 1).reshape(x.shape)
