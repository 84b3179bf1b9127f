"""VGG networks with batch normalisation for small images, followed by three fully connected layers.

Stages: ``block1``, ``block2`` …, ``pool``, ``hidden1``, ``hidden2``, ``classifier``. A block is a chain of 3x3
convolutions (each with batch normalisation and activation) and, in the first ``poolings`` blocks, max pooling. The
blocks have w, 2w, 4w, 8w, 8w … channels. The convolutions of depth 16 and width 64 have 14.71 M weights.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.classifier import classifier_stages, initialise
from collabench.models.intermediate import IntermediateLayer

#: Depth, which counts three fully connected layers → convolutions of every block.
BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class Settings(ModelSettings):
    """
    depth: of one of the networks of the literature.
    blocks: convolutions of every block, for another network, instead of depth.
    width: channels of the first block: 64 in the literature, 128 for twice the filters in every convolution.
    poolings: blocks that end with pooling: the first so many; by default all.
    hidden: width of the two hidden fully connected layers.
    """

    draws_dropout: ClassVar[bool] = True
    family: Literal["vgg"]
    depth: Literal[11, 13, 16, 19] | None = None
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1, max_length=8)] | None = None
    width: int = Field(default=64, ge=1, le=1024)
    poolings: int | None = Field(default=None, ge=0, le=8)
    hidden: int = Field(default=512, ge=1, le=65_536)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.depth is None) == (self.blocks is None):
            raise ValueError("a vgg has either depth (11, 13, 16 or 19) or blocks")
        if self.poolings is not None and self.poolings > len(self.convolutions):
            raise ValueError(f"{len(self.convolutions)} blocks cannot have {self.poolings} poolings")
        return self

    @property
    def convolutions(self) -> tuple[int, ...]:
        """Convolutions of every block."""
        if self.blocks is not None:
            return self.blocks
        assert self.depth is not None
        return BLOCKS[self.depth]


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Every pooling halves the map: images must have at least 2^``poolings`` pixels a side.

    Raises ConfigError for smaller images.
    """
    channels_in, height, width = input_shape
    blocks = settings.convolutions
    poolings = len(blocks) if settings.poolings is None else settings.poolings
    least = 2**poolings
    if min(height, width) < least:
        raise ConfigError(f"a vgg with {poolings} poolings needs images of at least {least}x{least} pixels, these have "
                          f"{height}x{width}")  # fmt: skip
    modules: dict[str, nn.Module] = {}
    for index, count in enumerate(blocks):
        channels = settings.width * min(2**index, 8)
        layers: list[nn.Module] = []
        for _ in range(count):
            layers.append(IntermediateLayer(channels_in, channels))
            channels_in = channels
        if index < poolings:
            layers.append(nn.MaxPool2d(2))
        modules[f"block{index + 1}"] = nn.Sequential(*layers)
    backbone = Backbone(modules | classifier_stages(channels_in, settings.hidden, classes))
    initialise(backbone)
    return backbone
