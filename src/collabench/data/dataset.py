"""A data set that is prepared once and verified whenever it is opened.

Its prepared form is a folder with ``arrays.safetensors`` and ``manifest.json``, both with checksums. Images up to a
size limit are stored as one uint8 array per split. Larger image folders stay where they are, and so does ImageNet
unless ``resize`` is given, because its images have many sizes. The arrays then contain labels, file names, sizes and
checksums, and images are decoded when they are needed, from the folder that the configuration names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from collabench.config.batch_sizes import LastBatch
from collabench.config.dataset_shape import DatasetShape
from collabench.config.sections import Augmentation, DatasetConfig
from collabench.core.distributed import WHOLE, Part
from collabench.core.errors import DataError, StorageError
from collabench.core.resources import is_shortage_of_memory
from collabench.data import batches, streaming
from collabench.data.download import Log, Official
from collabench.data.images import BadFiles, open_image
from collabench.data.manifest import MANIFEST, Manifest
from collabench.data.normalisation import pixel_statistics
from collabench.data.official import OFFICIAL
from collabench.data.sources import Source, check_placed, digest_of_source, fits_pin, not_placed, open_source
from collabench.data.subset import choose, title_of
from collabench.data.tensors import read_tensors, write_tensors
from collabench.storage.files import read_json, write_json

FORMAT = 1
ARRAYS = "arrays.safetensors"

#: Maximum size, in bytes, of both splits' images as arrays. ImageNet32 (4.1 GB) fits.
MAX_ARRAY_BYTES = 2**32


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


def prepare(
    config: DatasetConfig,
    downloads: Path,
    folder: Path,
    progress: Log | None = None,
    *,
    root: Path | None = None,
    official: Mapping[str, Official] = OFFICIAL,
    max_array_bytes: int = MAX_ARRAY_BYTES,
    bad_files: Path | None = None,
) -> Manifest:
    """Prepare a data set in ``folder``, unless it exists there undamaged.

    downloads: folder for official archives. progress: called with one line at a time. root: base of a relative ``path``
    of the configuration. official: addresses and checksums by source (for generated files). bad_files: where bad images
    are listed if they are more than a message names. Of a split that is drawn per seed the whole pool is prepared
    (:func:`split_for_seed`). Raises DataError (one line), BadFiles for images that cannot be
    used: every image is decoded. Files are written atomically.
    """
    log = progress or (lambda line: None)
    config = config.pool()
    existing = _existing(config, folder, root, log)
    if existing is not None:
        return existing
    try:
        manifest = _prepare(config, downloads, folder, log, root, official, max_array_bytes)
    except BadFiles as error:
        raise error.listed_in(bad_files) from None
    except (MemoryError, RuntimeError) as error:
        if not is_shortage_of_memory(error):
            raise
        raise StorageError(
            f"short of memory while {title_of(config)} was prepared ({str(error) or 'MemoryError'}); give it fewer or "
            "smaller images, or more memory"
        ) from None
    if bad_files is not None:
        bad_files.unlink(missing_ok=True)
    log(f"{manifest.title}: {manifest.train_images:,} training and {manifest.test_images:,} test images in {folder}")
    return manifest


def _prepare(
    config: DatasetConfig,
    downloads: Path,
    folder: Path,
    log: Log,
    root: Path | None,
    official: Mapping[str, Official],
    max_array_bytes: int,
) -> Manifest:
    source = open_source(config, downloads, path_of(config, root), log, official)
    train, test = choose(config, source.train_labels, source.test_labels)
    streamed = source.files is not None and config.source == "imagenet" and config.resize is None
    if not streamed and source.shape is not None:
        size = (len(train) + len(test)) * math.prod(source.shape)
        streamed = size > max_array_bytes
    elif not streamed:
        streamed = _decoded_size(config, source, train, len(train) + len(test)) > max_array_bytes
    if streamed and (source.files is None or source.files.from_archive):
        raise DataError(
            f"{config.path or config.source}: more than {max_array_bytes:,} bytes of pixels are read from files, not "
            "kept as an array; unpack the archive and give the folder as path, or use fewer images or a smaller resize"
        )
    if streamed:
        tensors, image_shape, mean, std = _streamed_form(config, source, train, test, log)
    else:
        tensors = _array_form(config, source, train, test)
        height, width, channels = tensors["train_images"].shape[1:]
        image_shape = (channels, height, width)
        mean, std = pixel_statistics(tensors["train_images"], tensors["train_labels"])
    metadata = {"format": FORMAT, "content": "data set", "classes": list(source.classes)}
    digest = write_tensors(folder / ARRAYS, tensors, metadata)
    manifest = Manifest(
        title=title_of(config),
        identity=config.identity(),
        digest=digest,
        classes=source.classes,
        train_images=len(tensors["train_labels"]),
        test_images=len(tensors["test_labels"]),
        image_shape=image_shape,
        mean=mean,
        std=std,
        streamed=streamed,
        resize=config.resize,
    )
    write_json(folder / MANIFEST, manifest)
    return manifest


def source_digest(config: DatasetConfig, root: Path | None = None, bad_files: Path | None = None) -> str:
    """The ``sha256`` for the configuration of a data set whose files the user provides.

    For an archive it is the file's SHA-256. For a folder it is the SHA-256 over the sorted lines ``<relative path>
    <bytes> <SHA-256 of the content>`` of the files that are used, so that another image may change without it.
    bad_files: as of :func:`prepare`. Raises DataError if there is none, or if none is needed.
    """
    path = path_of(config, root)
    if path is None or config.source in OFFICIAL:
        raise DataError(f"the source {config.source!r} is pinned by the program; it takes no sha256")
    try:
        return digest_of_source(config.pool(), path)
    except BadFiles as error:
        raise error.listed_in(bad_files) from None


def is_pinned_source(config: DatasetConfig, root: Path | None = None) -> bool:
    """Whether the files that the user provides are those of the configuration's ``sha256``. Reads all that are used."""
    path = path_of(config, root)
    assert path is not None, "the configuration asks for a path"
    return fits_pin(config.pool(), path, digest_of_source(config.pool(), path))


def what_is_missing(config: DatasetConfig, root: Path | None = None, prepared: Path | None = None) -> str | None:
    """One line on files that only the user can provide or must still pin (without reading them); None if complete.

    prepared: folder in which the data set may be prepared. The images of a streamed one are needed all the same.
    """
    path = path_of(config, root)
    if path is None or config.source in OFFICIAL:
        return None
    if prepared is not None and (prepared / MANIFEST).exists():
        try:
            if not read_json(prepared / MANIFEST, Manifest, DataError).streamed:
                return None
        except DataError:  # it is prepared again
            pass
    return not_placed(config.pool(), path)


def path_of(config: DatasetConfig, root: Path | None) -> Path | None:
    """Where the configuration says that the files lie. root: base of a relative path."""
    if config.path is None:
        return None
    path = Path(os.fsdecode(config.path.encode())).expanduser()  # UTF-8 in every locale
    return path if root is None else root / path


def _existing(config: DatasetConfig, folder: Path, root: Path | None, log: Log) -> Manifest | None:
    if not (folder / MANIFEST).exists() and not (folder / ARRAYS).exists():
        return None
    try:
        manifest, _ = _read(folder)
        if manifest.identity != config.identity():
            raise DataError(f"{folder / MANIFEST}: holds another data set than the configuration asks for")
    except DataError as error:
        log(f"{error}; preparing it again")
        return None
    if manifest.streamed:
        path = path_of(config, root)
        assert path is not None, "only folders are streamed"
        check_placed(config, path)
    if manifest.title != title_of(config):
        manifest = manifest.model_copy(update={"title": title_of(config)})
        write_json(folder / MANIFEST, manifest)
    return manifest


def _array_form(config: DatasetConfig, source: Source, train: Tensor, test: Tensor) -> dict[str, Tensor]:
    if config.test_on_rest:
        pixels = torch.cat(source.read(torch.arange(len(source.train_labels)), torch.arange(len(source.test_labels))))
        labels = torch.cat([source.train_labels, source.test_labels])
        train_images, test_images, train_labels, test_labels = pixels[train], pixels[test], labels[train], labels[test]
    else:
        train_images, test_images = source.read(train, test)
        train_labels, test_labels = source.train_labels[train], source.test_labels[test]
    return {
        "train_images": train_images,
        "train_labels": train_labels,
        "test_images": test_images,
        "test_labels": test_labels,
    }


def _decoded_size(config: DatasetConfig, source: Source, train: Tensor, count: int) -> int:
    """Total bytes of the decoded images, if all have the size of the first one."""
    files = source.files
    assert files is not None
    first = int((files.splits == 0).nonzero()[:, 0][train[0]])
    try:
        image = open_image(next(iter(files.read([first])))[1], files.names[first], config.upright)
    except DataError:  # which is named with all others when they are decoded
        return 0
    return count * image.width * image.height * 3


def _streamed_form(
    config: DatasetConfig, source: Source, train: Tensor, test: Tensor, log: Log
) -> tuple[dict[str, Tensor], tuple[int, int, int], tuple[float, ...], tuple[float, ...]]:
    files = source.files
    assert files is not None, "only image files are streamed"
    positions = {
        split: (files.splits == number).nonzero()[:, 0][chosen].tolist()
        for number, (split, chosen) in enumerate((("train", train), ("test", test)))
    }
    tensors = streaming.pack_files(files, positions, config.upright, log)
    tensors |= {"train_labels": source.train_labels[train], "test_labels": source.test_labels[test]}
    side = config.resize or streaming.NOMINAL_SIDE
    images = streaming.unpack_files(files.path, tensors, "train", config.resize, config.upright)
    return tensors, (3, side, side), *pixel_statistics(images, tensors["train_labels"])


def _read(folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
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
    manifest, tensors = _read(folder)
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
