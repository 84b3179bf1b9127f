"""Portable convolutions against torch's in float64: outputs, gradients, equal bits with 8 and 16 lanes, and the choice
of the algorithm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from collabench.models.convolution import compiled, direct, direct_loops, portable, scratch, weight_loops, winograd
from collabench.models.convolution.portable import PortableConv2d, make_portable
from collabench.models.convolution.products import PortableLinear

CHANNELS_LAST = torch.channels_last
PROCESSOR = set(compiled.binding.get_host_cpu_features().items())
WIDTHS = [8] + ([16] if compiled.lanes() == 16 or ("avx512f", True) in PROCESSOR else [])

#: Tolerances, relative to the largest value, of Winograd's algorithm and of the direct one.
TOLERANCE, DIRECT_TOLERANCE = 3e-5, 3e-6

#: Images, channels in, channels out, height, width: one tile; several chunks; the last of them smaller; maps that
#: aren't square.
WINOGRAD = [
    (1, 16, 16, 4, 4),
    (70, 32, 64, 8, 8),
    (9, 96, 32, 16, 16),
    (65, 64, 64, 8, 4),
    (5, 64, 128, 12, 20),
    (3, 16, 48, 32, 32),
]

#: The same with the kernel's height and width, strides and paddings: one image and several at a time, wide and narrow
#: windows, channels that fill no register, strides that leave a rest, kernels without and with padding, few pixels
#: and many.
DIRECT = [
    (9, 16, 32, 4, 8, 3, 3, (1, 1), (1, 1)),
    (1, 64, 16, 16, 20, 3, 3, (1, 1), (1, 1)),
    (5, 32, 48, 8, 8, 3, 3, (2, 2), (1, 1)),
    (70, 16, 64, 4, 4, 3, 3, (2, 2), (1, 1)),
    (6, 16, 16, 6, 10, 3, 3, (1, 1), (1, 1)),
    (3, 32, 16, 2, 2, 3, 3, (1, 1), (1, 1)),
    (4, 16, 16, 12, 4, 3, 3, (3, 3), (1, 1)),
    (2, 1, 16, 8, 8, 3, 3, (1, 1), (1, 1)),
    (2, 3, 64, 9, 15, 3, 3, (2, 2), (1, 1)),
    (3, 6, 16, 5, 4, 3, 3, (1, 1), (1, 1)),
    (11, 24, 12, 7, 7, 1, 1, (1, 1), (0, 0)),
    (11, 16, 20, 8, 8, 1, 1, (2, 2), (0, 0)),
    (2, 3, 13, 32, 32, 7, 7, (2, 2), (3, 3)),
    (9, 4, 8, 4, 5, 3, 3, (2, 3), (1, 1)),
    (5, 5, 7, 9, 6, 5, 3, (1, 2), (0, 2)),
    (7, 16, 8, 4, 1, 3, 3, (1, 1), (1, 1)),
    (1, 3, 5, 1, 1, 3, 3, (2, 2), (1, 1)),
    (17, 40, 37, 2, 2, 3, 3, (1, 1), (1, 1)),
    (10, 20, 37, 2, 2, 1, 1, (2, 2), (0, 0)),
    (2, 8, 40, 12, 12, 3, 3, (1, 1), (0, 0)),
    (2, 40, 12, 16, 16, 3, 3, (1, 1), (1, 1)),
]


def with_lanes(lanes: int, monkeypatch) -> None:
    """From now on vector registers have so many lanes, as if the processor had no others."""
    monkeypatch.setattr(compiled, "lanes", lambda: lanes)
    for one in (direct, winograd):
        for cached in (one._values, one._at_input, one._at_weights):
            cached.cache_clear()


@pytest.fixture(autouse=True)
def _lanes_of_this_processor() -> Iterator[None]:
    yield
    for one in (direct, winograd):
        for cached in (one._values, one._at_input, one._at_weights):
            cached.cache_clear()


def random_case(count, channels_in, channels, height, width, kernel=3, across=3, stride=(1, 1), padding=(1, 1)):
    """Maps, weights and a gradient at the output, channels-last."""
    generator = torch.Generator().manual_seed(count)
    rows, columns = (
        (size + 2 * pad - k) // step + 1
        for size, pad, k, step in zip((height, width), padding, (kernel, across), stride, strict=True)
    )
    shapes = (
        (count, channels_in, height, width),
        (channels, channels_in, kernel, across),
        (count, channels, rows, columns),
    )
    x, weight, gradient = (torch.randn(shape, generator=generator) for shape in shapes)
    return tuple(t.contiguous(memory_format=CHANNELS_LAST) for t in (x, weight / 10, gradient))


def in_float64(x, weight, gradient, stride=(1, 1), padding=(1, 1)):
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = nn.functional.conv2d(x, weight, None, stride, padding)
    return y.detach(), *torch.autograd.grad(y, (x, weight), gradient.double())


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", [*WINOGRAD, *DIRECT], ids=str)
def test_values_and_gradients_are_right_and_the_same_bits_with_registers_of_8_and_of_16_numbers(case, monkeypatch):
    (x, weight, gradient), places = random_case(*case), case[7:]
    assert places or winograd.possible(x.shape, len(weight))
    found = []
    for lanes in WIDTHS:  # a processor without registers of 16 numbers has the committed digests of those that have
        with_lanes(lanes, monkeypatch)
        if places:
            of_both = direct.gradients(gradient, x, weight, True, True, *places)
            found.append((direct.convolve(x, weight, *places), *of_both))
        else:
            found.append((winograd.convolve(x, weight), *winograd.gradients(gradient, x, weight)))
            assert all(one.is_contiguous(memory_format=CHANNELS_LAST) for one in found[-1])
    for actual, expected in zip(found[0], in_float64(x, weight, gradient, *places), strict=True):
        assert actual.shape == expected.shape
        assert distance(actual, expected) < (DIRECT_TOLERANCE if places else TOLERANCE)
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[-1], strict=True))


def layer(**changes: object) -> nn.Conv2d:
    settings = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1, "bias": False} | changes
    return nn.Conv2d(**settings)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel_size": 1, "padding": 0, "stride": 2},
        {"bias": True},
        {"groups": 4},
        {"groups": 32},
        {"kernel_size": (1, 3)},
    ],
    ids=str,
)
def test_a_layer_computes_what_torch_does(changes):
    network = layer(**changes)
    x = torch.randn(40, 32, 8, 8).requires_grad_()
    expected = network.double()(x.double())
    gradient = torch.randn(expected.shape)
    wanted = torch.autograd.grad(expected, (x, *network.parameters()), gradient.double())
    network.float()
    make_portable(network)
    assert type(network) is PortableConv2d
    y = network(x)
    found = torch.autograd.grad(y, (x, *network.parameters()), gradient)
    assert distance(y, expected) < TOLERANCE
    assert all(distance(one, other) < TOLERANCE for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("changes", [{"dilation": 2}, {"padding_mode": "circular"}, {"dtype": torch.float64}], ids=str)
def test_other_convolutions_stay_as_they_are_and_are_named(changes):
    network = nn.Sequential(layer(**changes))
    make_portable(network)
    assert type(network[0]) is nn.Conv2d and portable.not_portable(network) == ["0"]


def test_a_network_keeps_weights_names_and_modules():
    network = nn.Sequential(layer(), nn.BatchNorm2d(32), layer(out_channels=64), nn.Linear(64, 10))
    modules, before = list(network.modules()), {name: value.clone() for name, value in network.state_dict().items()}
    make_portable(network)
    assert (
        list(network.modules()) == modules and type(network[0]) is PortableConv2d and type(network[3]) is PortableLinear
    )
    after = network.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert not portable.not_portable(network)


def test_a_layer_made_float64_is_torchs_again():
    network = layer()
    make_portable(network)
    x = torch.randn(2, 32, 4, 4).double()
    expected = nn.functional.conv2d(x, network.weight.double(), padding=1)
    assert torch.equal(network.double()(x), expected)


@pytest.mark.parametrize("shape", [(2, 31, 8, 8), (2, 32, 8)], ids=str)
def test_maps_that_do_not_fit_are_refused(shape):
    network = layer()
    make_portable(network)
    with pytest.raises(RuntimeError):
        network(torch.randn(shape))


def test_maps_smaller_than_the_kernel_are_refused():
    network = layer(padding=0)
    make_portable(network)
    with pytest.raises(ValueError, match="2x8 pixels are smaller than the kernel"):
        network(torch.randn(1, 32, 2, 8))


@pytest.mark.parametrize("case", [WINOGRAD[1], DIRECT[0], DIRECT[5]], ids=str)
def test_each_gradient_alone_has_the_bits_that_it_has_beside_the_other(case):
    x, weight, gradient = random_case(*case)
    network = layer()
    make_portable(network)
    both = portable.gradients(network, gradient, x, weight, True, True)
    only_input, nothing = portable.gradients(network, gradient, x, weight, True, False)
    assert nothing is None and torch.equal(only_input, both[0])
    nothing, only_weight = portable.gradients(network, gradient, x, weight, False, True)
    assert nothing is None and torch.equal(only_weight, both[1])
    assert portable.gradients(network, gradient, x, weight, False, False) == (None, None)


@pytest.mark.parametrize("case", [WINOGRAD[1], DIRECT[0], DIRECT[5]], ids=str)
def test_bits_depend_on_neither_memory_layout_nor_what_ran_before(case):
    x, weight, gradient = random_case(*case)
    network = layer()
    make_portable(network)
    scratch.clear()
    value, found = portable.convolve(network, x, weight), portable.gradients(network, gradient, x, weight, True, True)
    other = random_case(*WINOGRAD[4])
    portable.convolve(network, other[0], other[1])
    portable.gradients(network, other[2], other[0], other[1], True, True)
    x, weight, gradient = (one.contiguous() for one in (x, weight, gradient))
    assert torch.equal(portable.convolve(network, x, weight), value)
    again = portable.gradients(network, gradient, x, weight, True, True)
    assert all(torch.equal(one, other) for one, other in zip(again, found, strict=True))


def test_bits_do_not_depend_on_how_many_images_are_worked_on_at_once(monkeypatch):
    """An image's output and gradient at the input equal those that the same algorithm computes for the image alone."""
    x, weight, gradient = random_case(*WINOGRAD[3])
    whole, of_input = winograd.convolve(x, weight), winograd.gradients(gradient, x, weight, True, False)[0]
    for image in (0, 31, 64):
        assert torch.equal(winograd.convolve(x[image : image + 1], weight)[0], whole[image])
        alone = winograd.gradients(gradient[image : image + 1], x[image : image + 1], weight, True, False)[0]
        assert torch.equal(alone[0], of_input[image])


def test_training_goes_on_after_evaluation_that_came_first():
    scratch.clear()
    network = layer(out_channels=64)
    make_portable(network)
    x = torch.randn(40, 32, 8, 8)
    with torch.inference_mode():
        network(x)
    network(x).sum().backward()
    assert network.weight.grad is not None


def test_products_and_sums_are_fused_only_where_it_is_written():
    """The loops of sums use fused multiply-adds, and no product that the compiler could fuse with an addition."""
    for lanes in WIDTHS:
        for write, sizes in (
            (direct_loops.values, (8, 8, 16, 32, 3, 3, 1, 1, 1, 1)),
            (weight_loops.at_weights, (8, 8, 16, 32, 3, 3, 2, 2, 1, 1)),
        ):
            text = compiled.assembly(write, lanes, *sizes)
            assert "vfmadd" in text and "vmulps" not in text and text.count("vaddps") <= text.count("vmovups")


def test_code_is_kept_and_read_again_and_damage_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_folder", lambda: tmp_path)
    compiled._keep("some", b"code")
    assert compiled._kept("some") == b"code"
    (tmp_path / "some.loops").write_bytes(b"damaged")
    assert compiled._kept("some") is None and compiled._kept("other") is None


def test_nothing_is_kept_where_nothing_may_be_written(monkeypatch):
    monkeypatch.setattr(compiled, "_folder", lambda: None)
    compiled._keep("some", b"code")
    assert compiled._kept("some") is None


def test_the_environment_chooses_the_registers(monkeypatch):
    monkeypatch.setenv("COLLABENCH_LANES", "8")
    assert compiled.lanes.__wrapped__() == 8
    monkeypatch.setenv("COLLABENCH_LANES", "7")
    with pytest.raises(ValueError, match="COLLABENCH_LANES is '7'; it must be 8 or 16"):
        compiled.lanes.__wrapped__()
