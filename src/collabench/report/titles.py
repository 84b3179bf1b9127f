"""The scope of a table in words: data set, noise, backbone and recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from collabench.config.configuration import Configuration
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.known_datasets import KNOWN, look_alikes
from collabench.config.sections import ModelConfig, RecipeConfig
from collabench.core.text import counted

_FAMILIES = {
    "cifar_resnet": "ResNet", "densenet": "DenseNet", "vgg": "VGG", "resnet": "ResNet",
    "preact_resnet": "PreAct-ResNet", "wide_resnet": "WRN",
}  # fmt: skip

#: What is known of a data set's labels, in words.
LABELS = {"clean": "clean labels", "given": "labels as given", "noisy": "labels as given, some of them wrong"}

#: What a noisy test split means.
NOISY_TEST = (
    "The test labels are noisy like the training labels: a right answer counts as an error where the label is wrong. "
    "test_path takes a folder of checked test images."
)

Parts = tuple[str, str, str, str]


def percent(share: float) -> str:
    """``20 %``, with as many digits as necessary."""
    return f"{100 * share:.10g} %"


def scope(configuration: Configuration) -> Parts:
    """Data set, noise, backbone and recipe of a configuration in words. Joined by commas they are a title."""
    return (
        dataset(configuration.names["dataset"], configuration.dataset),
        noise(configuration.noise, configuration.dataset),
        model(configuration.names["model"], configuration.model),
        recipe(configuration.recipe, configuration.dataset),
    )


def noise(settings: NoiseConfig, data: DatasetConfig) -> str:
    """``20 % uniform noise, images and labels drawn anew every epoch``, ``clean labels``, ``labels as given``, or
    ``labels of CIFAR-10_human.pt (worse_label)``."""
    if settings.kind == "none":
        return LABELS[data.training_labels]
    file = None if settings.path is None else Path(settings.path).name
    if settings.kind == "file":
        return f"labels of {file}" + ("" if settings.key is None else f" ({settings.key})")
    anew = "" if settings.is_static else f", {drawn(settings)}"
    anew += "" if data.training_labels == "clean" else f", on {LABELS[data.training_labels]}"
    if settings.kind == "matrix":
        rows = settings.rows or ()
        wrong = (
            percent(round(1 - math.fsum(row[number] for number, row in enumerate(rows)) / len(rows), 4)) if rows else ""
        )
        return (
            f"noise by the matrix {file}" if file else f"noise by a matrix, {wrong} wrong on average over classes"
        ) + anew
    if settings.kind == "instance":
        return f"{percent(settings.rate)} instance-dependent noise{anew}"
    return f"{percent(settings.rate)} {settings.kind} noise{_of_classes(settings, data)}{anew}"


def drawn(settings: NoiseConfig) -> str:
    """When noisy labels are drawn, and which images they hit."""
    if settings.kind == "file":
        return "the same labels for every seed"
    if settings.is_static:
        return "drawn once for each seed"
    if settings.hit == "fixed":
        return "labels drawn anew every epoch, always for the same images"
    return "images and labels drawn anew every epoch"


def asked(kind: str, rate: float | None, flips: Mapping[str, str] | None, classes: int | None) -> str:
    """``asked for: 20 % of the labels become another class``, or what takes the place of a rate. The names of classes
    are not escaped.

    rate: in percent. flips, classes: as in :class:`collabench.storage.results.NoiseRealised`.
    """
    if kind == "file":
        return "the labels are those of a file"
    if kind == "matrix":
        return "asked for: a matrix of probabilities"
    return f"asked for: {rate:.10g} % {_counted(kind, flips, classes)}"


def _counted(kind: str, flips: Mapping[str, str] | None, classes: int | None) -> str:
    """What the rate of label noise counts, after the number."""
    if kind == "uniform":
        return "of the labels are drawn anew over all classes, the right one included"
    if kind == "symmetric":
        return "of the labels become another class"
    if kind == "instance":
        return "of the labels on average become another class, by probabilities that depend on the image"
    if kind == "pair":
        return "of the labels become the next class"
    if flips is None:
        return "of the images of the classes that flip"
    pairs = ", ".join(f"{source} → {target}" for source, target in flips.items())
    return f"of the images of the {len(flips)} of {classes} classes that flip ({pairs})"


def _of_classes(settings: NoiseConfig, data: DatasetConfig) -> str:
    """`` of the 5 classes that flip``: the images that the rate of asymmetric noise counts, unless it is all of
    them."""
    if settings.kind != "asymmetric":
        return ""
    known = KNOWN.get(data.source)
    flipping = settings.pairs if settings.pairs is not None else look_alikes(known.class_names) if known else None
    if flipping and known and len(flipping) == known.classes:
        return ""
    return f" of the {len(flipping)} classes that flip" if flipping else " of the classes that flip"


def dataset(name: str, settings: DatasetConfig) -> str:
    """``CIFAR-10 (JPEG), 5,000 training images``. name: of ``params.yaml``, used if there is no better title."""
    known = KNOWN.get(settings.source)
    name = settings.title or (known.title if known else name)
    if settings.train_images is not None:
        name += f", {settings.train_images:,} training images"
    if settings.test_images is not None:
        name += f", {settings.test_images:,} test images"
    if settings.split == "per_seed":
        name += ", split drawn per seed"
    return name


def model(name: str, settings: ModelConfig) -> str:
    """``ResNet-8 (width 16)``. Uses the ``name`` of ``params.yaml`` if the family has no depth."""
    if settings.weights is not None:
        plain = model(name, settings.model_copy(update={"weights": None}))
        return f"{plain}, pretrained ({settings.weights.sha256[:8]})"
    values = settings.model_dump(exclude={"family"}, by_alias=True)
    if values.get("depth") is not None:
        name = f"{_FAMILIES.get(settings.family, name)}-{values.pop('depth')}"
    if values.get("widening") is not None:
        name += f"-{values.pop('widening')}"
    if values.get("width") is not None:
        return f"{name} (width {values['width']:g})" if isinstance(values["width"], int | float) else name
    changed = {key: values[key] for key in settings.model_fields_set & values.keys()}
    details = ", ".join(
        f"{key} {value}" for key, value in sorted(changed.items()) if isinstance(value, int | float | str)
    )
    return f"{name} ({details})" if details else name


def _recipe_parts(settings: RecipeConfig) -> Iterator[str]:
    """What a recipe has beside stochastic gradient descent and milestones."""
    if settings.optimizer == "adamw":
        yield "AdamW"
    if settings.warmup_epochs:
        yield f"{counted(settings.warmup_epochs, 'epoch')} of warm-up"
    if settings.schedule != "milestones":
        yield {"cosine": "cosine schedule", "one_cycle": "one-cycle schedule"}[settings.schedule]
    if settings.clip_gradient_norm is not None:
        yield f"gradients clipped at {settings.clip_gradient_norm:g}"
    if settings.ema_decay is not None:
        yield f"averaged weights (decay {settings.ema_decay:g})"
    if settings.mixup_alpha is not None:
        yield f"mixup (alpha {settings.mixup_alpha:g})"
    if settings.augmentation.randaugment is not None:
        yield (
            f"RandAugment ({settings.augmentation.randaugment.operations} operations, magnitude "
            f"{settings.augmentation.randaugment.magnitude})"
        )
    if settings.augmentation.cutout is not None:
        yield f"cutout of {settings.augmentation.cutout} pixels"
    if settings.early_stopping is not None:
        yield f"early stopping (patience {settings.early_stopping.patience})"


def recipe(settings: RecipeConfig, data: DatasetConfig) -> str:
    """``40 epochs``, and further settings that distinguish tables. data: whose images are held out."""
    text = counted(settings.epochs, "epoch")
    text += "".join(f", {part}" for part in _recipe_parts(settings))
    if settings.validation_fraction:
        own = "clean" if data.training_labels == "clean" else LABELS[data.training_labels]
        kind = "noisy" if settings.validation_noisy else own
        text += f", {percent(settings.validation_fraction)} held out for validation ({kind})"
    if settings.evaluation_sample:
        text += f", {settings.evaluation_sample:,} test images evaluated between epochs"
    if settings.precision != "float32":
        text += f", {settings.precision}"
    if settings.arithmetic != "native":
        text += f", {settings.arithmetic} arithmetic"
    return text
