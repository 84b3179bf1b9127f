"""The least time that a training step can take: its arithmetic at the convolution peak, and its bytes at the memory's
speed.

Bytes are counted at the operations that torch runs: each reads its tensors once and writes its results once. That is
less than they do (batch normalisation reads its input twice), and more than a step needs whose operations were fused.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Traffic(TorchDispatchMode):
    """While it lasts, ``bytes`` sums what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        read = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        written = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        storages = {leaf.untyped_storage().data_ptr() for leaf in read.values()}
        changes = function._schema.is_mutable
        fresh = [leaf for leaf in written if changes or leaf.untyped_storage().data_ptr() not in storages]
        if fresh and function.overloadpacket.__name__ not in ("empty", "empty_strided", "new_empty_strided"):
            self.bytes += sum(leaf.numel() * leaf.element_size() for leaf in [*read.values(), *fresh])
        return output


def bytes_of_step(steps: Iterator[int]) -> int:
    """Bytes that one step moves, after one to warm up."""
    next(steps)
    with Traffic() as traffic:
        next(steps)
    return traffic.bytes


class Operations(TorchDispatchMode):
    """While it lasts, ``count`` counts torch's operations: on a GPU about one kernel each. Views are none.

    The project's own loops are no operations of torch and are not counted: count what is not portable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def operations_of_step(steps: Iterator[int]) -> int:
    """Operations of one step, after one to warm up."""
    next(steps)
    with Operations() as operations:
        next(steps)
    return operations.count


def memory_bandwidth(megabytes: int = 64, repetitions: int = 15) -> float:
    """Bytes per second that one thread reads and writes in the sum of two arrays too large for its caches."""
    count = megabytes * 2**20 // 4
    first, second, total = torch.ones(count), torch.ones(count), torch.zeros(count)
    times = []
    for _ in range(repetitions):
        begin = time.process_time()
        torch.add(first, second, out=total)
        times.append(time.process_time() - begin)
    return 3 * 4 * count / statistics.median(times)
