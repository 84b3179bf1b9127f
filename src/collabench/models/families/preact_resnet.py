"""Residual networks with activations before the convolutions, for small images: PreAct-ResNet-18.

Stages: ``stem``, ``stage1``, ``stage2`` …, ``pool``, ``classifier``. The stem is a 3x3 convolution of stride 1, without
pooling. The stages have w, 2w, 4w, 8w, 8w … channels, all but the first begin with stride 2. A block normalises its
own input, so that the output of a stage but the last is the plain sum. Depth 18 and width 64 have 11.17 M parameters
for 10 classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from collabench.models.backbone import Backbone
from collabench.models.preactivation import preactivation_network
from collabench.models.residual import ResidualSettings


class Settings(ResidualSettings):
    """depth or blocks, and width: as of every residual network."""

    draws_dropout: ClassVar[bool] = False
    family: Literal["preact_resnet"]


def build(settings: Settings, input_shape: tuple[int, int, int], classes: int) -> Backbone:
    """Build the network. Every stage but the first halves the map: images must have at least 2^(stages - 1) pixels a
    side.

    Raises ConfigError for smaller images.
    """
    channels_in, height, width = input_shape
    settings.check_images(height, width)
    return preactivation_network(channels_in, settings.width, settings.widths(), settings.stages, classes)
