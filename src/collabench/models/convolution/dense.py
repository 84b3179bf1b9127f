"""3x3 convolutions of maps of at most 2x2 pixels as one matrix product of images, for a CPU.

With padding of 1 every pixel q of such a map lies within reach of every pixel p, and the convolution is a fully connected layer:
its weights D from (q, channel in) to (p, channel out) are those of the kernel at q - p, so that a kernel's weight is found in D at
every pair of pixels of its distance. Nothing is multiplied with the padding, and no windows of the input are copied.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

#: Rows and columns of a map up to which all pixels are within reach of each other.
REACH = 2


def suits(shape: tuple[int, ...], channels: int) -> bool:
    """Whether maps of ``shape`` (N, I, H, W) are so small, and images enough for the product to outweigh the making of D."""
    count, channels_in, height, width = shape
    return height <= REACH and width <= REACH and 2 * count >= max(channels_in, channels)


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Maps (N, O, H, W), channels-last, of maps (N, I, H, W) and weights (O, I, 3, 3)."""
    count, _, height, width = x.shape
    product = _rows(x) @ _connections(weight, height, width)
    return product.view(count, height, width, len(weight)).permute(0, 3, 1, 2)


def gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """Of a loss whose gradient is ``gradient`` (N, O, H, W) at the convolution's output: at its input (N, I, H, W) and at its
    weights (O, I, 3, 3), where they are asked for."""
    count, channels_in, height, width = x.shape
    channels, pixels = len(weight), height * width
    rows = _rows(gradient)
    to_input = to_weight = None
    if of_input:
        product = rows @ _connections(weight, height, width).T
        to_input = product.view(count, height, width, channels_in).permute(0, 3, 1, 2)
    if of_weight:
        pairs = (_rows(x).T @ rows).view(pixels, channels_in, pixels, channels).transpose(1, 2)
        place = torch.nn.functional.one_hot(_places(height, width), 9).to(pairs.dtype)
        summed = place.T @ pairs.reshape(pixels * pixels, -1)
        to_weight = summed.view(3, 3, channels_in, channels).permute(3, 2, 0, 1)
        to_weight = to_weight.contiguous(memory_format=torch.channels_last)
    return to_input, to_weight


def _rows(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W) as (N, H·W·C); no copy of channels-last maps."""
    return maps.detach().permute(0, 2, 3, 1).reshape(len(maps), -1)


def _connections(weight: Tensor, height: int, width: int) -> Tensor:
    """D (H·W·I, H·W·O) of weights (O, I, 3, 3)."""
    (channels, channels_in), pixels = weight.shape[:2], height * width
    kernel = weight.detach().permute(2, 3, 1, 0).reshape(9, -1)
    pairs = kernel.index_select(0, _places(height, width)).view(pixels, pixels, channels_in, channels)
    return pairs.transpose(1, 2).reshape(pixels * channels_in, pixels * channels)


@cache
def _places(height: int, width: int) -> Tensor:
    """For every pair (q, p) of pixels, at which of a kernel's 9 places q - p lies."""
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(-1, 2)
    row, column = (pixels[:, None] - pixels[None] + 1).unbind(-1)
    return (3 * row + column).flatten()
