"""Which parts of a configuration fit each other: said in one line, before anything runs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from collabench.errors import ConfigError
from collabench.models import build_backbone

if TYPE_CHECKING:
    from collabench.config import DatasetConfig
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


def check(configuration: Configuration) -> None:
    """Raise ConfigError naming the configuration if its method, model, data set, noise and recipe don't go together."""
    label = configuration.label
    known = KNOWN_SHAPES.get(configuration.dataset.source)
    if configuration.dataset.source == "imagenet" and configuration.recipe.augmentation.random_resized_crop is None:
        raise ConfigError(f"{label}: imagenet has images of many sizes: the recipe needs random_resized_crop")
    if known is not None:
        crop = configuration.recipe.augmentation.random_resized_crop
        shape = known[0] if crop is None else (known[0][0], crop, crop)
        try:
            stages = _stage_names(configuration.model, shape, known[1])
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from None
    else:  # the images' size is in the user's files; any size that the model takes shows its stages
        stages = _stage_names(configuration.model, (3, 64, 64), 10)
    try:
        configuration.method.check_fits(stages, configuration.recipe.precision)
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from None


@lru_cache(maxsize=256)
def _stage_names(model: object, shape: tuple[int, int, int], classes: int) -> tuple[str, ...]:
    import torch

    with torch.device("meta"):  # names and shapes only: no memory, no arithmetic
        return build_backbone(model, shape, classes, weights_seed=0).stage_names
