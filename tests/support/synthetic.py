"""A small data set with something to learn, made of random numbers, and configurations to train on it."""

from __future__ import annotations

import torch

from collabench.config.configuration import Configuration, RequiredRun
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.sections import RecipeConfig
from collabench.core.record import Record
from collabench.data import Dataset
from collabench.methods import METHODS, MethodSettings
from collabench.models import FAMILIES

CLASSES = 4

#: Small models for 1x8x8 images, in the order in which a method is offered them.
SMALL_MODELS: tuple[dict, ...] = (
    {"family": "cifar_resnet", "depth": 8, "width": 4},
    {"family": "vgg", "blocks": (1, 1), "width": 4, "poolings": 1, "hidden": 8},
    {"family": "resnet", "blocks": (1, 1), "width": 4, "hidden": 8},
)


def blobs(train: int = 40, test: int = 24, shape: tuple[int, int, int] = (1, 8, 8), classes: int = CLASSES) -> Dataset:
    """Images (N, H, W, C) of one random pattern per class plus noise."""
    generator = torch.Generator().manual_seed(5)
    channels, height, width = shape
    patterns = torch.rand(classes, height, width, channels, generator=generator)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % classes
        images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, height, width, channels, generator=generator)
        return (images * 255).to(torch.uint8), labels

    train_images, train_labels = split(train)
    test_images, test_labels = split(test)
    values = train_images.double() / 255
    return Dataset(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple(f"class {index}" for index in range(classes)),
        digest="0" * 64,
        title="blobs",
        mean=tuple(values.mean(dim=(0, 1, 2)).tolist()),
        std=tuple(values.std(dim=(0, 1, 2), correction=0).tolist()),
    )


def settings_of(method: str, **values: object) -> MethodSettings:
    """A method's settings: its defaults but for ``values``."""
    return METHODS[method].Settings(method=method, **values)


def model_of(values: dict) -> Record:
    return FAMILIES[values["family"]].Settings(**values)


def configuration_of(
    method: MethodSettings,
    model: Record | None = None,
    noise: NoiseConfig | None = None,
    requires: tuple[RequiredRun, ...] = (),
    peer_models: dict[str, Record] | None = None,
    **recipe: object,
) -> Configuration:
    """A configuration for :func:`blobs` (the data set's entry is only a name here)."""
    values: dict = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.05,
        "weight_decay": 1e-4,
        "nesterov": True,
    } | recipe
    return Configuration(
        names={part: part for part in ("dataset", "noise", "model", "recipe")} | {"method": method.method},
        dataset=DatasetConfig(source="digits"),
        noise=noise or NoiseConfig(kind="none"),
        model=model or model_of(SMALL_MODELS[0]),
        recipe=RecipeConfig(**values),
        method=method,
        requires=requires,
        peer_models=peer_models or {},
    )
