"""The images of a data set that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from collabench.config.data_sections import DatasetConfig
from collabench.config.known_datasets import KNOWN
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator
from collabench.data.splits import rest_of, stratified_subset


def choose(
    config: DatasetConfig, train_labels: Tensor, test_labels: Tensor, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of the chosen images in the splits with these labels (N,) (``test_on_rest``: in both splits, one after
    the other).

    seed: of a split that is drawn per seed; None for a fixed one.
    Raises DataError if there are fewer images than are asked for.
    """
    assert (seed is None) == (config.split == "fixed"), "only a split that is drawn per seed needs a seed"
    seed = config.split_seed if seed is None else seed
    try:
        if config.test_on_rest:
            labels = torch.cat([train_labels, test_labels])
            assert config.train_images is not None, "the configuration asks for train_images"
            if config.train_images >= len(labels):
                raise DataError(f"test_on_rest: {config.train_images} of {len(labels)} images leave none to test on")
            train = stratified_subset(labels, config.train_images, numpy_generator(seed, "split", "train"))
            test = rest_of(len(labels), train)
            if config.test_images is not None:
                generator = numpy_generator(seed, "split", "test")
                test = test[stratified_subset(labels[test], config.test_images, generator)]
            return train, test
        chosen = []
        for split, labels, count in (
            ("train", train_labels, config.train_images),
            ("test", test_labels, config.test_images),
        ):
            everything = torch.arange(len(labels))
            generator = numpy_generator(seed, "split", split)
            chosen.append(everything if count is None else stratified_subset(labels, count, generator))
        return chosen[0], chosen[1]
    except DataError as error:
        raise DataError(f"{title_of(config)}: train_images or test_images: {error}") from None


def title_of(config: DatasetConfig) -> str:
    """The title of a data set for people: the configuration's, else the known one, else the name of its file."""
    known = KNOWN.get(config.source)
    return config.title or (known.title if known else Path(config.path or config.source).name)
