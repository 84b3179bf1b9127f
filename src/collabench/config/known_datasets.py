"""The facts about each known data set: title, shape, classes, number of images, origin and terms.

An origin stands here only if a file of this project's packages states it; the comment names that file. None of these files
states the terms, so the terms are ``unknown``, with the page that states them.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLES = {
    "digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "stl10": "STL-10", "imagenet32": "ImageNet32",
    "imagenet": "ImageNet",
}  # fmt: skip

#: Data sets whose files the project can find or fetch without being told a checksum.
PINNED_SOURCES = ("digits", "cifar10", "cifar100", "stl10")

#: (channels, height, width) and number of classes of the data sets whose form is known without their files.
KNOWN_SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "stl10": ((3, 96, 96), 10),
    "imagenet32": ((3, 32, 32), 1000),
    "imagenet": ((3, 224, 224), 1000),
}

#: Training and test images of the same data sets.
KNOWN_IMAGES: dict[str, tuple[int, int]] = {
    "digits": (1437, 360),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "stl10": (5_000, 8_000),
    "imagenet32": (1_281_167, 50_000),
    "imagenet": (1_281_167, 50_000),
}

#: Names of the classes of those with few, for noise that names them.
KNOWN_CLASSES: dict[str, tuple[str, ...]] = {
    "digits": tuple("0123456789"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}


@dataclass(frozen=True)
class Terms:
    """origin: what the data set is. licence: the terms, or ``unknown`` and who states them."""

    origin: str
    licence: str


def _see(page: str) -> str:
    return f"unknown: see {page}"


TERMS = {
    # sklearn/datasets/descr/digits.rst: origin, creator, date, address
    "digits": Terms(
        "a copy, by scikit-learn, of the test set of the UCI hand-written digits (E. Alpaydin, 1998)",
        _see("https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits"),
    ),
    # torchvision/datasets/cifar.py: names, address
    "cifar10": Terms("CIFAR-10", _see("https://www.cs.toronto.edu/~kriz/cifar.html")),
    "cifar100": Terms("CIFAR-100", _see("https://www.cs.toronto.edu/~kriz/cifar.html")),
    # torchvision/datasets/stl10.py: name, address
    "stl10": Terms("STL-10", _see("https://cs.stanford.edu/~acoates/stl10/")),
    # torchvision/datasets/imagenet.py: name, address
    "imagenet32": Terms("ImageNet at 32x32 pixels", _see("https://image-net.org/")),
    "imagenet": Terms("ImageNet 2012 Classification Dataset", _see("https://image-net.org/")),
}


def terms_of(source: str) -> Terms:
    """The terms of a data set's source; unknown for files that a user placed."""
    return TERMS.get(source) or Terms("files that the user placed", "unknown: ask whoever made the files")
