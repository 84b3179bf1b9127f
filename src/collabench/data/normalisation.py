"""Mean and standard deviation of a data set's pixels, with which its batches are normalised."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from collabench.core.seeding import numpy_generator
from collabench.data import streaming
from collabench.data.splits import stratified_subset

#: Number of training images from which mean and standard deviation of a streamed data set are computed.
STATISTICS_IMAGES = 10_000


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


def pixel_statistics(
    images: Tensor | streaming.StreamedImages, labels: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a training split, as its manifest holds them."""
    if isinstance(images, Tensor):
        return statistics(images)
    sample = stratified_subset(labels, min(STATISTICS_IMAGES, len(images)), numpy_generator(0, "split", "statistics"))
    return statistics(streaming.decode_centre(images, sample.tolist(), images.image_shape[1]))
