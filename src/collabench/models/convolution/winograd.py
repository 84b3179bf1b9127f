"""3x3 convolutions on a CPU by Winograd's minimal filtering F(4x4, 3x3), with a quarter of the multiplications.

With the transforms of :mod:`collabench.models.convolution.winograd_transforms` and U = G g G^T (6x6) of the weights g
(3x3), an output tile is

    y = A^T [ sum over channels of  U * (B^T x B) ] A,

where * is the product of elements. The sum is one matrix product for each of the 36 elements of a tile. The gradient
at the input is the same convolution of the gradient at the output, with the kernels rotated by 180 degrees. The
gradient at the weights is G^T [ sum over tiles of (B^T x B) * (A y A^T) ] G, with y the gradient at the output.
Results differ from those of the direct convolution by rounding, about 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from collabench.models.convolution import winograd_loops
from collabench.models.convolution.compiled import function
from collabench.models.convolution.scratch import room
from collabench.models.convolution.winograd_loops import Sizes

#: Both numbers of channels must be multiples of this.
BLOCK = 16

_CHANNELS_LAST = torch.channels_last


def possible(shape: tuple[int, ...], channels: int) -> bool:
    """Return whether a convolution of maps of ``shape`` (N, I, H, W) to ``channels`` channels is possible here.

    Both numbers of channels must be multiples of :data:`BLOCK`, height and width multiples of 4.
    """
    _, channels_in, height, width = shape
    return channels_in % BLOCK == 0 and channels % BLOCK == 0 and height % 4 == 0 and width % 4 == 0


def suits(shape: tuple[int, ...], channels: int) -> bool:
    """Return whether the convolution is possible, and the batch has enough tiles to be faster than the direct one.

    The transforms of the weights cost the same for every size of batch.
    """
    count, _, height, width = shape
    tiles = count * (height // 4) * (width // 4)
    return possible(shape, channels) and tiles >= LEAST_TILES


#: Smallest number of tiles of a batch for which this algorithm is faster.
LEAST_TILES = 32


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return the output (N, O, H, W), channels-last, for the input (N, I, H, W) and the weights (O, I, 3, 3)."""
    count, channels_in, height, width = x.shape
    y = torch.empty((count, len(weight), height, width), memory_format=_CHANNELS_LAST)
    _run(_values(Sizes(height, width, channels_in, len(weight))), x, weight, y, count)
    return y


def gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients at the input (N, I, H, W) and at the weights (O, I, 3, 3) of a convolution.

    gradient: the loss's gradient at the convolution's output, (N, O, H, W).
    of_input, of_weight: which gradients to compute; the other is None.
    """
    count, channels_in, height, width = x.shape
    to_input = to_weight = None
    if of_input:
        to_input = torch.empty(x.shape, memory_format=_CHANNELS_LAST)
        _run(_at_input(Sizes(height, width, len(weight), channels_in)), gradient, weight, to_input, count)
    if of_weight:
        to_weight = torch.empty(weight.shape, memory_format=_CHANNELS_LAST)
        _run(_at_weights(Sizes(height, width, channels_in, len(weight))), x, gradient, to_weight, count)
    return to_input, to_weight


_Loops = tuple[Callable[..., None], tuple[int, ...]]


@cache
def _values(s: Sizes) -> _Loops:
    return function(winograd_loops.winograd_values, *s), _rooms(s)


@cache
def _at_input(s: Sizes) -> _Loops:
    return function(winograd_loops.winograd_at_input, *s), _rooms(s)


@cache
def _at_weights(s: Sizes) -> _Loops:
    return function(winograd_loops.winograd_at_weights, *s), _rooms(s, for_weights=True)


def _rooms(s: Sizes, for_weights: bool = False) -> tuple[int, ...]:
    """Return the sizes, in float32 values, of the scratch buffers :data:`_NAMES`."""
    between = s.channels_in * s.channels
    return 9 * between, 36 * between, *s.scratch(for_weights)


_NAMES = ("kernel", "transformed", "padded", "tiles", "products")


def _run(loops: _Loops, a: Tensor, b: Tensor, c: Tensor, images: int) -> None:
    run, sizes = loops
    a, b = a.contiguous(memory_format=_CHANNELS_LAST), b.contiguous(memory_format=_CHANNELS_LAST)
    rooms = (room(name, size) for name, size in zip(_NAMES, sizes, strict=True))
    run(a.data_ptr(), b.data_ptr(), c.data_ptr(), *rooms, images)
