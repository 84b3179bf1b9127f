"""Training memory of a configuration, counted on fake tensors without GPU, data or memory.

Every storage that a training step makes is followed over its lifetime (fake tensors have sizes and lifetimes but no
numbers). The peak is that of a device whose allocator wastes nothing and whose kernels need no workspace. A real device
needs more: the CUDA context, workspaces, fragmentation.

The second step is counted, in which the optimizer's state exists.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collabench.config.configuration import Configuration
from collabench.config.dataset_shape import shape_without_files
from collabench.training.flops import FakeTraining, fake_training, flops_of


@dataclass(frozen=True)
class Memory:
    """Bytes of one training process's tensors.

    parameters: parameters and buffers of the training network. teachers: those of frozen teachers. optimizer: its
    state, and averaged weights. gradients: of the parameters. batch: images and labels. saved: the maximum that is kept
    for the backward pass at one time, each storage once, without parameters and batch. peak: the maximum of all tensors
    at one time.
    """

    parameters: int
    teachers: int
    gradients: int
    optimizer: int
    batch: int
    saved: int
    peak: int

    @property
    def held(self) -> int:
        """Bytes that training must hold on any device: everything except temporary memory of operations."""
        return self.parameters + self.teachers + self.gradients + self.optimizer + self.batch + self.saved


def count_memory(
    configuration: Configuration,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
    batch_size: int | None = None,
) -> Memory:
    """Training memory of a configuration.

    shape: (C, H, W) that the network receives. classes: their number. The defaults are those that are known without
    files. batch_size: the default is the recipe's. Raises ConfigError if the data set's shape is not known.
    """
    if shape is None or classes is None:
        form = shape_without_files(configuration)
        shape, classes = form.network_shape(configuration.recipe), form.classes
    with fake_training(configuration, shape, classes, batch_size) as training:
        return _measure(training, training.step)


def count_both(configuration: Configuration, shape: tuple[int, int, int], classes: int) -> tuple[int, int, Memory]:
    """FLOPs of one image in training, parameters of the deployed network, and training memory, as
    :func:`collabench.training.flops.count` and :func:`count_memory` give them, in half of their time."""
    with fake_training(configuration, shape, classes) as training:
        flops = []
        memory = _measure(training, lambda: flops.append(flops_of(training.step)))
        parameters = sum(p.numel() for p in training.method.deploy(training.network).parameters())
        return round(sum(flops) / len(training.batch.images)), parameters, memory


def _measure(training: FakeTraining, first_step: Callable[[], object]) -> Memory:
    fixed = [*training.network.parameters(), *training.network.buffers()]
    teachers = [t for teacher in training.teachers for t in (*teacher.parameters(), *teacher.buffers())]
    batch = [training.batch.images, training.batch.labels]
    if not training.method.trains:
        parameters = _bytes(fixed)
        return Memory(parameters, 0, 0, 0, _bytes(batch), 0, parameters + _bytes(batch))
    first_step()
    optimizer = [v for state in training.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    optimizer += training.average
    training.optimizer.zero_grad(set_to_none=True)
    own = _bytes(fixed)
    before = _storages([*fixed, *teachers, *optimizer, *batch])
    saved, live = _Saved(before), _Live(before)
    with saved.hooks(), live:
        training.step()
    return Memory(
        parameters=own,
        teachers=_bytes(teachers),
        gradients=_bytes(p for p in training.network.parameters() if p.requires_grad),
        optimizer=_bytes(optimizer),
        batch=_bytes(batch),
        saved=saved.peak,
        peak=live.peak,
    )


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Storage → bytes. A storage that several tensors share is counted once."""
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_storages(tensors).values())


class _Saved:
    """The tensors that the graph keeps for the backward pass. Each is wrapped and lives as long as its wrapper."""

    def __init__(self, known: dict[int, int]) -> None:
        self._known, self._uses = known, Counter[int]()
        self._now = self.peak = 0

    @contextmanager
    def hooks(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda wrapped: wrapped.tensor):
            yield

    def _pack(self, tensor: Tensor) -> _Wrapped:
        wrapped = _Wrapped(tensor.detach())
        storage = wrapped.tensor.untyped_storage()
        if storage._cdata not in self._known:
            if not self._uses[storage._cdata]:
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
            self._uses[storage._cdata] += 1
            # The wrapper holds the storage, so that its address cannot be reused before this is called.
            weakref.finalize(wrapped, self._release, storage._cdata, storage.nbytes())
        return wrapped

    def _release(self, storage: int, size: int) -> None:
        self._uses[storage] -= 1
        if not self._uses[storage]:
            self._now -= size


class _Wrapped:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Live(TorchDispatchMode):
    """All storages that operations make, over their lifetimes."""

    def __init__(self, known: dict[int, int]) -> None:
        super().__init__()
        self._known = set(known)
        self._now = self.peak = sum(known.values())

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = operation(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self._now += storage.nbytes()
                    weakref.finalize(storage, self._end, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self._now)
        return result

    def _end(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size


def parts_of(memory: Memory) -> list[tuple[str, int, float]]:
    """The use of memory: (part, bytes, share of all that is held), largest first."""
    sizes = {
        "activations saved for backward": memory.saved,
        "parameters and buffers": memory.parameters,
        "gradients": memory.gradients,
        "optimizer state": memory.optimizer,
        "frozen teachers": memory.teachers,
        "batch": memory.batch,
    }
    rows = [(name, size, size / memory.held) for name, size in sizes.items() if size]
    return sorted(rows, key=lambda row: -row[1])
