"""The typed sections of ``params.yaml``: recipes, models, methods and profiles. ``datasets`` and ``noise`` are those of
:mod:`collabench.config.data_sections`.

Everything is checked before anything runs. An unknown key, a wrong type, a value out of range or an undefined name
gives one :class:`~collabench.core.errors.ConfigError` with file, line, key and a remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from collabench.config.batch_sizes import LastBatch
from collabench.config.fields import Line, Name
from collabench.core.record import LATER, NO_REPEATS, Record
from collabench.methods import METHODS, MethodSettings
from collabench.models import FAMILIES, ModelSettings

#: How much of its former value a running mean of AdamW keeps at every update.
Beta = Annotated[float, Field(ge=0, lt=1)]


class RandAugment(Record):
    """RandAugment (Cubuk et al., 2020) as torchvision's ``transforms.v2.RandAugment`` computes it on tensors.

    ``operations``: how many random operations change every image. ``magnitude``: their strength, of 31 steps.
    """

    operations: int = Field(default=2, ge=1, le=8)
    magnitude: int = Field(default=9, ge=0, le=30)


class Augmentation(Record):
    """Random changes of training images.

    ``shift``: by up to this many pixels (zero padding and crop). ``flip``: horizontally. ``random_resized_crop``: side
    of the output in pixels; test images are then resized to 8/7 of that side and cropped in the middle.
    ``randaugment``: random operations on the moved image. ``cutout``: side in pixels of a square that becomes the mean
    colour (DeVries & Taylor, 2017); its centre is uniform in the image, and what lies outside is cut off.
    """

    shift: int = Field(default=0, ge=0, le=32)
    flip: bool = False
    random_resized_crop: int | None = Field(default=None, ge=8, le=512)
    randaugment: Annotated[RandAugment | None, LATER] = None
    cutout: Annotated[int | None, Field(ge=1, le=512), LATER] = None

    @model_validator(mode="after")
    def _one_way_to_move(self) -> Self:
        if self.shift and self.random_resized_crop is not None:
            raise ValueError("shift and random_resized_crop exclude each other; remove one of them")
        return self

    def network_shape(self, images: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of what the network receives: the images' own shape, or the random resized crop."""
        crop = self.random_resized_crop
        return images if crop is None else (images[0], crop, crop)


class EarlyStopping(Record):
    """``patience``: training ends after an epoch whose validation error was evaluated and that is so many epochs after
    the one with the lowest."""

    patience: int = Field(ge=1, le=10_000)


class RecipeConfig(Record):
    """All choices about optimisation, which methods share so that they differ in nothing but the method.

    ``optimizer``: ``sgd`` has ``momentum`` and ``nesterov``, ``adamw`` (Loshchilov & Hutter, 2019) ``betas`` and
    ``eps``.
    ``schedule``: of the learning rate. ``milestones``: it is multiplied by ``gamma`` after the epochs that
    ``milestones`` lists. ``cosine``: it falls to zero along half a cosine, at every batch. ``one_cycle``: it rises from
    1/25 of ``learning_rate`` during the first 30 % of all batches, then falls to 1/250,000 (Smith & Topin, 2019).
    ``warmup_epochs``: it first rises linearly, at every batch, for so many epochs. docs/how-to/recipes.md has the
    equations.
    ``clip_gradient_norm``: the largest length of the gradient of one update, over all parameters that it changes.
    ``ema_decay``: an exponential moving average of weights and running statistics, updated after every batch, is what
    is evaluated and kept.
    ``mixup_alpha``: every image is mixed with its neighbour in the batch, and so are their labels, in a proportion from
    Beta(alpha, alpha) (Zhang et al., 2018).
    ``early_stopping``: end before ``epochs``, by the validation error.
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
    optimizer: Annotated[Literal["sgd", "adamw"], LATER] = "sgd"
    learning_rate: float = Field(gt=0, le=100)
    schedule: Annotated[Literal["milestones", "cosine", "one_cycle"], LATER] = "milestones"
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000), LATER] = 0
    milestones: tuple[int, ...] = ()
    gamma: float = Field(default=0.1, gt=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: Annotated[tuple[Beta, Beta], LATER] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, le=1), LATER] = 1e-8
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    clip_gradient_norm: Annotated[float | None, Field(gt=0, le=1e6), LATER] = None
    ema_decay: Annotated[float | None, Field(gt=0, lt=1), LATER] = None
    augmentation: Augmentation = Augmentation()
    mixup_alpha: Annotated[float | None, Field(gt=0, le=100), LATER] = None
    validation_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    validation_noisy: bool = False
    early_stopping: Annotated[EarlyStopping | None, LATER] = None
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
        self._check_schedule()
        self._check_optimizer()
        if self.validation_noisy and not self.validation_fraction:
            raise ValueError("validation_noisy needs validation_fraction above 0")
        if self.early_stopping and not self.validation_fraction:
            raise ValueError("early_stopping needs validation_fraction above 0: it ends by the validation error")
        if self.early_stopping and self.early_stopping.patience >= self.epochs:
            raise ValueError(f"early_stopping.patience: {self.early_stopping.patience} never ends a training of "
                             f"{self.epochs} epochs; write fewer")  # fmt: skip
        if self.mixup_alpha is not None and self.processes > 1:
            raise ValueError("mixup_alpha mixes images of the whole batch, of which each process holds a part: it goes "
                             "with processes: 1")  # fmt: skip
        if self.processes > self.batch_size:
            raise ValueError(f"{self.processes} processes cannot share a batch of {self.batch_size} images")
        if self.arithmetic == "portable" and (self.precision != "float32" or self.compile):
            raise ValueError("arithmetic: portable goes with precision: float32 and compile: false only")
        if self.arithmetic == "portable" and self.augmentation.randaugment:
            raise ValueError("augmentation.randaugment resamples images by torchvision's own arithmetic, which is not "
                             "portable: it goes with arithmetic: native")  # fmt: skip
        return self

    def _check_schedule(self) -> None:
        """Raise ValueError if settings of different schedules stand beside each other."""
        if self.schedule != "milestones" and self.milestones:
            raise ValueError(f"milestones belong to schedule: milestones, not to {self.schedule}; remove one of them")
        if self.warmup_epochs and self.schedule == "one_cycle":
            raise ValueError("schedule: one_cycle has a warm-up of its own, the first 30 % of all batches; remove "
                             "warmup_epochs")  # fmt: skip
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than epochs = {self.epochs}")

    def _check_optimizer(self) -> None:
        """Raise ValueError if a setting is not one of the chosen optimizer, or not with the others."""
        foreign = ("momentum", "nesterov") if self.optimizer == "adamw" else ("betas", "eps")
        for name in foreign:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is no setting of optimizer: {self.optimizer}; remove it")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0")

    def identity(self) -> dict[str, Any]:
        """The fields that can change a run's numbers: all of them."""
        return self.identity_fields() | {"augmentation": self.augmentation.identity_fields()}


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
    seeds that were not used before. replicates: profiles whose decided claims this one tests again; which, and with how
    many seeds, ``papers/replications.yaml`` says. datasets: of the papers' cells only those on these data sets are run;
    by default all. union_of: profiles whose tables and papers' cells together are this one's (:func:`united`).
    """

    description: Line
    seeds: int = Field(ge=1, lt=1000)
    first_seed: int = Field(default=0, ge=0, lt=1000)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seeds_per_job: int = Field(default=4, ge=1, le=1000)
    tables: tuple[TableConfig, ...] = ()
    papers: Annotated[tuple[Name, ...], NO_REPEATS] = ()
    replicates: Annotated[tuple[Name, ...], NO_REPEATS] = ()
    datasets: Annotated[tuple[Name, ...], NO_REPEATS] = ()
    union_of: Annotated[tuple[Name, ...], NO_REPEATS] = ()

    @model_validator(mode="after")
    def _has_tables(self) -> Self:
        if self.union_of and (self.tables or self.papers or self.replicates or self.datasets):
            raise ValueError("union_of takes the tables and papers of other profiles; remove this one's own")
        if not (self.tables or self.papers or self.replicates or self.union_of):
            raise ValueError("a profile needs tables, papers, replicates or union_of")
        if self.datasets and not self.papers:
            raise ValueError("datasets chooses among the cells of papers; name some, or remove it")
        if self.first_seed + max([self.seeds, *(table.seeds or 0 for table in self.tables)]) > 1000:
            raise ValueError("seeds go up to 999: first_seed and seeds together must not exceed 1000")
        names = [table.name.lower() for table in self.tables]
        if twice := next((table.name for table in self.tables if names.count(table.name.lower()) > 1), None):
            raise ValueError(f"two tables have the name {twice!r}, or names that differ from it in large and small "
                             "letters only; rename one")  # fmt: skip
        return self

    def seed_range(self, count: int | None = None) -> tuple[int, ...]:
        """The first ``count`` seeds of the study (default: all of them)."""
        return tuple(range(self.first_seed, self.first_seed + (count or self.seeds)))


def united(profile: ProfileConfig, parts: dict[str, ProfileConfig]) -> ProfileConfig:
    """A profile with ``union_of``, with the tables and papers' cells of its parts.

    parts: name → profile that it names. Raises ValueError if they do not fit each other.
    """
    papers = {part.papers for part in parts.values()}
    if len(papers) > 1:
        raise ValueError("the profiles of union_of must name the same papers, in the same order")
    for name, part in parts.items():
        if part.union_of or part.replicates:
            raise ValueError(f"{name} is itself made of other profiles; name those")
        for field in ("seeds", "first_seed", "device", "seeds_per_job"):
            own, theirs = getattr(profile, field), getattr(part, field)
            if own != theirs:
                raise ValueError(f"{field} must be that of {name}, {theirs}, not {own}")
    every = any(part.papers and not part.datasets for part in parts.values())
    datasets = () if every else tuple(dict.fromkeys(name for part in parts.values() for name in part.datasets))
    tables = tuple(table for part in parts.values() for table in part.tables)
    given = {name: getattr(profile, name) for name in profile.model_fields_set - {"union_of"}}
    return ProfileConfig(**given | {"tables": tables, "papers": papers.pop(), "datasets": datasets})
