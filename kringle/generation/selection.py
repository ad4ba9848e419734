"""Choosing the next token: temperature, top-k, top-p and the draw, exactly and without sorting the vocabulary.

Definitions. Tokens are ranked by probability, equal ones by lower id first. Top-k keeps the first k. Top-p keeps the
smallest number of first-ranked tokens whose mass is at least p (of what top-k left). The draw is an inverse of the
cumulative distribution over the kept tokens *in the order of their ids*, at a uniform number that the caller gives. The
order matters: in order of rank a change of one unit in the last place swaps two near-equal tokens and with them the
outcome, in order of ids it moves a border by as little.

Three implementations keep the same tokens and draw alike: `selection_kernel` (numba, CPU) and `selection_cuda` (triton,
CUDA) find the borders by bisection, and `choose_by_sorting` (torch, any device) sorts the 256 most probable tokens and
falls back to sorting all of them for rows that keep more. The CPU kernel's exponentials differ by a rounding. Logits on
a GPU stay there: what travels is one array of settings in, the ids and their log-probabilities out. Not covered:
penalties, beam search, grammars.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kringle.errors import UserError

PREFILTER = 256  # tokens looked at before the whole vocabulary is sorted
# A token e^-87 times as probable as the first one, or less (10^-38), counts as impossible: below, exp leaves the normal
# floats and is ten times slower.
FLOOR = -87.0
WORTH_A_THREAD = 1 << 20  # logits, about two milliseconds of work; starting a thread takes a tenth of one


class Truncation(NamedTuple):
    """How each of R rows is drawn; arrays of shape (R,)."""

    temperature: np.ndarray  # float64; 0 is greedy
    top_p: np.ndarray  # float64 in (0, 1]
    top_k: np.ndarray  # int64; 0 keeps every token

    @property
    def inverse_temperature(self) -> np.ndarray:
        """float32; 0 for greedy rows, else at most the largest float, so that 0 times it is still 0."""
        inverse = np.where(self.temperature > 0, 1.0 / np.where(self.temperature > 0, self.temperature, 1.0), 0.0)
        return np.minimum(inverse, np.finfo(np.float32).max).astype(np.float32)


def select(logits: Tensor, truncation: Truncation, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw one token for each of R rows of logits (R, V), or R tokens from one row (1, V), at uniforms (R,) in [0, 1).

    Returns ids (R,) int64 and log-probabilities (R,) float32, in nats, under the untruncated distribution at
    temperature 1. Raises UserError if a row holds NaN or +infinity, or nothing but -infinity.
    """
    by_kernel = logits.device.type == "cpu" and _is_installed("numba")
    return (select_by_kernel if by_kernel else select_on_device)(
        logits.detach().float().contiguous(), truncation, uniforms
    )


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _not_finite() -> UserError:
    return UserError("the model's logits are not finite numbers", where="sampling", hint="is the checkpoint damaged?")


def place(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device, copied; on CUDA the host waits for nothing: the copy takes its place in the stream."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    # Pinned memory is given back only after the copy; a copy from other memory would wait for the work before it.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def select_by_kernel(logits: Tensor, truncation: Truncation, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`select` on a CPU, in as many threads as torch uses."""
    from kringle.generation.selection_kernel import select_rows

    rows, scores = len(uniforms), logits.numpy()
    inverse = truncation.inverse_temperature
    ids, log_probabilities = np.empty(rows, np.int64), np.empty(rows, np.float32)

    def run(part: slice) -> None:
        some = scores if len(scores) == 1 else scores[part]
        select_rows(
            some,
            inverse[part],
            truncation.top_p[part],
            truncation.top_k[part],
            uniforms[part],
            np.float32(FLOOR),
            ids[part],
            log_probabilities[part],
        )

    threads = max(1, min(torch.get_num_threads(), rows * logits.shape[1] // WORTH_A_THREAD))
    borders = np.linspace(0, rows, threads + 1).astype(int).tolist()
    parts = [slice(start, end) for start, end in pairwise(borders)]
    if threads == 1:
        run(parts[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, parts))
    if (ids < 0).any():
        raise _not_finite()
    return ids, log_probabilities


Choose = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # see `choose_by_sorting`


@torch.inference_mode()
def select_on_device(
    logits: Tensor,
    truncation: Truncation,
    uniforms: np.ndarray,
    choose: Choose | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`select` on any device; `choose` None is the best way that the device has. With triton the host waits once, for
    the result."""
    device = logits.device
    choose = choose or chooser(device)
    # One array: float64 holds float32 and every id exactly.
    settings = place(
        np.stack([truncation.inverse_temperature, truncation.top_p, truncation.top_k, uniforms], dtype=np.float64),
        device,
    )
    inverse, p, k, u = settings[0].float(), settings[1], settings[2].long(), settings[3]
    highest = logits.amax(-1, keepdim=True)
    shifted = (logits - highest).expand(len(uniforms), -1)
    greedy = shifted.argmax(-1)
    exponents = shifted * inverse[:, None]
    weights = exponents.clamp(min=FLOOR).exp_().mul_(exponents > FLOOR)
    ids = torch.where(inverse > 0, choose(weights, p, k, u), greedy)
    log_probabilities = shifted.gather(1, ids[:, None])[:, 0] - shifted.exp().sum(-1).log()
    finite = torch.isfinite(highest[:, 0]).expand(len(ids))  # the maximum of a row with NaN is NaN
    found = torch.stack([ids.double(), log_probabilities.double(), finite.double()]).cpu().numpy()
    if not found[2].all():
        raise _not_finite()
    return found[0].astype(np.int64), found[1].astype(np.float32)


@cache
def chooser(device: torch.device) -> Choose:
    """Bisection on CUDA, else sorting; sorting with a warning, too, where triton cannot build its kernels, for which it
    needs a C compiler."""
    if device.type != "cuda" or not _is_installed("triton"):
        return choose_by_sorting
    from kringle.generation.selection_cuda import choose_by_bisection

    one = torch.ones((1, 2), device=device)
    half = torch.full((1,), 0.5, dtype=torch.float64, device=device)
    try:
        choose_by_bisection(one, half, half.long(), half).tolist()
    except Exception as error:  # of a compiler, a linker or a driver
        warnings.warn(f"tokens are chosen by sorting, which takes longer: triton cannot be used: {error}", stacklevel=2)
        return choose_by_sorting
    return choose_by_bisection


def choose_by_sorting(weights: Tensor, p: Tensor, k: Tensor, u: Tensor) -> Tensor:
    """Ids (R,) drawn from unnormalised probabilities (R, V) float32 with top-p (R,), top-k (R,) and uniforms (R,)."""
    width = weights.shape[1]
    k = torch.where(k > 0, k, width).clamp(max=width)
    total = weights.sum(-1, dtype=torch.float64)
    if width <= PREFILTER:
        return _choose_ranked(*_ranked(weights), total, p, k, u)[0]
    values, ids = weights.topk(PREFILTER, dim=-1)
    by_id = ids.argsort(-1)  # `topk` leaves the order of equal values open
    values, order = values.gather(1, by_id).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, by_id).gather(1, order)
    chosen, lowest_kept = _choose_ranked(values, ids, total, p, k, u)
    # Where what is kept ends above the last value looked at, no token outside can belong to it; but a top-k wider than
    # the prefilter has a mass that is not known yet.
    undecided = ((lowest_kept <= values[:, -1]) | ((k > PREFILTER) & (k < width))).nonzero()[:, 0]
    if len(undecided):
        full = _ranked(weights[undecided])
        chosen[undecided] = _choose_ranked(*full, total[undecided], p[undecided], k[undecided], u[undecided])[0]
    return chosen


def _ranked(weights: Tensor) -> tuple[Tensor, Tensor]:
    values, ids = weights.sort(dim=-1, descending=True, stable=True)
    return values, ids


def _choose_ranked(
    values: Tensor, ids: Tensor, total: Tensor, p: Tensor, k: Tensor, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Ids drawn (R,) and the lowest value kept (R,), from values (R, N) by rank with ids and the rows' whole mass."""
    n = values.shape[1]
    mass = values.double().cumsum(-1)
    available = torch.where(k <= n, mass.gather(1, k.clamp(max=n)[:, None] - 1)[:, 0], total)
    kept = torch.where(p < 1, (mass < (p * available)[:, None]).sum(-1) + 1, k)
    kept = torch.minimum(kept, k).clamp(max=n)
    lowest_kept = values.gather(1, kept[:, None] - 1)[:, 0]
    inside = torch.arange(n, device=values.device) < kept[:, None]
    by_id = torch.where(inside, ids, torch.iinfo(torch.int64).max).argsort(-1)
    mass = torch.where(inside, values, 0).gather(1, by_id).double().cumsum(-1)
    at = (mass <= u[:, None] * mass[:, -1:]).sum(-1)
    # u < 1, yet u times the mass may round to the mass itself: the last token that adds to it is meant.
    last = (mass < mass[:, -1:]).sum(-1)
    return ids.gather(1, by_id.gather(1, torch.minimum(at, last)[:, None]))[:, 0], lowest_kept
