"""Whole trainings on all cores: the library's runs side by side, one thread each, and the reference one after the other
with all threads and its loader's workers."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import throughput
from collabench.estimate import Form, random_dataset
from collabench.models._winograd import convolve
from collabench.spec import Configuration, Run


def library(configurations: list[Configuration], form: Form, processes: int) -> float:
    """Images per second in training (evaluation left out) of one run per configuration, ``processes`` at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        list(pool.map(_warm, range(processes)))
        jobs = [pool.submit(_train, one, form, seed) for seed, one in enumerate(configurations)]
        parts = [job.result() for job in jobs]
    images = sum(images for images, _, _ in parts)
    return images / (max(end for _, _, end in parts) - min(begin for _, begin, _ in parts))


def _warm(number: int) -> int:
    convolve(torch.zeros(1, 32, 4, 4), torch.zeros(32, 32, 3, 3))  # loads what numba compiled, once for a process
    time.sleep(0.5)  # so that every process of the pool takes one
    return number


def _train(configuration: Configuration, form: Form, seed: int) -> tuple[int, float, float]:
    from collabench.training import train_run

    dataset = random_dataset(form, form.train_images, form.test_images)
    begin = time.time()
    trained = train_run(Run(configuration, seed), dataset, device=torch.device("cpu"))
    images = trained.result.train_images * configuration.recipe.epochs
    return images, begin, time.time() - trained.measured.evaluate_seconds


def reference_rate(
    depth: int, graph: str, form: Form, batch_size: int, epochs: int, threads: int, workers: int
) -> float:
    """Images per second of a reference training on ``threads`` threads with ``workers`` loader workers.

    The first step, with the start of the first epoch's workers, is left out: a real training has many more.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network, loss = throughput.reference_tree(depth, graph, form.shape[0])
        steps = throughput.reference_steps(network, loss, form.shape, batch_size, form.train_images, workers)
        left = epochs * form.train_images - next(steps)
        begin, seen = time.time(), 0
        while seen < left:
            seen += next(steps)
        return seen / (time.time() - begin)
    finally:
        torch.set_num_threads(before)


def seed_steps(form: str, seeds: int, threads: int, side: int, batch_size: int, steps: int) -> float:
    """Images per second of a step of :mod:`benchmarks.seeds` (in a process of its own, or in this one)."""
    from benchmarks.seeds import FORMS
    from collabench.models import build_backbone
    from collabench.models.cifar_resnet import Settings

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
