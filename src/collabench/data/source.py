"""What the functions that read a data set's files return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from collabench.data.image_files import ImageFiles


@dataclass(frozen=True)
class Source:
    """A data set whose files exist and are verified.

    train_labels, test_labels: int64 (N,). shape: (H, W, C) of the images, None if only decoding tells. read: indices
    into the two splits → uint8 (N, H, W, C) per split. files: the image files, if there is one per image. names: of the
    files of each split, likewise.
    """

    classes: tuple[str, ...]
    train_labels: Tensor
    test_labels: Tensor
    shape: tuple[int, int, int] | None
    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    files: ImageFiles | None = None
    names: tuple[Sequence[str], ...] | None = None


def in_memory(classes: tuple[str, ...], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Source:
    """A source of images (N, H, W, C) and labels that are in memory."""
    for _, labels in (train, test):
        check_labels(labels, len(classes))
    height, width, channels = train[0].shape[1:]
    return Source(
        classes=classes,
        train_labels=train[1],
        test_labels=test[1],
        shape=(height, width, channels),
        read=lambda train_index, test_index: (train[0][train_index], test[0][test_index]),
    )


def check_labels(labels: Tensor, classes: int) -> None:
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels outside 1 to {classes}, or none")
