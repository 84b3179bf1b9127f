"""Where the images of each source come from and on which terms: facts for a model card, ``unknown`` where none is stated."""

from __future__ import annotations

from dataclasses import dataclass

from collabench.config import DatasetConfig


@dataclass(frozen=True)
class Terms:
    """origin: who made the data set, of what. licence: the terms, as their source states them."""

    origin: str
    licence: str


_IMAGENET = (
    "no licence for the images; access is given to researchers who agree to its terms: non-commercial research and "
    "education only (image-net.org)"
)

TERMS = {
    "digits": Terms(
        "the test part of Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998), as scikit-learn has it",
        "CC BY 4.0, as the UCI Machine Learning Repository states",
    ),
    "cifar10": Terms(
        "CIFAR-10 (A. Krizhevsky, V. Nair, G. Hinton, 2009), labelled images from 80 Million Tiny Images, which its makers "
        "withdrew in 2020",
        "unknown: its authors state none",
    ),
    "cifar100": Terms(
        "CIFAR-100 (A. Krizhevsky, V. Nair, G. Hinton, 2009), labelled images from 80 Million Tiny Images, which its makers "
        "withdrew in 2020",
        "unknown: its authors state none",
    ),
    "stl10": Terms(
        "STL-10 (A. Coates, H. Lee, A. Y. Ng, 2011), images from ImageNet",
        "unknown: its authors state none; for ImageNet: " + _IMAGENET,
    ),
    "imagenet32": Terms("ImageNet at 32x32 pixels (P. Chrabaszcz, I. Loshchilov, F. Hutter, 2017)", _IMAGENET),
    "imagenet": Terms("ImageNet, ILSVRC 2012 (O. Russakovsky and others, 2015)", _IMAGENET),
}


def terms_of(config: DatasetConfig) -> Terms:
    """The terms of a data set's source; unknown for files that a user placed."""
    return TERMS.get(config.source) or Terms("files that the user placed", "unknown: ask whoever made the files")
