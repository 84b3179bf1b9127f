"""The convolutions of portable arithmetic: the same bits on every x86-64 processor with AVX2 and FMA.

Each shape of maps has the form that suits it: Winograd's minimal filtering (:mod:`.winograd`) where a batch has tiles
and channels enough, and the sums as they are defined (:mod:`.direct`) for all else. The choice depends on shapes
only, so that a run's bits are fixed by its configuration. They are not those of torch's operators, from which values
and gradients differ by rounding.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from collabench.models.convolution import direct, winograd
from collabench.models.convolution.products import PortableLinear, are_portable

Pair = tuple[int, int]


def make_portable(network: nn.Module) -> None:
    """Let every convolution that :func:`can_be_portable` and every linear layer of a network on a CPU use the
    project's own loops; weights, names and modules stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and can_be_portable(module):
            module.__class__ = PortableConv2d
        elif type(module) is nn.Linear and _plain(module.weight):
            module.__class__ = PortableLinear


def not_portable(network: nn.Module) -> list[str]:
    """Names of the convolutions and linear layers that :func:`make_portable` leaves to torch."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)
    own = (PortableConv2d, PortableLinear)
    return [
        name for name, module in network.named_modules() if isinstance(module, kinds) and not isinstance(module, own)
    ]


def can_be_portable(convolution: nn.Conv2d) -> bool:
    """Zeros for padding, no dilation, in float32 on a CPU; kernel, stride, padding, groups and bias may be any."""
    plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return plain and convolution.dilation == (1, 1) and _plain(convolution.weight)


def _plain(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


class PortableConv2d(nn.Conv2d):
    """A convolution that :func:`can_be_portable`."""

    def forward(self, x: Tensor) -> Tensor:
        if not are_portable(x, self.weight) or x.dim() != 4 or x.shape[1] != self.in_channels:
            return super().forward(x)
        y: Tensor = _Portable.apply(x, self.weight, *_settings(self))
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class _Portable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, groups: int) -> Tensor:
        ctx.settings = stride, padding, groups
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, stride, padding, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_input, of_weight, *_ = ctx.needs_input_grad
        x, weight = ctx.saved_tensors
        return *_gradients(gradient, x, weight, of_input, of_weight, *ctx.settings), None, None, None


def convolve(convolution: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution without bias gives of maps (N, I, H, W) with ``weight`` for its own, in its own form. For a
    caller that differentiates by hand; the gradients are :func:`gradients`."""
    if isinstance(convolution, PortableConv2d) and are_portable(x, weight):
        return _convolve(x, weight, *_settings(convolution))
    return torch.conv2d(
        x, weight, None, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )


def gradients(
    convolution: nn.Conv2d, gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """At the input (N, I, H, W) and the weights, as far as asked for, of a loss whose gradient is ``gradient`` at the
    output."""
    if not (of_input or of_weight):
        return None, None
    if isinstance(convolution, PortableConv2d) and are_portable(x, weight):
        return _gradients(gradient, x, weight, of_input, of_weight, *_settings(convolution))
    to_input, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, convolution.stride, convolution.padding, convolution.dilation, False, [0, 0],
        convolution.groups, [of_input, of_weight, False],
    )  # fmt: skip
    return to_input, to_weight


def _settings(convolution: nn.Conv2d) -> tuple[Pair, Pair, int]:
    """Stride, padding and groups."""
    stride, padding = cast(Pair, convolution.stride), cast(Pair, convolution.padding)
    return stride, padding, convolution.groups


def _convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, groups: int) -> Tensor:
    if groups > 1:
        pairs = zip(x.chunk(groups, 1), weight.chunk(groups), strict=True)
        parts = [_convolve(part, kernel, stride, padding, 1) for part, kernel in pairs]
        return torch.cat(parts, 1).contiguous(memory_format=torch.channels_last)
    if _winograd(x.shape, weight.shape, stride, padding):
        return winograd.convolve(x, weight)
    return direct.convolve(x, weight, stride, padding)


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    of_input: bool,
    of_weight: bool,
    stride: Pair,
    padding: Pair,
    groups: int,
) -> tuple[Tensor | None, Tensor | None]:
    if groups > 1:
        parts = [
            _gradients(*one, of_input, of_weight, stride, padding, 1)
            for one in zip(gradient.chunk(groups, 1), x.chunk(groups, 1), weight.chunk(groups), strict=True)
        ]
        inputs, weights = ([part for part in one if part is not None] for one in zip(*parts, strict=True))
        return torch.cat(inputs, 1) if inputs else None, torch.cat(weights) if weights else None
    if _winograd(x.shape, weight.shape, stride, padding):
        return winograd.gradients(gradient, x, weight, of_input, of_weight)
    return direct.gradients(gradient, x, weight, of_input, of_weight, stride, padding)


@cache
def _winograd(maps: torch.Size, weight: torch.Size, stride: Pair, padding: Pair) -> bool:
    plain = weight[2:] == (3, 3) and stride == padding == (1, 1)
    return plain and winograd.suits(maps, weight[0])
