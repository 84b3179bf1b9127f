"""A data set that is prepared once and verified whenever it is opened.

Its prepared form is a folder with ``arrays.safetensors`` and ``manifest.json``, both with checksums. Images up to a
size limit are stored as one uint8 array per split. Larger image folders stay where they are, and so does ImageNet
unless ``resize`` is given, because its images have many sizes. The arrays then contain labels, file names, sizes and
checksums, and images are decoded when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from collabench.config.dataset_shape import DatasetShape
from collabench.config.sections import Augmentation
from collabench.core.distributed import WHOLE, Part
from collabench.core.errors import DataError
from collabench.core.record import Record
from collabench.data import batches, streaming
from collabench.data.tensors import read_tensors
from collabench.storage.files import read_json

FORMAT = 1
ARRAYS, MANIFEST = "arrays.safetensors", "manifest.json"


class Manifest(Record):
    """A prepared data set. identity: the configuration's. digest: SHA-256 of the arrays' content. mean, std: per
    channel over the training split, of pixels in [0, 1]. image_shape: (channels, height, width). streamed_from: the
    folder of a streamed data set's images, relative to this file or absolute; else None."""

    schema_version: Literal[1] = 1
    title: str
    identity: dict[str, Any]
    digest: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    streamed_from: str | None = None
    resize: int | None = None

    @property
    def form(self) -> DatasetShape:
        return DatasetShape(
            shape=self.image_shape,
            classes=len(self.classes),
            train_images=self.train_images,
            test_images=self.test_images,
        )


@dataclass(frozen=True)
class Dataset:
    """An open data set.

    train_images, test_images: uint8 (N, H, W, C), contiguous, on the CPU, or :class:`streaming.StreamedImages`.
    train_labels, test_labels: int64 (N,). digest: SHA-256 of the content. mean, std: per channel over the training
    split (before a validation split is held out), of pixels in [0, 1].
    """

    train_images: Tensor | streaming.StreamedImages
    train_labels: Tensor
    test_images: Tensor | streaming.StreamedImages
    test_labels: Tensor
    classes: tuple[str, ...]
    digest: str
    title: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _on_device: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def form(self) -> DatasetShape:
        """The shape of the data set. Streamed images of many sizes have the nominal shape (3, 224, 224)."""
        if isinstance(self.train_images, Tensor):
            height, width, channels = self.train_images.shape[1:]
            shape = (channels, height, width)
        else:
            shape = self.train_images.image_shape
        return DatasetShape(
            shape=shape,
            classes=len(self.classes),
            train_images=len(self.train_labels),
            test_images=len(self.test_labels),
        )

    def test_images_on(self, device: torch.device) -> Tensor | streaming.StreamedImages:
        """The test images on a device. The copy on a GPU is kept, because it is needed after every epoch."""
        images = self.test_images
        if not isinstance(images, Tensor) or device.type == "cpu":
            return images
        if device not in self._on_device:
            self._on_device[device] = images.to(device)
        return self._on_device[device]


def read_prepared(folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
    manifest = read_json(folder / MANIFEST, Manifest, DataError)
    tensors, metadata, digest = read_tensors(folder / ARRAYS)
    if metadata.get("format") != FORMAT or metadata.get("content") != "data set":
        raise DataError(f"{folder / ARRAYS}: does not hold a data set of format {FORMAT} (written by another version?)")
    if manifest.streamed_from is not None and "train_checksums" not in tensors:
        raise DataError(f"{folder / ARRAYS}: holds no checksums of the images (written by another version?)")
    if digest != manifest.digest or metadata["classes"] != list(manifest.classes):
        raise DataError(f"{folder / ARRAYS}: does not belong to {MANIFEST} beside it")
    return manifest, tensors


def load(folder: Path) -> Dataset:
    """Open a prepared data set. Arrays are memory-mapped and verified.

    Raises DataError, naming the file, if a file is missing or damaged, or if the two files do not belong together.
    """
    manifest, tensors = read_prepared(folder)
    images: list[Tensor | streaming.StreamedImages] = []
    for split in ("train", "test"):
        if manifest.streamed_from is None:
            images.append(tensors[f"{split}_images"])
        else:
            location = (folder / manifest.streamed_from).resolve()  # resolved, so that messages have a readable path
            images.append(streaming.unpack_files(location, tensors, split, manifest.resize))
    return Dataset(
        train_images=images[0],
        train_labels=tensors["train_labels"],
        test_images=images[1],
        test_labels=tensors["test_labels"],
        classes=manifest.classes,
        digest=manifest.digest,
        title=manifest.title,
        mean=manifest.mean,
        std=manifest.std,
    )


def open_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    device: torch.device | str,
    index: Tensor | None = None,
    part: Part = WHOLE,
) -> batches.TrainingBatches | streaming.StreamedBatches:
    """Training batches on a device: of the whole training split, or of the images at ``index`` (M,).

    part: the rows of every batch that this process makes. Both classes have ``steps``, ``sizes`` (number of images of
    each batch, over all processes) and ``epoch(epoch, labels, first_step)`` with labels (M,) of the images used.
    """
    device = torch.device(device)
    if isinstance(dataset.train_images, Tensor):
        images = dataset.train_images if index is None else dataset.train_images[index]
        return batches.TrainingBatches(
            images.to(device), dataset.mean, dataset.std, augmentation, batch_size, seed, part
        )
    streamed = dataset.train_images if index is None else dataset.train_images.at(index)
    return streaming.StreamedBatches(streamed, dataset.mean, dataset.std, augmentation, batch_size, seed, device, part)


def open_evaluation_batches(
    dataset: Dataset,
    split: Literal["test", "validation"],
    augmentation: Augmentation,
    batch_size: int,
    device: torch.device | str,
    index: Tensor | None = None,
) -> Iterator[Tensor]:
    """Images as batches (B, C, H, W) in order: test images (those at ``index``, if given), or the training images at
    ``index`` (the validation split)."""
    if split == "validation" and index is None:
        raise ValueError("a validation split is the training images at an index")
    device = torch.device(device)
    images = dataset.test_images_on(device) if split == "test" else dataset.train_images
    if isinstance(images, Tensor):
        images = images if index is None else images[index]
        return batches.test_batches(images, dataset.mean, dataset.std, batch_size, augmentation, device)
    images = images if index is None else images.at(index)
    return streaming.streamed_test_batches(images, dataset.mean, dataset.std, batch_size, augmentation, device)
