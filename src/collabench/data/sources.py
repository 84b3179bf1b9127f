"""The sources of images: one function per source, each returning a :class:`Source`. Checksums are verified first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.data_sections import DatasetConfig
from collabench.config.known_datasets import KNOWN, PINNED_SOURCES
from collabench.core.errors import DataError
from collabench.core.regular import open_file, read_file
from collabench.core.seeding import numpy_generator
from collabench.data import user_images
from collabench.data.archives import naming
from collabench.data.download import Log, Official, obtain
from collabench.data.image_files import digest_of_files, find_images
from collabench.data.official import OFFICIAL, planes, read_official
from collabench.data.official_files import OFFICIAL_FILES, read_files
from collabench.data.pickles import read_pickle
from collabench.data.placed import medmnist, tiny_imagenet_files
from collabench.data.source import Source, check_labels, in_memory
from collabench.data.splits import rest_of, stratified_subset
from collabench.storage.files import sha256_of

#: The files of a source: one archive, or several files.
OfficialParts = Official | tuple[Official, ...]

#: Source → the files that are downloaded.
ALL_OFFICIAL: Mapping[str, OfficialParts] = {**OFFICIAL, **OFFICIAL_FILES}

IMAGENET32_TRAIN = tuple(f"train_data_batch_{number}" for number in range(1, 11))
IMAGENET32_TEST = "val_data"


def open_source(
    config: DatasetConfig,
    downloads: Path,
    path: Path | None,
    log: Log,
    official: Mapping[str, OfficialParts] = ALL_OFFICIAL,
) -> Source:
    """Find or download, and verify, the files of a data set. Raises DataError (one line)."""
    if config.source == "digits":
        return _digits()
    if config.source in PINNED_SOURCES:
        known = official[config.source]
        if config.source == "imagenette":
            assert isinstance(known, Official), "it is one archive"
            archive = obtain(known, downloads, path, config.mirrors, log)
            files = find_images(archive, ("train", "val"))
            if len(files.classes) == len(names := KNOWN["imagenette"].class_names):  # in the order of their ids
                files = replace(files, classes=names)
            return user_images.source_of(config, archive, files, log)
        if isinstance(known, Official):
            classes, train, test = read_official(config.source, known, downloads, path, config.mirrors, log)
        else:
            classes, train, test = read_files(config.source, known, downloads, path, config.mirrors, log)
        with naming(config.source):
            return in_memory(classes, train, test)
    assert path is not None, "the configuration asks for a path"
    _check_pin(config, path, log)
    if config.source == "imagenet32":
        return _imagenet32(path)
    if config.source == "medmnist":
        return medmnist(path)
    if config.source == "tiny_imagenet":
        return user_images.source_of(config, path, tiny_imagenet_files(path), log)
    return user_images.open_images(config, path, log)


# ---------------------------------------------------------------------------------------------- pinned by the user


def digest_of_source(config: DatasetConfig, path: Path, *, whole: bool = False) -> str:
    """The ``sha256`` that the configuration should contain.

    For image files: :func:`collabench.data.user_images.digest`. whole: over all files of a folder, also of a subset.
    """
    if config.source == "imagenet32":
        return digest_of_files(path, [file.name for file in _imagenet32_files(path)])
    check_placed(config, path)
    if config.source in ("medmnist", "tiny_imagenet"):
        if path.is_file():
            return sha256_of(path)
        if config.source == "medmnist":
            raise DataError(f"{path}: is a folder; name the .npz file, such as pathmnist.npz")
        files = tiny_imagenet_files(path)
        annotations = next(path.rglob("val_annotations.txt")).relative_to(path).as_posix()
        return digest_of_files(path, [*files.names, annotations])
    return user_images.digest(config, path, whole=whole)


def fits_pin(config: DatasetConfig, path: Path, actual: str) -> bool:
    """Whether the pinned ``sha256`` is that of the files: ``actual`` is :func:`digest_of_source`. A subset of a folder
    may also be pinned by the checksum of the whole folder, which several subsets then share."""
    if actual == config.sha256:
        return True
    several = config.source in ("images", "imagenet") and path.is_dir() and user_images.is_subset(config)
    return several and digest_of_source(config, path, whole=True) == config.sha256


def not_placed(config: DatasetConfig, path: Path) -> str | None:
    """One line on files that the user must still provide or pin; None if they exist. Reads none of them."""
    for needed in needed_paths(config, path):
        if not needed.exists():
            return _where_to_get(config, needed)
    if config.sha256 is None:
        return f"{path}: is not pinned; `collabench data digest` with the data set's name prints the sha256 to add"
    return None


def check_placed(config: DatasetConfig, path: Path) -> None:
    """Raise DataError, with what to do, if there is nothing at the path of files that the user provides."""
    for needed in needed_paths(config, path):
        if not needed.exists():
            raise DataError(_where_to_get(config, needed))


def needed_paths(config: DatasetConfig, path: Path) -> list[Path]:
    """The files and folders that the user provides: at ``path``, and the split file and the test images' folder."""
    return [path, *(Path(other) for other in (config.split_file, config.test_path) if other is not None)]


def _check_pin(config: DatasetConfig, path: Path, log: Log) -> None:
    check_placed(config, path)
    log(f"{path}: computing its checksum")
    actual = digest_of_source(config, path)
    if config.sha256 is None:
        raise DataError(f"{path}: is not pinned; if it is what you want, add to the data set: sha256: {actual}")
    if not fits_pin(config, path, actual):
        raise DataError(f"{path}: damaged or another version (sha256 {actual}, the configuration says {config.sha256})"
                        "; if you changed it, write the first one into the data set, whose runs then have other ids"
                        )  # fmt: skip


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
    if config.source == "tiny_imagenet":
        return (
            f"{path}: does not exist. Place there tiny-imagenet-200.zip, of http://cs231n.stanford.edu/, or the folder "
            "that it unpacks to"
        )
    if config.source == "medmnist":
        return f"{path}: does not exist. Place there a file of https://medmnist.com/, such as pathmnist.npz"
    if str(path) == config.split_file:
        return f"{path}: does not exist; split_file names a table with the columns file and split"
    form = "<class>/<image>" if config.is_divided_here else "train/<class>/<image> and test/<class>/<image>"
    return f"{path}: does not exist; expected a folder or archive of {form}"


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
        check_labels(torch.from_numpy(labels), 1000)
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
