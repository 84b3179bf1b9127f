"""Facts about each known data set: title, shape, classes, number of images, origin and terms.

An origin is given only if a file of this project's packages states it; the comment names that file. None of these files
states the terms, so the terms are ``unknown``, with the page that states them.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Data sets whose files the project can find or download without a checksum in ``params.yaml``.
PINNED_SOURCES = ("digits", "cifar10", "cifar100", "stl10", "mnist", "fashion_mnist", "kmnist", "svhn", "imagenette")
#: Those whose images are files of their own, which are decoded, and resized where the entry says so.
DECODED_SOURCES = ("imagenet", "imagenette", "tiny_imagenet", "images")


@dataclass(frozen=True)
class Terms:
    """origin: what the data set is. licence: the terms, or ``unknown`` and who states them."""

    origin: str
    licence: str


def _see(page: str) -> str:
    return f"unknown: see {page}"


@dataclass(frozen=True)
class KnownDataset:
    """Facts about a data set that are known without its files.

    shape: (channels, height, width) of an image. classes: their number. class_names: given for data sets with few
    classes, for noise that names them.
    """

    title: str
    shape: tuple[int, int, int]
    classes: int
    train_images: int
    test_images: int
    terms: Terms
    class_names: tuple[str, ...] = ()


#: Source of ``params.yaml`` → facts about it.
KNOWN: dict[str, KnownDataset] = {
    "digits": KnownDataset(
        "digits", (1, 8, 8), 10, 1437, 360,
        # sklearn/datasets/descr/digits.rst: origin, creator, date, address
        Terms(
            "a copy, by scikit-learn, of the test set of the UCI hand-written digits (E. Alpaydin, 1998)",
            _see("https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits"),
        ),
        tuple("0123456789"),
    ),
    "cifar10": KnownDataset(
        "CIFAR-10", (3, 32, 32), 10, 50_000, 10_000,
        # torchvision/datasets/cifar.py: names, address
        Terms("CIFAR-10", _see("https://www.cs.toronto.edu/~kriz/cifar.html")),
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": KnownDataset(
        "CIFAR-100", (3, 32, 32), 100, 50_000, 10_000,
        # torchvision/datasets/cifar.py: names, address
        Terms("CIFAR-100", _see("https://www.cs.toronto.edu/~kriz/cifar.html")),
    ),
    "stl10": KnownDataset(
        "STL-10", (3, 96, 96), 10, 5_000, 8_000,
        # torchvision/datasets/stl10.py: name, address
        Terms("STL-10", _see("https://cs.stanford.edu/~acoates/stl10/")),
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    ),
    "imagenet32": KnownDataset(
        "ImageNet32", (3, 32, 32), 1000, 1_281_167, 50_000,
        # torchvision/datasets/imagenet.py: name, address
        Terms("ImageNet at 32x32 pixels", _see("https://image-net.org/")),
    ),
    "imagenet": KnownDataset(
        "ImageNet", (3, 224, 224), 1000, 1_281_167, 50_000,
        # torchvision/datasets/imagenet.py: name, address
        Terms("ImageNet 2012 Classification Dataset", _see("https://image-net.org/")),
    ),
    "mnist": KnownDataset(
        "MNIST", (1, 28, 28), 10, 60_000, 10_000,
        # torchvision/datasets/mnist.py: names, address
        Terms("MNIST", _see("http://yann.lecun.com/exdb/mnist/")),
        tuple("0123456789"),
    ),
    "fashion_mnist": KnownDataset(
        "Fashion-MNIST", (1, 28, 28), 10, 60_000, 10_000,
        # torchvision/datasets/mnist.py: names, address
        Terms("Fashion-MNIST", _see("https://github.com/zalandoresearch/fashion-mnist")),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": KnownDataset(
        "Kuzushiji-MNIST", (1, 28, 28), 10, 60_000, 10_000,
        # torchvision/datasets/mnist.py: names, address
        Terms("Kuzushiji-MNIST", _see("https://github.com/rois-codh/kmnist")),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "svhn": KnownDataset(
        "SVHN", (3, 32, 32), 10, 73_257, 26_032,
        # torchvision/datasets/svhn.py: name, address
        Terms("Street View House Numbers, cropped", _see("http://ufldl.stanford.edu/housenumbers/")),
        tuple("0123456789"),
    ),
    "imagenette": KnownDataset(
        "Imagenette (160 px)", (3, 160, 160), 10, 9_469, 3_925,
        # torchvision/datasets/imagenette.py: name, names of classes, address
        Terms("ten classes of ImageNet", _see("https://github.com/fastai/imagenette")),
        ("tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
         "gas pump", "golf ball", "parachute"),
    ),
    "tiny_imagenet": KnownDataset(
        "Tiny-ImageNet", (3, 64, 64), 200, 100_000, 10_000,
        Terms("200 classes of ImageNet at 64x64 pixels", _see("http://cs231n.stanford.edu/")),
    ),
}  # fmt: skip


#: Similar classes of CIFAR-10 (docs/methods.md: truck→automobile, bird→airplane, deer→horse, cat↔dog).
CIFAR10_PAIRS = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}


def look_alikes(classes: tuple[str, ...]) -> dict[str, str]:
    """Class → the class that asymmetric noise mistakes it for, unless a configuration names the pairs.

    :data:`CIFAR10_PAIRS` if the classes are CIFAR-10's (by name), else the next class, cyclically.
    """
    if len(classes) == 10 and CIFAR10_PAIRS.keys() | set(CIFAR10_PAIRS.values()) <= set(classes):
        return CIFAR10_PAIRS
    return dict(zip(classes, (*classes[1:], *classes[:1]), strict=True))


def terms_of(source: str) -> Terms:
    """The terms of a data set's source; unknown for files that a user provides."""
    known = KNOWN.get(source)
    return known.terms if known else Terms("files that the user placed", "unknown: ask whoever made the files")
