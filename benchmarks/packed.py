"""Trainings on all cores: the library's runs side by side, one thread each, and the reference with all threads and its
loader's workers. They take turns of a second or two, since the speed of a machine that is shared changes from minute to
minute."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import torch

from benchmarks import throughput
from benchmarks.turns import environment_of
from collabench.config.configuration import Configuration
from collabench.core.arithmetic import Arithmetic, refusal
from collabench.training.device import prepare_process

Shape = throughput.Shape


#: What the library trains, and the arithmetic of the processes that do, by name.
Forms = dict[str, tuple[Configuration, Arithmetic]]


def end_to_end(
    forms: Forms,
    depth: int,
    graph: str,
    shape: Shape,
    settings: Sequence[tuple[int, int]],
    cores: int,
    steps: int,
    rounds: int,
) -> tuple[dict[str, float], tuple[int, int], dict[str, float]]:
    """Input pipeline and training steps, in images per second: medians over ``rounds`` turns of ``steps`` steps each.

    forms: what the library trains, a run of it on each of ``cores`` cores. settings: numbers of threads and loader
    workers between which the reference chooses.

    Returns the rates of the library and of ``reference`` in its best setting (by the median, as well), that setting,
    and the medians of the library's ratios to it within a turn.
    """
    first, _ = next(iter(forms.values()))
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_workers(*form, shape, cores)) for name, form in forms.items()}
        reference = {s: _reference(depth, graph, shape, first.recipe.batch_size, s) for s in settings}
        for setting in settings:
            _turn_of(reference[setting], setting[0], steps)  # its loader starts, its memory is found
        rates: dict[str, list[float]] = {name: [] for name in forms}
        tried: dict[tuple[int, int], list[float]] = {setting: [] for setting in settings}
        for _ in range(rounds):
            for name in forms:
                rates[name].append(_turn_of_all(workers[name], steps))
            for setting in settings:
                tried[setting].append(_turn_of(reference[setting], setting[0], steps))
    best = max(tried, key=lambda setting: statistics.median(tried[setting]))
    ratios = {
        name: statistics.median(a / b for a, b in zip(found, tried[best], strict=True)) for name, found in rates.items()
    }
    rates["reference"] = tried[best]
    return {name: statistics.median(found) for name, found in rates.items()}, best, ratios


def _reference(depth: int, graph: str, shape: Shape, batch_size: int, setting: tuple[int, int]) -> Iterator[int]:
    network, loss = throughput.reference_tree(depth, graph, shape[0])
    return throughput.reference_steps(network, loss, shape, batch_size, 8 * batch_size, setting[1])


def _turn_of(steps: Iterator[int], threads: int, count: int) -> float:
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    seen = sum(next(steps) for _ in range(count))
    rate = seen / (time.perf_counter() - begin)
    torch.set_num_threads(1)
    return rate


def _turn_of_all(workers: Sequence[Connection], count: int) -> float:
    begin = time.perf_counter()
    for worker in workers:
        worker.send(count)
    seen = sum(worker.recv() for worker in workers)
    return seen / (time.perf_counter() - begin)


@contextmanager
def _workers(configuration: Configuration, chosen: Arithmetic, shape: Shape, count: int) -> Iterator[list[Connection]]:
    """Processes of one thread that train, each a run of its own, when they are told to."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for _ in range(count):
        here, there = context.Pipe()
        processes.append(context.Process(target=_serve, args=(there, configuration, shape), daemon=True))
        with environment_of(chosen):
            processes[-1].start()
        ends.append(here)
    try:
        for end in ends:
            if (answer := end.recv()) != "ready":
                raise SystemExit(answer)
        yield ends
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(told: Connection, configuration: Configuration, shape: Shape) -> None:
    prepare_process(torch.device("cpu"))
    if configuration.recipe.arithmetic == "portable" and (why := refusal()):
        told.send(why)
        return
    steps = throughput.library_steps(configuration, shape, 8 * configuration.recipe.batch_size)
    next(steps)
    told.send("ready")
    while True:
        told.send(sum(next(steps) for _ in range(told.recv())))


def _warm(number: int) -> int:
    torch.nn.functional.conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3))
    time.sleep(0.5)  # so that every process of the pool takes one
    return number


def seed_steps(form: str, seeds: int, threads: int, side: int, batch_size: int, steps: int) -> float:
    """Images per second of a step of :mod:`benchmarks.seeds` (in a process of its own, or in this one)."""
    from benchmarks.seeds import FORMS
    from collabench.models import build_backbone
    from collabench.models.families.cifar_resnet import Settings

    torch.set_num_threads(threads)
    shape = (1, side, side)
    networks = [
        build_backbone(Settings(family="cifar_resnet", depth=8), shape, 10, seed).train() for seed in range(seeds)
    ]
    step = FORMS[form](networks)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(seeds, batch_size, *shape, generator=generator)
    labels = torch.randint(0, 10, (seeds, batch_size), generator=generator)

    def endless():
        while True:
            step(images, labels)
            yield seeds * batch_size

    return throughput.rate(endless(), steps, clock=time.perf_counter)


def seeds_in_processes(seeds: int, processes: int, side: int, batch_size: int, steps: int) -> float:
    """The same with the seeds shared out to processes of one thread, each a loop; sum of their rates."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        list(pool.map(_warm, range(processes)))
        jobs = [
            pool.submit(seed_steps, "loop", seeds // processes, 1, side, batch_size, steps) for _ in range(processes)
        ]
        return sum(job.result() for job in jobs)
