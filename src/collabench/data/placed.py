"""Data sets that a user places and of which no checksum is published with torchvision: Tiny-ImageNet and MedMNIST.

Their ``sha256`` is pinned in ``params.yaml``, as that of a user's own images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from collabench.core.errors import DataError
from collabench.core.regular import open_file, read_file
from collabench.data.archives import members, naming
from collabench.data.image_files import MAX_FILE_BYTES, ImageFiles
from collabench.data.source import Source, in_memory

TINY_IMAGENET_FOLDER = "tiny-imagenet-200"
_ANNOTATIONS = "val/val_annotations.txt"
_MEDMNIST_SPLITS = ("train", "test")


def tiny_imagenet_files(path: Path) -> ImageFiles:
    """The images of Tiny-ImageNet: ``train/<wnid>/images/*.JPEG``, and for testing ``val/images/*.JPEG``, whose classes
    ``val/val_annotations.txt`` says. (The labels of its own test images are not published.)

    path: ``tiny-imagenet-200.zip``, or the folder that it unpacks to, or the folder around that. Raises DataError.
    """
    if path.is_dir():
        inner = path if (path / _ANNOTATIONS).exists() else path / TINY_IMAGENET_FOLDER
        if not (inner / _ANNOTATIONS).exists():
            raise DataError(f"{path}: holds no {_ANNOTATIONS}; expected tiny-imagenet-200.zip or what it unpacks to")
        listed = {file.relative_to(path).as_posix(): file.stat().st_size for split in ("train", "val")
                  for file in (inner / split).rglob("*.JPEG")}  # fmt: skip
        annotations = read_file(inner / _ANNOTATIONS)
    else:
        listed, annotations = {}, b""
        for name, size, content in members(path, MAX_FILE_BYTES):
            if name.endswith(_ANNOTATIONS):
                annotations = content()
            elif name.endswith(".JPEG"):
                listed[name] = size
    class_of = dict(line.split("\t")[:2] for line in annotations.decode(errors="replace").splitlines() if "\t" in line)
    found = []
    for name, size in listed.items():
        parts = name.split("/")
        if len(parts) >= 4 and parts[-4] == "train" and parts[-2] == "images":
            found.append((0, parts[-3], name, size))
        elif len(parts) >= 3 and parts[-3:-1] == ["val", "images"]:
            if parts[-1] not in class_of:
                raise DataError(f"{path}: {_ANNOTATIONS} does not say the class of {parts[-1]}")
            found.append((1, class_of[parts[-1]], name, size))
    classes = tuple(sorted({name for split, name, _, _ in found if split == 0}))
    if not classes or {name for split, name, _, _ in found if split == 1} != set(classes):
        raise DataError(f"{path}: train/ and val/ do not have the same classes, or no images: incomplete, or not "
                        "Tiny-ImageNet")  # fmt: skip
    found.sort()
    number = {name: index for index, name in enumerate(classes)}
    return ImageFiles(
        path=path,
        names=tuple(name for _, _, name, _ in found),
        sizes=tuple(size for _, _, _, size in found),
        splits=torch.tensor([split for split, _, _, _ in found]),
        labels=torch.tensor([number[name] for _, name, _, _ in found]),
        classes=classes,
    )


def medmnist(path: Path) -> Source:
    """A file of MedMNIST: ``<split>_images``, uint8 (N, H, W) or (N, H, W, 3), and ``<split>_labels`` (N, 1).

    Its validation images are not used. Classes are named by their numbers, since the file holds no names. Raises
    DataError for a file of several labels for an image (ChestMNIST) or of volumes.
    """
    with naming(str(path)):
        try:
            with open_file(path) as opened, np.load(opened, allow_pickle=False) as held:
                arrays = {name: held[name] for split in _MEDMNIST_SPLITS for name in (f"{split}_images",
                          f"{split}_labels")}  # fmt: skip
        except KeyError as error:
            raise DataError(f"{path}: not a file of MedMNIST ({error})") from None
        except Exception as error:  # zipfile and zlib have error types of their own
            raise DataError(f"{path}: damaged or not an .npz file ({error})") from None
        parts = []
        for split in _MEDMNIST_SPLITS:
            pixels, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            if labels.ndim == 2 and labels.shape[1] != 1:
                raise DataError(f"{path}: has {labels.shape[1]} labels for every image; a classifier needs one")
            if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3):
                raise DataError(f"{path}: {split}_images has the shape {pixels.shape} and the type {pixels.dtype}; "
                                "expected images of bytes, of one channel or three")  # fmt: skip
            if len(pixels) != labels.size:
                raise DataError(f"{path}: {len(pixels)} images and {labels.size} labels in {split}")
            pixels = pixels[..., None] if pixels.ndim == 3 else pixels
            parts.append((torch.from_numpy(pixels.copy()), torch.from_numpy(labels.reshape(-1).astype(np.int64))))
        count = 1 + int(max(labels.max() for _, labels in parts))
        return in_memory(tuple(map(str, range(count))), parts[0], parts[1])
