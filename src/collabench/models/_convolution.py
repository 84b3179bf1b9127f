"""3x3 convolutions on a CPU, each in the form that suits the shape of its maps: what a recipe's ``convolution: tuned`` asks for.

* Winograd's minimal filtering (:mod:`collabench.models._winograd`) where a batch has tiles and channels enough;
* one matrix product of images where a map has at most 2x2 pixels (:mod:`collabench.models._dense_convolution`);
* the weights' gradient as one matrix product of the gradient with the windows of the input, where only the output has as few
  pixels: torch's operator takes up to ten times as long there;
* torch's operators for all else.

The choice depends on shapes only, so that a run's bits are fixed by its configuration. They are not those of torch's
operators, from which values and gradients differ by rounding.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from collabench.models import _dense_convolution, _winograd
from collabench.models._winograd import room

#: Pixels of an output up to which the weights' gradient is a product.
FEW_PIXELS = 4


def tune_convolutions(network: nn.Module) -> None:
    """Let the convolutions of a network that :func:`can_be_tuned` choose their form; weights, names and modules stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and can_be_tuned(module):
            module.__class__ = TunedConv2d


def can_be_tuned(convolution: nn.Conv2d) -> bool:
    """3x3 with padding of 1, one group and no bias, in float32 on a CPU."""
    sizes = (convolution.kernel_size, convolution.padding, convolution.dilation) == ((3, 3), (1, 1), (1, 1))
    plain = convolution.padding_mode == "zeros" and convolution.groups == 1 and convolution.bias is None
    weight = convolution.weight
    return sizes and plain and weight.dtype == torch.float32 and weight.device.type == "cpu"


class TunedConv2d(nn.Conv2d):
    """A convolution that :func:`can_be_tuned`."""

    def forward(self, x: Tensor) -> Tensor:
        if _form(self, x) or _by_product(self, x):
            return _Tuned.apply(self, x, self.weight)
        return super().forward(x)  # torch's own way to its own gradients


class _Tuned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, convolution: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
        ctx.convolution = convolution
        ctx.save_for_backward(x, weight)
        return convolve(convolution, x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _, of_input, of_weight = ctx.needs_input_grad
        return None, *gradients(ctx.convolution, gradient, *ctx.saved_tensors, of_input, of_weight)


def convolve(convolution: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution without bias gives of maps (N, I, H, W) with ``weight`` for its own, in its own form. For a caller that
    differentiates by hand; the gradients are :func:`gradients`."""
    if form := _form(convolution, x):
        return form.convolve(x, weight)
    return torch.conv2d(
        x, weight, None, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )


def gradients(
    convolution: nn.Conv2d, gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """At the input (N, I, H, W) and the weights, as far as asked for, of a loss whose gradient is ``gradient`` at the output."""
    if form := _form(convolution, x):
        return form.gradients(gradient, x, weight, of_input, of_weight)
    by_product = _by_product(convolution, x)
    asked = [of_input, of_weight and not by_product, False]
    to_input = to_weight = None
    if any(asked):
        to_input, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, convolution.stride, convolution.padding, convolution.dilation, False, [0, 0],
            convolution.groups, asked,
        )  # fmt: skip
    if of_weight and by_product:
        to_weight = _weights_by_product(gradient, x, convolution.stride)
    return to_input, to_weight


def _form(convolution: nn.Conv2d, x: Tensor) -> ModuleType | None:
    """The form other than torch's in which maps (N, I, H, W) are convolved."""
    if not isinstance(convolution, TunedConv2d) or convolution.stride != (1, 1):
        return None
    return next((form for form in (_winograd, _dense_convolution) if form.suits(x, convolution.out_channels)), None)


def _by_product(convolution: nn.Conv2d, x: Tensor) -> bool:
    if not isinstance(convolution, TunedConv2d):
        return False
    rows, columns = ((size - 1) // step + 1 for size, step in zip(x.shape[2:], convolution.stride, strict=True))
    return rows * columns <= FEW_PIXELS


def _weights_by_product(gradient: Tensor, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The gradient at weights (O, I, 3, 3): over all pixels of the output, its gradient times the window that it saw."""
    count, channels, rows, columns = gradient.shape
    _, channels_in, height, width = x.shape
    shape = (count, height + 2, width + 2, channels_in)
    padded = room("padded", math.prod(shape)).view(shape).zero_()
    padded[:, 1:-1, 1:-1] = x.detach().permute(0, 2, 3, 1)
    image, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (count, rows, columns, 3, 3, channels_in), (image, stride[0] * row, stride[1] * column, row, column, 1)
    )
    pixels = gradient.permute(0, 2, 3, 1).reshape(-1, channels)
    copied = room("windows", windows.numel()).view(windows.shape).copy_(windows)
    product = pixels.T @ copied.view(len(pixels), -1)
    return product.view(channels, 3, 3, -1).permute(0, 3, 1, 2)
