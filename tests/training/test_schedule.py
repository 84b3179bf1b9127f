"""Learning rates, against torch's own schedulers."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from collabench.config.sections import RecipeConfig
from collabench.training.schedule import learning_rate

STEPS = 7  # batches of an epoch


def recipe(**values: object) -> RecipeConfig:
    return RecipeConfig(**{"epochs": 10, "batch_size": 8, "learning_rate": 0.3} | values)


def of_torch(entry: RecipeConfig, make: Callable[[torch.optim.Optimizer], object]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=entry.learning_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of schedules that are asked for a rate before a step
        scheduler = make(optimizer)
        rates = []
        for _ in range(entry.epochs * STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def ours(entry: RecipeConfig) -> list[float]:
    return [learning_rate(entry, epoch, step, STEPS) for epoch in range(entry.epochs) for step in range(STEPS)]


def warm_up(optimizer: torch.optim.Optimizer, batches: int) -> torch_schedules.LinearLR:
    return torch_schedules.LinearLR(optimizer, start_factor=1 / (batches + 1), total_iters=batches)


def test_cosine():
    entry = recipe(schedule="cosine")
    expected = of_torch(entry, lambda o: torch_schedules.CosineAnnealingLR(o, T_max=10 * STEPS))
    assert ours(entry) == pytest.approx(expected, rel=1e-9)
    assert ours(entry)[0] == 0.3 and ours(entry)[-1] < 0.001


@pytest.mark.parametrize("epochs", [1, 3, 10])
def test_one_cycle(epochs):
    entry = recipe(schedule="one_cycle", epochs=epochs)
    batches = epochs * STEPS
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch_schedules.OneCycleLR(optimizer, max_lr=0.3, total_steps=batches, cycle_momentum=False)
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(batches - 1):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert ours(entry) == pytest.approx(expected, rel=1e-9)


def test_warm_up_and_cosine():
    entry = recipe(schedule="cosine", warmup_epochs=2)

    def make(optimizer: torch.optim.Optimizer) -> torch_schedules.SequentialLR:
        cosine = torch_schedules.CosineAnnealingLR(optimizer, T_max=8 * STEPS)
        return torch_schedules.SequentialLR(optimizer, [warm_up(optimizer, 2 * STEPS), cosine], [2 * STEPS])

    assert ours(entry) == pytest.approx(of_torch(entry, make), rel=1e-9)


def test_warm_up_and_milestones():
    entry = recipe(milestones=(1, 6), warmup_epochs=3, gamma=0.2)

    def make(optimizer: torch.optim.Optimizer) -> torch_schedules.ChainedScheduler:
        steps = [milestone * STEPS for milestone in (1, 6)]
        return torch_schedules.ChainedScheduler(
            [warm_up(optimizer, 3 * STEPS), torch_schedules.MultiStepLR(optimizer, steps, 0.2)]
        )

    assert ours(entry) == pytest.approx(of_torch(entry, make), rel=1e-9)


def test_milestones_alone_have_the_bits_that_results_were_computed_with():
    entry = recipe(milestones=(3, 6))
    assert ours(entry) == [0.3 * 0.1 ** sum(epoch >= m for m in (3, 6)) for epoch in range(10) for _ in range(STEPS)]
