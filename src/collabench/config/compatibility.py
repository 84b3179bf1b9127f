"""Checks that the parts of a configuration fit each other, before anything runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.batch_sizes import held_out
from collabench.config.dataset_shape import shape_of, shape_or_assumed
from collabench.config.known_datasets import KNOWN
from collabench.config.matrices import check_size
from collabench.core.errors import ConfigError
from collabench.methods import METHODS, MethodSettings
from collabench.models import Backbone, ModelSettings
from collabench.models.on_meta import backbone_on_meta, shapes_only
from collabench.models.pretrained import check_pretrained, read_weights

if TYPE_CHECKING:
    from collabench.config.configuration import Configuration
    from collabench.config.data_sections import DatasetConfig, NoiseConfig
    from collabench.config.sections import RecipeConfig


def check(configuration: Configuration) -> None:
    """Raise ConfigError (one line, naming the configuration) if its data set, noise, recipe, models and method do not
    fit."""
    dataset, recipe, names = configuration.dataset, configuration.recipe, configuration.names
    entry = ("datasets", names["dataset"])  # the entry that is being checked, for the message
    try:
        _check_images(dataset)
        entry = ("noise", names["noise"])
        _check_pairs(configuration.noise, dataset)
        _check_noise(configuration.noise, dataset)
        entry = ("recipes", names["recipe"])
        _check_validation(recipe, dataset)
        if dataset.source == "imagenet" and recipe.augmentation.random_resized_crop is None:
            raise ConfigError("imagenet has images of many sizes: the recipe needs augmentation.random_resized_crop")
        # If size and number of classes are known from the user's files only, any shape that the model takes shows its
        # stages.
        form = shape_or_assumed(dataset)
        shape, classes = form.network_shape(recipe), form.classes
        _check_cutout(recipe, shape)
        for name, peer in {names["model"]: configuration.model, **configuration.peer_models}.items():
            entry = ("models", name)
            _backbone(peer, shape, classes)
        entry = ("methods", names["method"])
        check_settings_have_effect(configuration.method)
        for model in (configuration.model, *configuration.peer_models.values()):
            key = (configuration.method.model_dump_json(), model, shape, classes, recipe.precision)
            if key not in _fitting:
                backbone = _backbone(model, shape, classes)
                with shapes_only():
                    configuration.method.check_fits(backbone, recipe.precision, shape)
                _fitting.add(key)
        _check_members(configuration)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{configuration.label}: {'.'.join(entry)}: {error}", entry) from None


def check_files(configuration: Configuration) -> None:
    """Raise ConfigError, naming the configuration, if a file that its training reads is missing or wrong."""
    form = shape_of(configuration.dataset)

    def make_backbone(model: str | None) -> Backbone:
        assert form is not None
        settings = configuration.model if model is None else configuration.peer_models[model]
        return _backbone(settings, form.network_shape(configuration.recipe), form.classes)

    for part, model in {configuration.names["model"]: configuration.model, **configuration.peer_models}.items():
        if model.weights is not None:
            try:
                weights = read_weights(Path(model.weights.path), model.weights.sha256)
                if form is not None:
                    backbone = _backbone(model, form.network_shape(configuration.recipe), form.classes)
                    check_pretrained(backbone, model.weights, weights)
            except ConfigError as error:
                entry = ("models", part)
                raise ConfigError(f"{configuration.label}: {'.'.join(entry)}: {error}", entry) from None
    try:
        configuration.method.check_files(None if form is None else make_backbone)
    except ConfigError as error:
        entry = ("methods", configuration.names["method"])
        raise ConfigError(f"{configuration.label}: {'.'.join(entry)}: {error}", entry) from None


def check_settings_have_effect(settings: MethodSettings) -> None:
    """Raise ConfigError if a setting has another value than its default and nothing would read it."""
    for name, belongs_to in settings.without_effect().items():
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise ConfigError(f"{name} belongs to {belongs_to}")


def _check_members(configuration: Configuration) -> None:
    """Raise ConfigError for an average over several ensembles: their members' seeds overlap, so that runs would count
    twice."""
    for required in configuration.requires if len(configuration.requires) > 1 else ():
        if not METHODS[required.configuration.method.method].Method.trains:
            raise ConfigError(f"{required.configuration.names['method']} is an ensemble, and several of them share "
                              "members: average over runs of a method that trains")  # fmt: skip


def _check_images(dataset: DatasetConfig) -> None:
    """Raise ConfigError if more images are asked for than a data set of known size has."""
    if dataset.source not in KNOWN:
        return
    train, test = KNOWN[dataset.source].train_images, KNOWN[dataset.source].test_images
    if dataset.test_on_rest:
        wanted = (dataset.train_images or 0) + (dataset.test_images or 1)
        if wanted > train + test:
            raise ConfigError(
                f"train_images and test_images ask for {wanted} images, {dataset.source} has {train + test}"
            )
        return
    for field, there in (("train_images", train), ("test_images", test)):
        asked = getattr(dataset, field)
        if asked is not None and asked > there:
            raise ConfigError(f"{field}: {asked} are asked for, {dataset.source} has {there}")


def _check_pairs(noise: NoiseConfig, dataset: DatasetConfig) -> None:
    """Raise ConfigError if the noise names a class that a data set of known classes does not have."""
    classes = KNOWN[dataset.source].class_names if dataset.source in KNOWN else ()
    for name in (name for pair in (noise.pairs or {}).items() for name in pair):
        if classes and name not in classes:
            raise ConfigError(f"pairs: {name!r} is not a class of {dataset.source}; classes: {', '.join(classes)}")


def _check_noise(noise: NoiseConfig, dataset: DatasetConfig) -> None:
    """Raise ConfigError or ValueError if a given matrix or given labels cannot be those of the data set."""
    if noise.rows is not None and dataset.source in KNOWN:
        check_size(len(noise.rows), KNOWN[dataset.source].classes, "rows")
    if noise.kind == "instance" and dataset.source == "imagenet" and dataset.resize is None:
        raise ConfigError("kind: instance reads the pixels of images of one size: give the data set a resize")
    if noise.kind == "file" and dataset.test_on_rest:
        raise ConfigError("kind: file holds labels of the source's training images, and with test_on_rest test images "
                          "are trained on, too; remove test_on_rest from the data set")  # fmt: skip


def _check_cutout(recipe: RecipeConfig, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError if the square that is cut out could hide a whole image of shape (C, H, W)."""
    side = recipe.augmentation.cutout
    if side is not None and side >= min(shape[1:]):
        raise ConfigError(f"augmentation.cutout: a square of {side} pixels hides whole images of "
                          f"{shape[1]}x{shape[2]}; write a smaller one")  # fmt: skip


def _check_validation(recipe: RecipeConfig, dataset: DatasetConfig) -> None:
    """Raise ConfigError if the validation split, or the rest that is trained on, would be empty."""
    form = shape_of(dataset)
    images = dataset.train_images if form is None else form.train_images
    if recipe.validation_fraction and images is not None:
        count = held_out(images, recipe.validation_fraction)
        if not 0 < count < images:
            raise ConfigError(
                f"validation_fraction {recipe.validation_fraction} of {images} training images is {count}"
            )


_fitting: set[tuple[object, ...]] = set()
"""Combinations that were found to fit. A plan asks for the same ones again for every noise, seed and data set of a
shape."""


@lru_cache(maxsize=256)
def _backbone(model: ModelSettings, shape: tuple[int, int, int], classes: int) -> Backbone:
    return backbone_on_meta(model, shape, classes)
