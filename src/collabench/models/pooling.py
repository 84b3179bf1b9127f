"""Pooling whose gradient has the memory layout of its input.

Networks are trained channels-last. torch's global average pooling and slicing return gradients in the default layout.
Every operation below them, down to the next convolution, then mixes two layouts: the gradient of the activation took 5
to 15 times as long. The functions below compute the same numbers, bit for bit (tests/models/test_layout.py).
"""

from __future__ import annotations

from torch import Tensor, nn


def global_average(x: Tensor) -> Tensor:
    """Means (B, C) over the pixels of maps (B, C, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)


class GlobalAveragePool(nn.Module):
    """:func:`global_average` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return global_average(x)


def every_nth_pixel(x: Tensor, n: int) -> Tensor:
    """``x[:, :, ::n, ::n]`` of maps (B, C, H, W), computed as the average over windows of one pixel."""
    return x if n == 1 else nn.functional.avg_pool2d(x, kernel_size=1, stride=n)
