"""Residual networks with convolutional shortcuts (ResNet-18) for small images, with three fully connected layers.

Stages: ``stem``, ``stage1``, ``stage2`` …, ``pool``, ``hidden1``, ``hidden2``, ``classifier``. The stem is a 3x3
convolution of stride 1, without pooling. The stages have w, 2w, 4w, 8w, 8w … channels, all but the first begin with
stride 2. A shortcut where the shape changes is a 1x1 convolution with batch normalisation. The convolutional part of
depth 18 and width 64 has 11.17 M parameters.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.classifier import classifier_stages, initialise
from collabench.models.intermediate import IntermediateLayer

#: Depth → blocks of every stage.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Settings(ModelSettings):
    """
    depth: of one of the networks of the literature.
    blocks: blocks of every stage, for another network, instead of depth.
    width: channels of the first stage: 64 in the literature, 128 for twice the filters in every convolution.
    hidden: width of the two hidden fully connected layers.
    """

    draws_dropout: ClassVar[bool] = True
    family: Literal["resnet"]
    depth: Literal[18, 34] | None = None
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] | None = None
    width: int = Field(default=64, ge=1, le=1024)
    hidden: int = Field(default=512, ge=1, le=65_536)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.depth is None) == (self.blocks is None):
            raise ValueError("a resnet has either depth (18 or 34) or blocks")
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks of every stage."""
        if self.blocks is not None:
            return self.blocks
        assert self.depth is not None
        return BLOCKS[self.depth]


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
    least = 2 ** (len(settings.stages) - 1)
    if min(height, width) < least:
        raise ConfigError(f"a resnet of {len(settings.stages)} stages needs images of at least {least}x{least} pixels, "
                          f"these have {height}x{width}")  # fmt: skip
    modules: dict[str, nn.Module] = {"stem": IntermediateLayer(channels_in, settings.width)}
    channels_in = settings.width
    for index, count in enumerate(settings.stages):
        channels = settings.width * min(2**index, 8)
        blocks: list[nn.Module] = []
        for block in range(count):
            blocks.append(BasicBlock(channels_in, channels, 2 if index and not block else 1))
            channels_in = channels
        modules[f"stage{index + 1}"] = nn.Sequential(*blocks)
    backbone = Backbone(modules | classifier_stages(channels_in, settings.hidden, classes))
    initialise(backbone)
    return backbone
