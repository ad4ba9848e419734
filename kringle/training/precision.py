"""Dynamic loss scaling for fp16: gradients too small for 16 bits are scaled up; a step that overflows is left out."""

from __future__ import annotations

from dataclasses import dataclass

INITIAL = 65_536.0  # SantaCoder's script; Megatron's own default of 2^32 overflowed there
WINDOW = 1000  # clean steps in a row before the scale doubles
HYSTERESIS = 2  # overflows before it halves
SMALLEST = 1.0  # Megatron's --min-loss-scale


@dataclass
class LossScale:
    """The scale and what it depends on; three numbers that a checkpoint keeps."""

    scale: float = INITIAL
    clean: int = 0
    patience: int = HYSTERESIS
    lowest: int = 0  # overflows in a row at the smallest scale, where there is nothing left to lower

    def update(self, overflowed: bool) -> None:
        """Take note of one step (Megatron-LM, optimizer/grad_scaler.py, DynamicGradScaler)."""
        if overflowed:
            self.clean = 0
            self.lowest = self.lowest + 1 if self.scale <= SMALLEST else 0
            self.patience -= 1
            if self.patience <= 0:
                self.scale = max(self.scale / 2, SMALLEST)
            return
        self.lowest = 0
        self.clean += 1
        if self.clean == WINDOW:
            self.clean, self.patience = 0, HYSTERESIS
            self.scale *= 2
