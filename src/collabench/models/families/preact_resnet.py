"""Residual networks with activations before the convolutions, for small images: PreAct-ResNet-18.

Stages: ``stem``, ``stage1``, ``stage2`` …, ``pool``, ``classifier``. The stem is a 3x3 convolution of stride 1, without
pooling. The stages have w, 2w, 4w, 8w, 8w … channels, all but the first begin with stride 2. A block normalises its
own input, so that the output of a stage but the last is the plain sum. Depth 18 and width 64 have 11.17 M parameters
for 10 classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.preactivation import preactivation_network

#: Depth → blocks of every stage.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class Settings(ModelSettings):
    """
    depth: of one of the networks of the literature.
    blocks: blocks of every stage, for another network, instead of depth.
    width: channels of the first stage (64 in the literature).
    """

    draws_dropout: ClassVar[bool] = False
    family: Literal["preact_resnet"]
    depth: Literal[18, 34] | None = None
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] | None = None
    width: int = Field(default=64, ge=1, le=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.depth is None) == (self.blocks is None):
            raise ValueError("a preact_resnet has either depth (18 or 34) or blocks")
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks of every stage."""
        if self.blocks is not None:
            return self.blocks
        assert self.depth is not None
        return BLOCKS[self.depth]


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Every stage but the first halves the map: images must have at least 2^(stages - 1) pixels a
    side.

    Raises ConfigError for smaller images.
    """
    channels_in, height, width = input_shape
    least = 2 ** (len(settings.stages) - 1)
    if min(height, width) < least:
        raise ConfigError(f"a preact_resnet of {len(settings.stages)} stages needs images of at least {least}x{least} "
                          f"pixels, these have {height}x{width}")  # fmt: skip
    widths = [settings.width * min(2**index, 8) for index in range(len(settings.stages))]
    return preactivation_network(channels_in, settings.width, widths, settings.stages, classes)
