"""``manifest.json`` of a prepared data set: what it holds and what it was made of."""

from __future__ import annotations

from typing import Any, Literal

from collabench.config.dataset_shape import DatasetShape
from collabench.core.record import Record

MANIFEST = "manifest.json"


class Manifest(Record):
    """A prepared data set. identity: the configuration's. digest: SHA-256 of the arrays' content. mean, std: per
    channel over the training split, of pixels in [0, 1]. image_shape: (channels, height, width). streamed: the
    images are read from the user's files, whose names and checksums are stored; where they lie is the configuration's
    to say."""

    schema_version: Literal[1] = 1
    title: str
    identity: dict[str, Any]
    digest: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    streamed: bool = False
    resize: int | None = None

    @property
    def form(self) -> DatasetShape:
        return DatasetShape(
            shape=self.image_shape,
            classes=len(self.classes),
            train_images=self.train_images,
            test_images=self.test_images,
        )
