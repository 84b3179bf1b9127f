"""Files in the official formats of the data sets, with generated images: small, and read by the same code.

Every function returns what a test needs to use the file: an :class:`~collabench.data.download.Official` (whose checksum
is the generated file's) or the SHA-256 to pin.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import ExifTags, Image
from scipy.io import savemat

from collabench.config.data_sections import DatasetConfig
from collabench.data import source_digest
from collabench.data.download import Official
from collabench.data.official import OFFICIAL
from collabench.data.official_files import OFFICIAL_FILES
from collabench.data.sources import IMAGENET32_TEST, IMAGENET32_TRAIN

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENETTE = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
              "n03445777", "n03888257")  # fmt: skip
STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


class _Python2Pickler(pickle._Pickler):
    """Writes as Python 2 did: byte strings as its ``str``, not through a call of ``_codecs.encode``."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def _save_bytes(self, value: bytes) -> None:
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(value)]) + value)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = _save_bytes


def python2_pickle(value: object) -> bytes:
    """A pickle of protocol 2 as Python 2 wrote it (arrays refer to ``numpy.core.multiarray``)."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_tar_gz(path: Path, contents: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def official_of(path: Path, source: str) -> Official:
    """The archive at ``path`` as the official one of a source, with the checksums that it and its members have."""
    known = OFFICIAL[source]
    with tarfile.open(path) as archive:
        files = {
            Path(member.name).name: md5(archive.extractfile(member).read())
            for member in archive
            if Path(member.name).name in known.files
        }
    return Official(known.url, md5(path.read_bytes()), known.folder, files)


def labels_of(count: int, classes: int) -> np.ndarray:
    """Labels (count,) in which every class has its share."""
    return np.arange(count) % classes


def pixels_of(count: int, length: int, seed: int) -> np.ndarray:
    """Random pixels (count, length), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, length), dtype=np.uint8)


def write_cifar10(folder: Path, images_per_batch: int = 20, classes: tuple[str, ...] = CIFAR10_CLASSES) -> Official:
    """``cifar-10-python.tar.gz`` with five training batches and the test batch of ``images_per_batch`` images each."""
    contents = {}
    for number, name in enumerate((*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")):
        contents[f"cifar-10-batches-py/{name}"] = python2_pickle(
            {
                b"batch_label": name.encode(),
                b"labels": labels_of(images_per_batch, 10).tolist(),
                b"data": pixels_of(images_per_batch, 3072, number),
                b"filenames": [b"image.png"] * images_per_batch,
            }
        )
    contents["cifar-10-batches-py/batches.meta"] = python2_pickle(
        {b"num_cases_per_batch": images_per_batch, b"label_names": [c.encode() for c in classes], b"num_vis": 3072}
    )
    path = folder / OFFICIAL["cifar10"].name
    write_tar_gz(path, contents)
    return official_of(path, "cifar10")


def write_cifar100(folder: Path, train_images: int = 200, test_images: int = 100) -> Official:
    """``cifar-100-python.tar.gz``; fine labels are 0, 1, 2, …, coarse labels are present as in the original."""
    contents = {}
    for number, (name, count) in enumerate((("train", train_images), ("test", test_images))):
        contents[f"cifar-100-python/{name}"] = python2_pickle(
            {
                b"filenames": [b"image.png"] * count,
                b"fine_labels": labels_of(count, 100).tolist(),
                b"coarse_labels": labels_of(count, 20).tolist(),
                b"data": pixels_of(count, 3072, number),
            }
        )
    contents["cifar-100-python/meta"] = python2_pickle(
        {
            b"fine_label_names": [f"fine_{n:02d}".encode() for n in range(100)],
            b"coarse_label_names": [f"coarse_{n:02d}".encode() for n in range(20)],
        }
    )
    path = folder / OFFICIAL["cifar100"].name
    write_tar_gz(path, contents)
    return official_of(path, "cifar100")


def write_cifar10n(path: Path, clean: np.ndarray, *, tensors: bool = False, legacy: bool = False) -> str:
    """``CIFAR-10_human.pt`` for images of these labels (N,): a dictionary that ``torch.save`` wrote, with the labels of
    three people, their majority and the worst of them. tensors: instead of arrays. legacy: the format before zip.

    Returns the SHA-256.
    """
    draws = np.random.default_rng(0)

    def wrong(share: float) -> np.ndarray:
        return np.where(draws.random(len(clean)) < share, (clean + draws.integers(1, 10, len(clean))) % 10, clean)

    found = {"clean_label": clean, "worse_label": wrong(0.4), "aggre_label": wrong(0.09)}
    found |= {f"random_label{number}": wrong(0.17) for number in (1, 2, 3)}
    held = {name: torch.from_numpy(labels) if tensors else labels for name, labels in found.items()}
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_cifar100n(path: Path, clean: np.ndarray) -> str:
    """``CIFAR-100_human.pt`` for images of these labels (N,): one person's labels of the 100 classes and of their 20
    groups. Returns the SHA-256."""
    draws = np.random.default_rng(0)
    noisy = np.where(draws.random(len(clean)) < 0.4, (clean + draws.integers(1, 100, len(clean))) % 100, clean)
    found = {"clean_label": clean, "noisy_label": noisy, "noisy_coarse_label": noisy % 20,
             "clean_coarse_label": clean % 20}  # fmt: skip
    torch.save(found, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_stl10(folder: Path, train_images: int = 20, test_images: int = 20) -> Official:
    """``stl10_binary.tar.gz``: planes stored column by column, labels from 1."""
    contents = {"stl10_binary/class_names.txt": ("\n".join(STL10_CLASSES) + "\n").encode()}
    for number, (name, count) in enumerate((("train", train_images), ("test", test_images))):
        contents[f"stl10_binary/{name}_X.bin"] = pixels_of(count, 3 * 96 * 96, number).tobytes()
        contents[f"stl10_binary/{name}_y.bin"] = (labels_of(count, 10) + 1).astype(np.uint8).tobytes()
    path = folder / OFFICIAL["stl10"].name
    write_tar_gz(path, contents)
    return official_of(path, "stl10")


def _idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes, compressed."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", length) for length in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def write_mnist(folder: Path, source: str = "mnist", train_images: int = 30, test_images: int = 20) -> tuple:
    """The four IDX files of MNIST, Fashion-MNIST or KMNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = []
    for number, count in enumerate((train_images, test_images)):
        contents += [_idx(pixels_of(count, 784, number).reshape(-1, 28, 28)),
                     _idx(labels_of(count, 10).astype(np.uint8))]  # fmt: skip
    found = []
    for known, content in zip(OFFICIAL_FILES[source], contents, strict=True):
        (folder / known.name).write_bytes(content)
        found.append(Official(known.url, md5(content)))
    return tuple(found)


def write_svhn(folder: Path, train_images: int = 30, test_images: int = 20) -> tuple:
    """``train_32x32.mat`` and ``test_32x32.mat``: images along the last axis, labels from 1, of which 10 is digit 0."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, (known, count) in enumerate(zip(OFFICIAL_FILES["svhn"], (train_images, test_images), strict=True)):
        pixels = pixels_of(count, 3072, number).reshape(-1, 32, 32, 3).transpose(1, 2, 3, 0)
        labels = np.where((digits := labels_of(count, 10)) == 0, 10, digits).astype(np.uint8)[:, None]
        savemat(folder / known.name, {"X": pixels, "y": labels}, do_compression=True)
        found.append(Official(known.url, md5((folder / known.name).read_bytes())))
    return tuple(found)


def _turned() -> Image.Exif:
    """EXIF data that say that an image is to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def _jpeg(width: int, height: int, seed: int, turned: bool) -> bytes:
    content, exif = io.BytesIO(), {"exif": _turned()} if turned else {}
    Image.fromarray(pixels_of(height, width * 3, seed).reshape(height, width, 3)).save(content, "JPEG", **exif)
    return content.getvalue()


def write_imagenette(folder: Path, train_images: int = 3, test_images: int = 2, *, turned: bool = False) -> Official:
    """``imagenette2-160.tgz``: ``{train,val}/<wnid>/*.JPEG`` of mixed sizes, a table of other labels beside them."""
    contents = {"imagenette2-160/noisy_imagenette.csv": b"path,noisy_labels_0\n"}
    for split, count in (("train", train_images), ("val", test_images)):
        for number, wnid in enumerate(IMAGENETTE):
            for image in range(count):
                name = f"imagenette2-160/{split}/{wnid}/{wnid}_{image}.JPEG"
                contents[name] = _jpeg(20 + number, 16 + image, number, turned)
    path = folder / OFFICIAL["imagenette"].name
    write_tar_gz(path, contents)
    return Official(OFFICIAL["imagenette"].url, md5(path.read_bytes()), OFFICIAL["imagenette"].folder)


def write_tiny_imagenet(
    folder: Path, classes: int = 200, train: int = 2, test: int = 1, *, turned: bool = False
) -> None:
    """``tiny-imagenet-200/``: images of 64 x 64 pixels, the classes of the validation images in a table, and test
    images without labels."""
    base = folder / "tiny-imagenet-200"
    names = [f"n{number:08d}" for number in range(classes)]
    lines = []
    for number, name in enumerate(names):
        (base / "train" / name / "images").mkdir(parents=True)
        (base / "train" / name / f"{name}_boxes.txt").write_text("")
        for image in range(train):
            (base / "train" / name / "images" / f"{name}_{image}.JPEG").write_bytes(_jpeg(64, 64, number, turned))
    for split in ("val", "test"):
        (base / split / "images").mkdir(parents=True)
        for image in range(test * classes):
            (base / split / "images" / f"{split}_{image}.JPEG").write_bytes(_jpeg(64, 64, image, turned))
    for image in range(test * classes):
        lines.append(f"val_{image}.JPEG\t{names[-1 - image % classes]}\t0\t0\t63\t63\n")
    (base / "val/val_annotations.txt").write_text("".join(lines))
    (base / "wnids.txt").write_text("".join(f"{name}\n" for name in names))


def write_medmnist(path: Path, *, channels: int = 3, labels: int = 1, classes: int = 9, side: int = 28) -> None:
    """A file of MedMNIST: images and labels of three splits."""
    arrays = {}
    for number, (split, count) in enumerate((("train", 40), ("val", 10), ("test", 20))):
        shape = (count, side, side, 3) if channels == 3 else (count, side, side)
        arrays[f"{split}_images"] = pixels_of(count, side * side * channels, number).reshape(shape)
        arrays[f"{split}_labels"] = np.repeat(labels_of(count, classes)[:, None], labels, axis=1).astype(np.uint8)
    np.savez_compressed(path, **arrays)


def write_imagenet32(folder: Path, images_per_batch: int = 100, *, npz: bool = True, test_images: int = 1000) -> str:
    """The ten training batches and the test batch, as .npz or as pickles. Returns the SHA-256 to pin."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate((*IMAGENET32_TRAIN, IMAGENET32_TEST)):
        count = test_images if name == IMAGENET32_TEST else images_per_batch
        labels = (np.arange(count) + number * images_per_batch) % 1000 + 1
        batch = {
            "data": pixels_of(count, 3072, number),
            "labels": labels if npz else labels.tolist(),
            "mean": np.full(3072, 127.5),
        }
        if npz:
            np.savez(folder / f"{name}.npz", **batch)
        else:
            (folder / name).write_bytes(pickle.dumps(batch, protocol=3))
    return source_digest(DatasetConfig(source="imagenet32", path=str(folder)))


def write_images(
    folder: Path,
    classes: tuple[str, ...] = ("cat", "dog"),
    *,
    train: int = 4,
    test: int = 2,
    size: tuple[int, int] = (12, 10),
    ending: str = "png",
    splits: tuple[str, str] = ("train", "test"),
    sizes_differ: bool = False,
    turned: bool = False,
) -> str:
    """``<split>/<class>/NNNN.<ending>``, ``train`` and ``test`` images per class, of ``size`` (width, height).

    turned: their EXIF data say that they are to be turned by 90 degrees. Returns the SHA-256 to pin.
    """
    generator = np.random.default_rng(0)
    for split, count in zip(splits, (train, test), strict=True):
        for name in classes:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                width, height = size[0] + 3 * number * sizes_differ, size[1] + 2 * number * sizes_differ
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                path = folder / split / name / f"{number:04d}.{ending}"
                Image.fromarray(pixels).save(path, **({"exif": _turned()} if turned else {}))
    source = "imagenet" if splits[1] == "val" else "images"
    return source_digest(DatasetConfig(source=source, path=str(folder)))


def write_imagenet(folder: Path, classes: int = 1000, *, train: int = 1, test: int = 1, turned: bool = False) -> str:
    """``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG`` of mixed sizes. Returns the SHA-256 to pin."""
    return write_images(
        folder,
        tuple(f"n{number:08d}" for number in range(classes)),
        train=train,
        test=test,
        size=(60, 48),
        ending="JPEG",
        splits=("train", "val"),
        sizes_differ=True,
        turned=turned,
    )
