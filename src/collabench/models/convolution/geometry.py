"""The sizes of a convolution, and which positions its output and its gradient at the input read along an axis.

A tap is one position of the kernel. With a stride, the input's pixels fall into phases: the pixels of one phase are
reached by the same taps. The gradient at the input is therefore computed phase by phase, each as a convolution of the
gradient at the output.
"""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """Input size, channels (in and out), kernel size, stride and padding of a convolution. Sizes are in pixels."""

    height: int
    width: int
    channels_in: int
    channels: int
    kernel: int
    kernel_width: int
    stride: int
    stride_width: int
    padding: int
    padding_width: int

    @property
    def rows(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def columns(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.padding_width - self.kernel_width) // self.stride_width + 1

    @property
    def seen(self) -> int:
        """Number of input values that one output value depends on."""
        return self.kernel * self.kernel_width * self.channels_in


class Axis(NamedTuple):
    """The pixels of one phase along one axis, and what they read.

    first, number: the first pixel of the phase, and the number of its pixels.
    taps: number of taps that reach each of these pixels.
    reads: the position that the first tap reads for the first pixel; negative in the padding.
    tap: index of the first tap.
    """

    first: int
    number: int
    taps: int
    reads: int
    tap: int


def forward_axis(number: int, padding: int, kernel: int) -> Axis:
    """Return the axis of ``number`` output pixels, which form a single phase."""
    return Axis(0, number, kernel, -padding, 0)


def backward_axes(size: int, padding: int, kernel: int, stride: int) -> list[Axis]:
    """Return the axes of the gradient at the input, one per phase of the stride.

    Taps are counted from the kernel's end, because the kernel is rotated by 180 degrees.
    """
    axes = []
    for phase in range(min(stride, size)):
        tap = (phase + padding) % stride
        taps = max(0, -(-(kernel - tap) // stride))
        last = tap + (taps - 1) * stride
        axes.append(
            Axis(phase, -(-(size - phase) // stride), taps, (phase + padding - last) // stride, kernel - 1 - last)
        )
    return axes


class Maps(NamedTuple):
    """The maps that a convolution reads, surrounded by zeros.

    height, width, channels: size of the maps themselves.
    low, left: rows of zeros above the maps, and columns of zeros on their left.
    high, wide: height and width with all zeros.
    """

    height: int
    width: int
    channels: int
    low: int
    left: int
    high: int
    wide: int

    @property
    def plain(self) -> bool:
        """Whether there are no zeros around the maps, so that no padded copy is needed."""
        return (self.high, self.wide) == (self.height, self.width)

    @property
    def size(self) -> int:
        """Number of float32 values of a padded image."""
        return self.high * self.wide * self.channels


def _padded(
    height: int, width: int, channels: int, rows: list[Axis], columns: list[Axis], step: int, step_width: int
) -> Maps:
    def edges(size: int, axes: list[Axis], step: int) -> tuple[int, int]:
        read = [axis for axis in axes if axis.taps]
        low = max(0, *(-axis.reads for axis in read), 0)
        end = max(axis.reads + (axis.number - 1) * step + axis.taps for axis in read)
        return low, low + max(size, end)

    (low, high), (left, wide) = edges(height, rows, step), edges(width, columns, step_width)
    return Maps(height, width, channels, low, left, high, wide)


def forward_maps(s: Sizes) -> Maps:
    """Return the padded input, from which the output is computed."""
    rows, columns = forward_axis(s.rows, s.padding, s.kernel), forward_axis(s.columns, s.padding_width, s.kernel_width)
    return _padded(s.height, s.width, s.channels_in, [rows], [columns], s.stride, s.stride_width)


def backward_maps(s: Sizes) -> Maps:
    """Return the padded gradient at the output, from which the gradient at the input is computed."""
    rows = backward_axes(s.height, s.padding, s.kernel, s.stride)
    columns = backward_axes(s.width, s.padding_width, s.kernel_width, s.stride_width)
    return _padded(s.rows, s.columns, s.channels, rows, columns, 1, 1)
