"""Images decoded from files on their way to training: `collabench.data.streaming`, as it is used, with its threads."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from collabench.config.sections import Augmentation
from collabench.data.images import find_images
from collabench.data.streaming import StreamedBatches, pack_files, unpack_files


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """``count`` JPEG files (quality 90) of this width and height with large shapes and some noise, as photographs
    have."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (folder / place).mkdir(parents=True)
    for number in range(count):
        coarse = torch.rand(1, 3, max(2, height // 24), max(2, width // 24), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        pixels = (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1).mul(255).byte()
        place = folder / ("train" if number > 1 else "test") / "ab"[number % 2]
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{number}.jpg", quality=90)


def rate(
    folder: Path, augmentation: Augmentation, resize: int | None, batch_size: int, epochs: int
) -> tuple[float, float, float]:
    """Images per second of wall time and of processor time (of all threads together), and kilobytes of a file."""
    files = find_images(folder, ("train", "test"))
    positions = [position for position, split in enumerate(files.splits.tolist()) if split == 0]
    packed = pack_files(files, {"train": positions}, False, lambda line: None)
    images = unpack_files(folder, packed, "train", resize, False)
    normalisation = ((0.5,) * 3, (0.25,) * 3)
    stream = StreamedBatches(images, *normalisation, augmentation, batch_size, 0, torch.device("cpu"))
    labels: Tensor = torch.zeros(len(images), dtype=torch.long)
    wall, processor = [], []
    for epoch in range(epochs + 1):
        begin = time.perf_counter(), time.process_time()
        seen = sum(len(targets) for _, targets in stream.epoch(epoch, labels))
        if epoch:  # the first one warms the file system's cache up
            wall.append(seen / (time.perf_counter() - begin[0]))
            processor.append(seen / (time.process_time() - begin[1]))
    kilobytes = statistics.mean(os.path.getsize(folder / files.names[position]) for position in positions) / 1000
    return statistics.median(wall), statistics.median(processor), kilobytes
