"""Trainings that take turns, each in a process with its own arithmetic: torch's own here, portable ones beside it.

What is compared takes turns, so that whatever slows the machine down slows all of it. Each process measures its own
processor time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

from collabench.config.configuration import Configuration
from collabench.core import arithmetic

#: Trains for a number of steps; images per second of processor time.
Turn = Callable[[int], float]


def here(steps: Iterator[int]) -> Turn:
    """Turns of a training in this process, after one step to warm up."""
    next(steps)

    def turn(count: int) -> float:
        begin = time.process_time()
        seen = sum(next(steps) for _ in range(count))
        return seen / (time.process_time() - begin)

    return turn


def rates(turns: Mapping[str, Turn], count: int = 1, repetitions: int = 3) -> dict[str, float]:
    """Images per second of several trainings: medians over ``repetitions`` turns of ``count`` steps."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repetitions):
        for name, turn in turns.items():
            found[name].append(turn(count))
    return {name: statistics.median(values) for name, values in found.items()}


@contextmanager
def environment_of(chosen: arithmetic.Arithmetic) -> Iterator[None]:
    """Within the block, processes are started with this arithmetic and one thread."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(arithmetic.environment(chosen, before) | {"OMP_NUM_THREADS": "1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Portable:
    """A process that trains with portable arithmetic. Ends with this one."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        with environment_of("portable"):
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
        theirs.close()
        self._begun = 0

    def train(self, configuration: Configuration, shape: tuple[int, int, int], images: int) -> Turn:
        """Turns of a configuration's training in that process, after one step to warm up."""
        number, self._begun = self._begun, self._begun + 1
        self._ask(("begin", number, configuration, shape, images))
        return lambda count: self._ask(("turn", number, count))

    def forget(self) -> None:
        """End all trainings."""
        self._ask(("forget",))

    def _ask(self, message: tuple) -> float:
        self._end.send(message)
        answer = self._end.recv()
        if isinstance(answer, str):
            raise SystemExit(answer)
        return answer


def _serve(asked: Connection) -> None:
    import torch

    from benchmarks import throughput
    from collabench.training.device import prepare_process

    prepare_process(torch.device("cpu"))
    trained: dict[int, Turn] = {}
    refusal = arithmetic.refusal()
    while True:
        try:
            message = asked.recv()
        except EOFError:
            return
        if refusal:
            asked.send(refusal)
            continue
        answer = 0.0
        match message:
            case "begin", number, configuration, shape, images:
                trained[number] = here(throughput.library_steps(throughput.portable(configuration), shape, images))
            case "turn", number, count:
                answer = trained[number](count)
            case _:
                trained.clear()
        asked.send(answer)
