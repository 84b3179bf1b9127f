"""Which parts of a configuration fit each other: said in one line, before anything runs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from collabench.errors import ConfigError
from collabench.models import Backbone, build_backbone
from collabench.strict import Strict

if TYPE_CHECKING:
    from collabench.config import RecipeConfig
    from collabench.spec import Configuration

#: (channels, height, width) and number of classes of the data sets whose form is known without their files.
KNOWN_SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "stl10": ((3, 96, 96), 10),
    "imagenet32": ((3, 32, 32), 1000),
    "imagenet": ((3, 224, 224), 1000),
}


def input_shape_of(image_shape: tuple[int, int, int], recipe: RecipeConfig) -> tuple[int, int, int]:
    """What the network sees (C, H, W): the images' own shape, or the recipe's random resized crop."""
    crop = recipe.augmentation.random_resized_crop
    return image_shape if crop is None else (image_shape[0], crop, crop)


def check(configuration: Configuration) -> None:
    """Raise ConfigError naming the configuration if its method, model, data set, noise and recipe don't go together."""
    dataset, recipe = configuration.dataset, configuration.recipe
    try:
        if dataset.source == "imagenet" and recipe.augmentation.random_resized_crop is None:
            raise ConfigError("imagenet has images of many sizes: the recipe needs augmentation.random_resized_crop")
        # Where size and classes are only in the user's files, any that the model takes show its stages.
        shape, classes = KNOWN_SHAPES.get(dataset.source, ((3, 64, 64), 10))
        shape = input_shape_of(shape, recipe)
        for peer in configuration.peer_models.values():
            _backbone(peer, shape, classes)
        configuration.method.check_fits(_backbone(configuration.model, shape, classes), recipe.precision, shape)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{configuration.label}: {error}") from None


@lru_cache(maxsize=256)
def _backbone(model: Strict, shape: tuple[int, int, int], classes: int) -> Backbone:
    import torch

    with torch.device("meta"):  # names and shapes only: no memory, no arithmetic
        return build_backbone(model, shape, classes, weights_seed=0)
