"""Tuned convolutions against torch's: values, gradients, the same bits again, and where which form is taken."""

from __future__ import annotations

import numba
import pytest
import torch
from torch import nn

from collabench.models.convolution import dense, direct, scratch, tuned
from collabench.models.convolution.compiled import compiled
from collabench.models.convolution.tuned import TunedConv2d, tune_convolutions
from collabench.models.convolution.winograd import convolve, gradients

#: Images, channels in, channels out, height, width: one tile; several chunks; both kinds of channels; maps that aren't square.
SHAPES = [(1, 32, 32, 4, 4), (70, 32, 64, 8, 8), (9, 96, 32, 16, 16), (130, 64, 64, 8, 4), (5, 64, 128, 12, 20)]
TOLERANCE = 3e-5
"""Of the largest value; the direct form in float32 is at some 1e-6."""


def random_case(
    count: int, channels_in: int, channels: int, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps, weights and a gradient at the output, channels-last."""
    generator = torch.Generator().manual_seed(count)
    shapes = (count, channels_in, height, width), (channels, channels_in, 3, 3), (count, channels, height, width)
    x, weight, gradient = (torch.randn(shape, generator=generator) for shape in shapes)
    return tuple(t.contiguous(memory_format=torch.channels_last) for t in (x, weight / 10, gradient))


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_direct_form(shape):
    x, weight, gradient = random_case(*shape)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = nn.functional.conv2d(x64, weight64, padding=1)
    expected.backward(gradient.double())
    actual = convolve(x, weight)
    of_input, of_weight = gradients(gradient, x, weight)
    assert actual.shape == expected.shape and actual.is_contiguous(memory_format=torch.channels_last)
    assert distance(actual, expected.detach()) < TOLERANCE
    assert distance(of_input, x64.grad) < TOLERANCE
    assert distance(of_weight, weight64.grad) < TOLERANCE


def test_each_gradient_alone_has_the_bits_that_it_has_beside_the_other():
    x, weight, gradient = random_case(*SHAPES[1])
    both = gradients(gradient, x, weight)
    only_input, nothing = gradients(gradient, x, weight, of_weight=False)
    assert nothing is None and torch.equal(only_input, both[0])
    nothing, only_weight = gradients(gradient, x, weight, of_input=False)
    assert nothing is None and torch.equal(only_weight, both[1])


def test_bits_depend_on_neither_memory_layout_nor_what_ran_before():
    x, weight, gradient = random_case(*SHAPES[1])
    scratch._workspace.clear()
    value, found = convolve(x, weight), gradients(gradient, x, weight)
    convolve(*random_case(*SHAPES[2])[:2])
    gradients(*(random_case(*SHAPES[4])[i] for i in (2, 0, 1)))
    assert torch.equal(convolve(x.contiguous(), weight), value)
    again = gradients(gradient.contiguous(), x.contiguous(), weight.contiguous())
    assert all(torch.equal(one, other) for one, other in zip(again, found, strict=True))


def test_loops_are_compiled_where_nothing_can_be_kept():
    namespace: dict[str, object] = {}
    exec("def twice(x): return 2 * x", namespace)  # of no file, so that numba finds no place beside it
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(namespace["twice"])
    assert compiled(namespace["twice"])(3) == 6


def layer(**changes: object) -> nn.Conv2d:
    settings = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1, "bias": False} | changes
    return nn.Conv2d(**settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 1, "padding": 0}, {"padding": 0}, {"dilation": 2, "padding": 2}, {"groups": 2},
        {"bias": True}, {"padding_mode": "circular"}, {"dtype": torch.float64},
    ],
    ids=str,
)  # fmt: skip
def test_other_convolutions_stay_as_they_are(changes):
    network = nn.Sequential(layer(**changes))
    tune_convolutions(network)
    assert type(network[0]) is nn.Conv2d


def test_a_network_keeps_weights_names_and_modules():
    network = nn.Sequential(layer(), nn.BatchNorm2d(32), layer(out_channels=64))
    modules, before = list(network.modules()), {name: value.clone() for name, value in network.state_dict().items()}
    tune_convolutions(network)
    assert list(network.modules()) == modules and type(network[0]) is type(network[2]) is TunedConv2d
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((64, 32, 8, 7), {}), ((64, 32, 3, 2), {}), ((4, 20, 8, 8), {"in_channels": 20}), ((4, 32, 8, 8), {"out_channels": 24}),
        ((2, 160, 6, 6), {"in_channels": 160}), ((4, 32, 8, 8), {"stride": (1, 2)}),
    ],
    ids=str,
)  # fmt: skip
def test_what_suits_no_form_is_convolved_by_torch(shape, changes):
    """Maps whose pixels make no fours, other numbers of channels, many channels without tiles, and strides that differ."""
    network = nn.Sequential(layer(**changes))
    x = torch.randn(shape)
    expected = network(x)
    tune_convolutions(network)
    assert torch.equal(network(x), expected)


@pytest.mark.parametrize(
    ("shape", "out_channels", "stride"),
    [
        ((8, 160, 2, 2), 64, 1),
        ((64, 32, 4, 4), 160, 2),
        ((1, 3, 1, 1), 5, 2),
        ((7, 16, 4, 1), 8, 1),
        ((9, 4, 4, 5), 8, (2, 3)),
    ],
    ids=str,
)
def test_the_weights_gradient_of_few_pixels_is_a_product(shape, out_channels, stride, monkeypatch):
    asked = []
    product = tuned._weights_by_product
    monkeypatch.setattr(tuned, "_weights_by_product", lambda *given: asked.append(1) or product(*given))
    network = layer(in_channels=shape[1], out_channels=out_channels, stride=stride)
    x = torch.randn(shape).requires_grad_()
    expected = nn.functional.conv2d(x.double(), network.weight.double(), stride=stride, padding=1)
    gradient = torch.randn(expected.shape)
    of_input, of_weight = torch.autograd.grad(expected, (x, network.weight), gradient.double())
    tune_convolutions(network)
    network(x).backward(gradient)
    assert asked
    assert (
        distance(x.grad, of_input.double()) < TOLERANCE
        and distance(network.weight.grad, of_weight.double()) < TOLERANCE
    )


#: Images, channels in, channels out, height, width, stride: images whose sums are kept together and one that is larger; rows of
#: four pixels and squares of them; an odd and an even number of channels in that is no multiple of 16.
DIRECT = [
    (9, 16, 32, 4, 8, 1), (1, 64, 16, 16, 20, 1), (5, 32, 48, 8, 8, 2), (70, 16, 64, 4, 4, 2), (6, 16, 16, 6, 10, 1), (3, 32, 16, 2, 2, 1),
    (4, 16, 16, 12, 4, 3), (2, 1, 16, 8, 8, 1), (2, 3, 64, 9, 15, 2), (3, 6, 16, 5, 4, 1), (2, 128, 128, 4, 4, 1),
]  # fmt: skip


@pytest.mark.parametrize("case", DIRECT, ids=str)
def test_the_direct_form_multiplies_every_pixel_with_its_weight(case):
    *sizes, stride = case
    x, weight, _ = random_case(*sizes)
    assert direct.suits(x.shape, len(weight), stride)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = nn.functional.conv2d(x64, weight64, stride=stride, padding=1)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    expected.backward(gradient.double())
    actual = direct.convolve(x, weight, stride=stride)
    of_input, of_weight = direct.gradients(gradient, x, weight, stride=stride)
    assert actual.shape == expected.shape and actual.is_contiguous(memory_format=torch.channels_last)
    assert distance(actual, expected.detach()) < TOLERANCE / 10
    assert distance(of_input, x64.grad) < TOLERANCE / 10 and distance(of_weight, weight64.grad) < TOLERANCE / 10
    assert torch.equal(direct.convolve(x.contiguous(), weight.contiguous(), stride=stride), actual)
    only_input, nothing = direct.gradients(gradient, x, weight, of_weight=False, stride=stride)
    assert nothing is None and torch.equal(only_input, of_input)
    nothing, only_weight = direct.gradients(gradient, x, weight, of_input=False, stride=stride)
    assert nothing is None and torch.equal(only_weight, of_weight)


@pytest.mark.parametrize("count", [16, 70])
@pytest.mark.parametrize("pixels", [(2, 2), (1, 2), (2, 1), (1, 1)], ids=str)
def test_the_smallest_maps_are_fully_connected(count, pixels):
    x, weight, gradient = random_case(count, 32, 8, *pixels)
    assert dense.suits(x.shape, 8)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = nn.functional.conv2d(x64, weight64, padding=1)
    expected.backward(gradient.double())
    of_input, of_weight = dense.gradients(gradient, x, weight)
    assert distance(dense.convolve(x, weight), expected.detach()) < TOLERANCE
    assert distance(of_input, x64.grad) < TOLERANCE and distance(of_weight, weight64.grad) < TOLERANCE


@pytest.mark.parametrize(
    "shape", [(40, 32, 8, 8), (64, 32, 2, 2), (8, 32, 2, 2), (2, 32, 6, 6), (3, 32, 1, 3), (3, 32, 5, 5)], ids=str
)
def test_each_form_gives_its_gradients_to_autograd(shape):
    network = layer(out_channels=64)
    tune_convolutions(network)
    x = torch.randn(shape).requires_grad_()
    y = network(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    expected = tuned.gradients(network, gradient, x, network.weight, True, True)
    assert torch.equal(x.grad, expected[0]) and torch.equal(network.weight.grad, expected[1])


def test_nothing_is_computed_that_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(tuned, "_weights_by_product", None)
    network = layer(in_channels=160)
    network.weight.requires_grad_(False)
    tune_convolutions(network)
    x = torch.randn(4, 160, 2, 2).requires_grad_()
    network(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(40, 32, 8, 8), (8, 32, 2, 2)], ids=str)
def test_training_goes_on_after_evaluation_that_came_first(shape):
    scratch._workspace.clear()
    network = layer(out_channels=64)
    tune_convolutions(network)
    x = torch.randn(shape)
    with torch.inference_mode():
        network(x)
    network(x).sum().backward()
    assert network.weight.grad is not None
    with torch.inference_mode():
        network(x)
