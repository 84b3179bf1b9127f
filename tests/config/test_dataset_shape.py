"""The shape of a data set, without its files."""

from __future__ import annotations

import pytest

from collabench.config.configuration import Configuration
from collabench.config.data_sections import DatasetConfig
from collabench.config.dataset_shape import DatasetShape, shape_of, shape_or_assumed, shape_without_files
from collabench.config.params import Params
from collabench.config.plan import resolve
from collabench.config.sections import Augmentation, RecipeConfig
from collabench.core.errors import ConfigError


def test_what_the_entry_asks_for_is_taken_into_account():
    digits = DatasetConfig(source="digits", train_images=500, test_on_rest=True)
    assert shape_of(digits) == DatasetShape(shape=(1, 8, 8), classes=10, train_images=500, test_images=1297)
    fewer = DatasetConfig(source="digits", train_images=500, test_images=100, test_on_rest=True)
    assert shape_of(fewer).test_images == 100
    imagenet = DatasetConfig(source="imagenet", path="p", resize=64)
    assert shape_of(imagenet).shape == (3, 64, 64) and shape_of(imagenet).train_images == 1_281_167


def test_what_only_files_tell_is_assumed_where_that_does_no_harm():
    images = DatasetConfig(source="images", path="p", resize=16, train_images=30)
    assert shape_of(images) is None
    assert shape_or_assumed(images) == DatasetShape(shape=(3, 16, 16), classes=10, train_images=30, test_images=10_000)


def test_the_network_sees_the_random_resized_crop():
    recipe = RecipeConfig(epochs=1, batch_size=2, learning_rate=0.1)
    crop = recipe.model_copy(update={"augmentation": Augmentation(random_resized_crop=24)})
    form = DatasetShape(shape=(3, 32, 40), classes=2, train_images=4, test_images=4)
    assert form.network_shape(recipe) == (3, 32, 40)
    assert form.network_shape(crop) == (3, 24, 24)


def configuration(**dataset: object) -> Configuration:
    params = Params.model_validate_json(
        '{"datasets": {}, "noise": {"clean": {"kind": "none"}}, "models": {"vgg": {"family": "vgg", "depth": 16}}, '
        '"recipes": {"short": {"epochs": 1, "batch_size": 2, "learning_rate": 0.1}}, '
        '"methods": {"individual": {"method": "individual"}}, "profiles": {}}'
    )
    params.datasets["images"] = DatasetConfig(source="images", path="p", **dataset)
    return resolve(params, dataset="images", noise="clean", model="vgg", recipe="short", method="individual")


def test_a_model_that_the_resized_images_are_too_small_for_is_refused():
    configuration(resize=32)
    with pytest.raises(ConfigError, match="needs images of at least 32x32 pixels, these have 8x8"):
        configuration(resize=8)


def test_who_needs_files_says_so():
    with pytest.raises(ConfigError, match="known only once the data set is prepared"):
        shape_without_files(configuration())
