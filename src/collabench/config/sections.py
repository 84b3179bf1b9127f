"""The typed sections of ``params.yaml``: data sets, noise, models, recipes, methods and profiles.

Everything is checked before anything runs. An unknown key, a wrong type, a value out of range or an undefined name
gives one :class:`~collabench.core.errors.ConfigError` with file, line, key and a remedy.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from collabench.config.batch_sizes import LastBatch
from collabench.config.known_datasets import DECODED_SOURCES, PINNED_SOURCES
from collabench.config.matrices import check_matrix
from collabench.core.record import LATER, NO_REPEATS, Record
from collabench.methods import METHODS, MethodSettings
from collabench.models import FAMILIES, ModelSettings

# ------------------------------------------------------------------------------------------------ the sections

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]


class _AsWritten:
    """The type of :data:`AS_WRITTEN`."""


#: Marks a text that ``params.yaml`` holds as it is written, without quotes too: ``1e3`` and ``null`` are text there.
AS_WRITTEN = _AsWritten()

#: The name of a class: of a folder, in any language and of any form (``golden retriever``, ``café``, ``007``, ``yes``),
#: or of an official list. It is kept in Unicode's composed form, since a Mac may write its folder in another.
ClassName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\r\n\x85\u2028\u2029]*$"),
    AfterValidator(lambda name: unicodedata.normalize("NFC", name)),
    AS_WRITTEN,
]
#: Text on one line.
Line = Annotated[str, StringConstraints(min_length=1, max_length=400, pattern=r"^[^\r\n\x85\u2028\u2029]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class DatasetConfig(Record):
    """The source of the images, and which of them are used.

    ``train_images`` and ``test_images`` choose stratified subsets. ``split: fixed``: ``split_seed`` determines them,
    and the test set is the same for every run. ``split: per_seed``: they are drawn for every seed of a study, the same
    for all methods, so that results speak of the whole pool of images. ``test_on_rest``: every image outside the
    training set is a test image.
    ``exif_orientation``: whether images that were stored turned or mirrored are turned as their EXIF data say
    (``applied``), or kept as they are stored (Pillow turns TIFF files always).
    """

    source: Literal["digits", "cifar10", "cifar100", "stl10", "imagenet32", "imagenet", "images"]
    title: Annotated[Line, Field(max_length=80)] | None = None
    path: str | None = Field(default=None, min_length=1)
    sha256: Sha256 | None = None
    mirrors: Annotated[tuple[str, ...], NO_REPEATS] = ()
    resize: int | None = Field(default=None, ge=4, le=1024)
    exif_orientation: Annotated[Literal["ignored", "applied"], LATER] = "ignored"
    train_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_images: int | None = Field(default=None, ge=2, le=100_000_000)
    test_on_rest: bool = False
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
        if self.mirrors and self.source not in ("cifar10", "cifar100", "stl10"):
            raise ValueError(f"mirrors are for data sets that can be downloaded; {self.source!r} is not")
        for mirror in self.mirrors:
            if not re.match(r"^https?://", mirror):
                raise ValueError(f"the mirror {mirror!r} must begin with http:// or https://")
        if self.test_on_rest and (self.train_images is None or self.source != "digits"):
            raise ValueError("test_on_rest is for digits with train_images set")
        if self.split_seed and self.train_images is None and self.test_images is None:
            raise ValueError("split_seed decides which images are used: it belongs to train_images or test_images")
        if self.split == "per_seed" and self.train_images is None and self.test_images is None:
            raise ValueError("split: per_seed draws which images are used: it belongs to train_images or test_images")
        if self.split == "per_seed" and self.split_seed:
            raise ValueError("split_seed belongs to split: fixed; per_seed draws the split from a run's own seed")
        return self

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        return self.exif_orientation == "applied"

    def pool(self) -> Self:
        """The entry of the images that are prepared: this one, or without its subsets if they are drawn per seed."""
        if self.split == "fixed":
            return self
        unset = {name: type(self).model_fields[name].default for name in ("split", "train_images", "test_images")}
        return self.model_copy(update={**unset, "test_on_rest": False})

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all but the path, the mirrors and the title."""
        return self.identity_fields(exclude=("title", "path", "mirrors"))


class NoiseConfig(Record):
    """Label noise of the training split.

    ``rate``: the share of labels that are redrawn over all classes (``uniform``; one in m of them stays right), or that
    are wrong (``symmetric``, ``asymmetric``, ``pair``).
    ``rows``: the matrix: the probability of every label (column) for an image of every class (row).
    ``path``: the file that holds the matrix (``kind: matrix``) or the labels (``kind: file``), relative to the folder
    of ``params.yaml``. ``sha256``: its SHA-256, which stands for it in the run's identity. Without it nothing is
    trained. ``key``: which labels, of a file that holds several.
    """

    kind: Literal["none", "uniform", "symmetric", "asymmetric", "pair", "matrix", "file"]
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
            raise ValueError("kind: none goes with rate 0, every other kind with a rate above 0")
        if self.kind in ("none", "file") and (self.when, self.count, self.hit) != ("static", "exact", "redrawn"):
            why = "changes no label" if self.kind == "none" else "draws no label"
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
    def asked_rate(self) -> float | None:
        """The share of labels that is asked for; None if a matrix or a file determines it."""
        return None if self.kind in ("matrix", "file") else self.rate

    def with_absolute_paths(self, folder: Path) -> Self:
        """These settings with a relative path resolved against ``folder``, the folder of ``params.yaml``."""
        return self if self.path is None else self.model_copy(update={"path": str(folder / self.path)})

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all but the path, for which the checksum stands."""
        return self.identity_fields(exclude=("path",))


class Augmentation(Record):
    """Random changes of training images.

    ``shift``: by up to this many pixels (zero padding and crop). ``flip``: horizontally. ``random_resized_crop``: side
    of the output in pixels; test images are then resized to 8/7 of that side and cropped in the middle.
    """

    shift: int = Field(default=0, ge=0, le=32)
    flip: bool = False
    random_resized_crop: int | None = Field(default=None, ge=8, le=512)

    @model_validator(mode="after")
    def _one_way_to_move(self) -> Self:
        if self.shift and self.random_resized_crop is not None:
            raise ValueError("shift and random_resized_crop exclude each other; remove one of them")
        return self


class RecipeConfig(Record):
    """All choices about optimisation, which methods share so that they differ in nothing but the method.

    ``milestones``: the learning rate is multiplied by ``gamma`` after these epochs.
    ``last_batch``: what becomes of the images that remain at the end of an epoch, if they are fewer than half a batch.
    ``keep``: they are a batch of their own. ``drop``: they are left out. ``spread``: they are distributed over the
    other batches. :mod:`collabench.config.batch_sizes` says why it matters.
    ``validation_fraction``: the share of the training split that is held out (stratified; 0 for published cells). Its
    labels are noisy with ``validation_noisy``.
    ``evaluate_every``: epochs between evaluations. ``evaluation_sample``: number of test images that are evaluated
    between epochs, always the same ones; the last epoch is evaluated on all of them.
    ``processes``: number of processes that share every batch of a run, each on its own GPU or core
    (docs/how-to/several-gpus.md).
    ``arithmetic``: on a CPU, ``portable`` gives the same bits on every x86-64 processor with AVX2 and FMA, and
    ``native`` is torch's own (docs/concepts.md). On a GPU the setting changes nothing.
    ``compile``: use ``torch.compile``. ``cuda-graphs`` also records CUDA graphs, which a GPU replays without waiting
    for the host to launch each kernel.
    """

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    last_batch: Annotated[LastBatch, LATER] = "keep"
    learning_rate: float = Field(gt=0, le=100)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    augmentation: Augmentation = Augmentation()
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    validation_noisy: bool = False
    evaluate_every: int = Field(default=1, ge=1, le=10_000)
    evaluation_sample: Annotated[int | None, Field(ge=10, le=1_000_000), LATER] = None
    evaluation_batch_size: int = Field(default=500, ge=1, le=65_536)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool | Literal["cuda-graphs"] = False
    arithmetic: Annotated[Literal["portable", "native"], LATER] = "native"
    processes: Annotated[int, Field(ge=1, le=1024), LATER] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.milestones and not 1 <= self.milestones[0] <= self.milestones[-1] < self.epochs:
            raise ValueError(f"milestones must lie between 1 and epochs - 1 = {self.epochs - 1}")
        if not self.milestones and self.gamma != type(self).model_fields["gamma"].default:
            raise ValueError("gamma belongs to milestones: without one the learning rate stays what it is")
        if self.milestones and self.gamma == 1:
            raise ValueError("gamma: 1 leaves the learning rate what it is: remove gamma and milestones")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")
        if self.validation_noisy and not self.validation_fraction:
            raise ValueError("validation_noisy needs validation_fraction above 0")
        if self.processes > self.batch_size:
            raise ValueError(f"{self.processes} processes cannot share a batch of {self.batch_size} images")
        if self.arithmetic == "portable" and (self.precision != "float32" or self.compile):
            raise ValueError("arithmetic: portable goes with precision: float32 and compile: false only")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all of them."""
        return self.identity_fields()


if TYPE_CHECKING:
    ModelConfig = ModelSettings
    MethodConfig = MethodSettings
else:  # pydantic chooses the class by the value of the discriminator
    ModelConfig = Annotated[FAMILIES.settings_union(), Field(discriminator="family")]
    MethodConfig = Annotated[METHODS.settings_union(), Field(discriminator="method")]

Names = Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]


#: Pages that every report has, on a file system that takes large and small letters for the same, too.
PAGES = ("readme", "runs", "claims")


class TableConfig(Record):
    """A grid of configurations that a report shows together: one table per data set, noise, model and recipe.

    The methods are the rows. ``baseline`` is the method that the others are compared with. The Holm correction covers
    ``family`` (by default the table).
    """

    name: Name
    title: Line | None = None
    datasets: Names
    noise: Names = ("clean",)
    models: Names
    recipes: Names
    methods: Names
    baseline: Name = "individual"
    family: Name | None = None
    seeds: int | None = Field(default=None, ge=1, lt=1000)

    @model_validator(mode="after")
    def _baseline_is_a_row(self) -> Self:
        if self.name.lower() in PAGES:
            raise ValueError(f"a table cannot have the name {self.name!r}: every report has a page of that name")
        if self.baseline not in self.methods:
            raise ValueError(f"the baseline {self.baseline!r} must be one of the table's methods")
        return self


class ProfileConfig(Record):
    """A study: its tables, the seeds of each configuration, and how runs are packed into jobs.

    The seeds are ``first_seed``, ``first_seed`` + 1 … A study that tests a hypothesis suggested by other seeds must use
    seeds that were not used before.
    """

    description: Line
    seeds: int = Field(ge=1, lt=1000)
    first_seed: int = Field(default=0, ge=0, lt=1000)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seeds_per_job: int = Field(default=4, ge=1, le=1000)
    tables: tuple[TableConfig, ...] = ()
    papers: Annotated[tuple[Name, ...], NO_REPEATS] = ()

    @model_validator(mode="after")
    def _has_tables(self) -> Self:
        if not self.tables and not self.papers:
            raise ValueError("a profile needs tables or papers")
        if self.first_seed + max([self.seeds, *(table.seeds or 0 for table in self.tables)]) > 1000:
            raise ValueError("seeds go up to 999: first_seed and seeds together must not exceed 1000")
        names = [table.name.lower() for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError("two tables have the same name, or names that differ in large and small letters only")
        return self

    def seed_range(self, count: int | None = None) -> tuple[int, ...]:
        """The first ``count`` seeds of the study (default: all of them)."""
        return tuple(range(self.first_seed, self.first_seed + (count or self.seeds)))
