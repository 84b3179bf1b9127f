"""Residual networks for small images: depth 6n + 2, three stages of n blocks, widths w, 2w, 4w.

Stages: ``stem``, ``stage1``, ``stage2``, ``stage3``, ``pool``, ``classifier``. Shortcuts at which the shape changes
have no parameters (every second pixel, zero-padded channels). The literature quotes parameter counts of this variant
for CIFAR: 0.46 M for depth 32.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.pooling import GlobalAveragePool, every_nth_pixel


class Settings(ModelSettings):
    """``width``: channels of the first stage (16 in the literature)."""

    draws_dropout: ClassVar[bool] = False
    family: Literal["cifar_resnet"]
    depth: Literal[8, 14, 20, 32, 44, 56, 110]
    width: int = Field(default=16, ge=1, le=256)


class PadShortcut(nn.Module):
    """Identity with a smaller map and more channels: every ``stride``-th pixel, then zero channels on both sides."""

    def __init__(self, added_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = added_channels // 2
        self.after = added_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(every_nth_pixel(x, self.stride), (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation; the second activation comes after the addition."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else PadShortcut(channels - channels_in, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(out)).add_(self.shortcut(x)))


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Two stages have stride 2: images must be at least 4x4, else it raises ConfigError."""
    channels, height, width = input_shape
    if min(height, width) < 4:
        raise ConfigError(f"cifar_resnet needs images of at least 4x4 pixels, these have {height}x{width}")
    blocks, base = (settings.depth - 2) // 6, settings.width
    stem = nn.Sequential(nn.Conv2d(channels, base, 3, 1, 1, bias=False), nn.BatchNorm2d(base), nn.ReLU(inplace=True))

    def stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            BasicBlock(channels_in, channels_out, stride),
            *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)),
        )

    backbone = Backbone(
        {
            "stem": stem,
            "stage1": stage(base, base, 1),
            "stage2": stage(base, 2 * base, 2),
            "stage3": stage(2 * base, 4 * base, 2),
            "pool": GlobalAveragePool(),
            "classifier": nn.Linear(4 * base, classes),
        }
    )
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone
