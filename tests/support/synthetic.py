"""A small data set with something to learn, made of random numbers, and configurations to train on it."""

from __future__ import annotations

import torch

from collabench.data import Dataset
from collabench.study.gpu_check.cases import CLASSES, SMALL_MODELS, configuration_of, model_of, settings_of

__all__ = ["CLASSES", "SMALL_MODELS", "blobs", "configuration_of", "model_of", "settings_of"]


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
