"""Image files by class: ``<split>/<class>/<file>`` in a folder or archive (an archive may have one top folder).

Classes are numbered in the order of their names, images in the order of class and file name. All images are read as
RGB. Images of one size are kept unchanged. With ``resize`` the shorter side is resized to it (bilinear, antialiased)
and the middle square is cropped. Names are compared in Unicode's composed form.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from collabench.core.errors import DataError, Log
from collabench.core.regular import read_file
from collabench.data.archives import members, one_line
from collabench.storage.files import sha256_of, write_atomically

ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
MAX_FILE_BYTES = 256_000_000
MAX_PIXELS = 100_000_000

#: How many bad files a message names.
SHOWN = 10


class BadFiles(DataError):
    """Files of a data set that cannot be used: all of them, so that they can be mended at once.

    lines: what is wrong, one line for each file, which it names. advice: what would be right.
    """

    def __init__(self, path: Path, lines: Sequence[str], advice: str = "") -> None:
        self.lines = tuple(f"{path}: {line}" for line in lines)
        shown = "; ".join(lines[:SHOWN])
        if len(lines) > SHOWN:
            shown += f"; and {len(lines) - SHOWN:,} more"
        count = f"{len(lines):,} files cannot be used: " if len(lines) > 1 else ""
        super().__init__(f"{path}: {count}{shown}{f': {advice}' if advice else ''}")

    def listed_in(self, report: Path | None) -> DataError:
        """The same error, after its lines are written to a file if it does not show all of them."""
        if report is None or len(self.lines) <= SHOWN:
            return self
        write_atomically(report, "".join(f"{line}\n" for line in self.lines).encode(errors="backslashreplace"))
        return DataError(f"{self}; all of them: {report}")


@dataclass(frozen=True)
class ImageFiles:
    """The image files of one data set.

    path: the folder or archive. names: relative paths, as they are written. sizes: in bytes. splits, labels: one per
    file; split 0 is for training, 1 for testing. classes: their names.
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
                yield position, read_image_file(place_of(self.path, self.names[position]), self.sizes[position])
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

    Hidden files are ignored. Raises DataError if there are none, if there is only one class, or if a class has no
    images in a split; BadFiles if class folders contain something other than images.
    """
    if not path.exists():
        raise DataError(f"{path}: does not exist; expected a folder or archive of {splits[0]}/<class>/<image>")
    packed = path.is_file()
    listing = _list_archive(path) if packed else _list_folder(path, splits)
    found: list[tuple[int, str, str, str, int]] = []
    folders: set[str] = set()
    top_folders: set[str] = set()
    bad: list[str] = []
    flat: list[str] = []
    for name, size, problem in listing:
        parts = name.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        depth = int(packed and parts[1:2] in ([splits[0]], [splits[1]]) and (len(parts) > 3 or parts[0] not in splits))
        if len(parts) < depth + 2 or parts[depth] not in splits:
            continue
        split, *rest = parts[depth:]
        if len(rest) == 1:
            if name.lower().endswith(ENDINGS):
                flat.append(name)
            continue
        class_name, *rest = rest
        if rest == [""]:
            folders |= {_composed(class_name)} - set(splits)  # which may be the splits of an archive's top folder
            continue
        top_folders.add(parts[0] if depth else "")
        if len(rest) > 1:
            problem = f"lies in a folder within its class; expected {split}/<class>/<image>"
        elif not name.lower().endswith(ENDINGS):
            problem = f"is not an image (a name ends in {', '.join(ENDINGS)})"
        elif not _is_text(name):
            problem = "has a name that is not UTF-8 or holds a control character; give the file another one"
        if problem is not None:
            bad.append(f"{name if _is_text(name) else repr(name)} {problem}")
            continue
        found.append((splits.index(split), _composed(class_name), _composed(name), name, size))
    if bad:
        raise BadFiles(path, bad)
    if flat:
        raise DataError(f"{path}: {_where_flat_images_belong(flat, splits)}")
    if len(top_folders) > 1:
        raise DataError(f"{path}: holds {splits[0]}/ or {splits[1]}/ in more than one folder; expected one data set")
    classes_of = [{entry[1] for entry in found if entry[0] == number} for number in (0, 1)]
    if not classes_of[0]:
        raise DataError(f"{path}: holds no images at {splits[0]}/<class>/<image>")
    for number in (0, 1):
        if missing := sorted(classes_of[1 - number] - classes_of[number]):
            raise DataError(f"{path}: the class {missing[0]!r} has no images in {splits[number]}/")
    if empty := sorted(folders - classes_of[0]):
        raise DataError(
            f"{path}: the class folder {empty[0]!r} is empty in {splits[0]}/ and {splits[1]}/"
            f"{f', as are {len(empty) - 1} more' if len(empty) > 1 else ''}; fill it, or remove it"
        )
    if len(classes_of[0]) == 1:
        raise DataError(f"{path}: holds one class only ({min(classes_of[0])!r}); a classifier needs two or more")
    found.sort()
    for one, other in pairwise(found):
        if one[:3] == other[:3]:
            same = "of the same name" if one[3] == other[3] else "whose names differ in their Unicode form only"
            raise DataError(f"{path}: holds two members {same}: {one[3]}")
    classes = tuple(sorted(classes_of[0]))
    label = {name: index for index, name in enumerate(classes)}
    return ImageFiles(
        path=path,
        names=tuple(entry[3] for entry in found),
        sizes=tuple(entry[4] for entry in found),
        splits=torch.tensor([entry[0] for entry in found]),
        labels=torch.tensor([label[entry[1]] for entry in found]),
        classes=classes,
    )


def _where_flat_images_belong(flat: Sequence[str], splits: tuple[str, str]) -> str:
    advice = f"expected {splits[0]}/<class>/<image> and {splits[1]}/<class>/<image>: move each into its class's folder"
    if splits[1] == "val":
        advice += (
            ". For ILSVRC 2012 the archives of the validation images and of the development kit say which that is: "
            "torchvision.datasets.ImageNet(<folder with both archives>, 'val') sorts them so"
        )
    return f"holds {len(flat):,} images outside of class folders ({flat[0]}, …); {advice}"


Listed = tuple[str, int, str | None]


def _list_archive(path: Path) -> Iterator[Listed]:
    """Name, size and problem of every member; the names of folders end with a slash."""
    for name, size, _ in members(path, MAX_FILE_BYTES, folders=True):
        yield name, size, None


def _list_folder(path: Path, splits: tuple[str, str]) -> Iterator[Listed]:
    """Name, size and problem of what lies in the folders of classes and beside them. A class's folder and what is a
    folder within it end with a slash."""
    for split in splits:
        if not (path / split).is_dir():
            raise DataError(f"{path}: holds no folder {split}/; expected {split}/<class>/<image>")
        for class_folder in sorted(os.scandir(path / split), key=lambda entry: entry.name):
            name_of_class = f"{split}/{_as_utf8(class_folder.name)}"
            if not class_folder.is_dir():
                yield name_of_class, 0, None
                continue
            yield f"{name_of_class}/", 0, None
            if class_folder.name.startswith("."):
                continue
            for entry in os.scandir(class_folder.path):
                name = f"{name_of_class}/{_as_utf8(entry.name)}"
                if entry.is_dir():
                    yield f"{name}/", 0, None
                elif entry.is_file():
                    yield name, entry.stat().st_size, None
                else:
                    yield name, 0, "is not a readable file (a broken link?)"


def _as_utf8(name: str) -> str:
    """A name of the file system, whose encoding depends on the locale, as its bytes read in UTF-8."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def place_of(path: Path, name: str) -> Path:
    """Where a file of :func:`find_images` lies, in every locale."""
    return path / os.fsdecode(name.encode())


def _composed(name: str) -> str:
    """A name in Unicode's composed form: a Mac may write ``é`` as two characters where others write one."""
    return unicodedata.normalize("NFC", name)


def _is_text(name: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def digest_of_files(path: Path, names: Iterable[str], classes: tuple[str, ...] | None = None) -> str:
    """SHA-256 of a set of files below a folder: over the sorted lines ``<relative path> <bytes> <SHA-256>``.

    Paths are in Unicode's composed form. classes: all classes, where the files are a choice; their names come first.
    """
    tree = hashlib.sha256()
    if classes is not None:
        tree.update(f"classes {json.dumps(classes)}\n".encode())
    for composed, name in sorted((_composed(name), name) for name in names):
        file = place_of(path, name)
        tree.update(f"{composed} {file.stat().st_size} {sha256_of(file)}\n".encode())
    return tree.hexdigest()


def open_image(content: bytes, name: str, upright: bool = False) -> Image.Image:
    """The decoded image as RGB.

    upright: turn it as its EXIF orientation says. Raises DataError, naming the image, if it is damaged, truncated or
    extremely large, or has more than 8 bits per channel, which conversion would cut off at 255.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{name}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}; refused")
        if image.mode[0] in "IF":
            raise DataError(f"{name}: has more than 8 bits a pixel (Pillow's mode {image.mode}); convert it to 8 bits")
        return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except DataError:
        raise
    except MemoryError:
        raise MemoryError(f"{name}: does not fit in memory") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that can be decoded (none of {', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise many kinds of errors with the same meaning here
        raise DataError(f"{name}: not an image that can be decoded ({one_line(error)})") from None


def is_turned(content: bytes) -> bool:
    """Whether an image's EXIF data say that it is to be turned or mirrored."""
    try:
        exif = Image.Exif()
        exif.load(Image.open(io.BytesIO(content), formats=FORMATS).info.get("exif", b""))
        return exif.get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # whoever decodes the image says what is wrong with it
        return False


def square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to ``side`` (bilinear, antialiased) and crop the middle."""
    return centre_crop(image, side, side)


def centre_crop(image: Image.Image, shorter_side: int, side: int) -> Image.Image:
    """Resize the shorter side to ``shorter_side`` (bilinear, antialiased), then crop the middle ``side`` x ``side``.

    Of an image so narrow that it would be resized to more than :data:`MAX_PIXELS`, only the part is resized that is
    kept.
    """
    scale = shorter_side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    if width * height > MAX_PIXELS:
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        return image.resize((side, side), Image.Resampling.BILINEAR, box)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + side, top + side))


def decode(files: ImageFiles, wanted: Tensor, resize: int | None, upright: bool, log: Log) -> Tensor:
    """The wanted files as one array, uint8 (N, H, W, 3), in the order of ``wanted``.

    upright: turn images as their EXIF orientation says. Raises BadFiles, naming every file that is damaged or, without
    ``resize``, has another size than most.
    """
    row_of = {position: row for row, position in enumerate(wanted.tolist())}
    array: np.ndarray | None = None
    bad: dict[str, str] = {}
    names_of: dict[tuple[int, int], list[str]] = {}
    turned = done = 0
    for position, content in files.read(row_of):
        name = files.names[position]
        done += 1
        try:
            image = open_image(content, name, upright)
        except DataError as error:
            bad[name] = str(error)
            continue
        turned += is_turned(content)
        if resize is not None:
            image = square(image, resize)
        names_of.setdefault(image.size, []).append(name)
        if array is None:
            array = np.empty((len(wanted), image.height, image.width, 3), dtype=np.uint8)
        if (image.height, image.width) == array.shape[1:3]:
            array[row_of[position]] = np.asarray(image)
    if done < len(wanted):
        raise DataError(f"{files.path}: files vanished while they were read")
    usual = max(names_of, key=lambda size: len(names_of[size]), default=(0, 0))
    for size, names in names_of.items():
        if size != usual:
            line = f"is {size[0]} x {size[1]} pixels, others are {usual[0]} x {usual[1]}"
            bad |= {name: f"{name} {line}" for name in names}
    if bad or array is None:
        advice = "give the data set a resize" if len(names_of) > 1 else ""
        raise BadFiles(files.path, [bad[name] for name in sorted(bad)], advice)
    tell_turned(turned, upright, files.path, log)
    return torch.from_numpy(array)


def tell_turned(count: int, upright: bool, path: Path, log: Log) -> None:
    """Log how many images have an EXIF orientation, and what becomes of it."""
    if count:
        what = "applied" if upright else "ignored, as exif_orientation says"
        log(f"{path}: {count:,} images have an EXIF orientation, which is {what}")
