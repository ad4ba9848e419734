"""AdamW with the paper's parameter groups, and Muon for the blocks' matrices as an option.

AdamW: weight decay on matrices and embeddings, none on biases and LayerNorms. Muon (Jordan et al., 2024) makes the
update of a matrix orthogonal; embeddings and vectors stay with AdamW. Its rate is scaled so that an update is as large
as AdamW's (Moonshot, "Muon is scalable", 2025), so one learning rate serves both.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from kringle.training.parallel import like, whole

OptimizerName = Literal["adamw", "muon"]
FUSED_DEVICES = (
    "cpu",
    "cuda",
)  # one kernel for all parameters: 1.2 ms a step instead of 4 ms at 1M parameters on a CPU


STATE: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}


class OptimizerSettings(Protocol):
    """Rate, decay and betas; SantaCoder's are 2e-4, 0.1, 0.9, 0.95 and epsilon 1e-8 (paper section 4, script)."""

    @property
    def optimizer(self) -> OptimizerName: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def epsilon(self) -> float: ...


def parameter_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with two or more dimensions, which decay, and the others, which do not."""
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Optimizers:
    """One or two optimizers that step together."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    def set_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The state by parameter name, as in `NAME.exp_avg`; whole tensors, so every rank must call this."""
        named = dict(model.named_parameters())
        found = {}
        for name, parameter in named.items():
            for part in self.parts:
                for key, value in part.state.get(parameter, {}).items():
                    found[f"{name}.{key}"] = whole(value)
        return found

    def restore(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """Put `tensors` back; KeyError names one that is missing. A run that has skipped every step has none at all."""
        if not tensors:
            return
        home = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for name, parameter in model.named_parameters():
            keys = STATE[type(home[parameter])]
            home[parameter].state[parameter] = {key: like(tensors[f"{name}.{key}"], parameter) for key in keys}


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """The optimizer that the settings name, over all parameters of the model."""
    named = list(model.named_parameters())
    by_muon = [p for name, p in named if settings.optimizer == "muon" and ".h." in name and p.dim() == 2]
    chosen = {id(p) for p in by_muon}
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            parameter_groups([p for _, p in named if id(p) not in chosen], settings.weight_decay),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=named[0][1].device.type in FUSED_DEVICES,
        )
    ]
    if by_muon:
        parts.append(
            torch.optim.Muon(
                by_muon,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return Optimizers(parts)
