"""Preparing a data set: its images are decoded once and stored with their labels.

Images up to a size limit are stored as one uint8 array per split. Larger image folders stay where they are, and so does
ImageNet unless ``resize`` is given, because its images have many sizes. The arrays then contain labels, file names,
sizes and checksums, and images are decoded when they are needed, from the folder that the configuration names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from collabench.config.data_sections import DatasetConfig
from collabench.config.known_datasets import DECODED_SOURCES, PINNED_SOURCES
from collabench.core.device_errors import is_shortage_of_memory
from collabench.core.errors import DataError, StorageError
from collabench.data import streaming
from collabench.data.dataset import ARRAYS, FORMAT, Dataset, read_prepared
from collabench.data.download import Log
from collabench.data.image_files import BadFiles
from collabench.data.images import open_image
from collabench.data.label_files import InSource
from collabench.data.manifest import MANIFEST, Manifest
from collabench.data.normalisation import pixel_statistics
from collabench.data.source import Source
from collabench.data.sources import (
    ALL_OFFICIAL,
    OfficialParts,
    check_placed,
    digest_of_source,
    fits_pin,
    not_placed,
    open_source,
)
from collabench.data.subset import choose, title_of
from collabench.data.tensors import write_tensors
from collabench.storage.files import read_json, write_json

#: Maximum size, in bytes, of both splits' images as arrays. ImageNet32 (4.1 GB) fits.
MAX_ARRAY_BYTES = 2**32


def prepare(
    config: DatasetConfig,
    downloads: Path,
    folder: Path,
    progress: Log | None = None,
    *,
    root: Path | None = None,
    official: Mapping[str, OfficialParts] = ALL_OFFICIAL,
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
    config = with_paths(config.pool(), root)
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
    official: Mapping[str, OfficialParts],
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
    if streamed and config.test_path is not None:
        raise DataError(
            f"{config.path}: more than {max_array_bytes:,} bytes of pixels, which are read from files while training "
            "runs; test_path is for images that fit in an array: use a smaller resize, or place the test images in "
            "test/<class>/ beside train/<class>/"
        )
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
    if path is None or config.source in PINNED_SOURCES:
        raise DataError(f"the source {config.source!r} is pinned by the program; it takes no sha256")
    try:
        return digest_of_source(with_paths(config.pool(), root), path)
    except BadFiles as error:
        raise error.listed_in(bad_files) from None


def is_pinned_source(config: DatasetConfig, root: Path | None = None) -> bool:
    """Whether the files that the user provides are those of the configuration's ``sha256``. Reads all that are used."""
    path = path_of(config, root)
    assert path is not None, "the configuration asks for a path"
    pool = with_paths(config.pool(), root)
    return fits_pin(pool, path, digest_of_source(pool, path))


def position_in_source(
    config: DatasetConfig,
    pool: Dataset,
    seed: int,
    downloads: Path,
    root: Path | None = None,
    *,
    official: Mapping[str, OfficialParts] = ALL_OFFICIAL,
) -> InSource | None:
    """Which training images of its source a run of this seed uses. None if it uses all of them.

    pool: the prepared data set (:func:`prepare`). Of a fixed subset the source's files are read again, because what is
    prepared has the chosen images alone. Raises DataError (one line) if they are gone.
    """
    if config.train_images is None:
        return None
    if config.split == "per_seed":
        return InSource(choose(config, pool.train_labels, pool.test_labels, seed)[0], len(pool.train_labels))
    config = with_paths(config, root)
    source = open_source(config, downloads, path_of(config, root), lambda line: None, official)
    return InSource(choose(config, source.train_labels, source.test_labels)[0], len(source.train_labels))


def names_in_source(
    config: DatasetConfig, seed: int, downloads: Path, root: Path | None = None
) -> tuple[tuple[str, ...], ...] | None:
    """The files of the training and of the test images that a run of this seed uses, in the order of its images. None
    if the source has no file for each image.

    Raises DataError (one line) if the source's files are gone or have changed.
    """
    if config.source not in DECODED_SOURCES:
        return None
    config = with_paths(config, root)
    source = open_source(config, downloads, path_of(config, root), lambda line: None)
    assert source.names is not None, "images that are decoded have files"
    chosen = choose(config, source.train_labels, source.test_labels, None if config.split == "fixed" else seed)
    both = zip(source.names, chosen, strict=True)
    return tuple(tuple(names[number] for number in part.tolist()) for names, part in both)


def what_is_missing(config: DatasetConfig, root: Path | None = None, prepared: Path | None = None) -> str | None:
    """One line on files that only the user can provide or must still pin (without reading them); None if complete.

    prepared: folder in which the data set may be prepared. The images of a streamed one are needed all the same.
    """
    path = path_of(config, root)
    if path is None or config.source in PINNED_SOURCES:
        return None
    if prepared is not None and (prepared / MANIFEST).exists():
        try:
            if not read_json(prepared / MANIFEST, Manifest, DataError).streamed:
                return None
        except DataError:  # it is prepared again
            pass
    return not_placed(with_paths(config.pool(), root), path)


def path_of(config: DatasetConfig, root: Path | None) -> Path | None:
    """Where the configuration says that the files lie. root: base of a relative path."""
    return None if config.path is None else _absolute(config.path, root)


def with_paths(config: DatasetConfig, root: Path | None) -> DatasetConfig:
    """The configuration with its further paths as the program opens them. root: base of relative ones."""
    further = {name: getattr(config, name) for name in ("split_file", "test_path")}
    found = {name: str(_absolute(path, root)) for name, path in further.items() if path is not None}
    return config.model_copy(update=found) if found else config


def _absolute(name: str, root: Path | None) -> Path:
    path = Path(os.fsdecode(name.encode())).expanduser()  # UTF-8 in every locale
    return path if root is None else root / path


def _existing(config: DatasetConfig, folder: Path, root: Path | None, log: Log) -> Manifest | None:
    if not (folder / MANIFEST).exists() and not (folder / ARRAYS).exists():
        return None
    try:
        manifest, _ = read_prepared(folder)
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
    images = streaming.unpack_files(files.path, tensors, "train", config.resize, config.upright)
    return tensors, images.image_shape, *pixel_statistics(images, tensors["train_labels"])
