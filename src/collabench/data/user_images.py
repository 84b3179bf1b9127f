"""Image files that a user places: which of them are for training and for testing, their checksum, and their pixels.

The folders ``train/<class>`` and ``test/<class>`` say it themselves. Of ``<class>/<image>`` the entry says it:
``test_fraction``, ``split_file`` or ``test_path``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import unicodedata
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from collabench.config.batch_sizes import held_out
from collabench.config.data_sections import DatasetConfig
from collabench.config.yaml_file import shorten
from collabench.core.errors import DataError, Log
from collabench.core.regular import read_file
from collabench.core.seeding import numpy_generator
from collabench.data import images
from collabench.data.archives import one_line
from collabench.data.image_files import ImageFiles, digest_of_files, find_images
from collabench.data.source import Source
from collabench.data.splits import stratified_subset
from collabench.data.subset import choose
from collabench.storage.files import sha256_of

#: The columns of a split file.
COLUMNS = ["file", "split"]


def open_images(config: DatasetConfig, path: Path, log: Log) -> Source:
    """The images of the sources ``images`` and ``imagenet``. Raises DataError (one line) or BadFiles."""
    train_files, test_files = _listed(config, path)
    return source_of(config, path, train_files, log, test_files)


def source_of(
    config: DatasetConfig, path: Path, train_files: ImageFiles, log: Log, test_files: ImageFiles | None = None
) -> Source:
    """The images of these files. test_files: of the test images, if they are not among the others."""
    positions = [
        (files.splits == split).nonzero()[:, 0] for split, files in enumerate((train_files, test_files or train_files))
    ]

    def read(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        log(f"{path}: decoding {len(train) + len(test):,} images")
        wanted = positions[0][train], positions[1][test]
        if test_files is None:
            decoded = images.decode(train_files, torch.cat(wanted), config.resize, config.upright, log)
            return decoded[: len(train)], decoded[len(train) :]
        first, second = (
            images.decode(files, chosen, config.resize, config.upright, log)
            for files, chosen in zip((train_files, test_files), wanted, strict=True)
        )
        if first.shape[1:] != second.shape[1:]:
            sizes = [f"{pixels.shape[2]} x {pixels.shape[1]}" for pixels in (second, first)]
            raise DataError(f"{test_files.path}: its images are {sizes[0]} pixels, those of {path} are {sizes[1]}; "
                            "give the data set a resize")  # fmt: skip
        return first, second

    return Source(
        classes=train_files.classes,
        train_labels=train_files.labels[positions[0]],
        test_labels=(test_files or train_files).labels[positions[1]],
        shape=None if config.resize is None else (config.resize, config.resize, 3),
        read=read,
        files=train_files,
        names=tuple(
            [files.names[number] for number in numbers.tolist()]
            for files, numbers in zip((train_files, test_files or train_files), positions, strict=True)
        ),
    )


def digest(config: DatasetConfig, path: Path, *, whole: bool = False) -> str:
    """The ``sha256`` of the files of an entry.

    For an archive it is the file's SHA-256, for a folder :func:`collabench.data.image_files.digest_of_files` over the
    files that are used: those of a subset, if the configuration asks for one, with the names of all classes. If the
    entry says which images are for testing, all files count, and the split file or the test images as well.
    whole: over all files of a folder, also of a subset.
    """
    if config.is_divided_here:
        train_files, test_files = _listed(config, path)
        parts = [_of_all(train_files)]
        if test_files is not None:
            parts.append(_of_all(test_files))
        if config.split_file is not None:
            parts.append(sha256_of(Path(config.split_file)))
        return parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if path.is_file():
        return sha256_of(path)
    files, _ = _listed(config, path)
    if whole or not is_subset(config):
        return digest_of_files(path, files.names)
    numbers = [(files.splits == split).nonzero()[:, 0] for split in (0, 1)]
    chosen = choose(config, files.labels[numbers[0]], files.labels[numbers[1]])
    used = torch.cat([split[index] for split, index in zip(numbers, chosen, strict=True)])
    return digest_of_files(path, [files.names[number] for number in used.tolist()], files.classes)


def is_subset(config: DatasetConfig) -> bool:
    """Whether only the images of a subset are hashed."""
    return not config.is_divided_here and (config.train_images is not None or config.test_images is not None)


def _of_all(files: ImageFiles) -> str:
    return sha256_of(files.path) if files.from_archive else digest_of_files(files.path, files.names)


def _listed(config: DatasetConfig, path: Path) -> tuple[ImageFiles, ImageFiles | None]:
    """The files at an entry's path, with their splits, and those at its ``test_path``."""
    if not config.is_divided_here:
        return find_images(path, ("train", "val" if config.source == "imagenet" else "test")), None
    if config.test_path is not None and Path(config.test_path).resolve() == path.resolve():
        raise DataError(f"{path}: path and test_path are the same: every test image would be trained on; name another "
                        "folder, or take test_fraction")  # fmt: skip
    files = find_images(path, None)
    if config.test_path is None:
        divided = _by_table(Path(config.split_file), files) if config.split_file else _by_chance(config, files)
        return replace(files, splits=divided), None
    tested = find_images(Path(config.test_path), None)
    for here, there in ((files, tested), (tested, files)):
        if missing := sorted(set(here.classes) - set(there.classes)):
            raise DataError(f"{there.path}: has no images of the class {missing[0]!r}, which {here.path} has")
    return files, replace(tested, splits=torch.ones_like(tested.splits))


def _by_chance(config: DatasetConfig, files: ImageFiles) -> Tensor:
    """The split (N,) of every file: of every class the share ``test_fraction`` is for testing."""
    assert config.test_fraction is not None, "the configuration says how the images are divided"
    count = len(files.labels)
    chosen = stratified_subset(
        files.labels,
        held_out(count, config.test_fraction),
        numpy_generator(config.split_seed, "split", "test_fraction"),
    )
    splits = torch.zeros(count, dtype=torch.int64)
    splits[chosen] = 1
    for number, name in enumerate(files.classes):
        own = splits[files.labels == number]
        if not 0 < own.sum() < len(own):
            what = "test" if not own.sum() else "training"
            raise DataError(f"{files.path}: test_fraction {config.test_fraction:g} of the {len(own)} images of the "
                            f"class {name!r} leaves no {what} image; give the class more images, or take another "
                            "fraction")  # fmt: skip
    return splits


def _by_table(table: Path, files: ImageFiles) -> Tensor:
    """The split (N,) of every file by a table of file and split. Raises DataError, naming the table and its line."""
    try:
        content = read_file(table).decode("utf-8-sig")
        lines = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({one_line(error)})") from None
    if not lines or [name.strip() for name in lines[0]] != COLUMNS:
        raise DataError(f"{table}: its first line must be {','.join(COLUMNS)}")
    number_of = {_short(name): number for number, name in enumerate(files.names)}
    splits = torch.full((len(files.names),), -1)
    for at, line in enumerate(lines[1:], 2):
        if not "".join(line).strip():
            continue
        if len(line) != 2 or line[1].strip() not in ("train", "test"):
            raise DataError(f"{table}: line {at}: expected <class>/<image>,train or <class>/<image>,test (it says "
                            f"{shorten(','.join(line))})")  # fmt: skip
        name = unicodedata.normalize("NFC", line[0].strip())
        if name not in number_of:
            raise DataError(f"{table}: line {at}: {name!r} is no image of {files.path} (expected <class>/<image>)")
        if splits[number_of[name]] >= 0:
            raise DataError(f"{table}: line {at}: {name!r} is listed twice")
        splits[number_of[name]] = int(line[1].strip() == "test")
    left = (splits < 0).nonzero()[:, 0]
    if len(left):
        others = f", and {len(left) - 1:,} more" if len(left) > 1 else ""
        raise DataError(f"{table}: does not list {_short(files.names[int(left[0])])}{others}; list every image, or "
                        "move those that are not used elsewhere")  # fmt: skip
    for number, name in enumerate(files.classes):
        for split, what in enumerate(("train", "test")):
            if not ((files.labels == number) & (splits == split)).any():
                raise DataError(f"{table}: gives the class {name!r} no image for {what}")
    return splits


def _short(name: str) -> str:
    """``<class>/<image>``, in Unicode's composed form, without an archive's top folder."""
    return unicodedata.normalize("NFC", "/".join(name.split("/")[-2:]))
