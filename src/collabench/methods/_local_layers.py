"""Layers beside an intermediate layer of a network, which are dropped at deployment."""

from __future__ import annotations

from math import ceil

from torch import nn


def local_classifier(shape: tuple[int, int, int], side: int, channels: int, classes: int) -> nn.Sequential:
    """The local classifier of a layer whose output has the ``shape`` (C, H, W).

    Max pooling to at most ``side`` pixels a side, a 3x3 convolution and a fully connected layer.
    """
    width, *sides = shape
    strides = [ceil(length / side) for length in sides]
    pooled = [length // stride for length, stride in zip(sides, strides, strict=True)]
    channels = min(channels, width)
    return nn.Sequential(
        nn.MaxPool2d(tuple(strides)) if max(strides) > 1 else nn.Identity(),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Flatten(),
        nn.Linear(channels * pooled[0] * pooled[1], classes),
    )


def projection(channels_in: int, channels: int | None, kernel: int) -> nn.Conv2d:
    """g_i: one convolution that keeps the map's size. It has no bias, because a bias changes no deviation."""
    return nn.Conv2d(channels_in, channels or channels_in, kernel, padding=kernel // 2, bias=False)
