"""Training and test batches from uint8 images in memory.

The order, shifts and flips of an epoch are drawn on the CPU at its beginning and copied to the device once. No step
waits for the host, and CPU and GPU use the same numbers. A batch takes a few operations:

1. One gather. The images are stored zero-padded. In a view of the whole padded array, element [k] is the H x W window
that begins at pixel k (windows overlap and are not copied). One ``index_select`` along that axis then crops and selects
the images.
2. The images to be flipped are mirrored in place.
3. Conversion to float32 and normalisation, (x - 255 mean) / (255 std). This is a subtraction and a multiplication with
vectors as long as an image, because an inner loop over three channels would not vectorise.

The layout is NHWC in memory with the shape (B, C, H, W), which torch calls channels-last.

If several processes share a run, each makes its own rows of every batch. They are identical to these rows of the whole
batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from collabench.config.batch_sizes import LastBatch, batch_sizes
from collabench.config.sections import Augmentation
from collabench.core.distributed import WHOLE, Part
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator, torch_generator
from collabench.data.augmentation import EpochChanges

#: Area and aspect ratio of a random resized crop: the Inception recipe (Szegedy et al., 2015), torchvision's default.
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10


class Batching:
    """The batches of an epoch in its order: their sizes, and the rows of each that a process holds.

    images: their number. Raises DataError for fewer than two, or if a process would have no image of some batch.
    """

    def __init__(self, images: int, batch_size: int, last_batch: LastBatch, part: Part) -> None:
        if images < 2:
            raise DataError(f"training needs at least two images, there are {images}")
        self.sizes = batch_sizes(images, batch_size, last_batch)
        if min(self.sizes) < part.world:
            raise DataError(
                f"{images} training images in batches of {batch_size}: the smallest batch has {min(self.sizes)}, fewer "
                f"than the {part.world} processes that share it; choose another batch_size or last_batch, or fewer "
                "processes"
            )
        firsts = [0, *accumulate(self.sizes)][:-1]
        rows = [part.rows(size) for size in self.sizes]
        #: Positions in the epoch's order of the images of every batch that the process holds.
        self.parts = [slice(first + r.start, first + r.stop) for first, r in zip(firsts, rows, strict=True)]


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (count,) of the training images in an epoch."""
    return torch.randperm(count, generator=torch_generator(seed, "order", epoch))


class Normalisation:
    """uint8 (B, H, W, C) → float32 (B, C, H, W) in channels-last layout, (x - 255 mean) / (255 std) per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self._shift = torch.tensor([255 * value for value in mean], dtype=torch.float32, device=device)
        self._scale = torch.tensor([1 / (255 * value) for value in std], dtype=torch.float32, device=device)
        self._tiled: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        pixels = height * width
        if pixels not in self._tiled:
            self._tiled[pixels] = (self._shift.repeat(pixels), self._scale.repeat(pixels))
        shift, scale = self._tiled[pixels]
        # Two roundings instead of a fused multiply-add, so that every device gives the same result.
        flat = images.reshape(count, pixels * channels).to(torch.float32).sub_(shift).mul_(scale)
        return flat.view(count, height, width, channels).permute(0, 3, 1, 2)


class TrainingBatches:
    """Shuffled, augmented batches of a training split in the device's memory.

    images: uint8 (N, H, W, C), contiguous; stored with ``augmentation.shift`` zeros of padding on each side.
    mean, std: per channel, of pixels in [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        part: Part = WHOLE,
        last_batch: LastBatch = "keep",
    ) -> None:
        self._batching = Batching(len(images), batch_size, last_batch, part)
        self.seed, self.augmentation = seed, augmentation
        self.sizes, self.steps = self._batching.sizes, len(self._batching.sizes)
        self.count, self._height, self._width, channels = images.shape
        self._device = images.device
        self._normalise = Normalisation(mean, std, images.device)
        shift = augmentation.shift
        padded = F.pad(images, (0, 0, shift, shift, shift, shift)) if shift else images.contiguous()
        self._padded_height, self._padded_width = padded.shape[1:3]
        row = self._padded_width * channels
        flat = padded.view(-1)
        windows = (len(flat) - (self._height - 1) * row - self._width * channels) // channels + 1
        self._windows = flat.as_strided((windows, self._height, self._width * channels), (channels, row, 1))
        self._channels = channels

    def epoch(self, epoch: int, labels: Tensor, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch from ``first_step`` on, or this process's rows of them.

        Yields float32 (B, C, H, W), channels-last, and labels (B,). labels: (N,), of this epoch. The same (seed, epoch)
        gives the same batches for every ``first_step``.
        """
        order = epoch_order(self.count, self.seed, epoch)
        generator = torch_generator(self.seed, "augmentation", epoch)
        # All are always drawn, in this order, so that changing one setting does not change the numbers of the others.
        shifts = torch.randint(0, 2 * self.augmentation.shift + 1, (2, self.count), generator=generator)
        flips = torch.rand(self.count, generator=generator) < 0.5
        starts = (order * self._padded_height + shifts[0]) * self._padded_width + shifts[1]
        starts = starts.to(self._device)
        targets = labels.to(self._device)[order.to(self._device)]
        # Positions, within their batches, of the images to flip, for all batches. Their number is known here.
        parts = self._batching.parts
        begins, ends = (torch.tensor([getattr(part, end) for part in parts]) for end in ("start", "stop"))
        positions = flips.nonzero().flatten()
        bounds = torch.stack(
            [torch.searchsorted(positions, begins), torch.searchsorted(positions, ends)], dim=1
        ).tolist()
        owner = (torch.searchsorted(begins, positions, right=True) - 1).clamp(min=0)
        flipped = (positions - begins[owner]).to(self._device)
        crops = None
        if self.augmentation.random_resized_crop:
            crops = self._resized_crops(epoch, flips).to(self._device)
        side = self.augmentation.random_resized_crop
        changes = EpochChanges(
            self.augmentation, self.count, side or self._height, side or self._width, self.seed, epoch, self._device
        )
        for step in range(first_step, self.steps):
            part = parts[step]
            images = self._windows.index_select(0, starts[part])
            images = images.view(-1, self._height, self._width, self._channels)
            if crops is not None:
                yield (
                    changes.of_normalised(self._crop_and_resize(images, crops[part], changes, part), part),
                    targets[part],
                )
                continue
            if self.augmentation.flip:
                which = flipped[slice(*bounds[step])]
                images.index_copy_(0, which, images.index_select(0, which).flip(2))
            images = self._normalise(changes.of_pixels(images, part))
            yield changes.of_normalised(images, part), targets[part]

    def _resized_crops(self, epoch: int, flips: Tensor) -> Tensor:
        """Affine maps (N, 2, 3) from output to input coordinates in [-1, 1], for ``affine_grid``; with flips."""
        boxes = random_crop_boxes(
            self.count, self._height, self._width, numpy_generator(self.seed, "augmentation", epoch, "crop")
        )
        top, left, height, width = boxes.unbind(1)
        maps = torch.zeros(self.count, 2, 3)
        sign = torch.where(flips, -1.0, 1.0) if self.augmentation.flip else torch.ones(self.count)
        maps[:, 0, 0] = sign * width / self._width
        maps[:, 0, 2] = (2 * left + width) / self._width - 1
        maps[:, 1, 1] = height / self._height
        maps[:, 1, 2] = (2 * top + height) / self._height - 1
        return maps

    def _crop_and_resize(self, images: Tensor, maps: Tensor, changes: EpochChanges, part: slice) -> Tensor:
        """Bilinear resampling without antialiasing: each output pixel reads four input pixels. Shrinking by more than
        two therefore skips pixels."""
        side = self.augmentation.random_resized_crop
        assert side is not None
        grid = F.affine_grid(maps, [len(images), self._channels, side, side], align_corners=False)
        if self.augmentation.randaugment is not None:  # its operations are those of whole numbers from 0 to 255
            pixels = _resampled(images.permute(0, 3, 1, 2).float(), grid).round_().to(torch.uint8)
            return self._normalise(changes.of_pixels(pixels.permute(0, 2, 3, 1).contiguous(), part))
        return _resampled(self._normalise(images), grid).contiguous(memory_format=torch.channels_last)


def _resampled(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_crop_boxes(count: int, height: int, width: int, generator: np.random.Generator) -> Tensor:
    """Boxes (count, 4) of random resized crops: top, left, height, width in whole pixels, float32.

    The area is uniform in :data:`CROP_AREA` of the image, the aspect ratio log-uniform in :data:`CROP_RATIO`. The first
    of ten tries that fits is used, else the largest centred box with an allowed ratio.
    """
    area = generator.uniform(*CROP_AREA, (count, CROP_TRIES)) * (height * width)
    least, most = np.log(CROP_RATIO)
    ratio = np.exp(generator.uniform(least, most, (count, CROP_TRIES)))
    place = generator.random((count, 2))
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first, rows = fits.argmax(axis=1), np.arange(count)
    box_width = np.where(fits.any(axis=1), widths[rows, first], min(width, round(height * CROP_RATIO[1])))
    box_height = np.where(fits.any(axis=1), heights[rows, first], min(height, round(width / CROP_RATIO[0])))
    top = np.where(fits.any(axis=1), np.floor(place[:, 0] * (height - box_height + 1)), (height - box_height) // 2)
    left = np.where(fits.any(axis=1), np.floor(place[:, 1] * (width - box_width + 1)), (width - box_width) // 2)
    return torch.from_numpy(np.stack([top, left, box_height, box_width], axis=1).astype(np.float32))


def resized_side(side: int) -> int:
    """The side to which test images are resized before the centre crop of ``side``: 8/7 of it (256 for 224)."""
    return round(side * 8 / 7)


def test_batches(
    images: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    augmentation: Augmentation,
    device: torch.device | str | None = None,
) -> Iterator[Tensor]:
    """The images (N, H, W, C) in order as batches (B, C, H, W), float32, channels-last, without random changes.

    With ``random_resized_crop`` the shorter side is resized to 8/7 of it (bilinear, antialiased), then the middle is
    cropped. device: of the batches; the default is the images' device.
    """
    device = torch.device(device) if device is not None else images.device
    normalise = Normalisation(mean, std, device)
    side = augmentation.random_resized_crop
    for first in range(0, len(images), batch_size):
        batch = normalise(images[first : first + batch_size].to(device))
        yield batch if side is None else _resize_and_crop(batch, side)


test_batches.__test__ = False  # type: ignore[attr-defined] # functions do have attributes; not a test, whatever pytest thinks of its name


def _resize_and_crop(batch: Tensor, side: int) -> Tensor:
    height, width = batch.shape[2:]
    scale = resized_side(side) / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    batch = F.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return batch[:, :, top : top + side, left : left + side].contiguous(memory_format=torch.channels_last)
