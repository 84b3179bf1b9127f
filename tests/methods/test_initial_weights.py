"""Every network that a method makes or needs begins with weights of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.training.context import make_context, make_method
from tests.support.defaults import SHAPE, configuration
from tests.support.synthetic import CLASSES
from tests.support.training_cases import run_of

#: Settings beside the defaults, in which a method has more networks.
MORE: dict[str, tuple[dict, ...]] = {
    "song2018": ({"graph": "multi_instance", "heads": 3},),
    "dml": ({"networks": 3}, {"peers": ("same", "same")}),
    "wang2018": ({"networks": 3, "memory": "private"}, {"peers": ("same", "same")}),
    "one": ({"split_after": "input"},),
    "okddip": ({"split_after": "input"},),
    "kd": ({"teacher_members": 3},),
    "ensemble": ({"members": 4},),
}
CASES = [(method, {}) for method in METHODS] + [(method, values) for method in MORE for values in MORE[method]]


def drawn(network: nn.Module) -> Iterator[Tensor]:
    """Weights that are drawn at random: those of layers that are no normalisation."""
    yield from (p.detach() for p in network.parameters() if p.ndim > 1)


def initial_weights(run: Run) -> list[Tensor]:
    """Of the run's training network and of all runs that it requires."""
    needed = [weights for required in run.requires() for weights in initial_weights(required)]
    if not METHODS[run.configuration.method.method].Method.trains:
        return needed
    instance = make_method(run.configuration, make_context(run.configuration, SHAPE, CLASSES, run.seed))
    return [*drawn(instance.build()), *needed]


def equal_pairs(run: Run) -> int:
    weights = initial_weights(run)
    return sum(a.shape == b.shape and torch.equal(a, b) for a, b in combinations(weights, 2))


def run_with(method: str, values: dict) -> Run:
    if not values:
        return Run(configuration(method), 3)  # on a model that the method accepts
    return run_of(method, models={"same": {"family": "cifar_resnet", "depth": 8, "width": 4}}, **values)


@pytest.mark.parametrize("method,values", CASES, ids=str)
def test_no_two_layers_begin_with_the_same_weights(method, values):
    assert equal_pairs(run_with(method, values)) == 0


def test_the_same_initialisation_is_a_switch_of_kd():
    """The student then begins as its first teacher began, in every layer."""
    same = run_of("kd", same_initialisation=True, teacher_members=2)
    layers = len(
        list(drawn(make_method(same.configuration, make_context(same.configuration, SHAPE, CLASSES, 3)).build()))
    )
    assert equal_pairs(same) == layers > 5
    assert same.requires()[0].seed == same.seed != same.requires()[1].seed
    assert all(required.seed != 3 for required in run_of("kd", teacher_members=2).requires())
