"""Files of label noise: labels as other people have them, and matrices.

Labels are one for each training image, in the source's order:

``.npy``
    an array of integers (N,), classes counted from 0.
``.csv``
    one integer or name of a class on every line; with ``key``, the column of that name, under a header.
``.pt``
    a dictionary of tensors or arrays that ``torch.save`` wrote, as CIFAR-10N and CIFAR-100N are published; ``key``
    names the entry.

A column or entry :data:`CLEAN` must hold the data set's own labels: it shows that the order is the same. A matrix is a
``.npy`` or ``.csv`` file of m rows of m numbers. No file can execute anything: NumPy reads no pickles, and torch
nothing but plain data, tensors and arrays of numbers.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collabench.config.configuration import Configuration
from collabench.config.data_sections import NoiseConfig
from collabench.config.known_datasets import KNOWN
from collabench.config.matrices import check_matrix, check_size
from collabench.config.yaml_file import shorten
from collabench.core.errors import ConfigError, DataError
from collabench.core.regular import read_file
from collabench.data.archives import one_line

#: Entry of a file, or column, that holds the labels without noise.
CLEAN = "clean_label"
#: Names beyond this number are not listed in a message.
_LISTED = 20


@dataclass(frozen=True)
class InSource:
    """Which training images of a source are used. position: where they are in its order, int64 (N,). images: how many
    training images the source has."""

    position: Tensor
    images: int


@dataclass(frozen=True)
class _Written:
    """Labels as a file has them. texts: of a ``.csv`` file; numbers: int64 (N,), of the others. first_line: where the
    first text stands."""

    where: str
    texts: tuple[str, ...] = ()
    numbers: Tensor | None = None
    first_line: int = 1

    def __len__(self) -> int:
        return len(self.texts) if self.numbers is None else len(self.numbers)


def check_noise_file(configuration: Configuration) -> None:
    """Raise ConfigError, naming the entry, if a file of a configuration's label noise is missing, is not pinned, or
    cannot be the data set's, as far as is known without the data set's files."""
    noise, known = configuration.noise, KNOWN.get(configuration.dataset.source)
    if noise.path is None:
        return
    try:
        if noise.kind == "matrix":
            read_matrix(noise, None if known is None else known.classes)
            return
        labels, clean = _written(noise)
        if known is not None:
            for found in (labels, *(() if clean is None else (clean,))):
                _check_length(found, known.train_images)
                names = known.class_names or tuple(f"\0{number}" for number in range(known.classes))
                if known.class_names or found.numbers is not None:
                    _as_classes(found, names)
    except DataError as error:
        entry = ("noise", configuration.names["noise"])
        raise ConfigError(f"{'.'.join(entry)}: {error}", entry) from None


def read_matrix(config: NoiseConfig, classes: int | None) -> Tensor:
    """The matrix (m, m), float64, of ``kind: matrix``: its rows, or those of its file.

    classes: m, if it is known. Raises DataError (one line).
    """
    if config.rows is not None:
        rows: Sequence[Sequence[float]] = config.rows
        name = "rows"
    else:
        name, content = _content(config)
        rows = _rows(name, content)
    try:
        check_matrix(rows, name)
        if classes is not None:
            check_size(len(rows), classes, name)
    except ValueError as error:
        raise DataError(str(error)) from None
    return torch.tensor(rows, dtype=torch.float64)


def read_labels(
    config: NoiseConfig, clean: Tensor, classes: tuple[str, ...], in_source: InSource | None = None
) -> Tensor:
    """The labels (N,), int64, that the file of ``kind: file`` has for training images.

    clean: the images' own labels (N,). in_source: which images of the source they are; None for all.
    Raises DataError (one line) for a file that is missing, is not the pinned one or has other content than its ending
    says, for another number of labels than the source has training images, for labels that are no class, and for clean
    labels that are not the data set's.
    """
    labels, own = _written(config)
    used = in_source or InSource(torch.arange(len(clean)), len(clean))
    position = used.position
    _check_length(labels, used.images)
    found = _as_classes(labels, classes)
    if own is not None:
        _check_length(own, used.images)
        given = _as_classes(own, classes)[position]
        differs = (given != clean).nonzero()[:, 0]
        if len(differs):
            first = int(differs[0])
            raise DataError(
                f"{own.where}: the label of image {int(position[first])} (counted from 0) is "
                f"{classes[int(given[first])]}, in the data set it is {classes[int(clean[first])]}: "
                f"{len(differs):,} of {len(clean):,} differ, so the images are in another order or are others"
            )
    return found[position]


# --------------------------------------------------------------------------------------------------------- reading


def _content(config: NoiseConfig) -> tuple[str, bytes]:
    """Path and content of the configuration's file, which must have the SHA-256 that the configuration pins."""
    assert config.path is not None, "the configuration asks for a path"
    try:
        content = read_file(Path(config.path))
    except FileNotFoundError:
        raise DataError(f"path: {config.path}: does not exist; place the file there") from None
    except OSError as error:
        raise DataError(f"path: {config.path}: cannot be read ({error.strerror or error})") from None
    actual = hashlib.sha256(content).hexdigest()
    if config.sha256 is None:
        raise DataError(f"path: {config.path}: is not pinned; if it is what you want, add to the noise: "
                        f"sha256: {actual}")  # fmt: skip
    if actual != config.sha256:
        raise DataError(f"path: {config.path}: another file (its SHA-256 is {actual}, sha256 says {config.sha256})")
    return f"path: {config.path}", content


@lru_cache(maxsize=4)
def _parsed(where: str, ending: str, key: str | None, content: bytes, sha256: str) -> tuple[_Written, _Written | None]:
    if ending == ".npy":
        return _Written(where, numbers=_whole_numbers(_array(where, content), where)), None
    return _from_torch(where, content, key) if ending == ".pt" else _from_csv(where, content, key)


def _written(config: NoiseConfig) -> tuple[_Written, _Written | None]:
    """The labels, and the clean labels if the file has them."""
    where, content = _content(config)
    assert config.path is not None and config.sha256 is not None, "the content was pinned"
    return _parsed(where, Path(config.path).suffix.lower(), config.key, content, config.sha256)


def _array(where: str, content: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy raises almost anything for a damaged file
        raise DataError(f"{where}: not an .npy file of numbers ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):  # an .npz with another ending
        raise DataError(f"{where}: not an .npy file, which holds one array")
    return array


def _whole_numbers(value: object, where: str) -> Tensor:
    """A tensor or array as int64 (N,)."""
    array = value.numpy(force=True) if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu":
        kind = str(array.dtype) if isinstance(array, np.ndarray) else type(value).__name__
        raise DataError(f"{where}: holds {kind}; labels are an array of integers")
    if array.ndim != 1:
        raise DataError(f"{where}: its shape is {array.shape}; labels have one dimension")
    return torch.from_numpy(array.astype(np.int64))


def _from_torch(where: str, content: bytes, key: str | None) -> tuple[_Written, _Written | None]:
    reconstruct = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    whole = (f"{kind}{size}" for kind in ("Int", "UInt") for size in (8, 16, 32, 64))
    allowed = [
        *((reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        np.ndarray,
        np.dtype,
        *(getattr(np.dtypes, f"{name}DType") for name in whole),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler can be made to raise almost anything
        raise DataError(f"{where}: not a file of torch.save that holds only tensors and arrays of integers "
                        f"({one_line(error)}); refused")  from None  # fmt: skip
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__}, not a dictionary of labels")
    if key not in value:
        raise DataError(f"{where}: holds no {key!r}; key must be one of {_listed(value)}")
    clean = None
    if CLEAN in value:
        clean = _Written(f"{where}: {CLEAN}", numbers=_whole_numbers(value[CLEAN], f"{where}: {CLEAN}"))
    return _Written(f"{where}: {key}", numbers=_whole_numbers(value[key], f"{where}: {key}")), clean


def _listed(names: Sequence[object] | dict[object, object]) -> str:
    texts = [str(name) for name in names]
    return ", ".join(texts[:_LISTED]) + (" …" if len(texts) > _LISTED else "")


def _lines(where: str, content: bytes) -> list[list[str]]:
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: not a CSV file in UTF-8 ({one_line(error)})") from None
    while lines and not "".join(lines[-1]).strip():
        lines.pop()
    if not lines:
        raise DataError(f"{where}: is empty")
    return lines


def _from_csv(where: str, content: bytes, key: str | None) -> tuple[_Written, _Written | None]:
    lines = _lines(where, content)
    header = None if key is None else [name.strip() for name in lines[0]]
    if header is not None and key not in header:
        raise DataError(f"{where}: has no column {key!r}; {_columns(header)}")
    width = 1 if header is None else len(header)
    for number, line in enumerate(lines, 1):
        if len(line) != width:
            hint = "; name the column with key" if header is None and number == 1 else ""
            has = f"has {len(line)} columns" if line else "is empty"
            raise DataError(f"{where}: line {number} {has}, expected {width}{hint}")
    if header is None:
        return _Written(where, texts=tuple(line[0].strip() for line in lines)), None
    assert key is not None, "a header belongs to a key"

    def column(name: str) -> _Written:
        place = header.index(name)
        return _Written(f"{where}: {name}", tuple(line[place].strip() for line in lines[1:]), first_line=2)

    return column(key), column(CLEAN) if CLEAN in header else None


def _columns(header: list[str]) -> str:
    """What to say of a first line that lacks the column of the key."""
    if len(header) > 1:
        return f"key must be one of {_listed(header)}"
    said = f"its first line is {shorten(header[0])}"
    if ";" in header[0] or "\t" in header[0]:
        return f"{said}; columns are separated by commas"
    return f"{said}; if that is a label, the file has no header: remove key; else key must be that text"


def _rows(where: str, content: bytes) -> list[list[float]]:
    if where.lower().endswith(".npy"):
        array = _array(where, content)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(
                f"{where}: an array {array.shape} of {array.dtype}; a matrix is (classes, classes) of numbers"
            )
        return [[float(entry) for entry in row] for row in array]
    rows = []
    for number, line in enumerate(_lines(where, content), 1):
        try:
            rows.append([float(entry) for entry in line])
        except ValueError as error:
            raise DataError(f"{where}: line {number}: {one_line(error)}") from None
    return rows


# -------------------------------------------------------------------------------------------------------- checking


def _check_length(found: _Written, images: int) -> None:
    if len(found) != images:
        header = found.texts and found.first_line == 1 and len(found) == images + 1
        hint = (
            f" (if the first line, {shorten(found.texts[0])}, is a header, name the column with key)" if header else ""
        )
        raise DataError(
            f"{found.where}: holds {len(found):,} labels, and there are {images:,} training images; it needs one for "
            f"each image of the source, in the source's order{hint}"
        )


def _as_classes(found: _Written, classes: tuple[str, ...]) -> Tensor:
    """Classes (N,), int64. Texts are names of classes if all of them are, else numbers counted from 0."""
    if found.numbers is not None:
        outside = ((found.numbers < 0) | (found.numbers >= len(classes))).nonzero()[:, 0]
        if len(outside):
            first = int(outside[0])
            raise DataError(
                f"{found.where}: label {first} (counted from 0) is {int(found.numbers[first])}; classes are 0 to "
                f"{len(classes) - 1}"
            )
        return found.numbers
    by_name = {name: number for number, name in enumerate(classes)}
    by_number = {str(number): number for number in range(len(classes))}
    names = [by_name.get(text) for text in found.texts]
    numbers = [by_number.get(text) for text in found.texts]
    if None not in names and None not in numbers and names != numbers:
        raise DataError(f"{found.where}: its texts are names of classes, and numbers of others; give an .npy file")
    for read in (names, numbers):
        if None not in read:
            return torch.tensor(read, dtype=torch.int64)
    better = max((names, numbers), key=lambda read: len(read) - read.count(None))
    wrong = better.index(None)
    raise DataError(
        f"{found.where}: line {wrong + found.first_line}: {found.texts[wrong]!r} is no class; expected 0 to "
        f"{len(classes) - 1}, or names: {_listed(classes)}"
    )
