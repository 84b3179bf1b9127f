"""Wide residual networks (Zagoruyko & Komodakis, 2016): WRN-d-k for small images.

Depth d = 6n + 4, three stages of n blocks with 16k, 32k and 64k channels, activations before the convolutions. Stages:
``stem``, ``stage1``, ``stage2``, ``stage3``, ``pool``, ``classifier``. Every block normalises its own input, so that
the output of ``stage1`` and ``stage2`` is the plain sum. WRN-28-10 has 36.5 M parameters, WRN-40-4 8.9 M.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from collabench.core.errors import ConfigError
from collabench.models.backbone import Backbone, ModelSettings
from collabench.models.preactivation import preactivation_network

#: Channels of the first convolution, and of the first stage for k = 1.
BASE = 16


class Settings(ModelSettings):
    """
    depth: d = 6n + 4.
    widening: k, a factor of all channels but the first convolution's.
    dropout: probability of dropout of single numbers between the two convolutions of a block.
    """

    family: Literal["wide_resnet"]
    depth: int = Field(default=28, ge=10, le=1000)
    widening: int = Field(default=10, ge=1, le=64)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _depth_fits(self) -> Self:
        if (self.depth - 4) % 6:
            lower = self.depth - (self.depth - 4) % 6
            raise ValueError(f"depth {self.depth} does not fit: it is 6 n + 4 ({lower} or {lower + 6}, say)")
        return self

    @property
    def draws_dropout(self) -> bool:
        return self.dropout > 0


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Two stages have stride 2: images must be at least 4x4, else it raises ConfigError."""
    channels_in, height, width = input_shape
    if min(height, width) < 4:
        raise ConfigError(f"wide_resnet needs images of at least 4x4 pixels, these have {height}x{width}")
    widths = [BASE * settings.widening * 2**index for index in range(3)]
    blocks = [(settings.depth - 4) // 6] * 3
    return preactivation_network(channels_in, BASE, widths, blocks, classes, settings.dropout)
