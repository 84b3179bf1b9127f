"""Files of noisy labels and of matrices: what is read, and what is refused in one line."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from collabench import data
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.core.errors import DataError
from collabench.data import noise
from collabench.data.label_files import InSource, read_labels, read_matrix
from tests.support import official_formats
from tests.support.official_formats import CIFAR10_CLASSES, write_cifar10n

CLASSES = ("cat", "dog", "bird")
CLEAN = torch.tensor([0, 1, 2, 0, 1, 2])
NOISY = [0, 1, 2, 1, 1, 0]
KEYS = ("worse_label", "aggre_label", "random_label1", "random_label2", "random_label3", "clean_label")


def pinned(path: Path, key: str | None = None, kind: str = "file") -> NoiseConfig:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return NoiseConfig(kind=kind, path=str(path), sha256=sha256, key=key)


def written(path: Path, content: object) -> Path:
    if isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(content, path)
    return path


NUMBERS = "".join(f"{label}\n" for label in NOISY)
NAMES = "".join(f"{CLASSES[label]}\n" for label in NOISY)
COLUMNS = "image,label,clean_label\n" + "".join(
    f"{n}.png,{label},{CLASSES[clean]}\n" for n, (label, clean) in enumerate(zip(NOISY, CLEAN, strict=True))
)


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("l.npy", np.array(NOISY, dtype=np.uint8), None),
        ("l.npy", np.array(NOISY, dtype=">i4"), None),
        ("l.csv", NUMBERS, None),
        ("l.csv", NUMBERS.replace("\n", "\r\n") + "\n", None),
        ("l.csv", "\ufeff" + NAMES, None),
        ("l.csv", COLUMNS, "label"),
        ("l.pt", {"noisy_label": np.array(NOISY), "clean_label": CLEAN.numpy()}, "noisy_label"),
        ("l.pt", {"noisy_label": torch.tensor(NOISY, dtype=torch.uint8)}, "noisy_label"),
    ],
)
def test_labels_are_read(tmp_path, name, content, key):
    config = pinned(written(tmp_path / name, content), key)
    assert read_labels(config, CLEAN, CLASSES).tolist() == NOISY
    chosen = torch.tensor([1, 3, 5])
    assert read_labels(config, CLEAN[chosen], CLASSES, InSource(chosen, 6)).tolist() == [1, 1, 0]


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_the_official_format_of_cifar10n(tmp_path, tensors, legacy, key):
    clean = official_formats.labels_of(100, 10)
    path = tmp_path / "CIFAR-10_human.pt"
    write_cifar10n(path, clean, tensors=tensors, legacy=legacy)
    given = torch.load(path, weights_only=False)[key]
    config = pinned(path, key)
    drawn = noise.draw(config, torch.from_numpy(clean), CIFAR10_CLASSES, 0)
    assert drawn.noisy.tolist() == given.tolist()
    assert torch.equal(drawn.mask, drawn.noisy != drawn.clean)
    assert drawn.corruption == (given.tolist() != clean).mean()
    assert torch.equal(drawn.transition, noise.realised(drawn.clean, drawn.noisy, 10))
    if key == "worse_label":
        assert 0.2 < drawn.corruption < 0.6


def test_images_in_another_order_are_refused_with_the_first_that_differs(tmp_path):
    clean = official_formats.labels_of(100, 10)
    path = tmp_path / "CIFAR-10_human.pt"
    write_cifar10n(path, clean)
    moved = clean.copy()
    moved[[37, 38]] = moved[[38, 37]]
    config = pinned(path, "worse_label")
    with pytest.raises(DataError, match=r"image 37 \(counted from 0\) is horse, in the data set it is ship: 2 of 100"):
        noise.draw(config, torch.from_numpy(moved), CIFAR10_CLASSES, 0)
    kept = torch.tensor([5, 38, 60])
    with pytest.raises(DataError, match=r"image 38 \(counted from 0\) is ship, .* horse: 1 of 3"):
        read_labels(config, torch.from_numpy(moved)[kept], CIFAR10_CLASSES, InSource(kept, 100))


REFUSED = {
    "a number that is no class": (
        "l.npy",
        np.array([0, 1, 2, 3, 0, 0]),
        None,
        "label 3 (counted from 0) is 3; classes",
    ),
    "a negative number": ("l.npy", np.array([0, 1, -1, 0, 0, 0]), None, "label 2 (counted from 0) is -1"),
    "fractions": ("l.npy", np.zeros(6), None, "holds float64; labels are an array of integers"),
    "two dimensions": ("l.npy", np.zeros((6, 1), dtype=int), None, "its shape is (6, 1); labels have one dimension"),
    "objects": ("l.npy", pickle.dumps([1]), None, "not an .npy file of numbers"),
    "too few": ("l.npy", np.zeros(5, dtype=int), None, "holds 5 labels, and there are 6 training images"),
    "too many": ("l.csv", NUMBERS + "1\n", None, "holds 7 labels, and there are 6 training images"),
    "no class": (
        "l.csv",
        NAMES.replace("bird", "brid"),
        None,
        "line 3: 'brid' is no class; expected 0 to 2, or names: ",
    ),
    "a hole": ("l.csv", NUMBERS.replace("2\n", "\n"), None, "line 3 is empty, expected 1"),
    "a header without a key": (
        "l.csv",
        "label\n" + NUMBERS,
        None,
        "(if the first line, 'label', is a header, name the ",
    ),
    "a key without a header": (
        "l.csv",
        NUMBERS,
        "label",
        "no column 'label'; its first line is '0'; if that is a label",
    ),
    "semicolons": ("l.csv", COLUMNS.replace(",", ";"), "label", "columns are separated by commas"),
    "columns without a key": ("l.csv", COLUMNS, None, "line 1 has 3 columns, expected 1; name the column with key"),
    "another column": ("l.csv", COLUMNS, "noisy", "no column 'noisy'; key must be one of image, label, clean_label"),
    "an incomplete line": ("l.csv", COLUMNS + "6.png,1\n", "label", "line 8 has 2 columns, expected 3"),
    "no text": ("l.csv", b"\xff\xfe0", None, "not a CSV file in UTF-8"),
    "an empty file": ("l.csv", "\n", None, "is empty"),
    "other clean labels": ("l.csv", COLUMNS.replace(",1,dog", ",1,cat"), "label", "the label of image 1 "),
    "another entry": (
        "l.pt",
        {"a": CLEAN, "b": CLEAN},
        "noisy_label",
        "holds no 'noisy_label'; key must be one of a, b",
    ),
    "a list": ("l.pt", [1, 2], "a", "holds a list, not a dictionary of labels"),
    "a text": ("l.pt", {"a": "cat"}, "a", "a: holds str; labels are an array of integers"),
    "no file of torch": ("l.pt", b"PK\x03\x04", "a", "not a file of torch.save that holds only tensors"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    file, content, key, message = REFUSED[name]
    path = written(tmp_path / file, content)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_labels(pinned(path, key), CLEAN, CLASSES)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_texts_that_are_names_of_some_classes_and_numbers_of_others(tmp_path):
    path = written(tmp_path / "l.csv", "1\n2\n")
    with pytest.raises(DataError, match="names of classes, and numbers of others"):
        read_labels(pinned(path), torch.tensor([0, 1]), ("1", "2", "3"))
    path = written(tmp_path / "m.csv", "1\n3\n")  # there is no class number 3
    assert read_labels(pinned(path), torch.tensor([0, 1]), ("1", "2", "3")).tolist() == [0, 2]


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_executed(tmp_path, legacy):
    trace, path = tmp_path / "executed", tmp_path / "l.pt"
    torch.save({"a": Harmful(trace)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DataError, match="refused"):
        read_labels(pinned(path, "a"), CLEAN, CLASSES)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # it would have been
    assert trace.exists()


def test_a_file_that_is_missing_changed_or_not_pinned(tmp_path):
    path = tmp_path / "l.npy"
    with pytest.raises(DataError, match="does not exist; place the file there"):
        read_labels(pinned(path), CLEAN, CLASSES)
    written(path, np.array(NOISY))
    config = pinned(path)
    with pytest.raises(DataError, match=f"is not pinned; .* sha256: {config.sha256}$"):
        read_labels(config.model_copy(update={"sha256": None}), CLEAN, CLASSES)
    written(path, np.array(NOISY[::-1]))
    with pytest.raises(DataError, match=f"another file .* sha256 says {config.sha256}"):
        read_labels(config, CLEAN, CLASSES)
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(pinned(tmp_path / "l.npy").model_copy(update={"path": str(tmp_path)}), CLEAN, CLASSES)


def test_a_matrix_of_a_file(tmp_path):
    rows = [[0.9, 0.1], [0.25, 0.75]]
    array = written(tmp_path / "m.npy", np.array(rows))
    text = written(tmp_path / "m.csv", "0.9,0.1\n0.25, 0.75\n")
    for path in (array, text):
        assert read_matrix(pinned(path, kind="matrix"), 2).tolist() == rows
        with pytest.raises(DataError, match=r"is 2 x 2, and the data set has 3 classes"):
            read_matrix(pinned(path, kind="matrix"), 3)
    for content, message in (
        ("0.9,0.2\n0.5,0.5\n", "row 1 sums to 1.1"),
        ("0.9,a\n0.5,0.5\n", "line 1: could not convert"),
        ("0.9,nan\n0.5,0.5\n", "row 1 holds nan"),
    ):
        with pytest.raises(DataError, match=message):
            read_matrix(pinned(written(text, content), kind="matrix"), 2)
    with pytest.raises(DataError, match=r"an array \(4,\) of float64"):
        read_matrix(pinned(written(array, np.ones(4)), kind="matrix"), 2)


@pytest.mark.parametrize("split", ["fixed", "per_seed"])
def test_a_subset_takes_the_labels_of_its_images(tmp_path, split):
    """Images are recognised by their pixels."""
    official = {"cifar10": official_formats.write_cifar10(tmp_path, 20)}
    whole = DatasetConfig(source="cifar10")
    data.prepare(whole, tmp_path, tmp_path / "whole", official=official)
    all_images = data.load(tmp_path / "whole")
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(all_images.train_images)}
    path = tmp_path / "CIFAR-10_human.pt"
    write_cifar10n(path, all_images.train_labels.numpy())
    given = torch.load(path, weights_only=False)["worse_label"]
    config = DatasetConfig(source="cifar10", train_images=30, split=split)
    data.prepare(config, tmp_path, tmp_path / "prepared", official=official)
    pool = data.load(tmp_path / "prepared")
    for seed in (0, 1):
        seen = data.split_for_seed(pool, config, seed)
        used = data.position_in_source(config, pool, seed, tmp_path, official=official)
        assert used is not None and used.images == 100
        drawn = noise.draw(pinned(path, "worse_label"), seen.train_labels, seen.classes, seed, in_source=used)
        expected = [int(given[numbers[image.numpy().tobytes()]]) for image in seen.train_images]
        assert len(expected) == 30 and drawn.noisy.tolist() == expected
    assert data.position_in_source(whole, all_images, 0, tmp_path, official=official) is None
