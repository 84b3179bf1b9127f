"""Random changes of training images beyond moving them: RandAugment and cutout.

What changes an image depends on (seed, epoch, its position in the epoch's order) only, so that processes that share a
batch, and an epoch that is resumed, compute the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from collabench.config.sections import Augmentation, RandAugment
from collabench.core.seeding import stream_seed, torch_generator
from collabench.core.torchvision_import import import_torchvision


class EpochChanges:
    """The changes of one epoch. count: images of the epoch. height, width: of the images that the network receives."""

    def __init__(
        self, augmentation: Augmentation, count: int, height: int, width: int, seed: int, epoch: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._randaugment, self._seed, self._epoch = augmentation.randaugment, seed, epoch
        self._rows = torch.arange(height, device=device)[None, :, None]
        self._columns = torch.arange(width, device=device)[None, None, :]
        self._squares: Tensor | None = None
        if augmentation.cutout is not None:
            generator = torch_generator(seed, "augmentation", epoch, "cutout")
            self._squares = squares(count, height, width, augmentation.cutout, generator).to(device)

    def of_pixels(self, images: Tensor, part: slice) -> Tensor:
        """uint8 (B, H, W, C) → the same, changed. part: positions of the images in the epoch's order."""
        if self._randaugment is None:
            return images
        positions = range(part.start, part.stop)
        seeds = [stream_seed(self._seed, "augmentation", self._epoch, "randaugment", number) for number in positions]
        return rand_augment(images, self._randaugment, seeds)

    def of_normalised(self, images: Tensor, part: slice) -> Tensor:
        """float32 (B, C, H, W) → the same, changed in place."""
        if self._squares is None:
            return images
        top, bottom, left, right = self._squares[part, :, None, None].unbind(1)
        inside = (self._rows >= top) & (self._rows < bottom) & (self._columns >= left) & (self._columns < right)
        return images.masked_fill_(inside[:, None], 0.0)


def squares(count: int, height: int, width: int, side: int, generator: torch.Generator) -> Tensor:
    """Squares (count, 4) with a centre that is uniform in the image: first row, end of rows, first column, end of
    columns."""
    top = torch.randint(height, (count,), generator=generator) - side // 2
    left = torch.randint(width, (count,), generator=generator) - side // 2
    return torch.stack([top, top + side, left, left + side], dim=1)


def rand_augment(images: Tensor, settings: RandAugment, seeds: list[int]) -> Tensor:
    """RandAugment of images uint8 (B, H, W, C), each with the draws of its own seed."""
    import_torchvision()
    from torchvision.transforms import v2

    change = v2.RandAugment(num_ops=settings.operations, magnitude=settings.magnitude)
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images.permute(0, 3, 1, 2), seeds, strict=True):
            torch.default_generator.manual_seed(seed)  # torchvision draws from torch's global generator, on the CPU
            changed.append(change(image))
    return torch.stack(changed).permute(0, 2, 3, 1).contiguous()
