"""3x3 convolutions as they are defined, without fewer multiplications, for a CPU: small maps and few channels, where torch's operator
runs at a third to two thirds of the rate of these loops (:mod:`collabench.models.convolution.direct_loops`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from collabench.models.convolution.blocks import DIRECT as BLOCK

#: Channels, in or out, up to which the loops are faster than torch's operator: the kernels of a block must fit the first cache.
MOST_CHANNELS = 128


def suits(shape: tuple[int, ...], channels: int, stride: int) -> bool:
    """Whether maps of ``shape`` (N, I, H, W) are convolved to ``channels`` in this form."""
    channels_in, rows, columns = shape[1], *(_after(size, stride) for size in shape[2:])
    whole = columns % 4 == 0 or rows % 2 == columns % 2 == 0
    blocks = channels % BLOCK == 0 and (channels_in % BLOCK == 0 or channels_in < BLOCK)
    return whole and blocks and max(channels_in, channels) <= MOST_CHANNELS


def convolve(x: Tensor, weight: Tensor, *, stride: int) -> Tensor:
    """Maps (N, O, H', W'), channels-last, of maps (N, I, H, W) and weights (O, I, 3, 3)."""
    from collabench.models.convolution.direct_loops import maps

    count, _, height, width = x.shape
    y = _empty((count, weight.shape[0], _after(height, stride), _after(width, stride)))
    _run(maps, x, weight, y, x.shape, y.shape, stride)
    return y


def gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool = True, of_weight: bool = True, *, stride: int
) -> tuple[Tensor | None, Tensor | None]:
    """Of a loss whose gradient is ``gradient`` (N, O, H', W') at the convolution's output: at its input (N, I, H, W) and at its
    weights (O, I, 3, 3), where they are asked for."""
    from collabench.models.convolution.direct_loops import at_input, at_weights

    to_input = to_weight = None
    if of_weight:
        to_weight = _empty(weight.shape)
        _run(at_weights, x, gradient, to_weight, x.shape, gradient.shape, stride)
    if of_input and x.shape[1] % BLOCK:
        asked = [True, False, False]
        to_input = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, (stride, stride), (1, 1), (1, 1), False, [0, 0], 1, asked
        )[0]
    elif of_input:
        to_input = _empty(x.shape)
        _run(at_input, gradient, weight, to_input, x.shape, gradient.shape, stride)
    return to_input, to_weight


def _after(size: int, stride: int) -> int:
    """Rows or columns of what a convolution gives of maps with ``size`` of them."""
    return (size - 1) // stride + 1


def _empty(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, memory_format=torch.channels_last)


def _run(
    loops: Callable[..., None], a: Tensor, b: Tensor, c: Tensor, x: tuple[int, ...], y: tuple[int, ...], stride: int
) -> None:
    """``loops`` over three tensors, for a convolution of maps of shape ``x`` (N, I, H, W) to maps of shape ``y`` (N, O, H', W')."""
    a, b = a.contiguous(memory_format=torch.channels_last), b.contiguous(memory_format=torch.channels_last)
    loops(a.data_ptr(), b.data_ptr(), c.data_ptr(), *_sizes(x, y, stride))


@cache
def _sizes(x: tuple[int, ...], y: tuple[int, ...], stride: int) -> tuple[np.uintp, ...]:
    images, channels_in, height, width = x
    _, channels, rows, columns = y
    return tuple(np.uintp(size) for size in (images, height, width, channels_in, channels, stride, rows, columns))
