"""All parts of the self-test, in order, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from collabench.core.processes import end_with_parent
from collabench.core.resources import Resources
from collabench.study.gpu_check import facts, numbers, sharing, speed
from collabench.study.gpu_check.record import Check

#: Name → a part that computes on the GPU that its process has leased.
ON_A_GPU: dict[str, Callable[[Resources], Iterator[Check]]] = {
    "facts": facts.facts,
    "truth": numbers.truth,
    "parity": numbers.parity,
    "bytes": numbers.bytes_,
    "waits": numbers.waits,
    "out of memory": sharing.shortage,
    "error of CUDA": sharing.fault,
}


def examine_gpu(resources: Resources, root: Path) -> Iterator[Check]:
    """Every check of the first of these GPUs, as it is found. root: the project's folder.

    An error in a part is a failed check of that part, and the other parts continue.
    """
    for name in ON_A_GPU:
        yield from _in_a_process(name, resources, root)
    yield from _guarded("leases", lambda: sharing.leases(resources))
    yield from _guarded("torchrun", lambda: sharing.all_reduce(resources))
    yield from _in_a_process("speed", resources, root)
    yield from _guarded("processes", lambda: speed.beside(resources, root))


def _in_a_process(name: str, resources: Resources, root: Path) -> Iterator[Check]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, end_with_parent, (os.getpid(),)) as pool:
        try:
            yield from pool.submit(run_part, name, resources, root).result()
        except BrokenProcessPool:
            yield _failed(name, "its process died")


def run_part(name: str, resources: Resources, root: Path) -> list[Check]:
    """Lease a whole GPU and run one part in this process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with resources.lease(need=None):
        if name == "speed":
            return list(_guarded(name, lambda: speed.speed(resources, root)))
        return list(_guarded(name, lambda: ON_A_GPU[name](resources)))


def _guarded(name: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A part's checks. An error in it is one that failed."""
    try:
        yield from checks()
    except Exception as error:
        yield _failed(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _failed(name: str, text: str) -> Check:
    return Check(part=name, name="could not be checked", verdict="FAILED", text=text)
