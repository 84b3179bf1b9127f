"""Mixup: convex combinations of two images of a batch and of their labels (Zhang et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from collabench.core.seeding import numpy_generator


def mixing_shares(alpha: float, seed: int, epoch: int, steps: int) -> list[float]:
    """The share of every image's own pixels, for each batch of an epoch: from Beta(alpha, alpha).

    Rounded to six digits, because the draws use powers, whose last digit can differ between mathematical libraries.
    """
    drawn = numpy_generator(seed, "augmentation", epoch, "mixup").beta(alpha, alpha, steps)
    return [round(float(share), 6) for share in drawn]


def mix(images: Tensor, labels: Tensor, share: float, classes: int) -> tuple[Tensor, Tensor]:
    """``share * x_i + (1 - share) * x_(i-1)``, of images (B, C, H, W) and of labels (B,). The first image's neighbour
    is the last one.

    Returns images in channels-last layout, and labels as probabilities (B, classes).
    """
    targets = functional.one_hot(labels, classes).to(images.dtype)
    return (
        _mixed(images, share).contiguous(memory_format=torch.channels_last),
        _mixed(targets, share),
    )


def _mixed(x: Tensor, share: float) -> Tensor:
    return torch.cat([x[-1:], x[:-1]]).mul_(1 - share).add_(x.mul(share))
