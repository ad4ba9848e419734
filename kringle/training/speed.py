"""Model FLOPs utilisation: what a model's arithmetic needs beside what the device could do.

    MFU = tokens/s x FLOPs/token / (devices x peak)

FLOPs a token are those of `ModelConfig.flops_per_token` (PaLM, appendix B: 6 a matmul weight and 12 L E T of attention,
causal not halved, recomputation not counted); tokens are targets, padding not counted. A device that is not in the
table has no MFU: a guessed peak gave other tools 100% and more.
"""

from __future__ import annotations

import re

import torch

PEAKS = (  # dense 16-bit FLOP/s with float32 accumulation, from the vendors' data sheets; first match counts
    (re.compile(r"H200 NVL|H100 NVL"), 835e12),
    (re.compile(r"H100 PCIe"), 756e12),
    (re.compile(r"H100|H200|GH200"), 989e12),
    (re.compile(r"A100"), 312e12),
    (re.compile(r"V100"), 125e12),
)


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak in this precision, None where it is not known (every CPU, fp32, other GPUs)."""
    if device.type != "cuda" or precision not in ("bf16", "fp16"):
        return None
    name = torch.cuda.get_device_name(device)
    if "V100" in name and precision == "bf16":
        return None  # has no bfloat16 units
    return next((peak for pattern, peak in PEAKS if pattern.search(name)), None)


def utilisation(tokens_per_second: float, flops_per_token: int, devices: int, peak: float | None) -> float | None:
    """MFU as a share, None without a peak."""
    return None if peak is None else tokens_per_second * flops_per_token / (devices * peak)


def memory_bytes(device: torch.device) -> int:
    """Peak memory: of the device's allocator on a GPU, else of this process (resident)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    from kringle.engine import peak_memory

    return peak_memory()
