"""Counted arithmetic and parameters against published counts and against counts made by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from collabench.methods import METHODS
from collabench.models import build_backbone
from collabench.training.flops import count, flops_of
from tests.support.defaults import configuration as small_configuration
from tests.support.synthetic import configuration_of, model_of, settings_of

CIFAR = (3, 32, 32)


def plain(model: dict, **settings: object):
    return configuration_of(settings_of("individual"), model_of(model), **settings)


@pytest.mark.parametrize(
    ("model", "shape", "classes", "millions"),
    [
        ({"family": "cifar_resnet", "depth": 32}, CIFAR, 10, "0.46"),
        ({"family": "cifar_resnet", "depth": 110}, CIFAR, 10, "1.73"),
        ({"family": "densenet", "depth": 40, "growth": 12}, CIFAR, 10, "1.02"),
    ],
    ids=["ResNet-32", "ResNet-110", "DenseNet-40-12"],
)
def test_parameters_are_those_that_the_literature_quotes(model, shape, classes, millions):
    with torch.device("meta"):
        network = build_backbone(model_of(model), shape, classes, 0)
    assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}" == millions


def test_flops_of_resnet32_are_those_worked_out_by_hand():
    stem = 32 * 32 * 9 * 3 * 16
    stage1 = 10 * 32 * 32 * 9 * 16 * 16
    stage2 = 16 * 16 * 9 * (16 * 32 + 9 * 32 * 32)
    stage3 = 8 * 8 * 9 * (32 * 64 + 9 * 64 * 64)
    multiply_adds = stem + stage1 + stage2 + stage3 + 64 * 10
    counts = count(plain({"family": "cifar_resnet", "depth": 32}, batch_size=4), CIFAR, 10)
    assert counts.forward == counts.deployed == 2 * multiply_adds and f"{counts.parameters / 1e6:.2f}" == "0.46"
    # Backward: the gradients of weights and of inputs, but none of the images.
    assert counts.training == 2 * (3 * multiply_adds - stem)


@pytest.mark.slow
def test_tree_costs_the_shared_stages_once_and_the_others_once_a_head():
    model = model_of({"family": "cifar_resnet", "depth": 8})
    alone, two, simple, tree = (
        count(configuration_of(settings_of("song2018", **graph), model, batch_size=4), CIFAR, 10)
        for graph in (
            {"graph": "individual", "heads": 1},
            {"graph": "multi_instance", "heads": 2},
            {"graph": "simple_ilr", "heads": 4},
            {"graph": "hierarchical_ilr", "heads": 4},
        )
    )
    first = 2 * (32 * 32 * 9 * (3 * 16 + 2 * 16 * 16))
    second = 2 * (16 * 16 * 9 * (16 * 32 + 32 * 32))
    last = alone.forward - first - second
    assert two.predict == 2 * alone.forward
    assert simple.predict == first + 4 * (second + last)
    assert tree.predict == first + 2 * second + 4 * last


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_counted_and_deploys_a_network_that_costs_no_more(method, monkeypatch):
    """Without deep copies of fake tensors: in torch 2.13 they damage the memory of the process, which ended some time
    later in training that had nothing to do with it."""

    def refuse(tensor: torch.Tensor, memo: object) -> torch.Tensor:
        raise AssertionError(f"deep copy of a tensor of shape {tuple(tensor.shape)}")

    monkeypatch.setattr(torch.Tensor, "__deepcopy__", refuse)
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", refuse)
    counts = count(small_configuration(method), (1, 8, 8), 4)
    assert (counts.training > 2 * counts.forward) == METHODS[method].Method.trains
    if method == "wang2018":  # with its memory, by default; its class says what that costs
        assert counts.deployed > counts.forward
    elif METHODS[method].Method.trains:
        assert counts.deployed == counts.forward
    assert counts.deployed > 0


def test_wang2018_without_its_memory_deploys_the_plain_network():
    settings = settings_of("wang2018", deployment="without_memory")
    counts = count(configuration_of(settings), (1, 8, 8), 4)
    assert counts.deployed == counts.forward


@pytest.mark.parametrize("groups", [1, 4])
def test_grouped_convolution_costs_what_its_groups_cost_one_by_one(groups):
    torch.manual_seed(0)
    images = torch.randn(2, 8, 6, 6, requires_grad=True)
    grouped = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups)
    apart = [nn.Conv2d(8 // groups, 16 // groups, 3, stride=2, padding=1) for _ in range(groups)]
    parts = images.chunk(groups, dim=1)
    as_one = flops_of(lambda: grouped(images).sum().backward())
    as_loop = flops_of(lambda: sum(layer(part).sum() for layer, part in zip(apart, parts, strict=True)).backward())
    assert as_one == as_loop == 3 * flops_of(lambda: grouped(images.detach()))


def test_counting_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count(small_configuration("wang2018"), (1, 8, 8), 4)
