"""The sizes of a convolution, and where along an axis its values and its gradient at the input read.

The gradient at the input is a convolution of the gradient at the output for each phase of the stride: pixels of one
phase are reached by the same taps.
"""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """A convolution's sizes: of its input, its channels, its kernel, its stride and its padding."""

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
        """Of the output."""
        return (self.height + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def columns(self) -> int:
        return (self.width + 2 * self.padding_width - self.kernel_width) // self.stride_width + 1

    @property
    def seen(self) -> int:
        """Numbers that one output is made of."""
        return self.kernel * self.kernel_width * self.channels_in


class Axis(NamedTuple):
    """For pixels of one phase along one axis: the first and how many there are, the taps that reach them, where the
    first tap of the first pixel reads, and which tap that is."""

    first: int
    number: int
    taps: int
    reads: int
    tap: int


def forward_axis(number: int, padding: int, kernel: int) -> Axis:
    return Axis(0, number, kernel, -padding, 0)


def backward_axes(size: int, padding: int, kernel: int, stride: int) -> list[Axis]:
    """Of the gradient at the input, for each phase of the stride; taps are counted from the kernel's end."""
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
    """What is read, with ``low`` rows (``left`` columns) of zeros before it."""

    height: int
    width: int
    channels: int
    low: int
    left: int
    high: int
    wide: int

    @property
    def plain(self) -> bool:
        return (self.high, self.wide) == (self.height, self.width)

    @property
    def size(self) -> int:
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
    """The input as the values read it."""
    rows, columns = forward_axis(s.rows, s.padding, s.kernel), forward_axis(s.columns, s.padding_width, s.kernel_width)
    return _padded(s.height, s.width, s.channels_in, [rows], [columns], s.stride, s.stride_width)


def backward_maps(s: Sizes) -> Maps:
    """The gradient at the output as that at the input reads it."""
    rows = backward_axes(s.height, s.padding, s.kernel, s.stride)
    columns = backward_axes(s.width, s.padding_width, s.kernel_width, s.stride_width)
    return _padded(s.rows, s.columns, s.channels, rows, columns, 1, 1)
