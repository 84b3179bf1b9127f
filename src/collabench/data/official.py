"""The data sets that are downloaded as one archive, and how those of CIFAR and STL-10 are read, packed or unpacked.

Addresses and checksums, also those of the unpacked files, are those of torchvision's data set classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.known_datasets import KNOWN
from collabench.core.errors import DataError
from collabench.core.regular import read_file
from collabench.data.archives import members, naming
from collabench.data.download import Log, Official, checksum_of, obtain
from collabench.data.pickles import read_pickle

OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "md5:c58f30108f718f92721af3b95e74349a",
        "cifar-10-batches-py",
        {
            "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
            "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
            "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "md5:40351d587109b95175f43aff81a1287e",
            "batches.meta": "md5:5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
        {
            "train": "md5:16019d7e3df5f24257cddd939b257f8d",
            "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "md5:7973b15100ade9c7d40fb424638fde48",
        },
    ),
    "stl10": Official(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "md5:91f7769df0f17e558f3565bffb0c7dfb",
        "stl10_binary",
        {
            "train_X.bin": "md5:918c2871b30a85fa023e0c44e0bee87f",
            "train_y.bin": "md5:5a34089d4802c674881badbb80307741",
            "test_X.bin": "md5:7f263ba9f9e0b06b93213547f721ac82",
            "test_y.bin": "md5:36f9794fa4beb8a2c72628de14fa638e",
        },
    ),
    "imagenette": Official(
        "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        "md5:e793b78cc4c9e9a4ccc0c1155377a412",
        "imagenette2-160",
    ),
}

#: The names of the unpacked files of the versions for other programs, of which no checksum of each file is published.
_OTHER_VERSIONS = {
    "binary": ("cifar-10-batches-bin", "cifar-100-binary", "data_batch_1.bin", "train.bin"),
    "Matlab": ("cifar-10-batches-mat", "cifar-100-matlab", "data_batch_1.mat", "train.mat", "stl10_matlab"),
}

Images = tuple[Tensor, Tensor]


def read_official(
    source: str, official: Official, downloads: Path, path: Path | None, mirrors: Sequence[str], log: Log
) -> tuple[tuple[str, ...], Images, Images]:
    """The classes, and the images (N, H, W, C), uint8, and labels (N,) of the two splits.

    path: the official archive, a folder that holds it, or its unpacked folder or the folder around that. Raises
    DataError for files that are damaged or cannot be had, and for another version of them.
    """
    unpacked = None if path is None else _unpacked(official, path)
    if unpacked is not None:
        log(f"{source}: reading {unpacked}")
        return _read(source, unpacked, _Unpacked(unpacked, official.files))
    archive = obtain(official, downloads, path, mirrors, log)
    log(f"{source}: reading {archive.name}")
    wanted = tuple(f"{official.folder}/{name}" for name in _names(source))
    contents = _read_members(archive, wanted, 4 * 10**9 if source == "stl10" else 400_000_000)
    return _read(source, archive, {name.rpartition("/")[2]: content for name, content in contents.items()})


def _unpacked(official: Official, path: Path) -> Path | None:
    """The folder of a user that holds the unpacked files, None if it holds the archive or nothing that is known."""
    if not path.is_dir() or (path / official.name).exists():
        return None
    for folder in (path, path / official.folder):
        if all((folder / name).is_file() for name in official.files):
            return folder
    for version, names in _OTHER_VERSIONS.items():
        if other := next((path / name for name in names if (path / name).exists()), None):
            raise DataError(
                f"{other}: the {version} version, which is not read; give as path the folder that holds {official.name}"
                f", or the folder {official.folder} that it unpacks to"
            )
    for folder in (path, path / official.folder):
        missing = [name for name in official.files if not (folder / name).is_file()]
        if missing and len(missing) < len(official.files):
            raise DataError(f"{folder}: holds no {missing[0]}, which belongs to the unpacked {official.name}")
    return None


class _Unpacked(Mapping[str, bytes]):
    """The files of a folder, each read and verified when it is asked for."""

    def __init__(self, folder: Path, checksums: Mapping[str, str]) -> None:
        self._folder, self._checksums = folder, checksums

    def __getitem__(self, name: str) -> bytes:
        path = self._folder / name
        if name in self._checksums:
            actual = checksum_of(path, self._checksums[name])
            if actual != self._checksums[name]:
                raise DataError(
                    f"{path}: damaged or another file ({actual}, expected {self._checksums[name]}); unpack it again"
                )
        return read_file(path)

    def __iter__(self):
        return iter(self._checksums)

    def __len__(self) -> int:
        return len(self._checksums)


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


_CIFAR = {
    # training files, test file, file of names, key of labels, key of names
    "cifar10": (tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta", "labels", "label_names"),
    "cifar100": (("train",), "test", "meta", "fine_labels", "fine_label_names"),
}


def _names(source: str) -> tuple[str, ...]:
    """The files that are read."""
    if source == "stl10":
        return "train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"
    train_files, test_file, meta, _, _ = _CIFAR[source]
    return (*train_files, test_file, meta)


def _read(source: str, place: Path, contents: Mapping[str, bytes]) -> tuple[tuple[str, ...], Images, Images]:
    with naming(str(place)):
        return _stl10(contents) if source == "stl10" else _cifar(source, place, contents)


def _cifar(source: str, place: Path, contents: Mapping[str, bytes]) -> tuple[tuple[str, ...], Images, Images]:
    train_files, test_file, meta, label_key, names_key = _CIFAR[source]

    def read(names: tuple[str, ...]) -> Images:
        batches = [read_pickle(contents[name], f"{place}: {name}") for name in names]
        pixels = torch.cat([planes(batch["data"], 32) for batch in batches])
        labels = torch.tensor([label for batch in batches for label in batch[label_key]], dtype=torch.int64)
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
        return pixels, labels

    names = read_pickle(contents[meta], f"{place}: {meta}")[names_key]
    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return classes, read(train_files), read((test_file,))


def _stl10(contents: Mapping[str, bytes]) -> tuple[tuple[str, ...], Images, Images]:
    """Images are stored column by column, labels from 1 on. The 100,000 unlabelled images are not used."""

    def read(split: str) -> Images:
        flat = np.frombuffer(contents[f"{split}_X.bin"], dtype=np.uint8)
        pixels = torch.from_numpy(np.ascontiguousarray(flat.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)))
        labels = np.frombuffer(contents[f"{split}_y.bin"], dtype=np.uint8).astype(np.int64) - 1
        if len(pixels) != len(labels):
            raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
        return pixels, torch.from_numpy(labels)

    classes = KNOWN["stl10"].class_names  # of the file with them no checksum is published
    return classes, read("train"), read("test")


def planes(flat: np.ndarray, side: int) -> Tensor:
    """Flat rows of three colour planes (N, 3 · side²) → (N, side, side, 3). Raises ValueError for anything else."""
    if not isinstance(flat, np.ndarray) or flat.dtype != np.uint8 or flat.ndim != 2 or flat.shape[1] != 3 * side * side:
        raise ValueError(f"data is not uint8 with {3 * side * side} columns")
    return torch.from_numpy(np.ascontiguousarray(flat.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)))
