"""The sources of images: one function per source, each returning a :class:`Source`. Checksums are verified first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.data_sections import DatasetConfig
from collabench.core.errors import DataError
from collabench.core.regular import open_file, read_file
from collabench.core.seeding import numpy_generator
from collabench.data import images
from collabench.data.archives import naming
from collabench.data.download import Log, Official
from collabench.data.official import OFFICIAL, planes, read_official
from collabench.data.pickles import read_pickle
from collabench.data.splits import rest_of, stratified_subset
from collabench.data.subset import choose
from collabench.storage.files import sha256_of

IMAGENET32_TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
IMAGENET32_TEST = "val_data"


@dataclass(frozen=True)
class Source:
    """A data set whose files exist and are verified.

    train_labels, test_labels: int64 (N,). shape: (H, W, C) of the images, None if only decoding tells. read: indices
    into the two splits → uint8 (N, H, W, C) per split. files: the image files, if there is one per image.
    """

    classes: tuple[str, ...]
    train_labels: Tensor
    test_labels: Tensor
    shape: tuple[int, int, int] | None
    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    files: images.ImageFiles | None = None


def open_source(
    config: DatasetConfig,
    downloads: Path,
    path: Path | None,
    log: Log,
    official: Mapping[str, Official] = OFFICIAL,
) -> Source:
    """Find or download, and verify, the files of a data set. Raises DataError (one line)."""
    if config.source == "digits":
        return _digits()
    if config.source in ("cifar10", "cifar100", "stl10"):
        classes, train, test = read_official(
            config.source, official[config.source], downloads, path, config.mirrors, log
        )
        with naming(config.source):
            return _in_memory(classes, train, test)
    assert path is not None, "the configuration asks for a path"
    _check_pin(config, path, log)
    if config.source == "imagenet32":
        return _imagenet32(path)
    files = images.find_images(path, _split_folders(config))
    splits = [(files.splits == split).nonzero()[:, 0] for split in (0, 1)]

    def read(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        log(f"{path}: decoding {len(train) + len(test):,} images")
        wanted = torch.cat([splits[0][train], splits[1][test]])
        decoded = images.decode(files, wanted, config.resize, config.upright, log)
        return decoded[: len(train)], decoded[len(train) :]

    return Source(
        classes=files.classes,
        train_labels=files.labels[splits[0]],
        test_labels=files.labels[splits[1]],
        shape=None if config.resize is None else (config.resize, config.resize, 3),
        read=read,
        files=files,
    )


def _split_folders(config: DatasetConfig) -> tuple[str, str]:
    return ("train", "val") if config.source == "imagenet" else ("train", "test")


# ---------------------------------------------------------------------------------------------- pinned by the user


def digest_of_source(config: DatasetConfig, path: Path, *, whole: bool = False) -> str:
    """The ``sha256`` that the configuration should contain.

    For an archive it is the file's SHA-256, for a folder :func:`collabench.data.images.digest_of_files` over the files
    that are used: those of a subset, if the configuration asks for one, with the names of all classes.
    whole: over all files of a folder, also of a subset.
    """
    if config.source == "imagenet32":
        return images.digest_of_files(path, [file.name for file in _imagenet32_files(path)])
    if path.is_file():
        return sha256_of(path)
    check_placed(config, path)
    files = images.find_images(path, _split_folders(config))
    if whole or not _is_subset(config):
        return images.digest_of_files(path, files.names)
    numbers = [(files.splits == split).nonzero()[:, 0] for split in (0, 1)]
    chosen = choose(config, files.labels[numbers[0]], files.labels[numbers[1]])
    used = torch.cat([split[index] for split, index in zip(numbers, chosen, strict=True)])
    return images.digest_of_files(path, [files.names[number] for number in used.tolist()], files.classes)


def _is_subset(config: DatasetConfig) -> bool:
    return config.train_images is not None or config.test_images is not None


def fits_pin(config: DatasetConfig, path: Path, actual: str) -> bool:
    """Whether the pinned ``sha256`` is that of the files: ``actual`` is :func:`digest_of_source`. A subset of a folder
    may also be pinned by the checksum of the whole folder, which several subsets then share."""
    if actual == config.sha256:
        return True
    several = config.source != "imagenet32" and path.is_dir() and _is_subset(config)
    return several and digest_of_source(config, path, whole=True) == config.sha256


def not_placed(config: DatasetConfig, path: Path) -> str | None:
    """One line on files that the user must still provide or pin; None if they exist. Reads none of them."""
    if not path.exists():
        return _where_to_get(config, path)
    if config.sha256 is None:
        return f"{path}: is not pinned; `collabench data digest` with the data set's name prints the sha256 to add"
    return None


def check_placed(config: DatasetConfig, path: Path) -> None:
    """Raise DataError, with what to do, if there is nothing at the path of files that the user provides."""
    if not path.exists():
        raise DataError(_where_to_get(config, path))


def _check_pin(config: DatasetConfig, path: Path, log: Log) -> None:
    check_placed(config, path)
    log(f"{path}: computing its checksum")
    actual = digest_of_source(config, path)
    if config.sha256 is None:
        raise DataError(f"{path}: is not pinned; if it is what you want, add to the data set: sha256: {actual}")
    if not fits_pin(config, path, actual):
        raise DataError(f"{path}: damaged or another version (sha256 {actual}, the configuration says {config.sha256})")


def _where_to_get(config: DatasetConfig, path: Path) -> str:
    if config.source == "imagenet32":
        return (
            f"{path}: does not exist. Place there {IMAGENET32_TRAIN[0]} … {IMAGENET32_TRAIN[-1]} and {IMAGENET32_TEST} "
            "(with or without .npz), the 32x32 downsampled ImageNet of https://image-net.org/download-images "
            "(needs an account)"
        )
    if config.source == "imagenet":
        return (
            f"{path}: does not exist. Place there train/<wnid>/*.JPEG and val/<wnid>/*.JPEG of ILSVRC 2012, from "
            "https://image-net.org/download-images (needs an account)"
        )
    return f"{path}: does not exist; expected a folder or archive of train/<class>/<image> and test/<class>/<image>"


# ------------------------------------------------------------------------------------------------------- digits


def _digits() -> Source:
    """scikit-learn's 1797 digits, 8x8, with values from 0 to 16, stored as round(value · 255 / 16).

    The test split, 360 images, is stratified and always the same. The training split has 1437 images.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[..., None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    test_index = stratified_subset(labels, 360, numpy_generator(0, "split", "digits"))
    train_index = rest_of(len(labels), test_index)
    return Source(
        classes=tuple(str(name) for name in bunch.target_names),
        train_labels=labels[train_index],
        test_labels=labels[test_index],
        shape=(8, 8, 1),
        read=lambda train, test: (pixels[train_index[train]], pixels[test_index[test]]),
    )


def _in_memory(classes: tuple[str, ...], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Source:
    """A source of images (N, H, W, C) and labels that are in memory."""
    for _, labels in (train, test):
        _check_labels(labels, len(classes))
    height, width, channels = train[0].shape[1:]
    return Source(
        classes=classes,
        train_labels=train[1],
        test_labels=test[1],
        shape=(height, width, channels),
        read=lambda train_index, test_index: (train[0][train_index], test[0][test_index]),
    )


def _check_labels(labels: Tensor, classes: int) -> None:
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels outside 1 to {classes}, or none")


# --------------------------------------------------------------------------------------------------- ImageNet32


def _imagenet32_files(path: Path) -> list[Path]:
    """The eleven files, each as ``<name>.npz`` or as the pickle ``<name>``. Raises DataError, naming a missing one."""
    if not path.is_dir():
        raise DataError(f"{path}: is not a folder; expected {IMAGENET32_TRAIN[0]} … and {IMAGENET32_TEST} in it")
    found = []
    for name in (*IMAGENET32_TRAIN, IMAGENET32_TEST):
        file = next((path / n for n in (f"{name}.npz", name) if (path / n).is_file()), None)
        if file is None:
            raise DataError(
                f"{path}: holds no {name}.npz (nor the pickle {name}); from https://image-net.org/download-images"
            )
        found.append(file)
    return found


def _imagenet32_batch(file: Path, *, only_labels: bool = False) -> tuple[np.ndarray | None, np.ndarray]:
    """Pixels (N, 3072) and labels (N,), counted from 0, of one file (which counts labels from 1)."""
    with naming(str(file)):
        if file.suffix == ".npz":
            try:
                with open_file(file) as opened, np.load(opened, allow_pickle=False) as batch:
                    flat, labels = None if only_labels else batch["data"], batch["labels"]
            except (OSError, EOFError, RuntimeError, NotImplementedError) as error:
                raise DataError(f"{file}: damaged or not an .npz file ({error})") from None
            except Exception as error:  # zipfile and zlib have error types of their own
                if isinstance(error, KeyError | ValueError):
                    raise
                raise DataError(f"{file}: damaged or not an .npz file ({error})") from None
        else:
            batch = read_pickle(read_file(file), str(file))
            flat, labels = batch["data"], batch["labels"]
        labels = np.asarray(labels, dtype=np.int64) - 1
        if labels.ndim != 1:
            raise ValueError(f"its labels have {labels.ndim} dimensions, must have one")
        _check_labels(torch.from_numpy(labels), 1000)
        if flat is not None and len(flat) != len(labels):
            raise ValueError(f"{len(flat)} images and {len(labels)} labels")
        return flat, labels


def _imagenet32(path: Path) -> Source:
    """The classes are named 1 to 1000, as numbered in the files."""
    *train_files, test_file = _imagenet32_files(path)
    train_labels = [_imagenet32_batch(file, only_labels=True)[1] for file in train_files]
    test_labels = _imagenet32_batch(test_file, only_labels=True)[1]

    def read(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        # One file at a time, directly into the result, because the training split has 3.9 GB.
        train_pixels = torch.empty(len(train), 32, 32, 3, dtype=torch.uint8)
        begin = 0
        for file, labels in zip(train_files, train_labels, strict=True):
            rows = ((train >= begin) & (train < begin + len(labels))).nonzero()[:, 0]
            if len(rows):
                train_pixels[rows] = _imagenet32_pixels(file, train[rows] - begin)
            begin += len(labels)
        return train_pixels, _imagenet32_pixels(test_file, test)

    return Source(
        classes=tuple(str(number) for number in range(1, 1001)),
        train_labels=torch.from_numpy(np.concatenate(train_labels)),
        test_labels=torch.from_numpy(test_labels),
        shape=(32, 32, 3),
        read=read,
    )


def _imagenet32_pixels(file: Path, rows: Tensor) -> Tensor:
    flat, _ = _imagenet32_batch(file)
    assert flat is not None
    with naming(str(file)):
        return planes(flat[rows.numpy()], 32)
