"""The convolutions of portable arithmetic: the same bits on every x86-64 processor with AVX2 and FMA.

The algorithm depends on the shapes: Winograd's minimal filtering (:mod:`.winograd`) if a batch has enough tiles and
channels, else the direct sums of the definition (:mod:`.direct`). The choice depends on shapes only, so that a run's
bits are fixed by its configuration. Outputs and gradients differ from those of torch's operators by rounding.
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
    """Make the convolutions that :func:`can_be_portable` accepts, and the linear layers, use the project's own loops.

    Only layers in float32 on a CPU are changed. The modules stay the same objects, with the same names and weights.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and can_be_portable(module):
            module.__class__ = PortableConv2d
        elif type(module) is nn.Linear and _plain(module.weight):
            module.__class__ = PortableLinear


def not_portable(network: nn.Module) -> list[str]:
    """Return the names of the layers with convolutions or matrix products that :func:`make_portable` leaves to torch.

    These are convolutions, and linear, bilinear, recurrent and attention layers.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.MultiheadAttention)
    own = (PortableConv2d, PortableLinear)
    return [
        name for name, module in network.named_modules() if isinstance(module, kinds) and not isinstance(module, own)
    ]


def can_be_portable(convolution: nn.Conv2d) -> bool:
    """Return whether the project's loops can compute a convolution.

    It must be padded with zeros (by numbers, not ``"same"``), have no dilation, and be in float32 on a CPU. Kernel,
    stride, amount of padding, groups and bias are arbitrary.
    """
    plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return plain and convolution.dilation == (1, 1) and _plain(convolution.weight)


def _plain(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


class PortableConv2d(nn.Conv2d):
    """A convolution that :func:`can_be_portable` accepts, computed with the project's own loops."""

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
    """Return the output of ``convolution``, without its bias, for maps (N, I, H, W) and for ``weight`` as its weights.

    It is portable if the convolution is. For callers that compute the gradients themselves, with :func:`gradients`.
    """
    if isinstance(convolution, PortableConv2d) and are_portable(x, weight):
        return _convolve(x, weight, *_settings(convolution))
    return torch.conv2d(
        x, weight, None, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )


def gradients(
    convolution: nn.Conv2d, gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients at the input (N, I, H, W) and at the weights (O, I / groups, K, L) of :func:`convolve`.

    gradient: the loss's gradient at the output. of_input, of_weight: which gradients to compute; the other is None.
    """
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
    """Return stride, padding and groups."""
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
