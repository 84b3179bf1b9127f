"""Training throughput on the CPU, one thread: `make bench`.

Images per second of a whole training step (batch, forward, backward, update) and of the input pipeline alone, medians of
several repetitions, and the ratio to individual training in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from tabulate import tabulate

from collabench.config import Augmentation
from collabench.data.batches import TrainingBatches
from collabench.methods import METHODS, Batch
from collabench.models import FAMILIES
from collabench.training.device import describe, prepare_process
from collabench.training.loop import build_backbone

REPETITIONS, STEPS = 5, 4
GRAPHS = {
    "individual": {"graph": "individual"},
    "simple-4": {"graph": "simple_ilr", "heads": 4},
    "hierarchical-4": {"graph": "hierarchical_ilr", "heads": 4},
    "multi-instance-4": {"graph": "multi_instance", "heads": 4},
}


def images_per_second(step: Callable[[], int]) -> float:
    """Median over repetitions of STEPS calls, after one call to warm up; ``step`` returns how many images it saw."""
    step()
    rates = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        seen = sum(step() for _ in range(STEPS))
        rates.append(seen / (time.perf_counter() - begin))
    return statistics.median(rates)


def endless(batches: TrainingBatches, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    epoch = 0
    while True:
        yield from batches.epoch(epoch, labels)
        epoch += 1


def measure(depth: int, side: int, channels: int, batch_size: int) -> list[list[object]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20 * batch_size, side, side, channels), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    statistics_ = ((0.5,) * channels, (0.25,) * channels)
    stream = endless(TrainingBatches(images, *statistics_, Augmentation(shift=1, flip=True), batch_size, 0), labels)
    size = f"{channels}x{side}x{side}, batch {batch_size}"
    rows: list[list[object]] = [[size, "input pipeline alone", images_per_second(lambda: len(next(stream)[0])), None]]
    model = FAMILIES["cifar_resnet"].Settings(family="cifar_resnet", depth=depth)
    module = METHODS["song2018"]
    for name, values in GRAPHS.items():
        settings = module.Settings(method="song2018", **values)
        method = module.Method(settings, None)
        splits = settings.tree(build_backbone(model, (channels, side, side), 10, 0).stage_names)
        network = module.TrainingTree(
            lambda copy: build_backbone(model, (channels, side, side), 10, copy), splits, rescale=True
        ).to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)

        def update(loss: torch.Tensor, parameters: object = None, optimizer: torch.optim.SGD = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def step(method=method, network=network, update=update) -> int:
            batch, targets = next(stream)
            method.step(network, Batch(batch, targets, generator), update)
            return len(targets)

        rows.append([size, f"ResNet-{depth} {name}", images_per_second(step), None])
    alone = rows[1][2]
    return [[*row[:3], row[2] / alone] for row in rows]


def main() -> None:
    device = torch.device("cpu")
    prepare_process(device)
    print(f"torch {torch.__version__}, {describe(device)}, one thread, medians of {REPETITIONS}\n")
    rows = measure(8, 8, 1, 64) + measure(32, 32, 3, 128)
    print(tabulate(rows, ["images", "what", "images/s", "relative"], floatfmt=(None, None, ",.0f", ".2f")))


if __name__ == "__main__":
    main()
