"""The shape of a data set: its images, its numbers of images and classes, and what a network receives."""

from __future__ import annotations

from collabench.config.configuration import Configuration
from collabench.config.data_sections import DatasetConfig
from collabench.config.known_datasets import KNOWN
from collabench.config.sections import RecipeConfig
from collabench.core.errors import ConfigError
from collabench.core.record import Record


class DatasetShape(Record):
    """The shape of a data set's images as they are stored, and their numbers.

    shape: (channels, height, width) of an image; a nominal one if the images have many sizes.
    """

    shape: tuple[int, int, int]
    classes: int
    train_images: int
    test_images: int

    def network_shape(self, recipe: RecipeConfig) -> tuple[int, int, int]:
        """(C, H, W) of what the network receives."""
        return recipe.augmentation.network_shape(self.shape)


#: Assumed for facts that only the files of a data set tell, where a guess is sufficient.
ASSUMED = DatasetShape(shape=(3, 64, 64), classes=10, train_images=50_000, test_images=10_000)


def shape_of(dataset: DatasetConfig) -> DatasetShape | None:
    """The shape of a data set according to its entry, without its files. None if only the files tell."""
    known = KNOWN.get(dataset.source)
    if known is None:
        return None
    return as_asked(
        dataset,
        DatasetShape(
            shape=known.shape, classes=known.classes, train_images=known.train_images, test_images=known.test_images
        ),
    )


def shape_or_assumed(dataset: DatasetConfig) -> DatasetShape:
    """:func:`shape_of`, or the :data:`ASSUMED` shape for what neither source nor entry tells."""
    return shape_of(dataset) or as_asked(dataset, ASSUMED)


def as_asked(dataset: DatasetConfig, whole: DatasetShape) -> DatasetShape:
    """The shape after the entry's choices: resizing and subsets."""
    channels, height, width = whole.shape
    train = dataset.train_images or whole.train_images
    rest = whole.train_images + whole.test_images - train if dataset.test_on_rest else whole.test_images
    return DatasetShape(
        shape=(channels, dataset.resize or height, dataset.resize or width),
        classes=whole.classes,
        train_images=train,
        test_images=dataset.test_images or rest,
    )


def shape_without_files(configuration: Configuration) -> DatasetShape:
    """:func:`shape_of` a configuration's data set. Raises ConfigError if only its files tell the shape."""
    found = shape_of(configuration.dataset)
    if found is None:
        raise ConfigError(
            f"{configuration.label}: the image size of source {configuration.dataset.source!r} is known only once the "
            "data set is prepared (collabench data prepare)"
        )
    return found
