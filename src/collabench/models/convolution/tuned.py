"""3x3 convolutions on a CPU, each in the form that suits the shape of its maps: what a recipe's ``convolution: tuned`` asks for.

* Winograd's minimal filtering (:mod:`collabench.models.convolution.winograd`) where a batch has tiles and channels enough;
* one matrix product of images where a map has at most 2x2 pixels (:mod:`collabench.models.convolution.dense`);
* loops of its own for what is left of few channels (:mod:`collabench.models.convolution.direct`);
* the weights' gradient as one matrix product of the gradient with the windows of the input, where only the output has as few
  pixels: torch's operator takes up to ten times as long there;
* torch's operators for all else.

The choice depends on shapes only, so that a run's bits are fixed by its configuration. They are not those of torch's
operators, from which values and gradients differ by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from collabench.models.convolution import dense, direct, winograd
from collabench.models.convolution.scratch import scratch

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
        form = _form_of(self, x)
        if form is None:
            return super().forward(x)  # torch's own way to its own gradients
        return _Tuned.apply(form, x, self.weight)


class _Tuned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: _Form, x: Tensor, weight: Tensor) -> Tensor:
        ctx.form = form
        ctx.save_for_backward(x, weight)
        return form.convolve(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        _, of_input, of_weight = ctx.needs_input_grad
        return None, *ctx.form.gradients(gradient, *ctx.saved_tensors, of_input, of_weight)


def convolve(convolution: nn.Conv2d, x: Tensor, weight: Tensor) -> Tensor:
    """What a convolution without bias gives of maps (N, I, H, W) with ``weight`` for its own, in its own form. For a caller that
    differentiates by hand; the gradients are :func:`gradients`."""
    if form := _form_of(convolution, x):
        return form.convolve(x, weight)
    return torch.conv2d(
        x, weight, None, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )


def gradients(
    convolution: nn.Conv2d, gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """At the input (N, I, H, W) and the weights, as far as asked for, of a loss whose gradient is ``gradient`` at the output."""
    if form := _form_of(convolution, x):
        return form.gradients(gradient, x, weight, of_input, of_weight)
    if not (of_input or of_weight):
        return None, None
    to_input, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, convolution.stride, convolution.padding, convolution.dilation, False, [0, 0],
        convolution.groups, [of_input, of_weight, False],
    )  # fmt: skip
    return to_input, to_weight


class _Form(NamedTuple):
    """``convolve(x, weight)`` and ``gradients(gradient, x, weight, of_input, of_weight)`` for one shape of maps."""

    convolve: Callable[..., Tensor]
    gradients: Callable[..., tuple[Tensor | None, Tensor | None]]


def _form_of(convolution: nn.Conv2d, x: Tensor) -> _Form | None:
    """The form other than torch's in which maps (N, I, H, W) are convolved."""
    if not isinstance(convolution, TunedConv2d):
        return None
    return _form(x.shape, convolution.out_channels, convolution.stride)


@cache
def _form(shape: tuple[int, ...], channels: int, strides: tuple[int, int]) -> _Form | None:
    stride, other = strides
    if stride == other == 1:
        for form in (winograd, dense):
            if form.suits(shape, channels):
                return _Form(form.convolve, form.gradients)
    if stride == other and direct.suits(shape, channels, stride):
        return _Form(partial(direct.convolve, stride=stride), partial(direct.gradients, stride=stride))
    rows, columns = ((size - 1) // step + 1 for size, step in zip(shape[2:], strides, strict=True))
    if rows * columns <= FEW_PIXELS:
        torchs = partial(torch.conv2d, bias=None, stride=strides, padding=1)
        return _Form(torchs, partial(_gradients_by_product, strides=strides))
    return None


def _gradients_by_product(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool, of_weight: bool, *, strides: tuple[int, int]
) -> tuple[Tensor | None, Tensor | None]:
    to_input = None
    if of_input:
        to_input = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, strides, (1, 1), (1, 1), False, [0, 0], 1, [True, False, False]
        )[0]
    return to_input, _weights_by_product(gradient, x, strides) if of_weight else None


def _weights_by_product(gradient: Tensor, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The gradient at weights (O, I, 3, 3): over all pixels of the output, its gradient times the window that it saw."""
    count, channels, rows, columns = gradient.shape
    _, channels_in, height, width = x.shape
    shape = (count, height + 2, width + 2, channels_in)
    padded = scratch("padded", math.prod(shape)).view(shape).zero_()
    padded[:, 1:-1, 1:-1] = x.detach().permute(0, 2, 3, 1)
    image, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (count, rows, columns, 3, 3, channels_in), (image, stride[0] * row, stride[1] * column, row, column, 1)
    )
    pixels = gradient.permute(0, 2, 3, 1).reshape(-1, channels)
    copied = scratch("windows", windows.numel()).view(windows.shape).copy_(windows)
    product = pixels.T @ copied.view(len(pixels), -1)
    return product.view(channels, 3, 3, -1).permute(0, 3, 1, 2)
