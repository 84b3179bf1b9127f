"""The scope of a table in words: data set, noise, backbone and recipe."""

from __future__ import annotations

from collabench.config.configuration import Configuration
from collabench.config.known_datasets import KNOWN
from collabench.config.sections import DatasetConfig, ModelConfig, NoiseConfig, RecipeConfig

_FAMILIES = {"cifar_resnet": "ResNet", "densenet": "DenseNet", "vgg": "VGG", "resnet": "ResNet"}

Parts = tuple[str, str, str, str]


def percent(share: float) -> str:
    """``20 %``, with as many digits as necessary."""
    return f"{100 * share:.10g} %"


def scope(configuration: Configuration) -> Parts:
    """Data set, noise, backbone and recipe of a configuration in words. Joined by commas they are a title."""
    return (
        dataset(configuration.names["dataset"], configuration.dataset),
        noise(configuration.noise),
        model(configuration.names["model"], configuration.model),
        recipe(configuration.recipe),
    )


def noise(settings: NoiseConfig) -> str:
    """``20 % uniform noise, drawn anew every epoch``, or ``clean labels``."""
    if settings.kind == "none":
        return "clean labels"
    anew = "" if settings.is_static else ", drawn anew every epoch"
    return f"{percent(settings.rate)} {settings.kind} noise{anew}"


def dataset(name: str, settings: DatasetConfig) -> str:
    """``CIFAR-10 (JPEG), 5,000 training images``. name: of ``params.yaml``, used if there is no better title."""
    known = KNOWN.get(settings.source)
    name = settings.title or (known.title if known else name)
    if settings.train_images is not None:
        name += f", {settings.train_images:,} training images"
    if settings.test_images is not None:
        name += f", {settings.test_images:,} test images"
    return name


def model(name: str, settings: ModelConfig) -> str:
    """``ResNet-8 (width 16)``. Uses the ``name`` of ``params.yaml`` if the family has no depth."""
    values = settings.model_dump(exclude={"family"}, by_alias=True)
    if values.get("depth") is not None:
        name = f"{_FAMILIES.get(settings.family, name)}-{values.pop('depth')}"
    if values.get("width") is not None:
        return f"{name} (width {values['width']:g})" if isinstance(values["width"], int | float) else name
    changed = {key: values[key] for key in settings.model_fields_set & values.keys()}
    details = ", ".join(
        f"{key} {value}" for key, value in sorted(changed.items()) if isinstance(value, int | float | str)
    )
    return f"{name} ({details})" if details else name


def recipe(settings: RecipeConfig) -> str:
    """``40 epochs``, and further settings that distinguish tables."""
    text = f"{settings.epochs} epoch" + ("s" if settings.epochs != 1 else "")
    if settings.validation_fraction:
        kind = "noisy" if settings.validation_noisy else "clean"
        text += f", {percent(settings.validation_fraction)} held out for validation ({kind})"
    if settings.evaluation_sample:
        text += f", {settings.evaluation_sample:,} test images evaluated between epochs"
    if settings.precision != "float32":
        text += f", {settings.precision}"
    if settings.arithmetic != "native":
        text += f", {settings.arithmetic} arithmetic"
    return text
