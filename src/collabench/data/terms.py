"""Where the images of each source come from and on which terms: facts for a model card.

A fact stands here only if a file says it that everybody has who has this project's packages; the comment names it. None of
them says anything on terms: these are then unknown, with the page that knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from collabench.config import DatasetConfig


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


def terms_of(config: DatasetConfig) -> Terms:
    """The terms of a data set's source; unknown for files that a user placed."""
    return TERMS.get(config.source) or Terms("files that the user placed", "unknown: ask whoever made the files")
