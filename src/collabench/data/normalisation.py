"""Mean and standard deviation of a data set's pixels, with which its batches are normalised."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, H, W, C), as pixels in [0, 1].

    They are computed from histograms in whole numbers, and are therefore exact in any order. A constant channel has the
    standard deviation 1/255.
    """
    counts = torch.zeros(images.shape[3], 256, dtype=torch.int64)
    for part in images.split(4096):
        for channel in range(images.shape[3]):
            counts[channel] += torch.bincount(part[..., channel].flatten(), minlength=256)
    mean, std = [], []
    for histogram in counts.tolist():
        number = sum(histogram)
        total = sum(count * value for value, count in enumerate(histogram))
        squares = sum(count * value * value for value, count in enumerate(histogram))
        mean.append(total / number / 255)
        std.append(math.sqrt((number * squares - total * total) / (number * number)) / 255 or 1 / 255)
    return tuple(mean), tuple(std)
