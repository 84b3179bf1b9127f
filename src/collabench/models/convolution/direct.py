"""Direct convolutions on a CPU: the sums of the definition, for maps and kernels of any size.

The loops are in :mod:`.direct_loops` and :mod:`.weight_loops`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from collabench.models.convolution import direct_loops, geometry, weight_loops
from collabench.models.convolution.compiled import function
from collabench.models.convolution.geometry import Sizes
from collabench.models.convolution.scratch import room

_CHANNELS_LAST = torch.channels_last


def convolve(x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Return the output (N, O, H', W'), channels-last, for the input (N, I, H, W) and the weights (O, I, K, L).

    Raises ValueError if the kernel is larger than the padded input.
    """
    images, sizes = len(x), _sizes(x.shape[1:], weight.shape, stride, padding)
    if min(sizes.rows, sizes.columns) < 1:
        raise ValueError(f"maps of {sizes.height}x{sizes.width} pixels are smaller than the kernel")
    y = torch.empty((images, sizes.channels, sizes.rows, sizes.columns), memory_format=_CHANNELS_LAST)
    run, panels, padded = _values(sizes)
    _run(run, x, weight, y, panels, padded, images)
    return y


def gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    of_input: bool,
    of_weight: bool,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients at the input (N, I, H, W) and at the weights (O, I, K, L) of a convolution.

    gradient: the loss's gradient at the convolution's output, (N, O, H', W').
    of_input, of_weight: which gradients to compute; the other is None.
    """
    return (
        at_input(gradient, x.shape, weight, stride, padding) if of_input else None,
        at_weights(gradient, x, weight.shape, stride, padding) if of_weight else None,
    )


def at_input(
    gradient: Tensor, shape: torch.Size, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient at an input of ``shape`` (N, I, H, W) from that at the output (N, O, H', W')."""
    result = torch.empty(shape, memory_format=_CHANNELS_LAST)
    run, panels, padded = _at_input(_sizes(shape[1:], weight.shape, stride, padding))
    _run(run, gradient, weight, result, panels, padded, shape[0])
    return result


def at_weights(
    gradient: Tensor, x: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient at weights of ``shape`` (O, I, K, L) from that at the output (N, O, H', W')."""
    result = torch.empty(shape, memory_format=_CHANNELS_LAST)
    run, sums, padded = _at_weights(_sizes(x.shape[1:], shape, stride, padding))
    _run(run, x, gradient, result, sums, padded, len(x))
    return result


@cache
def _sizes(maps: torch.Size, weight: torch.Size, stride: tuple[int, int], padding: tuple[int, int]) -> Sizes:
    (channels_in, height, width), (channels, _, kernel, kernel_width) = maps, weight
    return Sizes(height, width, channels_in, channels, kernel, kernel_width, *stride, *padding)


_Loops = tuple[Callable[..., None], int, int]
"""A compiled function, and the sizes of its two scratch buffers in float32 values."""


@cache
def _values(s: Sizes) -> _Loops:
    maps = geometry.forward_maps(s)
    return function(direct_loops.values, *s), _panels(s.channels, s.seen), _padded(maps)


@cache
def _at_input(s: Sizes) -> _Loops:
    maps = geometry.backward_maps(s)
    panels = _panels(s.channels_in, s.kernel * s.kernel_width * s.channels)
    return function(direct_loops.at_input, *s), panels, _padded(maps)


@cache
def _at_weights(s: Sizes) -> _Loops:
    return function(weight_loops.at_weights, *s), s.seen * s.channels, _padded(geometry.forward_maps(s))


def _panels(channels: int, depth: int) -> int:
    return (channels + 16) * depth


def _padded(maps: geometry.Maps) -> int:
    return maps.size * direct_loops.images_together(maps, 4 * direct_loops.CACHED)


def _run(run: Callable[..., None], a: Tensor, b: Tensor, c: Tensor, first: int, second: int, images: int) -> None:
    a, b = a.contiguous(memory_format=_CHANNELS_LAST), b.contiguous(memory_format=_CHANNELS_LAST)
    run(a.data_ptr(), b.data_ptr(), c.data_ptr(), room("panels", first), room("padded", second), images)
