"""What a checkpoint holds if training goes on before anything has reached the host, on the pretended GPU.

Prints one line of JSON: name → whether the file holds the state as it was, and what was called meanwhile. Beside the
writer as it is stand writers with a fault planted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from collabench.training import checkpoint
from tests.support.pretended_gpu import device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network after one step, so that the optimizer has a state too."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).to(CUDA, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    step(network, optimizer)
    return network, optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    images = torch.arange(2 * 3 * 64, dtype=torch.float32, device=CUDA).reshape(2, 3, 8, 8).sin()
    network(images).square().mean().backward()
    optimizer.step()


def state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "empty": torch.empty(0, device=CUDA)}


def content(path: Path) -> dict[str, Any]:
    return checkpoint.load(path, CPU)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.stride() == other.stride() and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def written(patched: Callable[[], AbstractContextManager[Any]]) -> dict[str, Any]:
    """Write two checkpoints, each followed by a step before its copy is done."""
    network, optimizer = trained()
    begun, write = threading.Event(), checkpoint.Writer._write
    faithful, waits = list[bool](), set[str]()

    def late(self: checkpoint.Writer, *given: Any) -> None:
        assert begun.wait(60)
        write(self, *given)

    with TemporaryDirectory() as folder, patch.object(checkpoint.Writer, "_write", late):
        path, expected = Path(folder) / "checkpoint", Path(folder) / "expected"
        with checkpoint.Writer(path) as writer:
            for _ in range(2):
                begun.clear()
                checkpoint.save(expected, state_of(network, optimizer))
                device.forget()
                state = state_of(network, optimizer)
                with patched():
                    writer.write(state)
                step(network, optimizer)
                waits |= {name for name in device.counts() if name[0] in "!?"}
                del state
                with patched():
                    begun.set()
                    writer._wait()
                faithful.append(same(content(path), content(expected)))
    return {"faithful": all(faithful), "waits": sorted(waits)}


@contextmanager
def short_of_memory() -> Iterator[None]:
    def full(tensor: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with patch.object(Tensor, "clone", full):
        yield


#: Name → what is patched while two checkpoints are written.
CASES = {
    "as it is": lambda: patch.object(checkpoint, "FORM", checkpoint.FORM),
    "short of memory": short_of_memory,
    "fault: the memory of the clone is given away": lambda: patch.object(Tensor, "record_stream", lambda *_: None),
    "fault: the weights themselves are copied": lambda: patch.object(Tensor, "clone", lambda tensor: tensor.detach()),
    "fault: nobody waits for the copies": lambda: patch.object(torch, "Event", _Silent),
    "fault: the copies wait for nothing": lambda: patch.object(checkpoint._Beside, "copy", _unordered),
}


class _Silent:
    """An event that is never waited for."""

    def __init__(self, device: torch.device) -> None: ...

    def record(self, stream: torch.Stream) -> None: ...

    def synchronize(self) -> None: ...


def _unordered(self: Any, value: Tensor) -> Tensor:
    there, clone = torch.empty_like(value, device="cpu", pin_memory=True), value.clone()
    with self._stream:
        there.copy_(clone, non_blocking=True)
    clone.record_stream(self._stream)
    return there


def main() -> None:
    found = {}
    for name, patched in CASES.items():
        found[name] = written(patched)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
