"""What a table's title says of its scope: data set, noise, backbone and recipe in words."""

from __future__ import annotations

from collabench.spec import Configuration

_DATASETS = {
    "digits": "digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
    "imagenet32": "ImageNet32",
    "imagenet": "ImageNet",
}
_FAMILIES = {"cifar_resnet": "ResNet", "densenet": "DenseNet", "vgg": "VGG", "resnet18": "ResNet-18"}

Parts = tuple[str, str, str, str]


def percent(share: float) -> str:
    """``20 %``; as many digits as it takes, no more."""
    return f"{100 * share:.10g} %"


def scope(configuration: Configuration) -> Parts:
    """Data set, noise, backbone and recipe of a configuration in words: joined by commas they are the title."""
    return (
        _dataset(configuration),
        noise(configuration),
        _model(configuration),
        _recipe(configuration),
    )


def noise(configuration: Configuration) -> str:
    """``20 % uniform noise, drawn anew every epoch``, or ``clean labels``."""
    settings = configuration.noise
    if settings.kind == "none":
        return "clean labels"
    anew = ", drawn anew every epoch" if settings.when == "per_epoch" else ""
    return f"{percent(settings.rate)} {settings.kind} noise{anew}"


def _dataset(configuration: Configuration) -> str:
    settings = configuration.dataset
    name = settings.title or _DATASETS.get(settings.source, configuration.names["dataset"])
    if settings.train_images is not None:
        name += f", {settings.train_images:,} training images"
    if settings.test_images is not None:
        name += f", {settings.test_images:,} test images"
    return name


def _model(configuration: Configuration) -> str:
    settings = configuration.model
    values = settings.model_dump(exclude={"family"}, by_alias=True)
    name = _FAMILIES.get(settings.family, configuration.names["model"])
    if values.get("depth") is not None:
        name += f"-{values.pop('depth')}"
    if values.get("width") is not None:
        return f"{name} (width {values['width']:g})" if isinstance(values["width"], int | float) else name
    changed = {key: values[key] for key in settings.model_fields_set & values.keys()}
    details = ", ".join(
        f"{key} {value}" for key, value in sorted(changed.items()) if isinstance(value, int | float | str)
    )
    return f"{name} ({details})" if details else name


def _recipe(configuration: Configuration) -> str:
    recipe = configuration.recipe
    text = f"{recipe.epochs} epoch" + ("s" if recipe.epochs != 1 else "")
    if recipe.validation_fraction:
        kind = "noisy" if recipe.validation_noisy else "clean"
        text += f", {percent(recipe.validation_fraction)} held out for validation ({kind})"
    if recipe.precision != "float32":
        text += f", {recipe.precision}"
    return text
