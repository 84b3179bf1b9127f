"""Image files by class: ``<split>/<class>/<file>`` in a folder or archive (an archive may have one top folder).

Classes are numbered in the order of their names, images in the order of class and file name. All images are read as
RGB. Images of one size are kept unchanged. With ``resize`` the shorter side is resized to it (bilinear, antialiased)
and the middle square is cropped.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from collabench.core.errors import DataError
from collabench.core.regular import read_file
from collabench.data.archives import is_archive, members
from collabench.storage.files import sha256_of

ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MAX_FILE_BYTES = 256_000_000
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class ImageFiles:
    """The image files of one data set.

    path: the folder or archive. names: relative paths. sizes: in bytes. splits, labels: one per file; split 0 is for
    training, 1 for testing. classes: their names.
    """

    path: Path
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    splits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @cached_property
    def from_archive(self) -> bool:
        return self.path.is_file()

    def read(self, wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Position and content of the wanted files, in the order in which reading is fastest.

        Raises DataError, naming the file, if one is missing or its size has changed.
        """
        if not self.from_archive:
            for position in wanted:
                yield position, read_image_file(self.path / self.names[position], self.sizes[position])
            return
        position_of = {self.names[position]: position for position in wanted}
        for name, _, content in members(self.path, MAX_FILE_BYTES):
            if not position_of:
                return
            if name in position_of:
                yield position_of.pop(name), content()


def read_image_file(path: Path, size: int, checksum: int | None = None) -> bytes:
    """The content of an image file with the given size in bytes and, if given, CRC-32.

    Raises DataError, naming the file, if it is missing or has changed.
    """
    try:
        content = read_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) != size:
        raise DataError(f"{path}: has {len(content):,} bytes, had {size:,} when the data set was prepared")
    if checksum is not None and zlib.crc32(content) != checksum:
        raise DataError(f"{path}: damaged or another file (its checksum is not that of when the data set was prepared)")
    return content


def find_images(path: Path, splits: tuple[str, str]) -> ImageFiles:
    """List the images of a folder or archive. splits: names of the training and the test folder.

    Raises DataError if there are none, if there is only one class, if a class has no images in a split, or if a class
    folder contains something other than images. Hidden files are ignored.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; expected a folder or archive of {splits[0]}/<class>/<image>")
    if path.is_file() and not is_archive(path):
        raise DataError(f"{path}: is neither a folder nor an archive (.tar, .tar.gz, .tar.xz, .tar.bz2, .zip)")
    listing = _list_archive(path) if path.is_file() else _list_folder(path, splits)
    found: list[tuple[int, str, str, str, int]] = []
    top_folders: set[str] = set()
    for name, size in listing:
        parts = name.split("/")
        depth = 1 if len(parts) > 3 and parts[1] in splits else 0
        if len(parts) < depth + 3 or parts[depth] not in splits or any(part.startswith(".") for part in parts):
            continue
        top_folders.add(parts[0] if depth else "")
        split, class_name, *rest = parts[depth:]
        if len(rest) > 1:
            raise DataError(f"{path}: {name} lies in a folder within its class; expected {split}/<class>/<image>")
        if not name.lower().endswith(ENDINGS):
            raise DataError(f"{path}: {name} is not an image (a name ends in {', '.join(ENDINGS)})")
        if not _is_utf8(name):
            raise DataError(f"{path}: the name {name!r} is not UTF-8; give the file another one")
        found.append((splits.index(split), class_name, rest[0], name, size))
    if len(top_folders) > 1:
        raise DataError(f"{path}: holds {splits[0]}/ or {splits[1]}/ in more than one folder; expected one data set")
    classes_of = [{entry[1] for entry in found if entry[0] == number} for number in (0, 1)]
    if not classes_of[0]:
        raise DataError(f"{path}: holds no images at {splits[0]}/<class>/<image>")
    for number in (0, 1):
        if missing := sorted(classes_of[1 - number] - classes_of[number]):
            raise DataError(f"{path}: the class {missing[0]!r} has no images in {splits[number]}/")
    if len(classes_of[0]) == 1:
        raise DataError(f"{path}: holds one class only ({min(classes_of[0])!r}); a classifier needs two or more")
    if len({entry[3] for entry in found}) != len(found):
        raise DataError(f"{path}: holds two members of the same name")
    classes = tuple(sorted(classes_of[0]))
    label = {name: index for index, name in enumerate(classes)}
    found.sort()
    return ImageFiles(
        path=path,
        names=tuple(entry[3] for entry in found),
        sizes=tuple(entry[4] for entry in found),
        splits=torch.tensor([entry[0] for entry in found]),
        labels=torch.tensor([label[entry[1]] for entry in found]),
        classes=classes,
    )


def _list_archive(path: Path) -> Iterator[tuple[str, int]]:
    for name, size, _ in members(path, MAX_FILE_BYTES):
        yield name, size


def _list_folder(path: Path, splits: tuple[str, str]) -> Iterator[tuple[str, int]]:
    for split in splits:
        if not (path / split).is_dir():
            raise DataError(f"{path}: holds no folder {split}/; expected {split}/<class>/<image>")
        for class_folder in sorted(os.scandir(path / split), key=lambda entry: entry.name):
            if not class_folder.is_dir() or class_folder.name.startswith("."):
                continue
            for entry in os.scandir(class_folder.path):
                name = f"{split}/{class_folder.name}/{entry.name}"
                if entry.is_dir():
                    yield f"{name}/", 0  # reported as too deep, unless it is hidden
                elif entry.is_file():
                    yield name, entry.stat().st_size
                elif not entry.name.startswith("."):
                    raise DataError(f"{path}: {name} is not a readable file (a broken link?)")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest_of_files(path: Path, names: Iterable[str]) -> str:
    """SHA-256 of a set of files below a folder: over the sorted lines ``<relative path> <bytes> <SHA-256>``."""
    tree = hashlib.sha256()
    for name in sorted(names):
        file = path / name
        tree.update(f"{name} {file.stat().st_size} {sha256_of(file)}\n".encode())
    return tree.hexdigest()


def open_image(content: bytes, name: str) -> Image.Image:
    """The decoded image as RGB.

    Raises DataError, naming the image, if it is damaged, truncated or extremely large, or has more than 8 bits per
    channel, which conversion would cut off at 255.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{name}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}; refused")
        if image.mode[0] in "IF":
            raise DataError(f"{name}: has more than 8 bits a pixel (Pillow's mode {image.mode}); convert it to 8 bits")
        return image.convert("RGB")
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that can be decoded (none of {', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise many kinds of errors with the same meaning here
        raise DataError(f"{name}: not an image that can be decoded ({str(error).splitlines()[0]})") from None


def square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to ``side`` (bilinear, antialiased) and crop the middle."""
    return centre_crop(image, side, side)


def centre_crop(image: Image.Image, shorter_side: int, side: int) -> Image.Image:
    """Resize the shorter side to ``shorter_side`` (bilinear, antialiased), then crop the middle ``side`` x ``side``."""
    scale = shorter_side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def decode(files: ImageFiles, wanted: Tensor, resize: int | None) -> Tensor:
    """The wanted files as one array, uint8 (N, H, W, 3), in the order of ``wanted``.

    Raises DataError, naming the first file that is damaged or, without ``resize``, has another size than the others.
    """
    row_of = {position: row for row, position in enumerate(wanted.tolist())}
    array: np.ndarray | None = None
    done = 0
    for position, content in files.read(row_of):
        name = f"{files.path}: {files.names[position]}"
        image = open_image(content, name)
        if resize is not None:
            image = square(image, resize)
        if array is None:
            array = np.empty((len(wanted), image.height, image.width, 3), dtype=np.uint8)
        if (image.height, image.width) != array.shape[1:3]:
            raise DataError(
                f"{name} is {image.width} x {image.height} pixels, others are {array.shape[2]} x {array.shape[1]}: "
                "give the data set a resize"
            )
        array[row_of[position]] = np.asarray(image)
        done += 1
    if done < len(wanted) or array is None:
        raise DataError(f"{files.path}: files vanished while they were read")
    return torch.from_numpy(array)
