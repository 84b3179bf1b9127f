"""Preparation of a data set: its images and labels, from whatever source, in the two files that a study uses."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from collabench.config.known_datasets import KNOWN
from collabench.config.sections import DatasetConfig
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator
from collabench.data import streaming
from collabench.data.dataset import ARRAYS, FORMAT, MANIFEST, Manifest, read_prepared
from collabench.data.download import Log, Official
from collabench.data.normalisation import statistics
from collabench.data.sources import OFFICIAL, Source, digest_of_source, not_placed, open_source
from collabench.data.splits import rest_of, stratified_subset
from collabench.data.tensors import write_tensors
from collabench.storage.files import write_json

#: Maximum size, in bytes, of both splits' images as arrays. ImageNet32 (4.1 GB) fits.
MAX_ARRAY_BYTES = 2**32

#: Number of training images from which mean and standard deviation of a streamed data set are computed.
STATISTICS_IMAGES = 10_000


def prepare(
    config: DatasetConfig,
    downloads: Path,
    folder: Path,
    progress: Log | None = None,
    *,
    root: Path | None = None,
    official: Mapping[str, Official] = OFFICIAL,
    max_array_bytes: int = MAX_ARRAY_BYTES,
) -> Manifest:
    """Prepare a data set in ``folder``, unless it exists there undamaged.

    downloads: folder for official archives. progress: called with one line at a time. root: base of a relative ``path``
    of the configuration. official: addresses and checksums by source (for generated files). Raises DataError (one
    line). Files are written atomically.
    """
    log = progress or (lambda line: None)
    existing = _existing(config, folder, log)
    if existing is not None:
        return existing
    source = open_source(config, downloads, _path_of(config, root), log, official)
    train, test = _choose(config, source)
    streamed = source.files is not None and config.source == "imagenet" and config.resize is None
    if not streamed and source.shape is not None:
        size = (len(train) + len(test)) * math.prod(source.shape)
        streamed = size > max_array_bytes
    elif not streamed:
        streamed = _decoded_size(source, len(train) + len(test)) > max_array_bytes
    if streamed and (source.files is None or source.files.from_archive):
        raise DataError(
            f"{config.path or config.source}: more than {max_array_bytes:,} bytes of pixels are read from files, not "
            "kept as an array; unpack the archive and give the folder as path, or use fewer images or a smaller resize"
        )
    if streamed:
        tensors, image_shape, mean, std = _streamed_form(config, source, train, test)
    else:
        tensors = _array_form(config, source, train, test)
        height, width, channels = tensors["train_images"].shape[1:]
        image_shape = (channels, height, width)
        mean, std = pixel_statistics(tensors["train_images"], tensors["train_labels"])
    metadata = {"format": FORMAT, "content": "data set", "classes": list(source.classes)}
    digest = write_tensors(folder / ARRAYS, tensors, metadata)
    manifest = Manifest(
        title=_title_of(config),
        identity=config.identity(),
        digest=digest,
        classes=source.classes,
        train_images=len(tensors["train_labels"]),
        test_images=len(tensors["test_labels"]),
        image_shape=image_shape,
        mean=mean,
        std=std,
        streamed_from=_location(config, root, folder) if streamed else None,
        resize=config.resize,
    )
    write_json(folder / MANIFEST, manifest)
    log(f"{manifest.title}: {manifest.train_images:,} training and {manifest.test_images:,} test images in {folder}")
    return manifest


def source_digest(config: DatasetConfig, root: Path | None = None) -> str:
    """The ``sha256`` for the configuration of a data set whose files the user provides.

    For an archive it is the file's SHA-256. For a folder it is the SHA-256 over the sorted lines ``<relative path>
    <bytes> <SHA-256 of the content>`` of the files that are used. Raises DataError if there is nothing, or for a source
    that needs no such entry.
    """
    path = _path_of(config, root)
    if path is None or config.source in OFFICIAL:
        raise DataError(f"the source {config.source!r} is pinned by the program; it takes no sha256")
    return digest_of_source(config, path)


def what_is_missing(config: DatasetConfig, root: Path | None = None) -> str | None:
    """One line on files that only the user can provide or must still pin, found without reading images or downloading.
    None if :func:`prepare` can proceed."""
    path = _path_of(config, root)
    return None if path is None or config.source in OFFICIAL else not_placed(config, path)


def _path_of(config: DatasetConfig, root: Path | None) -> Path | None:
    if config.path is None:
        return None
    path = Path(config.path).expanduser()
    return path if root is None else root / path


def _title_of(config: DatasetConfig) -> str:
    known = KNOWN.get(config.source)
    return config.title or (known.title if known else Path(config.path or config.source).name)


def _location(config: DatasetConfig, root: Path | None, folder: Path) -> str:
    """A relative path of the configuration, relative to the prepared folder, so that a project can be moved as a
    whole."""
    path = _path_of(config, root)
    assert path is not None, "only folders are streamed"
    return str(path) if Path(config.path or "").is_absolute() else os.path.relpath(path.absolute(), folder.absolute())


def _existing(config: DatasetConfig, folder: Path, log: Log) -> Manifest | None:
    if not (folder / MANIFEST).exists() and not (folder / ARRAYS).exists():
        return None
    try:
        manifest, _ = read_prepared(folder)
        if manifest.identity != config.identity():
            raise DataError(f"{folder / MANIFEST}: holds another data set than the configuration asks for")
    except DataError as error:
        log(f"{error}; preparing it again")
        return None
    if manifest.title != _title_of(config):
        manifest = manifest.model_copy(update={"title": _title_of(config)})
        write_json(folder / MANIFEST, manifest)
    return manifest


def _choose(config: DatasetConfig, source: Source) -> tuple[Tensor, Tensor]:
    """Indices of the chosen images in the source's training and test split.

    With ``test_on_rest`` they are indices into both splits, one after the other.
    """
    try:
        if config.test_on_rest:
            labels = torch.cat([source.train_labels, source.test_labels])
            assert config.train_images is not None, "the configuration asks for train_images"
            if config.train_images >= len(labels):
                raise DataError(f"test_on_rest: {config.train_images} of {len(labels)} images leave none to test on")
            train = stratified_subset(labels, config.train_images, _split_generator(config, "train"))
            test = rest_of(len(labels), train)
            if config.test_images is not None:
                test = test[stratified_subset(labels[test], config.test_images, _split_generator(config, "test"))]
            return train, test
        chosen = []
        for split, labels, count in (
            ("train", source.train_labels, config.train_images),
            ("test", source.test_labels, config.test_images),
        ):
            everything = torch.arange(len(labels))
            subset = everything if count is None else stratified_subset(labels, count, _split_generator(config, split))
            chosen.append(subset)
        return chosen[0], chosen[1]
    except DataError as error:
        raise DataError(f"{_title_of(config)}: train_images or test_images: {error}") from None


def _split_generator(config: DatasetConfig, split: str):
    return numpy_generator(config.split_seed, "split", split)


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


def _decoded_size(source: Source, count: int) -> int:
    """Total bytes of the decoded images, if all have the size of the first one."""
    assert source.files is not None
    _, content = next(iter(source.files.read([0])))
    from collabench.data.images import open_image

    first = open_image(content, f"{source.files.path}: {source.files.names[0]}")
    return count * first.width * first.height * 3


def _streamed_form(
    config: DatasetConfig, source: Source, train: Tensor, test: Tensor
) -> tuple[dict[str, Tensor], tuple[int, int, int], tuple[float, ...], tuple[float, ...]]:
    files = source.files
    assert files is not None, "only image files are streamed"
    tensors: dict[str, Tensor] = {}
    for number, (split, chosen, labels) in enumerate(
        (("train", train, source.train_labels), ("test", test, source.test_labels))
    ):
        positions = (files.splits == number).nonzero()[:, 0][chosen]
        tensors[f"{split}_labels"] = labels[chosen]
        tensors |= {
            f"{split}_{part}": tensor for part, tensor in streaming.pack_files(files, positions.tolist()).items()
        }
    side = config.resize or streaming.NOMINAL_SIDE
    images = streaming.unpack_files(files.path, tensors, "train", config.resize)
    return tensors, (3, side, side), *pixel_statistics(images, tensors["train_labels"])


def pixel_statistics(
    images: Tensor | streaming.StreamedImages, labels: Tensor
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of a training split, as its manifest holds them."""
    if isinstance(images, Tensor):
        return statistics(images)
    sample = stratified_subset(labels, min(STATISTICS_IMAGES, len(images)), numpy_generator(0, "split", "statistics"))
    return statistics(streaming.decode_centre(images, sample.tolist(), images.image_shape[1]))
