"""Stratified subsets of training images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from collabench.config.batch_sizes import held_out
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator


def stratified_subset(labels: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """Sorted indices (count,) of a random subset in which each class has its share.

    Shares that are not whole numbers are rounded down. The remaining images are given to the classes with the largest
    remainders (equal remainders: in random order). Raises DataError if there are fewer than ``count`` images.
    """
    labels_array = labels.numpy()
    if count > len(labels_array):
        raise DataError(f"{count} images are asked for and there are only {len(labels_array)}")
    classes, sizes = np.unique(labels_array, return_counts=True)
    # Whole numbers throughout: count * size = quota * N + remainder.
    quotas, remainders = np.divmod(count * sizes, len(labels_array))
    tie_break = generator.permutation(len(classes))
    by_remainder = np.lexsort((tie_break, -remainders))
    quotas[by_remainder[: count - quotas.sum()]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(labels_array == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def rest_of(count: int, index: Tensor) -> Tensor:
    """The indices below ``count`` that are not in ``index``, in increasing order."""
    kept = torch.ones(count, dtype=torch.bool)
    kept[index] = False
    return kept.nonzero()[:, 0]


def validation_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out ``fraction`` of the training images, the same share of each class.

    labels: clean labels (N,), so that the split is the same with and without noise. Returns sorted indices of the
    images to train on and of those held out. Raises DataError if one of the two would be empty.
    """
    count = held_out(len(labels), fraction)
    if not 0 < count < len(labels):
        raise DataError(f"validation_fraction {fraction} of {len(labels)} training images leaves a split empty")
    held_out_index = stratified_subset(labels, count, numpy_generator(seed, "split", "validation"))
    return rest_of(len(labels), held_out_index), held_out_index
