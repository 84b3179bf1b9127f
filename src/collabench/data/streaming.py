"""Images that do not fit in memory: threads decode them from their files, a few batches ahead.

The random changes of an image depend on (seed, epoch, its number) only, not on threads or on the step at which an epoch
is resumed. Pillow decodes, crops and resizes (bilinear, antialiased). Normalisation runs on the device.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from collabench.config.batch_sizes import LastBatch
from collabench.config.sections import Augmentation
from collabench.core.distributed import WHOLE, Part
from collabench.core.errors import DataError, Log
from collabench.core.seeding import numpy_generator
from collabench.data.augmentation import EpochChanges
from collabench.data.batches import (
    Batching,
    Normalisation,
    epoch_order,
    random_crop_boxes,
    resized_side,
)
from collabench.data.image_files import BadFiles, ImageFiles, place_of, read_image_file
from collabench.data.images import centre_crop, is_turned, open_image, tell_turned

#: Nominal side of ImageNet's images, which have many sizes. Statistics are computed at this side.
NOMINAL_SIDE = 224

#: Number of batches that are decoded ahead of the one in use.
AHEAD = 3

#: Number of files that are handed to the threads at once when a data set is prepared.
_CHECKED_AT_ONCE = 4096


@dataclass(frozen=True)
class StreamedImages:
    """Images in files.

    root: their folder. names: UTF-8 paths below it, each ending with a newline, concatenated, uint8. ends: end of each
    path in ``names`` (exclusive, with its newline), int64 (all,). sizes: bytes of each file, int64 (all,). checksums:
    CRC-32 of each file when the data set was prepared, int64 (all,). index: numbers of these images among all files,
    int64 (N,). resize: side of the square to which images are resized, if any. upright: whether images are turned as
    their EXIF orientation says. root is None where the place of the images is not known and only the rest is read.
    """

    root: Path | None
    names: Tensor
    ends: Tensor
    sizes: Tensor
    checksums: Tensor
    index: Tensor
    resize: int | None
    upright: bool = False

    def __len__(self) -> int:
        return len(self.index)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width); a nominal shape if the images have many sizes."""
        side = self.resize or NOMINAL_SIDE
        return 3, side, side

    def at(self, index: Tensor) -> StreamedImages:
        """The subset of these images at ``index``."""
        return replace(self, index=self.index[index])

    def number(self, position: int) -> int:
        """The number of an image among all files."""
        return int(self._arrays[4][position])

    def open(self, position: int) -> Image.Image:
        """Decode one image as RGB. Raises DataError, naming the file, if it is missing, is damaged or has changed."""
        names, ends, sizes, checksums, index = self._arrays
        number = index[position]
        if self.root is None:
            raise ValueError("these images were opened without the folder that holds them")
        path = place_of(self.root, bytes(names[ends[number - 1] if number else 0 : ends[number] - 1]).decode())
        content = read_image_file(path, int(sizes[number]), int(checksums[number]))
        return open_image(content, str(path), self.upright)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        """NumPy views of the tensors: reading a number from a tensor takes microseconds, and every image needs five."""
        return tuple(part.numpy() for part in (self.names, self.ends, self.sizes, self.checksums, self.index))


def pack_files(files: ImageFiles, positions: Mapping[str, Sequence[int]], upright: bool, log: Log) -> dict[str, Tensor]:
    """Names, sizes and checksums of the files of each split, as tensors ``<split>_files``, ``_ends``, ``_sizes`` and
    ``_checksums``.

    positions: split → its files. Reads and decodes all of them. Raises BadFiles, naming every one that cannot be
    decoded.
    """

    def check(position: int) -> tuple[int, bool, str]:
        """CRC-32 of a file, whether its EXIF data turn it, and what is wrong with it."""
        name = files.names[position]
        content = read_image_file(place_of(files.path, name), files.sizes[position])
        try:
            open_image(content, name, upright)
            return zlib.crc32(content), is_turned(content), ""
        except DataError as error:
            return 0, False, str(error)

    log(f"{files.path}: decoding {sum(map(len, positions.values())):,} images")
    tensors: dict[str, Tensor] = {}
    bad: list[str] = []
    turned = 0
    with ThreadPoolExecutor(_threads()) as pool:
        for split, chosen in positions.items():
            checksums: list[int] = []
            for first in range(0, len(chosen), _CHECKED_AT_ONCE):
                for checksum, is_one, problem in pool.map(check, chosen[first : first + _CHECKED_AT_ONCE]):
                    checksums.append(checksum)
                    turned += is_one
                    bad += [problem] * bool(problem)
            lines = [f"{files.names[position]}\n".encode() for position in chosen]
            tensors |= {
                f"{split}_files": torch.from_numpy(np.frombuffer(b"".join(lines), dtype=np.uint8).copy()),
                f"{split}_ends": torch.tensor([len(line) for line in lines], dtype=torch.int64).cumsum(0),
                f"{split}_sizes": torch.tensor([files.sizes[position] for position in chosen], dtype=torch.int64),
                f"{split}_checksums": torch.tensor(checksums, dtype=torch.int64),
            }
    if bad:
        raise BadFiles(files.path, bad)
    tell_turned(turned, upright, files.path, log)
    return tensors


def unpack_files(
    root: Path | None, tensors: dict[str, Tensor], split: str, resize: int | None, upright: bool
) -> StreamedImages:
    """The images of a split from the tensors of :func:`pack_files`."""
    sizes = tensors[f"{split}_sizes"]
    names, ends, checksums = (tensors[f"{split}_{part}"] for part in ("files", "ends", "checksums"))
    return StreamedImages(root, names, ends, sizes, checksums, torch.arange(len(sizes)), resize, upright)


def decode_centre(images: StreamedImages, positions: Sequence[int], side: int) -> Tensor:
    """Centre crops (N, side, side, 3), uint8. Without ``resize`` the shorter side is first resized to 8/7 of
    ``side``."""

    def one(position: int) -> np.ndarray:
        return _centre(images, position, side)

    with ThreadPoolExecutor(_threads()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(one, positions))))


def _centre(images: StreamedImages, position: int, side: int) -> np.ndarray:
    image = images.open(position)
    if images.resize is not None:
        image = centre_crop(image, images.resize, images.resize)
        if side == images.resize:
            return np.asarray(image)
    return np.asarray(centre_crop(image, resized_side(side), side))


def _threads() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class StreamedBatches:
    """As :class:`collabench.data.batches.TrainingBatches`, for images in files."""

    def __init__(
        self,
        images: StreamedImages,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: Part = WHOLE,
        last_batch: LastBatch = "keep",
    ) -> None:
        if augmentation.random_resized_crop is None and images.resize is None:
            raise DataError(
                f"{images.root or 'the data set'}: its images are read from files and have many sizes: the recipe "
                "needs augmentation.random_resized_crop, or the data set a resize"
            )
        self._batching = Batching(len(images), batch_size, last_batch, part)
        self.seed, self.augmentation, self.count = seed, augmentation, len(images)
        self.sizes, self.steps = self._batching.sizes, len(self._batching.sizes)
        self._images, self._device = images, device
        self._normalise = Normalisation(mean, std, device)

    def epoch(self, epoch: int, labels: Tensor, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch from ``first_step`` on, or this process's rows of them.

        Yields float32 (B, C, H, W), channels-last, and labels (B,).
        """
        order = epoch_order(self.count, self.seed, epoch)
        targets = labels.to(self._device)[order.to(self._device)]
        parts = self._batching.parts
        batches = [order[part].tolist() for part in parts[first_step:]]
        decoded = _decoded(batches, lambda position: self._augmented(position, epoch), self._device)
        _, height, width = self.augmentation.network_shape(self._images.image_shape)
        changes = EpochChanges(self.augmentation, self.count, height, width, self.seed, epoch, self._device)
        for step, pixels in enumerate(decoded, start=first_step):
            images = self._normalise(changes.of_pixels(pixels, parts[step]))
            yield changes.of_normalised(images, parts[step]), targets[parts[step]]

    def _augmented(self, position: int, epoch: int) -> np.ndarray:
        """One image (H, W, 3), uint8, with the random changes of (seed, epoch, number of the image)."""
        image = self._images.open(position)
        if self._images.resize is not None:
            image = centre_crop(image, self._images.resize, self._images.resize)
        number = self._images.number(position)
        generator = numpy_generator(self.seed, "augmentation", epoch, number)
        flip, vertical, horizontal = generator.random(3)
        side, shift = self.augmentation.random_resized_crop, self.augmentation.shift
        if side is not None:
            top, left, height, width = random_crop_boxes(1, image.height, image.width, generator)[0].tolist()
            image = image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        elif shift:
            top, left = (int(place * (2 * shift + 1)) for place in (vertical, horizontal))
            image = ImageOps.expand(image, shift).crop((left, top, left + image.width, top + image.height))
        if self.augmentation.flip and flip < 0.5:
            image = ImageOps.mirror(image)
        return np.asarray(image)


def streamed_test_batches(
    images: StreamedImages,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    augmentation: Augmentation,
    device: torch.device,
) -> Iterator[Tensor]:
    """As :func:`collabench.data.batches.test_batches`, for images in files."""
    _, _, side = augmentation.network_shape(images.image_shape)
    normalise = Normalisation(mean, std, device)
    batches = [list(range(first, min(first + batch_size, len(images)))) for first in range(0, len(images), batch_size)]
    for pixels in _decoded(batches, lambda position: _centre(images, position, side), device):
        yield normalise(pixels)


def _decoded(
    batches: Sequence[Sequence[int]], one: Callable[[int], np.ndarray], device: torch.device
) -> Iterator[Tensor]:
    """Batches (B, H, W, 3), uint8, on the device, decoded by threads a few batches ahead. Raises the threads'
    errors."""
    with ThreadPoolExecutor(_threads()) as pool:
        waiting: deque[list[Future[np.ndarray]]] = deque()
        try:
            for number in range(len(batches) + AHEAD):
                if number < len(batches):
                    waiting.append([pool.submit(one, position) for position in batches[number]])
                if number >= AHEAD:
                    pixels = torch.from_numpy(np.stack([future.result() for future in waiting.popleft()]))
                    if device.type == "cuda":  # pinned memory lets the copy overlap with the GPU's work
                        pixels = pixels.pin_memory().to(device, non_blocking=True)
                    yield pixels
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
