"""The shape of a data set: of its images, and of what a network sees of them. Everyone who needs one of these asks
here."""

from __future__ import annotations

from collabench.config.configuration import Configuration
from collabench.config.known_datasets import KNOWN
from collabench.config.sections import DatasetConfig, RecipeConfig
from collabench.core.errors import ConfigError
from collabench.core.record import Record


class DatasetShape(Record):
    """The images of a data set as they are kept, and how many there are of what.

    shape: (channels, height, width) of an image; for images of many sizes a nominal one.
    """

    shape: tuple[int, int, int]
    classes: int
    train_images: int
    test_images: int

    def network_shape(self, recipe: RecipeConfig) -> tuple[int, int, int]:
        """What the network sees (C, H, W): the images' own shape, or the recipe's random resized crop."""
        crop = recipe.augmentation.random_resized_crop
        return self.shape if crop is None else (self.shape[0], crop, crop)


#: Taken for what only the files of a data set tell, by those who can live with a guess.
ASSUMED = DatasetShape(shape=(3, 64, 64), classes=10, train_images=50_000, test_images=10_000)


def shape_of(dataset: DatasetConfig) -> DatasetShape | None:
    """The shape of a data set as its entry asks for it, without its files. None where only its files tell."""
    known = KNOWN.get(dataset.source)
    if known is None:
        return None
    return _as_asked(
        dataset,
        DatasetShape(
            shape=known.shape, classes=known.classes, train_images=known.train_images, test_images=known.test_images
        ),
    )


def shape_or_assumed(dataset: DatasetConfig) -> DatasetShape:
    """:func:`shape_of`, or the :data:`ASSUMED` shape as far as the data set's entry says nothing else."""
    return shape_of(dataset) or _as_asked(dataset, ASSUMED)


def _as_asked(dataset: DatasetConfig, whole: DatasetShape) -> DatasetShape:
    """What the entry leaves of a data set's own shape."""
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
    """:func:`shape_of` a configuration's data set. Raises ConfigError where only its files tell."""
    found = shape_of(configuration.dataset)
    if found is None:
        raise ConfigError(
            f"{configuration.label}: the image size of source {configuration.dataset.source!r} is known only once the "
            "data set is prepared (collabench data prepare)"
        )
    return found
