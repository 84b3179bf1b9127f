"""The data sets that are downloaded as several files: MNIST, Fashion-MNIST, KMNIST (IDX files) and SVHN (MATLAB files).

Addresses and checksums are those of torchvision's data set classes. Each source has its files in a folder of its own,
because those of the MNIST family have the same names.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.known_datasets import KNOWN
from collabench.core.regular import read_file
from collabench.data.archives import naming
from collabench.data.download import Log, Official, obtain

_IDX = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz")  # fmt: skip


def _idx(address: str, *checksums: str) -> tuple[Official, ...]:
    return tuple(Official(f"{address}/{name}", f"md5:{md5}") for name, md5 in zip(_IDX, checksums, strict=True))


#: Source → its files. IDX: training images and labels, test images and labels. SVHN: training and test images.
OFFICIAL_FILES: dict[str, tuple[Official, ...]] = {
    "mnist": _idx(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": _idx(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    "svhn": (
        Official("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
        Official("http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
    ),
}

Images = tuple[Tensor, Tensor]


def read_files(
    source: str, files: Sequence[Official], downloads: Path, path: Path | None, mirrors: Sequence[str], log: Log
) -> tuple[tuple[str, ...], Images, Images]:
    """The classes, and the images (N, H, W, C), uint8, and labels (N,) of the two splits.

    path: a folder that holds the files. Raises DataError (one line) for files that are damaged or cannot be had.
    """
    found = [obtain(file, downloads / source, path, mirrors, log) for file in files]
    log(f"{source}: reading {', '.join(file.name for file in found)}")
    if source == "svhn":
        train, test = (_matlab(file) for file in found)
    else:
        train, test = (_split(*found[first : first + 2]) for first in (0, 2))
    return KNOWN[source].class_names, train, test


def _split(images: Path, labels: Path) -> Images:
    pixels, classes = _idx_array(images, 3), _idx_array(labels, 1)
    with naming(str(labels)):
        if len(pixels) != len(classes):
            raise ValueError(f"{len(pixels)} images and {len(classes)} labels")
    return torch.from_numpy(pixels[..., None]), torch.from_numpy(classes.astype(np.int64))


def _idx_array(file: Path, dimensions: int) -> np.ndarray:
    """The bytes of a compressed IDX file: 0, 0, 8 (unsigned bytes), the number of dimensions, each dimension as four
    bytes, and the numbers. Raises DataError, naming the file, for anything else."""
    with naming(str(file)):
        try:
            content = gzip.decompress(read_file(file))
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"not a gzip file ({error})") from None
        head = 4 + 4 * dimensions
        if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < head:
            raise ValueError(f"not an IDX file of bytes with {dimensions} dimensions")
        shape = tuple(np.frombuffer(content, dtype=">u4", count=dimensions, offset=4).tolist())
        if len(content) != head + int(np.prod(shape, dtype=np.int64)):
            raise ValueError(f"holds {len(content) - head:,} bytes, its head says {shape}")
        return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape).copy()


def _matlab(file: Path) -> Images:
    """SVHN: ``X`` is (32, 32, 3, N), ``y`` (N, 1) from 1 to 10, where 10 is the digit 0."""
    from scipy.io import loadmat

    with naming(str(file)):
        try:
            held: Mapping[str, np.ndarray] = loadmat(str(file), appendmat=False, variable_names=("X", "y"))
        except Exception as error:  # scipy has many errors for a damaged file
            raise ValueError(f"not a MATLAB file ({error})") from None
        pixels, labels = held["X"], held["y"].reshape(-1).astype(np.int64) % 10
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
            raise ValueError(f"X has the shape {pixels.shape} and the type {pixels.dtype}")
        if pixels.shape[3] != len(labels):
            raise ValueError(f"{pixels.shape[3]} images and {len(labels)} labels")
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))), torch.from_numpy(labels)
