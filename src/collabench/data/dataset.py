"""A data set that is prepared once (:mod:`collabench.data.preparation`) and verified whenever it is opened.

Its prepared form is a folder with ``arrays.safetensors`` and ``manifest.json``, both with checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from collabench.config.batch_sizes import LastBatch
from collabench.config.data_sections import DatasetConfig
from collabench.config.dataset_shape import DatasetShape
from collabench.config.sections import Augmentation
from collabench.core.distributed import WHOLE, Part
from collabench.core.errors import DataError
from collabench.data import batches, streaming
from collabench.data.manifest import MANIFEST, Manifest
from collabench.data.normalisation import pixel_statistics
from collabench.data.subset import choose
from collabench.data.tensors import read_tensors
from collabench.storage.files import read_json

FORMAT = 1
ARRAYS = "arrays.safetensors"


@dataclass(frozen=True)
class Dataset:
    """An open data set.

    train_images, test_images: uint8 (N, H, W, C), contiguous, on the CPU, or :class:`streaming.StreamedImages`.
    train_labels, test_labels: int64 (N,). digest: SHA-256 of the content.
    mean, std: per channel over the training split (validation images included), of pixels in [0, 1].
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
    """The manifest and the arrays of a prepared data set. Raises DataError, naming the file, if they are missing or
    damaged, or do not belong together."""
    manifest = read_json(folder / MANIFEST, Manifest, DataError)
    tensors, metadata, digest = read_tensors(folder / ARRAYS)
    if metadata.get("format") != FORMAT or metadata.get("content") != "data set":
        raise DataError(f"{folder / ARRAYS}: does not hold a data set of format {FORMAT} (written by another version?)")
    if manifest.streamed and "train_checksums" not in tensors:
        raise DataError(f"{folder / ARRAYS}: holds no checksums of the images (written by another version?)")
    if digest != manifest.digest or metadata["classes"] != list(manifest.classes):
        raise DataError(f"{folder / ARRAYS}: does not belong to {MANIFEST} beside it")
    return manifest, tensors


def load(folder: Path, images_at: Path | None = None) -> Dataset:
    """Open a prepared data set. Arrays are memory-mapped and verified.

    images_at: the folder of a streamed data set's images (:func:`path_of`). Where it lies is no part of what is
    prepared, since it differs between machines. Without it the images cannot be read, and the rest can.
    Raises DataError, naming the file, if a file is missing or damaged, or if the two files do not belong together.
    """
    manifest, tensors = read_prepared(folder)
    images: list[Tensor | streaming.StreamedImages] = []
    for split in ("train", "test"):
        if not manifest.streamed:
            images.append(tensors[f"{split}_images"])
        else:
            upright = manifest.identity.get("exif_orientation") == "applied"
            images.append(streaming.unpack_files(images_at, tensors, split, manifest.resize, upright))
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


def split_for_seed(dataset: Dataset, config: DatasetConfig, seed: int) -> Dataset:
    """The images of a prepared data set that runs of this seed use: the data set itself unless its split is drawn per
    seed.

    Mean and standard deviation are those of the seed's training images. The digest stays that of the pool, from which
    configuration and seed determine the rest.
    """
    if config.split == "fixed":
        return dataset
    train, test = choose(config, dataset.train_labels, dataset.test_labels, seed)
    of_train, of_test = dataset.train_images, dataset.test_images
    train_labels, test_labels = dataset.train_labels, dataset.test_labels
    if config.test_on_rest:
        assert isinstance(of_train, Tensor) and isinstance(of_test, Tensor), "only digits are tested on the rest"
        of_train = of_test = torch.cat([of_train, of_test])
        train_labels = test_labels = torch.cat([train_labels, test_labels])
    chosen = ((of_train, train), (of_test, test))
    images = [of[index] if isinstance(of, Tensor) else of.at(index) for of, index in chosen]
    mean, std = pixel_statistics(images[0], train_labels[train])
    return replace(
        dataset,
        train_images=images[0],
        train_labels=train_labels[train],
        test_images=images[1],
        test_labels=test_labels[test],
        mean=mean,
        std=std,
        _on_device={},
    )


def open_batches(
    dataset: Dataset,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    device: torch.device | str,
    index: Tensor | None = None,
    part: Part = WHOLE,
    last_batch: LastBatch = "keep",
) -> batches.TrainingBatches | streaming.StreamedBatches:
    """Training batches on a device: of the whole training split, or of the images at ``index`` (M,).

    part: the rows of every batch that this process makes. last_batch: the recipe's. Both classes have ``steps``,
    ``sizes`` (number of images of each batch, over all processes) and ``epoch(epoch, labels, first_step)`` with labels
    (M,) of the images used.
    """
    device = torch.device(device)
    if isinstance(dataset.train_images, Tensor):
        images = dataset.train_images if index is None else dataset.train_images[index]
        return batches.TrainingBatches(
            images.to(device), dataset.mean, dataset.std, augmentation, batch_size, seed, part, last_batch
        )
    streamed = dataset.train_images if index is None else dataset.train_images.at(index)
    return streaming.StreamedBatches(
        streamed, dataset.mean, dataset.std, augmentation, batch_size, seed, device, part, last_batch
    )


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
