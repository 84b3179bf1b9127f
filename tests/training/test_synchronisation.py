"""Nothing in a training step waits for the device: what would make a GPU wait is counted on the CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.training.history import Clock
from collabench.training.loop import _Trainer
from tests.support.defaults import configuration, teachers
from tests.support.synthetic import blobs

aten = torch.ops.aten
CPU = torch.device("cpu")

#: Operations whose result, or its size, the host must know before it can go on; and a tensor made from Python's
#: numbers, which a GPU gets by a copy that the host waits for.
WAITING = {
    aten.lift_fresh.default,
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.bincount.default, aten.repeat_interleave.Tensor,
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts them, whoever calls: forward, backward or the optimizer. A mask as an index asks for its size too."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        masks = operation in (aten.index.Tensor, aten.index_put_.default) and any(
            index is not None and index.dtype == torch.bool for index in arguments[1]
        )
        if operation in WAITING or masks:
            self.found[str(operation)] += 1
        return operation(*arguments, **(options or {}))


@pytest.fixture
def waits(monkeypatch) -> Waits:
    counted = Waits()
    for name in ("tolist", "numpy"):  # they read memory without an operation that a mode would see
        original = getattr(Tensor, name)

        def reading(tensor: Tensor, *arguments: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            counted.found[name] += 1
            return original(tensor, *arguments, **options)

        monkeypatch.setattr(Tensor, name, reading)
    apply = nn.Module._apply  # what Module.to does with every weight, on the host

    def moving(module: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
        counted.found["a module is moved"] += 1
        return apply(module, *arguments, **options)

    monkeypatch.setattr(nn.Module, "_apply", moving)
    # torch's own looks at the labels' range, but not on a GPU.
    monkeypatch.setattr(nn.functional, "one_hot", lambda y, classes: (y[:, None] == torch.arange(classes)).long())
    return counted


def of_an_epoch(method: str, steps: int, waits: Waits) -> dict[str, int]:
    run = Run(configuration(method, batch_size=8, epochs=2), 0)
    trainer = _Trainer(run, blobs(train=8 * steps), CPU, None, teachers(run))
    waits.found.clear()
    with waits:
        trainer.train_epoch(Clock(1e9), None, None)
    assert trainer.batches.steps == steps
    return dict(waits.found)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_an_epoch_of_more_steps_waits_no_more_often(method, waits):
    few, many = of_an_epoch(method, 2, waits), of_an_epoch(method, 5, waits)
    assert few == many
    assert few, "the end of an epoch reads its losses"


def test_a_step_that_reads_its_loss_is_noticed(waits, monkeypatch):
    step = METHODS["individual"].Method.step

    def reading(self, network, batch, update):
        terms = step(self, network, batch, update)
        assert terms["hard"].item() > 0
        return terms

    monkeypatch.setattr(METHODS["individual"].Method, "step", reading)
    few, many = of_an_epoch("individual", 2, waits), of_an_epoch("individual", 5, waits)
    name = str(aten._local_scalar_dense.default)
    assert many[name] - few.get(name, 0) == 3


def test_a_step_that_makes_a_tensor_of_numbers_is_noticed(waits, monkeypatch):
    step = METHODS["individual"].Method.step

    def making(self, network, batch, update):
        assert torch.tensor([1.0, 2.0], device=batch.images.device).shape == (2,)
        return step(self, network, batch, update)

    monkeypatch.setattr(METHODS["individual"].Method, "step", making)
    few, many = of_an_epoch("individual", 2, waits), of_an_epoch("individual", 5, waits)
    name = str(aten.lift_fresh.default)
    assert many[name] - few.get(name, 0) == 3
