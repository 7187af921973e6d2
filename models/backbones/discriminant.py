"""A linear discriminant over numbers of very different sizes: what our own detectors put on features not learned."""

from typing import Final, cast

import torch
from torch import Tensor, nn

CLAMP: Final = 6.0  # standard deviations


class Discriminant(nn.Module):
    """Numbers (N, count), standardised and clamped, to logits of fake (N,). count + 1 parameters."""

    scaler_mean: Tensor
    scaler_scale: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.fc = nn.Linear(count, 1)
        self.register_buffer("scaler_mean", torch.zeros(count))
        self.register_buffer("scaler_scale", torch.ones(count))

    def standardised(self, numbers: Tensor) -> Tensor:
        """What is weighed; (N, count)."""
        return ((numbers - self.scaler_mean) / self.scaler_scale).clamp(-CLAMP, CLAMP)

    def forward(self, numbers: Tensor) -> Tensor:
        return cast("Tensor", self.fc(self.standardised(numbers))).squeeze(1)
