"""Which image files a folder or an archive holds, by class.

They lie at ``<split>/<class>/<file>``, or at ``<class>/<file>``. An archive may have one top folder.
Classes are numbered in the order of their names, images in the order of class and file name. Names are compared in
Unicode's composed form.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from collabench.core.errors import DataError
from collabench.core.regular import read_file
from collabench.data.archives import members
from collabench.storage.files import sha256_of, write_atomically

ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MAX_FILE_BYTES = 256_000_000

#: Name, size and problem of a file.
Listed = tuple[str, int, str | None]

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


def find_images(path: Path, splits: tuple[str, str] | None) -> ImageFiles:
    """List the images of a folder or archive. splits: names of the training and the test folder. None: the folders of
    classes are not divided into splits, and all images have split 0.

    Hidden files are ignored. Raises DataError if there are none, if there is only one class, or if a class has no
    images in a split; BadFiles if class folders contain something other than images.
    """
    form = "<class>/<image>" if splits is None else f"{splits[0]}/<class>/<image>"
    if not path.exists():
        raise DataError(f"{path}: does not exist; expected a folder or archive of {form}")
    packed = path.is_file()
    listing = list(_list_archive(path)) if packed else list(_list_folder(path, splits))
    top = int(splits is None and packed and _has_top_folder(listing))
    found: list[tuple[int, str, str, str, int]] = []
    folders: set[str] = set()
    top_folders: set[str] = set()
    bad: list[str] = []
    flat: list[str] = []
    for name, size, problem in listing:
        parts = name.split("/")
        if any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX":
            continue
        if splits is None:
            depth, number, rest = top, 0, parts[top:]
        else:
            depth = int(
                packed and parts[1:2] in ([splits[0]], [splits[1]]) and (len(parts) > 3 or parts[0] not in splits)
            )
            if len(parts) < depth + 2 or parts[depth] not in splits:
                continue
            number, rest = splits.index(parts[depth]), parts[depth + 1 :]
        if len(rest) == 1:
            if name.lower().endswith(ENDINGS):
                flat.append(name)
            continue
        class_name, *rest = rest
        if rest == [""]:
            folders |= {_composed(class_name)} - set(splits or ())  # which may be those of an archive's top folder
            continue
        top_folders.add(parts[0] if depth else "")
        if len(rest) > 1:
            expected = form if splits is None else f"{splits[number]}/<class>/<image>"
            problem = f"lies in a folder within its class; expected {expected}"
        elif not name.lower().endswith(ENDINGS):
            problem = f"is not an image (a name ends in {', '.join(ENDINGS)})"
        elif not _is_text(name):
            problem = "has a name that is not UTF-8 or holds a control character; give the file another one"
        if problem is not None:
            bad.append(f"{name if _is_text(name) else repr(name)} {problem}")
            continue
        found.append((number, _composed(class_name), _composed(name), name, size))
    if splits is None and {"train", "test"} <= {entry[1] for entry in found} | folders:
        raise DataError(f"{path}: holds train/ and test/: it is divided already; remove test_fraction, split_file or "
                        "test_path from its entry, or name one of the two folders as path")  # fmt: skip
    if bad:
        raise BadFiles(path, bad)
    if flat:
        raise DataError(f"{path}: {_where_flat_images_belong(flat, splits)}")
    if splits is not None and len(top_folders) > 1:
        raise DataError(f"{path}: holds {splits[0]}/ or {splits[1]}/ in more than one folder; expected one data set")
    classes_of = [{entry[1] for entry in found if entry[0] == number} for number in (0, 1)]
    if not classes_of[0]:
        raise DataError(f"{path}: holds no images at {form}{how_to_split(path, splits)}")
    for number, split in enumerate(splits or ()):
        if missing := sorted(classes_of[1 - number] - classes_of[number]):
            raise DataError(f"{path}: the class {missing[0]!r} has no images in {split}/")
    if empty := sorted(folders - classes_of[0]):
        where = "" if splits is None else f" in {splits[0]}/ and {splits[1]}/"
        raise DataError(
            f"{path}: the class folder {empty[0]!r} is empty{where}"
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


def how_to_split(path: Path, splits: Sequence[str] | None) -> str:
    """What to add to the entry of a user's folder or archive that is not divided into training and test images."""
    if splits is None or splits[1] != "test":
        return ""
    inner = path / "train"
    where = f" and name {inner} as path" if inner.is_dir() and not (path / "test").exists() else ""
    return (
        f"; if its folders are classes, add two lines to its entry{where}: `test_fraction: 0.2` and `split_seed: 0` "
        "(or split_file, a table of file and split; or test_path, a folder of test images)"
    )


def _has_top_folder(listing: Sequence[Listed]) -> bool:
    """Whether an archive's class folders lie in one folder."""
    parts = [name.split("/") for name, _, _ in listing]
    seen = [part for part in parts if not any(folder.startswith(".") for folder in part) and part[0] != "__MACOSX"]
    deepest = max((len(part) for part in seen if part[-1]), default=0)
    return deepest > 2 and len({part[0] for part in seen}) == 1


def _where_flat_images_belong(flat: Sequence[str], splits: tuple[str, str] | None) -> str:
    if splits is None:
        return (
            f"holds {len(flat):,} images outside of class folders ({flat[0]}, …); expected <class>/<image>: move each "
            "into its class's folder"
        )
    advice = f"expected {splits[0]}/<class>/<image> and {splits[1]}/<class>/<image>: move each into its class's folder"
    if splits[1] == "val":
        advice += (
            ". For ILSVRC 2012 the archives of the validation images and of the development kit say which that is: "
            "torchvision.datasets.ImageNet(<folder with both archives>, 'val') sorts them so"
        )
    return f"holds {len(flat):,} images outside of class folders ({flat[0]}, …); {advice}"


def _list_archive(path: Path) -> Iterator[Listed]:
    """Name, size and problem of every member; the names of folders end with a slash."""
    for name, size, _ in members(path, MAX_FILE_BYTES, folders=True):
        yield name, size, None


def _list_folder(path: Path, splits: tuple[str, str] | None) -> Iterator[Listed]:
    """Name, size and problem of what lies in the folders of classes and beside them. A class's folder and what is a
    folder within it end with a slash."""
    for split in splits or ("",):
        if not (path / split).is_dir():
            raise DataError(
                f"{path}: holds no folder {split}/; expected {split}/<class>/<image>{how_to_split(path, splits)}"
            )
        for class_folder in sorted(os.scandir(path / split), key=lambda entry: entry.name):
            name_of_class = f"{split}/{_as_utf8(class_folder.name)}".lstrip("/")
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
