"""The loops of a direct convolution's gradient at its weights.

:mod:`collabench.models.convolution.direct_loops` describes the layouts and contains the other loops.
"""

from __future__ import annotations

from typing import Any

from collabench.models.convolution import tiling
from collabench.models.convolution.direct_loops import NARROW, blocks, images_together, pad, small
from collabench.models.convolution.geometry import Sizes, forward_maps
from collabench.models.convolution.language import Code, writes

#: Size, in float32 values, of the padded images that are processed together, and the largest number of output pixels
#: of a band of rows. With these sizes the data stay in the first-level cache. The sums of each part are added to those
#: of the parts before it, so that other sizes would change the bits of the result.
CACHED, PIXELS = 8 * 1024, 256


@writes(pointers=5, sizes=1)
def at_weights(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the gradient at the weights, ``result`` (output channel, row, column, input channel).

    Arguments: the input ``x`` (images, height, width, input channels), the gradient at the output (images, rows,
    columns, channels), ``result``, scratch memory for the sums and for the padded images, and the number of images.
    """
    (x, gradient, result, sums, padded, images), s = arguments, Sizes(*constants)
    code.clear(sums, s.seen * s.channels)
    if small(s.rows * s.columns, s.height, s.width) and s.channels_in >= NARROW:
        _few_pixels(code, s, x, gradient, sums, images)
    else:
        _many_pixels(code, s, x, gradient, sums, padded, images)
    turn(code, sums, result, s.channels, s.seen)


def turn(code: Code, sums: Any, result: Any, channels: int, seen: int) -> None:
    """Write code that transposes ``sums`` (seen, channel) to ``result`` (channel, seen)."""
    width = 8
    for first, count in code.groups(channels, [width, 1]):
        with code.loop(seen) as k:
            source, target = code.at(sums, code.times(k, channels), first), code.at(result, code.times(first, seen), k)
            for c in range(count):
                code.put(code.number(code.at(source, c)), code.at(target, c * seen))


def _few_pixels(code: Code, s: Sizes, x: Any, gradient: Any, sums: Any, images: Any) -> None:
    """Sum for each tap over the output pixels at which it reads inside the map. Nothing is padded."""
    table = []
    for tap in range(s.kernel):
        for tap_x in range(s.kernel_width):
            rows = _reached(tap - s.padding, s.stride, s.rows, s.height)
            columns = _reached(tap_x - s.padding_width, s.stride_width, s.columns, s.width)
            y, left = rows.start * s.stride + tap - s.padding, columns.start * s.stride_width + tap_x - s.padding_width
            inside = bool(rows) and bool(columns)
            table.append((
                (y * s.width + left) * s.channels_in if inside else 0,
                (rows.start * s.columns + columns.start) * s.channels if inside else 0,
                len(rows), len(columns),
            ))  # fmt: skip
    entries = code.table([value for entry in table for value in entry])
    size, size_out = s.height * s.width * s.channels_in, s.rows * s.columns * s.channels
    rows_of_tile, vectors = tiling.of_rows(code.lanes, s.channels_in, -(-s.channels // code.lanes))
    for start, v, number, mask in blocks(code, s.channels, vectors):
        with code.loop(number) as group, code.loop(len(table)) as tap:
            block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
            reads, pixel, rows, columns = (code.entry(entries, code.plus(code.times(tap, 4), j)) for j in range(4))
            loops = [
                (images, size, size_out),
                (rows, s.stride * s.width * s.channels_in, s.columns * s.channels),
                (columns, s.stride_width * s.channels_in, s.channels),
            ]
            for channel, count in code.groups(
                s.channels_in, [one for one, _ in tiling.parts(s.channels_in, rows_of_tile)]
            ):
                row = code.plus(code.times(tap, s.channels_in), channel)
                code.tile(
                    code.at(sums, code.times(row, s.channels), block), [i * s.channels for i in range(count)], v,
                    code.at(x, reads, channel), list(range(count)), code.at(gradient, pixel, block), loops,
                    add=True, mask=mask, b_mask=mask,
                )  # fmt: skip


def _reached(distance: int, stride: int, count: int, size: int) -> range:
    """Return the outputs, of ``count``, at which a tap reads inside a map of ``size`` pixels along an axis.

    distance: the position that the tap reads for the first output.
    """
    inside = [place for place in range(count) if 0 <= place * stride + distance < size]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


def _many_pixels(code: Code, s: Sizes, x: Any, gradient: Any, sums: Any, padded: Any, images: Any) -> None:
    """Sum over padded images: a band of output rows of one image, or several whole images, at a time."""
    maps = forward_maps(s)
    together = images_together(maps, CACHED)
    high = next(
        rows for rows in range(s.rows, 0, -1) if s.rows % rows == 0 and (rows * s.columns <= PIXELS or rows == 1)
    )
    if together > 1:
        high = s.rows
    if not maps.plain:
        code.clear(padded, code.times(code.least(images, together), maps.size))
    pitch, size = maps.wide * s.channels_in, s.rows * s.columns * s.channels
    corner = ((maps.low - s.padding) * maps.wide + maps.left - s.padding_width) * s.channels_in
    with code.loop(images, step=together) as first:
        count = code.least(code.minus(images, first), together)
        here = code.at(x, code.times(first, s.height * s.width * s.channels_in))
        if not maps.plain:
            pad(code, maps, here, padded, count)
            here = padded
        with code.loop(s.rows // high) as band:
            a = code.at(here, code.times(band, high * s.stride * pitch), corner)
            g = code.at(gradient, code.times(first, size), code.times(band, high * s.columns * s.channels))
            loops = [
                (count, maps.size, size), (high, s.stride * pitch, s.columns * s.channels),
                (s.columns, s.stride_width * s.channels_in, s.channels),
            ]  # fmt: skip
            _windows(code, s, sums, a, g, loops, pitch)


def _windows(code: Code, s: Sizes, sums: Any, a: Any, g: Any, loops: list[Any], pitch: int) -> None:
    across = s.kernel_width * s.channels_in
    registers = -(-s.channels // code.lanes)
    if across < NARROW:  # a tile spans several rows of the kernel; the code of each tile is written separately
        size, vectors = tiling.of_rows(code.lanes, s.seen, registers)
        numbers = [k // across * pitch + k % across for k in range(s.seen)]
        for start, v, number, mask in blocks(code, s.channels, vectors):
            with code.loop(number) as group:
                block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
                for k in range(0, s.seen, size):
                    reads = numbers[k : k + size]
                    code.tile(
                        code.at(sums, block, k * s.channels), [i * s.channels for i in range(len(reads))], v,
                        a, reads, code.at(g, block), loops, add=True, mask=mask, b_mask=mask,
                    )  # fmt: skip
        return
    size, vectors = tiling.of_rows(code.lanes, across, registers)
    for start, v, number, mask in blocks(code, s.channels, vectors):
        with code.loop(number) as group, code.loop(s.kernel) as tap:
            block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
            for k, count in code.groups(across, [one for one, _ in tiling.parts(across, size)]):
                row = code.plus(code.times(tap, across), k)
                code.tile(
                    code.at(sums, code.times(row, s.channels), block), [i * s.channels for i in range(count)], v,
                    code.at(a, code.times(tap, pitch), k), list(range(count)), code.at(g, block), loops,
                    add=True, mask=mask, b_mask=mask,
                )  # fmt: skip
