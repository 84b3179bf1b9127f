"""What a method has built is freed with its last reference, not when Python's garbage collector happens to run.

Until then a GPU's memory would stay taken: by the copies that a tree was built from, or by a step's graph.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from collabench.methods import METHODS
from tests.support.synthetic import SMALL_MODELS
from tests.support.training_cases import batch, built, sgd_step

VGG = SMALL_MODELS[1]


@pytest.fixture(scope="module")
def _frozen():
    """Collections leave out what was there before these tests, which would take each of them a second to search."""
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])  # the first of a process imports much, in circles
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def without_collection(_frozen):
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(references: list[weakref.ref]) -> int:
    return sum(reference() is not None for reference in references)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_networks_and_graphs_are_freed_at_once(method, without_collection):
    options = {"on": VGG} if method == "fang2021" else {}
    instance, network = built(method, **options)
    maps: list[weakref.ref] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: maps.append(weakref.ref(output)))
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    terms = instance.losses(network, batch())
    for hook in hooks:
        hook.remove()
    instance.step(network, batch(), sgd_step(network))
    weights = [weakref.ref(parameter) for parameter in network.parameters()]
    assert alive(maps) and alive(weights) == len(weights)
    del terms
    assert alive(maps) == 0
    del instance, network, hooks, hook
    assert alive(weights) == 0


@pytest.mark.parametrize("method", ["song2018", "one", "okddip"])
def test_the_copies_that_a_tree_takes_its_branches_from_are_freed_at_once(method, without_collection):
    made: list[weakref.ref] = []
    instance, _ = built(method)
    make = instance.context.make_backbone

    def remember(*arguments, **options):
        backbone = make(*arguments, **options)
        made.extend(weakref.ref(parameter) for parameter in backbone.parameters())
        return backbone

    instance.context.make_backbone = remember
    tree = instance.build()
    kept = {id(parameter) for parameter in tree.parameters()}
    assert len(made) > len(kept)
    assert {id(reference()) for reference in made if reference() is not None} <= kept


def test_a_circle_is_noticed(without_collection):
    def made() -> weakref.ref:
        parameter = torch.nn.Parameter(torch.zeros(1))

        def call_itself(n: int) -> torch.Tensor:
            return parameter if n == 0 else call_itself(n - 1)

        return weakref.ref(call_itself(1))

    assert alive([made()]) == 1
