"""Residual networks with convolutional shortcuts (ResNet-18) for small images, with three fully connected layers.

Stages: ``stem``, ``stage1``, ``stage2`` …, ``pool``, ``hidden1``, ``hidden2``, ``classifier``. The stem is a 3x3
convolution of stride 1, without pooling. The stages have w, 2w, 4w, 8w, 8w … channels, all but the first begin with
stride 2. A shortcut where the shape changes is a 1x1 convolution with batch normalisation. The convolutional part of
depth 18 and width 64 has 11.17 M parameters.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from collabench.models.backbone import Backbone
from collabench.models.classifier import classifier_stages, initialise
from collabench.models.intermediate import IntermediateLayer
from collabench.models.residual import ResidualSettings


class Settings(ResidualSettings):
    """
    depth or blocks, and width: as of every residual network.
    hidden: width of the two hidden fully connected layers.
    """

    draws_dropout: ClassVar[bool] = True
    family: Literal["resnet"]
    hidden: int = Field(default=512, ge=1, le=65_536)


class BasicBlock(nn.Module):
    """Two intermediate layers; the second one's activation comes after the addition of the block's input."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and channels_in == channels
        self.layer1 = IntermediateLayer(channels_in, channels, stride)
        self.layer2 = IntermediateLayer(
            channels,
            channels,
            added="identity" if same else "convolution",
            skip_channels=channels_in,
            skip_stride=stride,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x), x)


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Every stage but the first halves the map: images must have at least 2^(stages - 1) pixels a
    side.

    Raises ConfigError for smaller images.
    """
    channels_in, height, width = input_shape
    settings.check_images(height, width)
    modules: dict[str, nn.Module] = {"stem": IntermediateLayer(channels_in, settings.width)}
    channels_in = settings.width
    for index, (count, channels) in enumerate(zip(settings.stages, settings.widths(), strict=True)):
        blocks: list[nn.Module] = []
        for block in range(count):
            blocks.append(BasicBlock(channels_in, channels, 2 if index and not block else 1))
            channels_in = channels
        modules[f"stage{index + 1}"] = nn.Sequential(*blocks)
    backbone = Backbone(modules | classifier_stages(channels_in, settings.hidden, classes))
    initialise(backbone)
    return backbone
