"""The sections ``datasets`` and ``noise`` of ``params.yaml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from collabench.config.fields import ClassName, Line, Sha256
from collabench.config.known_datasets import DECODED_SOURCES, PINNED_SOURCES
from collabench.config.matrices import check_matrix
from collabench.core.record import LATER, NO_REPEATS, Record

#: What is known of a data set's labels.
Labels = Literal["clean", "given", "noisy"]


class DatasetConfig(Record):
    """The source of the images, and which of them are used.

    ``train_images`` and ``test_images`` choose stratified subsets. ``split: fixed``: ``split_seed`` determines them,
    and the test set is the same for every run. ``split: per_seed``: they are drawn for every seed of a study, the same
    for all methods, so that results speak of the whole pool of images. ``test_on_rest``: every image outside the
    training set is a test image.
    ``exif_orientation``: whether images that were stored turned or mirrored are turned as their EXIF data say
    (``applied``), or kept as they are stored (Pillow turns TIFF files always).
    ``test_fraction``, ``split_file`` and ``test_path`` are for a folder of class folders that is not divided into
    ``train`` and ``test``. ``test_fraction``: this share of every class is for testing; ``split_seed`` says which
    images. ``split_file``: a table with the columns ``file`` and ``split``. ``test_path``: another folder or archive
    of class folders, which holds the test images.
    ``labels``: what is known of the labels, in words of reports and model cards. ``given``: nobody has checked them
    (the default of ``source: images``). ``clean``: they were checked (the default of other sources). ``noisy``: some
    are known to be wrong, those of the test images as well unless they lie at ``test_path``.
    """

    source: Literal["digits", "cifar10", "cifar100", "stl10", "imagenet32", "imagenet", "images", "mnist",
                    "fashion_mnist", "kmnist", "svhn", "imagenette", "tiny_imagenet", "medmnist"]  # fmt: skip
    title: Annotated[Line, Field(max_length=80)] | None = None
    path: str | None = Field(default=None, min_length=1)
    sha256: Sha256 | None = None
    mirrors: Annotated[tuple[str, ...], NO_REPEATS] = ()
    resize: int | None = Field(default=None, ge=4, le=1024)
    labels: Labels | None = None
    exif_orientation: Annotated[Literal["ignored", "applied"], LATER] = "ignored"
    train_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_on_rest: bool = False
    test_fraction: Annotated[float | None, Field(gt=0, lt=1), LATER] = None
    split_file: str | None = Field(default=None, min_length=1)
    test_path: str | None = Field(default=None, min_length=1)
    split: Annotated[Literal["fixed", "per_seed"], LATER] = "fixed"
    split_seed: int = Field(default=0, ge=0, lt=10_000)

    @model_validator(mode="after")
    def _fits_source(self) -> Self:
        if self.source in PINNED_SOURCES and self.sha256 is not None:
            raise ValueError(f"sha256 is fixed by the source {self.source!r}; remove it")
        if self.source not in DECODED_SOURCES and self.resize is not None:
            raise ValueError(f"resize is for images that are decoded from files; those of {self.source!r} are kept as "
                             "they are; remove it")  # fmt: skip
        if self.source not in DECODED_SOURCES and self.upright:
            raise ValueError(f"exif_orientation is for images that are decoded from files, not for {self.source!r}; "
                             "remove it")  # fmt: skip
        if self.source == "digits" and self.path is not None:
            raise ValueError("digits is embedded and has no path; remove it")
        if self.source not in PINNED_SOURCES and self.path is None:
            raise ValueError(f"the source {self.source!r} needs a path: the folder or archive that holds its files")
        if self.source == "imagenette" and self.resize is None:
            raise ValueError("the images of imagenette have many sizes: add a resize, such as resize: 128")
        if self.mirrors and (self.source not in PINNED_SOURCES or self.source == "digits"):
            raise ValueError(f"mirrors are for data sets that can be downloaded; {self.source!r} is not")
        for mirror in self.mirrors:
            if not re.match(r"^https?://", mirror):
                raise ValueError(f"the mirror {mirror!r} must begin with http:// or https://")
        if self.test_on_rest and (self.train_images is None or self.source != "digits"):
            raise ValueError("test_on_rest is for digits with train_images set")
        dividing = [name for name in ("test_fraction", "split_file", "test_path") if getattr(self, name) is not None]
        if dividing and self.source != "images":
            raise ValueError(f"{dividing[0]} is for source: images; {self.source!r} has test images of its own")
        if len(dividing) > 1:
            raise ValueError(f"{dividing[0]} and {dividing[1]} both say which images are for testing; remove one")
        subset = self.train_images is not None or self.test_images is not None
        if self.split_seed and not subset and self.test_fraction is None:
            raise ValueError("split_seed decides which images are used: it belongs to train_images, test_images or "
                             "test_fraction")  # fmt: skip
        if self.split == "per_seed" and self.train_images is None and self.test_images is None:
            raise ValueError("split: per_seed draws which images are used: it belongs to train_images or test_images")
        if self.split == "per_seed" and self.split_seed:
            raise ValueError("split_seed belongs to split: fixed; per_seed draws the split from a run's own seed")
        return self

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        return self.exif_orientation == "applied"

    @property
    def training_labels(self) -> Labels:
        """What is known of the training labels."""
        return self.labels or ("given" if self.source == "images" else "clean")

    @property
    def test_labels(self) -> Labels:
        """What is known of the test labels: as of the training labels, except in a folder of test images that stands
        beside noisy ones."""
        apart = self.labels == "noisy" and self.test_path is not None
        return "given" if apart else self.training_labels

    @property
    def is_divided_here(self) -> bool:
        """Whether the entry says which images are for testing, and not the files' folders."""
        return not (self.test_fraction is None and self.split_file is None and self.test_path is None)

    def pool(self) -> Self:
        """The entry of the images that are prepared: this one, or without its subsets if they are drawn per seed."""
        if self.split == "fixed":
            return self
        unset = {name: type(self).model_fields[name].default for name in ("split", "train_images", "test_images")}
        return self.model_copy(update={**unset, "test_on_rest": False})

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all but the paths, the mirrors, and what is for people.
        ``sha256`` stands for the files at all paths."""
        return self.identity_fields(exclude=("title", "labels", "path", "mirrors", "split_file", "test_path"))


class NoiseConfig(Record):
    """Label noise of the training split.

    ``rate``: the share of labels that are redrawn over all classes (``uniform``; one in m of them stays right), or that
    are wrong (``symmetric``, ``asymmetric``, ``pair``), or the mean of the images' own rates (``instance``).
    ``rows``: the matrix: the probability of every label (column) for an image of every class (row).
    ``path``: the file that holds the matrix (``kind: matrix``) or the labels (``kind: file``), relative to the folder
    of ``params.yaml``. ``sha256``: its SHA-256, which stands for it in the run's identity. Without it nothing is
    trained. ``key``: which labels, of a file that holds several.
    """

    kind: Literal["none", "uniform", "symmetric", "asymmetric", "pair", "instance", "matrix", "file"]
    rate: float = Field(default=0.0, ge=0.0, le=1.0)
    when: Literal["static", "per_epoch"] = "static"
    count: Literal["exact", "bernoulli"] = "exact"
    hit: Literal["redrawn", "fixed"] = "redrawn"
    pairs: dict[ClassName, ClassName] | None = None
    rows: Annotated[tuple[tuple[float, ...], ...] | None, LATER] = None
    path: str | None = Field(default=None, min_length=1)
    sha256: Annotated[Sha256 | None, LATER] = None
    key: Annotated[Line | None, LATER] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind in ("matrix", "file"):
            self._check_given()
        elif (self.kind == "none") != (self.rate == 0.0):
            none = "kind: none changes no label: it has no rate above 0; remove rate"
            raise ValueError(none if self.kind == "none" else f"kind: {self.kind} needs a rate above 0: rate: 0.2")
        fixed = {"none": "changes no label", "file": "draws no label",
                 "instance": "draws each image's label once, by the image's own probabilities"}  # fmt: skip
        if self.kind in fixed and (self.when, self.count, self.hit) != ("static", "exact", "redrawn"):
            why = fixed[self.kind]
            raise ValueError(f"kind: {self.kind} {why}; remove when, count and hit")
        if self.pairs is not None and self.kind != "asymmetric":
            raise ValueError("pairs belong to kind: asymmetric")
        if self.pairs is not None and not self.pairs:
            raise ValueError("pairs names no pair, so no label could be wrong; remove it or name some")
        for name, partner in (self.pairs or {}).items():
            if name == partner:
                raise ValueError(f"pairs: {name!r} is paired with itself")
        if self.rows is not None and self.kind != "matrix":
            raise ValueError("rows belong to kind: matrix")
        if self.path is not None and self.kind not in ("matrix", "file"):
            raise ValueError("path belongs to kind: matrix and kind: file")
        if self.sha256 is not None and self.path is None:
            raise ValueError("sha256 belongs to path: it is the checksum of that file")
        if self.key is not None and self.kind != "file":
            raise ValueError("key belongs to kind: file")
        if self.rate == 1 and (self.count, self.hit) != ("exact", "redrawn"):
            raise ValueError("count and hit say which labels are hit: with rate 1 all of them are; remove both")
        if self.hit == "fixed" and self.when == "static":
            raise ValueError("hit: fixed belongs to when: per_epoch (static noise hits the same images always)")
        return self

    def _check_given(self) -> None:
        """Raise ValueError if it is not clear where a given matrix, or given labels, are."""
        if self.rate:
            raise ValueError(f"kind: {self.kind} says itself which labels become wrong; remove rate")
        if self.kind == "matrix" and (self.rows is None) == (self.path is None):
            raise ValueError("kind: matrix needs either rows or path (a file that holds them)")
        if self.rows is not None:
            check_matrix(self.rows, "rows")
        if self.kind == "file" and self.path is None:
            raise ValueError("kind: file needs a path: the file that holds the labels")
        if self.path is None:
            return
        ending = self.path[self.path.rfind(".") :].lower() if "." in self.path else ""
        known = (".npy", ".csv", ".pt") if self.kind == "file" else (".npy", ".csv")
        if ending not in known:
            raise ValueError(f"path: {self.path!r} must end with {', '.join(known[:-1])} or {known[-1]}")
        if ending == ".pt" and self.key is None:
            raise ValueError("a .pt file holds several kinds of labels: name one with key, such as key: worse_label")
        if ending == ".npy" and self.key is not None:
            raise ValueError("a .npy file holds one array; remove key")

    @property
    def is_static(self) -> bool:
        """Whether the noisy labels are drawn once, before training, and stored in a file."""
        return self.kind != "none" and self.when == "static"

    @property
    def is_drawn_anew(self) -> bool:
        """Whether every epoch draws its own noisy labels."""
        return self.when == "per_epoch"

    @property
    def asked_rate(self) -> float | None:
        """The share of labels that is asked for; None if a matrix or a file determines it."""
        return None if self.kind in ("matrix", "file") else self.rate

    def with_absolute_paths(self, folder: Path) -> Self:
        """These settings with a relative path resolved against ``folder``, the folder of ``params.yaml``."""
        return self if self.path is None else self.model_copy(update={"path": str(folder / self.path)})

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all but the path, for which the checksum stands."""
        return self.identity_fields(exclude=("path",))
