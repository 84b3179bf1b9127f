"""How fast images are decoded from files on their way to training, by the threads of one process.

The threads share one interpreter's lock, so that more of them need not decode more. What a GPU trains is compared.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from collabench.config.sections import Augmentation
from collabench.data.image_files import find_images
from collabench.data.streaming import StreamedBatches, pack_files, unpack_files
from collabench.study.gpu_check.record import Check

#: Width and height of a file, side of what is trained on, number of files: photographs as ImageNet has them.
FILE, SIDE, COUNT = (500, 375), 224, 400
#: How often all are decoded.
EPOCHS = 5


def decoding(device: torch.device, trained: float | None) -> Iterator[Check]:
    """Images a second that are decoded for a network on ImageNet, beside those that this GPU trains (``trained``)."""
    with tempfile.TemporaryDirectory(prefix="collabench-gpu-check-") as folder:
        write_images(Path(folder), COUNT, FILE)
        augmentation = Augmentation(flip=True, random_resized_crop=SIDE)
        wall, processor, kilobytes = rate(Path(folder), augmentation, None, 32, EPOCHS, device)
    text = (
        f"the threads of a process decode {wall:,.0f} images a second of {FILE[0]}x{FILE[1]} ({kilobytes:.0f} kB) to "
        f"{SIDE}x{SIDE}, {processor:,.0f} in a second of processor time"
    )
    if trained is not None:
        state = "they keep up" if wall >= trained else f"it waits for images {1 - wall / trained:.0%} of the time"
        text += f"; the GPU trains {trained:,.0f} a second: {state}"
    yield Check(part="speed", name="decoding", verdict="note", text=text)


def write_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """``count`` JPEG files (quality 90) of this width and height with large shapes and some noise, as photographs
    have."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        coarse = torch.rand(1, 3, max(2, height // 24), max(2, width // 24), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]
        pixels = (smooth + 0.03 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1).mul(255).byte()
        place = folder / ("train" if number > 1 else "test") / "ab"[number % 2]
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{number}.jpg", quality=90)


def rate(
    folder: Path, augmentation: Augmentation, resize: int | None, batch_size: int, epochs: int, device: torch.device
) -> tuple[float, float, float]:
    """Images per second of wall time and of processor time (of all threads together), and kilobytes of a file."""
    files = find_images(folder, ("train", "test"))
    positions = [position for position, split in enumerate(files.splits.tolist()) if split == 0]
    packed = pack_files(files, {"train": positions}, False, lambda line: None)
    images = unpack_files(folder, packed, "train", resize, False)
    normalisation = ((0.5,) * 3, (0.25,) * 3)
    stream = StreamedBatches(images, *normalisation, augmentation, batch_size, 0, device)
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
