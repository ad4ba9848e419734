"""The loss of `kringle.model.chunked_loss` beside PyTorch's own, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kringle.model import chunked_loss as module
from kringle.model.chunked_loss import IGNORED, chunked_loss


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_the_cross_entropy(dtype: torch.dtype, near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)  # so that there are several chunks, the last one not full
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(40, 16, generator=generator, dtype=exact).requires_grad_()
    weight = torch.randn(50, 16, generator=generator, dtype=exact).requires_grad_()
    targets = torch.randint(50, (40,), generator=generator)
    targets[::6] = IGNORED
    expected = F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED, reduction="sum")
    wanted = torch.autograd.grad(expected / 3, (hidden, weight))
    loss = chunked_loss(hidden, weight, targets, dtype)
    found = torch.autograd.grad(loss / 3, (hidden, weight))
    assert loss.item() == pytest.approx(expected.item(), rel=near)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == exact
        assert (one - other).norm() <= near * other.norm()
    assert not found[0][::6].any()
