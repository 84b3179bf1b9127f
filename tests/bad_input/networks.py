"""A network as a user would write it, for configurations that name one."""

from __future__ import annotations

import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = (
            nn.Conv2d(channels, width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Linear(width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.conv(x)).flatten(1))


def make(input_shape: tuple[int, int, int], classes: int, width: int = 4, sizes: list[int] | None = None) -> nn.Module:
    """``sizes`` changes nothing: it shows that a list can be given."""
    return Small(input_shape[0], width, classes)


def no_network(input_shape: tuple[int, int, int], classes: int) -> int:
    return classes


def raises(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise ZeroDivisionError("division by zero")
