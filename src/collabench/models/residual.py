"""What ResNet-18 and PreAct-ResNet-18 share: settings of depth, blocks and width, and the least size of images."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from collabench.core.errors import ConfigError
from collabench.models.backbone import ModelSettings

#: Depth → blocks of every stage.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResidualSettings(ModelSettings):
    """
    depth: of one of the networks of the literature.
    blocks: blocks of every stage, for another network, instead of depth.
    width: channels of the first stage: 64 in the literature, 128 for twice the filters in every convolution.
    """

    depth: Literal[18, 34] | None = None
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)] | None = None
    width: int = Field(default=64, ge=1, le=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.depth is None) == (self.blocks is None):
            raise ValueError(f"a {self.family} has either depth (18 or 34) or blocks")
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks of every stage."""
        if self.blocks is not None:
            return self.blocks
        assert self.depth is not None
        return BLOCKS[self.depth]

    def widths(self) -> list[int]:
        """Channels of every stage: w, 2w, 4w, 8w, 8w …"""
        return [self.width * min(2**index, 8) for index in range(len(self.stages))]

    def check_images(self, height: int, width: int) -> None:
        """Raise ConfigError for images that are too small: every stage but the first halves the map."""
        least = 2 ** (len(self.stages) - 1)
        if min(height, width) < least:
            raise ConfigError(f"a {self.family} of {len(self.stages)} stages needs images of at least {least}x{least} "
                              f"pixels, these have {height}x{width}")  # fmt: skip
