"""Further test sets for trained runs, in the form of CIFAR-10-C and CIFAR-10.1: arrays of images and of labels.

``<name>.npy`` beside ``labels.npy``
    CIFAR-10-C: one file for each corruption. If the labels are the same ones five times, the fifths of a file are its
    severities 1 to 5.
``<name>_data.npy`` beside ``<name>_labels.npy``
    CIFAR-10.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.core.errors import DataError
from collabench.data.archives import one_line
from collabench.data.dataset import Dataset

SEVERITIES = 5
_LABELS = "labels.npy"


@dataclass(frozen=True)
class TestSet:
    """Images and labels of one file, or of one severity in it (None: the file has none). images: uint8 (N, H, W, C).
    labels: int64 (N,)."""

    __test__ = False  # not one of pytest's

    file: Path
    name: str
    severity: int | None
    images: Tensor
    labels: Tensor


def find_test_sets(folder: Path) -> list[tuple[Path, Path]]:
    """The files of images in a folder, sorted, each with its file of labels. Raises DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected the files of CIFAR-10-C or CIFAR-10.1")
    files = {file.name: file for file in folder.glob("*.npy")}
    found = []
    for name, file in sorted(files.items()):
        if name.endswith(_LABELS):
            continue
        own = f"{name.removesuffix('_data.npy')}_{_LABELS}" if name.endswith("_data.npy") else _LABELS
        if own not in files:
            raise DataError(f"{folder}: holds no {own}, the labels of {name}")
        found.append((file, files[own]))
    if not found:
        raise DataError(f"{folder}: holds no test set; expected <corruption>.npy and labels.npy (CIFAR-10-C), or "
                        "<name>_data.npy and <name>_labels.npy (CIFAR-10.1)")  # fmt: skip
    return found


def read_test_set(file: Path, of_labels: Path, like: Dataset) -> Iterator[TestSet]:
    """The test sets in a file: one for each severity.

    like: the data set that the runs were trained on. Raises DataError, naming the file, if images or labels are not of
    its kind.
    """
    images, labels = _array(file), _array(of_labels)
    channels, height, width = like.form.shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise DataError(f"{file}: holds {images.dtype} of shape {images.shape}; expected uint8 (images, {height}, "
                        f"{width}, {channels}), as in {like.title}")  # fmt: skip
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images) or not len(labels):
        raise DataError(f"{of_labels}: holds {labels.dtype} of shape {labels.shape}; {file.name} needs {len(images)} "
                        "whole numbers")  # fmt: skip
    if labels.min() < 0 or labels.max() >= len(like.classes):
        raise DataError(f"{of_labels}: labels from {labels.min()} to {labels.max()}; {like.title} has the classes 0 to "
                        f"{len(like.classes) - 1}")  # fmt: skip
    fifth, rest = divmod(len(labels), SEVERITIES)
    repeated = not rest and (labels.reshape(SEVERITIES, fifth) == labels[:fifth]).all() and of_labels.name == _LABELS
    parts = SEVERITIES if repeated else 1
    for part in range(parts):
        rows = slice(part * len(labels) // parts, (part + 1) * len(labels) // parts)
        yield TestSet(
            file, file.name.removesuffix(".npy").removesuffix("_data"), part + 1 if repeated else None,
            torch.from_numpy(images[rows].copy()), torch.from_numpy(labels[rows].astype(np.int64)),
        )  # fmt: skip


def _array(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises almost anything for a damaged file
        raise DataError(f"{file}: not an .npy file of numbers ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file}: not an .npy file, which holds one array")
    return array
