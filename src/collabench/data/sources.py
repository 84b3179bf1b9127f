"""The sources of images: one function per source, each returning a :class:`Source`.

Checksums are verified before anything is unpacked or read. Official addresses and checksums are those of torchvision's
data set classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.sections import DatasetConfig
from collabench.core.errors import DataError
from collabench.core.regular import open_file, read_file
from collabench.core.seeding import numpy_generator
from collabench.data import images
from collabench.data.archives import members, naming, read_pickle
from collabench.data.download import Log, Official, obtain
from collabench.data.splits import rest_of, stratified_subset
from collabench.storage.files import sha256_of

OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"
    ),
    "stl10": Official(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "md5:91f7769df0f17e558f3565bffb0c7dfb"
    ),
}

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
        archive = obtain(official[config.source], downloads, path, config.mirrors, log)
        log(f"{config.source}: reading {archive.name}")
        return _stl10(archive) if config.source == "stl10" else _cifar(archive, config.source)
    assert path is not None, "the configuration asks for a path"
    _check_pin(config, path, log)
    if config.source == "imagenet32":
        return _imagenet32(path)
    files = images.find_images(path, _split_folders(config))
    splits = [(files.splits == split).nonzero()[:, 0] for split in (0, 1)]

    def read(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        log(f"{path}: decoding {len(train) + len(test):,} images")
        wanted = torch.cat([splits[0][train], splits[1][test]])
        decoded = images.decode(files, wanted, config.resize)
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


def digest_of_source(config: DatasetConfig, path: Path) -> str:
    """The ``sha256`` that the configuration should contain.

    For an archive it is the file's SHA-256, for a folder :func:`collabench.data.images.digest_of_files` over the files
    that are used.
    """
    if config.source == "imagenet32":
        return images.digest_of_files(path, [file.name for file in _imagenet32_files(path)])
    if path.is_file():
        return sha256_of(path)
    if not path.exists():
        raise DataError(_where_to_get(config, path))
    return images.digest_of_files(path, images.find_images(path, _split_folders(config)).names)


def not_placed(config: DatasetConfig, path: Path) -> str | None:
    """One line on files that the user must still provide or pin; None if they exist. Reads none of them."""
    if not path.exists():
        return _where_to_get(config, path)
    if config.sha256 is None:
        return f"{path}: is not pinned; `collabench data digest` with the data set's name prints the sha256 to add"
    return None


def _check_pin(config: DatasetConfig, path: Path, log: Log) -> None:
    if not path.exists():
        raise DataError(_where_to_get(config, path))
    log(f"{path}: computing its checksum")
    actual = digest_of_source(config, path)
    if config.sha256 is None:
        raise DataError(f"{path}: is not pinned; if it is what you want, add to the data set: sha256: {actual}")
    if actual != config.sha256:
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


def _planes(flat: np.ndarray, side: int) -> Tensor:
    """Flat rows of three colour planes → (N, side, side, 3)."""
    if not isinstance(flat, np.ndarray) or flat.dtype != np.uint8 or flat.ndim != 2 or flat.shape[1] != 3 * side * side:
        raise ValueError(f"data is not uint8 with {3 * side * side} columns")
    return torch.from_numpy(np.ascontiguousarray(flat.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)))


# ----------------------------------------------------------------------------------------------- CIFAR and STL-10

_CIFAR = {
    # folder, training files, test file, file of names, key of labels, key of names
    "cifar10": ("cifar-10-batches-py", tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta",
                "labels", "label_names"),
    "cifar100": ("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names"),
}  # fmt: skip


def _read_members(archive: Path, names: tuple[str, ...], largest: int) -> dict[str, bytes]:
    """The contents of the named members of an archive. Raises DataError, naming missing members."""
    contents = {}
    for name, _, content in members(archive, largest):
        if name in names:
            contents[name] = content()
        if len(contents) == len(names):  # the following members are not needed (and are large in STL-10)
            break
    for name in names:
        if name not in contents:
            raise DataError(f"{archive}: holds no {name}")
    return contents


def _cifar(archive: Path, source: str) -> Source:
    folder, train_files, test_file, meta, label_key, names_key = _CIFAR[source]
    wanted = tuple(f"{folder}/{name}" for name in (*train_files, test_file, meta))
    contents = _read_members(archive, wanted, 400_000_000)

    def read(names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        batches = [read_pickle(contents.pop(f"{folder}/{name}"), f"{archive}: {name}") for name in names]
        pixels = torch.cat([_planes(batch["data"], 32) for batch in batches])
        labels = torch.tensor([label for batch in batches for label in batch[label_key]], dtype=torch.int64)
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
        return pixels, labels

    with naming(str(archive)):
        names = read_pickle(contents[f"{folder}/{meta}"], f"{archive}: {meta}")[names_key]
        classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
        return _in_memory(classes, read(train_files), read((test_file,)))


def _stl10(archive: Path) -> Source:
    """Images are stored column by column, labels from 1 on. The 100,000 unlabelled images are not used."""
    folder = "stl10_binary"
    wanted = tuple(
        f"{folder}/{n}" for n in ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    )
    contents = _read_members(archive, wanted, 4 * 10**9)

    def read(split: str) -> tuple[Tensor, Tensor]:
        flat = np.frombuffer(contents.pop(f"{folder}/{split}_X.bin"), dtype=np.uint8)
        pixels = torch.from_numpy(np.ascontiguousarray(flat.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)))
        labels = np.frombuffer(contents.pop(f"{folder}/{split}_y.bin"), dtype=np.uint8).astype(np.int64) - 1
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
        return pixels, torch.from_numpy(labels)

    with naming(str(archive)):
        classes = tuple(contents[f"{folder}/class_names.txt"].decode("ascii").split())
        return _in_memory(classes, read("train"), read("test"))


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
        return _planes(flat[rows.numpy()], 32)
