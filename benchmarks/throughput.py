"""Training throughput of the library and of the reference, in this process, on its one thread.

Timed by the processor's clock: on an idle machine it is the wall's, and other work on the machine counts little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks import reference
from collabench.config.configuration import Configuration
from collabench.config.sections import Augmentation
from collabench.data.batches import TrainingBatches
from collabench.methods import METHODS, Batch
from collabench.models import FAMILIES, build_backbone
from collabench.models.convolution.portable import make_portable
from collabench.models.dropout import set_dropout_generator
from collabench.training.context import make_context, make_method
from collabench.training.flops import Counts

Shape = tuple[int, int, int]

GRAPHS = {
    "individual": {"graph": "individual", "heads": 1},
    "simple-4": {"graph": "simple_ilr", "heads": 4},
    "hierarchical-4": {"graph": "hierarchical_ilr", "heads": 4},
    "multi-instance-4": {"graph": "multi_instance", "heads": 4},
}
DENSENET = {"family": "densenet", "depth": 40, "growth": 12}


def portable(configuration: Configuration) -> Configuration:
    """The same with every convolution in the form that suits its shape."""
    recipe = configuration.recipe.model_copy(update={"arithmetic": "portable"})
    return configuration.model_copy(update={"recipe": recipe})


def configuration(method: dict, model: dict, base: Configuration, batch_size: int) -> Configuration:
    """``base`` with another method, model and batch size."""
    return base.model_copy(
        update={
            "method": METHODS[method["method"]].Settings(**method),
            "model": FAMILIES[model["family"]].Settings(**model),
            "recipe": base.recipe.model_copy(update={"batch_size": batch_size}),
        }
    )


def random_images(shape: Shape, count: int) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, H, W, C) and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape
    images = torch.randint(0, 256, (count, height, width, channels), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, 10, (count,), generator=generator)


def batches(shape: Shape, batch_size: int, count: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The library's input pipeline, without an end."""
    images, labels = random_images(shape, count)
    statistics_ = ((reference.MEAN,) * shape[0], (reference.STD,) * shape[0])
    augmentation = Augmentation(shift=max(1, shape[1] // 8), flip=shape[0] == 3)
    stream = TrainingBatches(images, *statistics_, augmentation, batch_size, seed)
    epoch = 0
    while True:
        yield from stream.epoch(epoch, labels)
        epoch += 1


def library_steps(configuration: Configuration, shape: Shape, count: int) -> Iterator[int]:
    """Train a configuration for ever as the training loop does; yields the images of every step."""
    method = make_method(configuration, make_context(configuration, shape, 10, 0))
    network = method.build().to(memory_format=torch.channels_last).train()
    if configuration.recipe.arithmetic == "portable":
        make_portable(network)
    generator = torch.Generator()
    set_dropout_generator(network, generator)
    optimizer = reference.optimizer_of(network, foreach=True)

    def update(loss: Tensor, parameters: list[nn.Parameter] | None = None) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=None if parameters is None else list(parameters))
        optimizer.step()

    for images, labels in batches(shape, configuration.recipe.batch_size, count):
        method.step(network, Batch(images, labels, generator), update)
        yield len(labels)


def reference_steps(
    network: nn.Module, loss: Callable, shape: Shape, batch_size: int, count: int, workers: int
) -> Iterator[int]:
    """Train the reference for ever."""
    images, labels = random_images(shape, count)
    data = reference.loader(images, labels, batch_size, max(1, shape[1] // 8), shape[0] == 3, workers)
    return reference.steps(network, data, loss)


def reference_tree(depth: int, graph: str, channels: int) -> tuple[nn.Module, Callable]:
    """A residual network's training graph as people write it, and its loss."""
    tree = reference.Tree(reference.parts(depth, channels, 10), reference.GRAPHS[graph])
    return tree, lambda network, x, y: reference.collaborative_loss(network(x), y)


def reference_plain(model: dict, shape: Shape) -> tuple[nn.Module, Callable]:
    """A backbone's modules in their default layout, trained alone."""
    backbone = build_backbone(FAMILIES[model["family"]].Settings(**model), shape, 10, 0)
    return backbone, lambda network, x, y: nn.functional.cross_entropy(network(x), y)


def rate(
    steps: Iterator[int], count: int, repetitions: int = 3, clock: Callable[[], float] = time.process_time
) -> float:
    """Images per second: median over repetitions of ``count`` steps, after one step to warm up.

    clock: the processor's time adds up over threads, so that more than one needs the wall's.
    """
    next(steps)
    rates = []
    for _ in range(repetitions):
        begin = clock()
        seen = sum(next(steps) for _ in range(count))
        rates.append(seen / (clock() - begin))
    return statistics.median(rates)


def reference_intra_model(configuration: Configuration, shape: Shape) -> tuple[nn.Module, Callable]:
    """The modules of a configuration's fang2021 network in their default layout, and its losses as people write
    them."""
    method = make_method(configuration, make_context(configuration, shape, 10, 0))
    network = method.build()
    set_dropout_generator(network, torch.Generator())
    return network, reference.intra_model_loss


def convolution_peak(seconds: float = 1.0) -> float:
    """FLOPs per second of this process in the best of a few large channels-last convolutions, forward."""
    best = 0.0
    for channels, side in ((64, 32), (128, 28), (256, 14)):
        x = torch.randn(32, channels, side, side).contiguous(memory_format=torch.channels_last)
        layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
        flops = 2 * 9 * channels * channels * side * side * len(x)
        with torch.no_grad():
            layer(x)
            begin, times = time.process_time(), []
            while time.process_time() - begin < seconds / 3:
                start = time.process_time()
                layer(x)
                times.append(time.process_time() - start)
        best = max(best, flops / statistics.median(times))
    return best


def share_of_peak(images_per_second: float, counts: Counts, peak: float) -> float:
    """Arithmetic rate of training as a share of the convolution peak."""
    return images_per_second * counts.training / peak
