"""Densely connected networks for small images: three dense blocks with transitions between them.

Stages: ``stem``, ``block1``, ``activation1``, ``transition1``, ``block2``, ``activation2``, ``transition2``,
``block3``, ``pool``, ``classifier``. Every layer normalises its own input, so the output of ``block1`` and ``block2``
is the plain concatenation. ``activation1`` is the normalisation and the activation of the first transition,
``transition1`` the rest of it: a training graph can split after a block, before its transition's convolution or after
its transition. The last normalisation and activation belong to ``block3``.

DenseNet-40-12 has ``depth: 40, growth: 12``; DenseNet-BC-100-12 has ``depth: 100, growth: 12, bottleneck: true,
compression: 0.5``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.core.record import LATER
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.dropout import SeededDropout
from collabench.models.pooling import GlobalAveragePool

BLOCKS = 3


class Settings(ModelSettings):
    """
    depth: number of convolutions and fully connected layers; each of the three blocks has (depth - 4) / 3 of them.
    growth: channels that every layer of a block adds (the growth rate k).
    bottleneck: a 1x1 convolution to 4 k channels before each 3x3 convolution (the "B" of BC).
    compression: share of its channels that a transition keeps; below 1 is the "C" of BC.
    stem_channels: of the first convolution; by default 16, and 2 k in a BC network.
    dropout: probability of dropout of single numbers after every convolution but the first one.
    """

    family: Literal["densenet"]
    depth: int = Field(default=40, ge=7, le=1000)
    growth: int = Field(default=12, ge=1, le=256)
    bottleneck: bool = False
    compression: float = Field(default=1.0, gt=0.0, le=1.0)
    stem_channels: int | None = Field(default=None, ge=1, le=1024)
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), LATER] = 0.0

    @model_validator(mode="after")
    def _depth_fits(self) -> Self:
        step = BLOCKS * (2 if self.bottleneck else 1)
        if self.layers_per_block < 1 or (self.depth - 4) % step:
            lower = max(4 + step, self.depth - (self.depth - 4) % step)
            kind = "with bottlenecks" if self.bottleneck else "without bottlenecks"
            raise ValueError(
                f"depth {self.depth} does not fit: {kind} it is {step} n + 4 ({lower} or {lower + step}, say)"
            )
        return self

    @property
    def draws_dropout(self) -> bool:
        return self.dropout > 0

    @property
    def layers_per_block(self) -> int:
        return (self.depth - 4) // (BLOCKS * (2 if self.bottleneck else 1))

    @property
    def first_channels(self) -> int:
        if self.stem_channels is not None:
            return self.stem_channels
        return 2 * self.growth if self.bottleneck and self.compression < 1 else 16


def _normalised(channels_in: int, channels: int, kernel: int, dropout: float) -> list[nn.Module]:
    """Batch normalisation, activation, convolution and, with a probability above 0, dropout, in the order in which a
    DenseNet applies them."""
    return [
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False),
        *([SeededDropout(dropout)] if dropout else []),
    ]


class DenseLayer(nn.Module):
    """Appends ``growth`` new channels to its input."""

    def __init__(self, channels_in: int, growth: int, bottleneck: bool, dropout: float) -> None:
        super().__init__()
        narrow = 4 * growth if bottleneck else channels_in
        first = _normalised(channels_in, narrow, 1, dropout) if bottleneck else []
        self.new = nn.Sequential(*first, *_normalised(narrow, growth, 3, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], dim=1)


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Two transitions halve the map, so images must be at least 4x4. Raises ConfigError for smaller
    ones."""
    channels_in, height, width = input_shape
    if min(height, width) < 4:
        raise ConfigError(f"densenet needs images of at least 4x4 pixels, these have {height}x{width}")
    channels = settings.first_channels
    modules: dict[str, nn.Module] = {"stem": nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)}
    stages: dict[str, tuple[str, ...]] = {"stem": ("stem",)}
    for number in range(1, BLOCKS + 1):
        layers = [
            DenseLayer(channels + layer * settings.growth, settings.growth, settings.bottleneck, settings.dropout)
            for layer in range(settings.layers_per_block)
        ]
        channels += settings.layers_per_block * settings.growth
        stages[f"block{number}"] = (f"block{number}",)
        if number == BLOCKS:
            modules[f"block{number}"] = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            continue
        modules[f"block{number}"] = nn.Sequential(*layers)
        kept = max(1, int(channels * settings.compression))
        layers_between = (*_normalised(channels, kept, 1, settings.dropout), nn.AvgPool2d(2))
        paths = tuple(f"transition{number}.{index}" for index in range(len(layers_between)))
        modules |= dict(zip(paths, layers_between, strict=True))
        stages |= {f"activation{number}": paths[:2], f"transition{number}": paths[2:]}
        channels = kept
    modules |= {"pool": GlobalAveragePool(), "classifier": nn.Linear(channels, classes)}
    stages |= {"pool": ("pool",), "classifier": ("classifier",)}
    backbone = Backbone(modules, stages)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone
