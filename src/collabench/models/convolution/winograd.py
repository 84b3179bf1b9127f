"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): a quarter of the multiplications, for a CPU.

With the tile maps of :mod:`collabench.models.convolution.winograd_transforms` and, for the weights g (3x3), U = G g G^T (6x6),

    y = A^T [ sum over channels of  U * (B^T x B) ] A,

whose sum is one matrix product for each of the 36 places; both gradients follow by transposing. Results differ from the direct
form by rounding, about 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from collabench.models.convolution.blocks import WINOGRAD as BLOCK
from collabench.models.convolution.scratch import scratch

#: Tiles times channels that are transformed at once, 2.4 MB: what is written is then read from a cache.
CHUNK = 256 * 64

#: Tiles of a batch from which on the form pays: the weights' transform and its products cost the same for every batch.
LEAST_TILES = 128

_G = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
_G_BOTH = torch.kron(_G, _G).float()


def suits(shape: tuple[int, ...], channels: int) -> bool:
    """Whether maps of ``shape`` (N, I, H, W) can be convolved to ``channels`` in this form, and are many enough for it to pay."""
    count, channels_in, height, width = shape
    blocks = channels_in % BLOCK == 0 and channels % BLOCK == 0
    return blocks and height % 4 == 0 and width % 4 == 0 and count * height * width >= 16 * LEAST_TILES


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Maps (N, O, H, W), channels-last, of maps (N, I, H, W) and weights (O, I, 3, 3); H and W are multiples of 4."""
    from collabench.models.convolution.winograd_transforms import input_tiles, output_tiles

    count, channels_in, height, width = x.shape
    channels = len(weight)
    x, transformed = _pixels(x), _transformed(weight)
    y = x.new_empty(count, height, width, channels)
    for part in _chunks(x, channels):
        tiles, products = _tiles("input", x[part], channels_in), _tiles("output", x[part], channels)
        _run(input_tiles, x[part], tiles, channels_in)
        torch.bmm(tiles, transformed, out=products)
        _run(output_tiles, products, y[part], channels)
    return y.permute(0, 3, 1, 2)


def gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Of a loss whose gradient is ``gradient`` (N, O, H, W) at the convolution's output: at its input (N, I, H, W) and at its
    weights (O, I, 3, 3), where they are asked for."""
    from collabench.models.convolution.winograd_transforms import (
        input_tiles,
        input_tiles_transposed,
        output_tiles_transposed,
    )

    channels, channels_in = weight.shape[:2]
    gradient, x = _pixels(gradient), _pixels(x)
    transposed = _transformed(weight).transpose(1, 2)
    to_input = torch.empty_like(x) if of_input else None
    to_weight = x.new_zeros(36, channels_in, channels) if of_weight else None
    for part in _chunks(x, channels):
        tiles, products = _tiles("input", x[part], channels_in), _tiles("output", x[part], channels)
        _run(output_tiles_transposed, gradient[part], products, channels)
        if to_weight is not None:
            _run(input_tiles, x[part], tiles, channels_in)
            to_weight.baddbmm_(tiles.transpose(1, 2), products)
        if to_input is not None:
            torch.bmm(products, transposed, out=tiles)
            _run(input_tiles_transposed, tiles, to_input[part], channels_in)
    return (
        None if to_input is None else to_input.permute(0, 3, 1, 2),
        None if to_weight is None else _back(to_weight),
    )


def _pixels(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H, W, C), contiguous; no copy of channels-last maps."""
    return maps.detach().permute(0, 2, 3, 1).contiguous()


def _transformed(weight: Tensor) -> Tensor:
    """U = G g G^T of weights (O, I, 3, 3), as (36, I, O)."""
    channels, channels_in = weight.shape[:2]
    return (_G_BOTH @ weight.detach().permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels_in, channels)


def _back(transformed: Tensor) -> Tensor:
    """The gradient at weights (O, I, 3, 3), channels-last as they are, from that at U (36, I, O)."""
    _, channels_in, channels = transformed.shape
    gradient = (_G_BOTH.T @ transformed.view(36, -1)).view(3, 3, channels_in, channels)
    return gradient.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _chunks(x: Tensor, channels: int) -> list[slice]:
    """Parts of the images of ``x`` (N, H, W, I)."""
    count, height, width, channels_in = x.shape
    step = max(1, CHUNK // ((height // 4) * (width // 4) * max(channels_in, channels)))
    return [slice(start, start + step) for start in range(0, count, step)]


def _tiles(name: str, x: Tensor, channels: int) -> Tensor:
    """Room (36, tiles, channels) for the tiles of images (N, H, W, C)."""
    size = 36 * x.shape[0] * (x.shape[1] // 4) * (x.shape[2] // 4) * channels
    return scratch(name, size).view(36, -1, channels)


def _run(transform: Callable[..., None], source: Tensor, target: Tensor, channels: int) -> None:
    """Between maps (N, H, W, C) and tiles, whichever is which."""
    images, height, width = (source if source.dim() == 4 else target).shape[:3]
    sizes = (np.uintp(size) for size in (images, height, width, channels))
    transform(source.view(-1).numpy(), target.view(-1).numpy(), *sizes)
