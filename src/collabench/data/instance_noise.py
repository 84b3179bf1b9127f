"""Instance-dependent label noise (Xia et al. 2020, "Part-dependent label noise", algorithm 2).

Which label an image gets depends on its pixels. With m classes and images of S numbers, a seed draws

1. of every image a flip rate q, from the normal distribution with mean ``rate`` and standard deviation 0.1, truncated
   to [0, 1];
2. of every class y a projection W_y (S, m) of standard normal numbers.

An image x of class y keeps its label with probability 1 - q. Otherwise it gets the label j with the probability
softmax(x W_y)_j, y left out. x is the image as a network sees it: pixels in [0, 1], normalised by the mean and the
standard deviation of each channel.

The labels are the same on every machine. The numbers of W are rounded to multiples of 2^-20, so that sums of their
products with pixels are whole numbers below 2^53 and exact in any order. The exponential is computed by additions and
multiplications alone (:func:`exponential`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # loads its parts when they are used: most data sets have no such noise
from torch import Tensor

from collabench.core.seeding import numpy_generator

#: Standard deviation of the flip rates, as published.
SPREAD = 0.1
#: The denominator that projections and flip rates are rounded to.
_UNIT = 2.0**20
#: Images that are projected at once.
_AT_ONCE = 2048


def draw_labels(
    images: Tensor,
    labels: np.ndarray,
    classes: int,
    rate: float,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Noisy labels, int64 (N,), of images (N, H, W, C), uint8, with the labels (N,). mean, std: of each channel."""
    noisy = labels.copy()
    draws = numpy_generator(seed, "noise", "instance")
    flipped = draws.random(len(labels)) < flip_rates(draws.random(len(labels)), rate)
    chance = draws.random(len(labels))
    for number in range(classes):
        own = np.flatnonzero(labels == number)
        channels, pixels = images.shape[3], images.shape[1] * images.shape[2]
        projection = numpy_generator(seed, "noise", "instance", number).standard_normal((channels, pixels, classes))
        projection = np.rint(np.clip(projection, -8, 8) * _UNIT)
        for first in range(0, len(own), _AT_ONCE):
            some = own[first : first + _AT_ONCE]
            weights = exponential(_scores(images[some].numpy(), projection, mean, std, number))
            weights[:, number] = 0.0
            cumulated = np.cumsum(weights, axis=1)
            drawn = (cumulated <= chance[some, None] * cumulated[:, -1:]).sum(axis=1)
            noisy[some] = np.where(flipped[some], np.minimum(drawn, classes - 1 - (number == classes - 1)), number)
    return noisy


def flip_rates(chance: np.ndarray, rate: float) -> np.ndarray:
    """The flip rates (N,) of images with these uniform numbers (N,): quantiles of the truncated normal distribution.

    They rise with ``rate``, so that a higher rate hits every image that a lower one hits.
    """
    low, high = scipy.special.ndtr(-rate / SPREAD), scipy.special.ndtr((1 - rate) / SPREAD)
    rates = rate + SPREAD * scipy.special.ndtri(low + chance * (high - low))
    return np.rint(np.clip(rates, 0, 1) * _UNIT) / _UNIT


def _scores(
    pixels: np.ndarray, projection: np.ndarray, mean: Sequence[float], std: Sequence[float], own: int
) -> np.ndarray:
    """x W_y (B, m), float64, less its largest entry; the class's own entry is the smallest. pixels: uint8
    (B, H, W, C). projection: whole numbers (C, H · W, m)."""
    scores = np.zeros((len(pixels), projection.shape[2]))
    for channel, whole in enumerate(projection):
        flat = pixels[..., channel].reshape(len(pixels), -1).astype(np.float64)
        scores += (flat @ whole / 255 - mean[channel] * whole.sum(axis=0)) / std[channel]
    scores /= _UNIT
    scores[:, own] = scores.min(axis=1)
    others = np.delete(scores, own, axis=1)
    return scores - others.max(axis=1, keepdims=True)


def exponential(values: np.ndarray) -> np.ndarray:
    """e to the power of values of at most 0, float64, to a relative error of about 1e-15.

    NumPy's own differs in its last bits between processors. Here e^v = 2^n · e^r with |r| <= ln(2) / 2, and e^r is its
    Taylor polynomial. Every step is an operation whose rounding IEEE 754 fixes.
    """
    values = np.maximum(values, -700.0)
    power = np.rint(values * 1.4426950408889634)
    rest = (values - power * 0.693147180369123816490) - power * 1.90821492927058770002e-10
    result = np.ones_like(rest)
    for number in range(14, 0, -1):
        result = 1.0 + result * rest / number
    return np.ldexp(result, power.astype(np.int64))
