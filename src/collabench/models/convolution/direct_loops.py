"""The loops of a direct convolution, for maps and kernels of any size: the output and the gradient at the input.

The gradient at the weights is in :mod:`collabench.models.convolution.weight_loops`. All three are sums of outer
products (:meth:`collabench.models.convolution.language.Code.tile`). For the output and the gradient at the input, a
column of values of several pixels is multiplied by the weights of neighbouring channels. For the gradient at the
weights, a column of values of the input is multiplied by the gradient's neighbouring channels.

A vector lane is an output channel (for the gradient at the input: an input channel). The order of every sum is fixed:
over the kernel's rows, its columns and the channels, or, for the gradient at the weights, over images, rows and
columns.

Arrays are flat: maps in the order (image, row, column, channel), weights (output channel, row, column, input channel).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from collabench.models.convolution import tiling
from collabench.models.convolution.geometry import (
    Axis,
    Maps,
    Sizes,
    backward_axes,
    backward_maps,
    forward_axis,
    forward_maps,
)
from collabench.models.convolution.language import Code, Size, writes

#: Size, in float32 values, of the padded images that are processed together, so that they stay in the cache.
CACHED = 32 * 1024

#: Up to this many pixels of a map, the rows of a tile are the same pixel of several images instead of several pixels
#: of one image. No padding is then multiplied.
FEW_PIXELS = 16

#: Number of images of such a tile.
TOGETHER = 8

#: If a row of the kernel's window has fewer values than this, a tile of the weights' gradient spans several rows of
#: the window.
NARROW = 16


def images_together(maps: Maps, cached: int = CACHED) -> int:
    """Return the number of images that are padded and processed together.

    cached: size of the padded images in float32 values.
    """
    return max(1, cached // maps.size)


def pad(code: Code, maps: Maps, source: Any, padded: Any, images: Size) -> None:
    """Write code that copies ``images`` images from ``source`` into the middle of those of ``padded``.

    The edges of ``padded`` must already be zero.
    """
    row = maps.width * maps.channels
    start = (maps.low * maps.wide + maps.left) * maps.channels
    with code.loop(images) as image, code.loop(maps.height) as y:
        source_at = code.at(source, code.times(image, maps.height * row), code.times(y, row))
        code.copy(
            code.at(padded, code.times(image, maps.size), code.times(y, maps.wide * maps.channels), start),
            source_at,
            row,
        )


def small(count: int, height: int, width: int) -> bool:
    """Return whether both the computed maps (``count`` pixels) and the maps that are read have few pixels.

    No row of their pixels would fill a tile.
    """
    return max(count, height * width) <= FEW_PIXELS


class _Written(NamedTuple):
    """The layout of the maps that are written.

    image, row, channels: number of float32 values of an image, of a row and of a pixel.
    step, step_width: distance, in pixels, between neighbouring rows and columns of a phase.
    """

    image: int
    row: int
    channels: int
    step: int
    step_width: int


class _Read(NamedTuple):
    """The layout of the maps and of the packed weights that are read.

    step, step_width: how far, in pixels, the position that is read moves from one written pixel to the next.
    tap_step, tap_step_width: distance between the taps that read neighbouring pixels.
    kernel_width: taps in a row of the kernel.
    depth: number of terms of a sum, which is the length of a panel.
    """

    maps: Maps
    step: int
    step_width: int
    tap_step: int
    tap_step_width: int
    kernel_width: int
    depth: int


def blocks(code: Code, channels: int, vectors: int) -> list[tuple[int, int, int, Any]]:
    """Divide the vector registers that hold ``channels`` channels into groups of at most ``vectors`` registers.

    Returns for each kind of group: the first register, the registers of a group, the number of groups, and the mask of
    the group's last register (None if it is full).
    """
    registers, rest = -(-channels // code.lanes), channels % code.lanes
    blocks: list[tuple[int, int, int, Any]] = []
    for start, v, number in tiling.vector_groups(registers, vectors):
        if rest and start + v * number == registers:
            if number > 1:
                blocks.append((start, v, number - 1, None))
            blocks.append((start + v * (number - 1), v, 1, code.mask(rest)))
        else:
            blocks.append((start, v, number, None))
    return blocks


def _correlate(
    code: Code,
    read: _Read,
    source: Any,
    padded: Any,
    panels: Any,
    written: _Written,
    target: Any,
    images: Any,
    rows: list[Axis],
    columns: list[Axis],
) -> None:
    """Write, for every phase of rows and columns, ``target = sum over taps and channels of source * panels``."""
    maps, vectors = read.maps, _vectors(code.lanes, rows[0].number, columns[0].number, written.channels)
    together = _together(read, written.channels)
    if not maps.plain:
        code.clear(padded, code.times(code.least(images, together), maps.size))
    with code.loop(images, step=together) as first:
        count = code.least(code.minus(images, first), together)
        here = code.at(source, code.times(first, maps.height * maps.width * maps.channels))
        if not maps.plain:
            pad(code, maps, here, padded, count)
            here = padded
        for start, v, number, mask in blocks(code, written.channels, vectors):
            with code.loop(number) as group, code.loop(count) as image:
                block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
                panel = code.at(panels, code.times(block, read.depth))
                a = code.at(here, code.times(image, maps.size))
                c = code.at(target, code.times(code.plus(first, image), written.image), block)
                for row in rows:
                    for column in columns:
                        _phase(code, read, a, panel, written, c, row, column, v, mask)


def _vectors(lanes: int, rows: int, columns: int, channels: int) -> int:
    return tiling.of_map(lanes, rows, columns, -(-channels // lanes))[2]


def _together(read: _Read, channels: int) -> int:
    return images_together(read.maps, CACHED if read.depth * channels < 256 * 1024 else 4 * CACHED)


def _phase(
    code: Code, read: _Read, a: Any, panel: Any, written: _Written, c: Any, row: Axis, column: Axis, v: int, mask: Any
) -> None:
    """Write the code for the pixels of one phase of one image and for one group of registers."""
    maps, channels, pitch = read.maps, read.maps.channels, v * code.lanes
    high, wide, _ = tiling.of_map(code.lanes, row.number, column.number, v)
    taps: list[tuple[Size, Size, Size]] = [(0, 0, 0)]
    if row.taps and column.taps:
        taps = [(row.taps, maps.wide * channels, read.tap_step * read.kernel_width * channels * pitch)]
        if read.tap_step_width == 1:
            taps += [(column.taps * channels, 1, pitch)]
        else:
            taps += [(column.taps, channels, read.tap_step_width * channels * pitch), (channels, 1, pitch)]
    b = code.at(panel, (row.tap * read.kernel_width + column.tap) * channels * pitch if row.taps and column.taps else 0)
    if row.taps and column.taps:
        a = code.at(a, ((row.reads + maps.low) * maps.wide + column.reads + maps.left) * channels)
    down, right = read.step * maps.wide * channels, read.step_width * channels
    to_down, to_right = written.step * written.row, written.step_width * written.channels
    c = code.at(c, row.first * written.row + column.first * written.channels)
    for y, h in code.groups(row.number, [size for size, _ in tiling.parts(row.number, high)]):
        for x, w in code.groups(column.number, [size for size, _ in tiling.parts(column.number, wide)]):
            pixels = [(i, j) for i in range(h) for j in range(w)]
            code.tile(
                code.at(c, code.times(y, to_down), code.times(x, to_right)),
                [i * to_down + j * to_right for i, j in pixels],
                v,
                code.at(a, code.times(y, down), code.times(x, right)),
                [i * down + j * right for i, j in pixels],
                b,
                taps,
                mask=mask,
            )


def _few_pixels(
    code: Code,
    read: _Read,
    source: Any,
    panels: Any,
    written: _Written,
    target: Any,
    images: Any,
    rows: list[Axis],
    columns: list[Axis],
) -> None:
    """Do the same as :func:`_correlate` for maps of few pixels.

    The rows of a tile are images, and the padding is not read.
    """
    maps, channels = read.maps, read.maps.channels
    table = []
    for row in rows:
        for column in columns:
            for y in range(row.number):
                for x in range(column.number):
                    (tap, reads, taps), (tap_x, reads_x, taps_x) = (
                        _inside(axis, place, step, size, tap_step)
                        for axis, place, step, size, tap_step in (
                            (row, y, read.step, maps.height, read.tap_step),
                            (column, x, read.step_width, maps.width, read.tap_step_width),
                        )
                    )
                    to = (row.first + written.step * y) * written.row + (
                        column.first + written.step_width * x
                    ) * written.channels
                    table.append(
                        (
                            to,
                            (reads * maps.width + reads_x) * channels,
                            (tap * read.kernel_width + tap_x) * channels,
                            taps,
                            taps_x,
                        )
                    )
    entries = code.table([value for entry in table for value in entry])
    registers = -(-written.channels // code.lanes)
    vectors = tiling.of_rows(code.lanes, TOGETHER, registers)[1]
    most = tiling.most_rows(code.lanes, vectors)
    sizes = [TOGETHER if most >= TOGETHER else 4 if most >= 4 else 2, 1]
    size = maps.height * maps.width * channels
    for start, v, number, mask in blocks(code, written.channels, vectors):
        pitch = v * code.lanes
        with code.loop(number) as group, code.loop(len(table)) as pixel:
            block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
            to, reads, tap, taps, taps_x = (code.entry(entries, code.plus(code.times(pixel, 5), j)) for j in range(5))
            b = code.at(panels, code.times(block, read.depth), code.times(tap, pitch))
            loops: list[tuple[Size, Size, Size]] = [
                (taps, maps.width * channels, read.tap_step * read.kernel_width * channels * pitch)
            ]
            if read.tap_step_width == 1:
                loops += [(code.times(taps_x, channels), 1, pitch)]
            else:
                loops += [(taps_x, channels, read.tap_step_width * channels * pitch), (channels, 1, pitch)]
            for image, count in code.groups(images, sizes):
                code.tile(
                    code.at(target, code.times(image, written.image), to, block),
                    [i * written.image for i in range(count)],
                    v,
                    code.at(source, code.times(image, size), reads),
                    [i * size for i in range(count)],
                    b,
                    loops,
                    mask=mask,
                )


def _inside(axis: Axis, place: int, step: int, size: int, tap_step: int) -> tuple[int, int, int]:
    """Return the first tap that reads inside the map for one pixel, the position it reads, and the number of taps."""
    begin = axis.reads + place * step
    skipped = max(0, -begin)
    count = max(0, min(axis.taps, size - begin) - skipped)
    return (axis.tap + skipped * tap_step, begin + skipped, count) if count else (0, 0, 0)


@writes(pointers=5, sizes=1)
def values(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the output ``y`` (images, rows, columns, channels) of a convolution.

    Arguments: the input ``x`` (images, height, width, input channels), the weights, ``y``, scratch memory for the
    panels and for the padded images, and the number of images.
    """
    (x, weights, y, panels, padded, images), s = arguments, Sizes(*constants)
    rows = [forward_axis(s.rows, s.padding, s.kernel)]
    columns = [forward_axis(s.columns, s.padding_width, s.kernel_width)]
    read = _Read(forward_maps(s), s.stride, s.stride_width, 1, 1, s.kernel_width, s.seen)
    written = _Written(s.rows * s.columns * s.channels, s.columns * s.channels, s.channels, 1, 1)
    few = small(s.rows * s.columns, s.height, s.width)
    registers = -(-s.channels // code.lanes)
    vectors = (
        tiling.of_rows(code.lanes, TOGETHER, registers)[1]
        if few
        else _vectors(code.lanes, s.rows, s.columns, s.channels)
    )
    _pack(code, weights, panels, s.channels, s.seen, vectors)
    if few:
        _few_pixels(code, read, x, panels, written, y, images, rows, columns)
    else:
        _correlate(code, read, x, padded, panels, written, y, images, rows, columns)


@writes(pointers=5, sizes=1)
def at_input(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the gradient at the input, ``result`` (images, height, width, input channels).

    Arguments: the gradient at the output (images, rows, columns, channels), the weights, ``result``, scratch memory
    for the panels and for the padded images, and the number of images.
    """
    (gradient, weights, result, panels, padded, images), s = arguments, Sizes(*constants)
    rows = backward_axes(s.height, s.padding, s.kernel, s.stride)
    columns = backward_axes(s.width, s.padding_width, s.kernel_width, s.stride_width)
    depth = s.kernel * s.kernel_width * s.channels
    read = _Read(backward_maps(s), 1, 1, s.stride, s.stride_width, s.kernel_width, depth)
    written = _Written(
        s.height * s.width * s.channels_in, s.width * s.channels_in, s.channels_in, s.stride, s.stride_width
    )
    few = small(s.rows * s.columns, s.height, s.width)
    registers = -(-s.channels_in // code.lanes)
    vectors = (
        tiling.of_rows(code.lanes, TOGETHER, registers)[1]
        if few
        else _vectors(code.lanes, rows[0].number, columns[0].number, s.channels_in)
    )
    _pack_turned(code, weights, panels, s, vectors)
    if few:
        _few_pixels(code, read, gradient, panels, written, result, images, rows, columns)
    else:
        _correlate(code, read, gradient, padded, panels, written, result, images, rows, columns)


def _pack(code: Code, weights: Any, panels: Any, channels: int, seen: int, vectors: int) -> None:
    """Pack the weights (channels, seen) into panels, one per group of registers: (seen, channel within the group).

    The last panel is filled up with zeros.
    """
    for start, v, number, mask in blocks(code, channels, vectors):
        pitch = v * code.lanes
        real = channels - (start * code.lanes) if mask is not None else pitch
        with code.loop(number) as group:
            block = code.plus(code.times(group, pitch), start * code.lanes)
            panel, source = code.at(panels, code.times(block, seen)), code.at(weights, code.times(block, seen))
            with code.loop(seen) as k:
                for c in range(pitch):
                    number_ = (
                        code.number(code.at(source, k, c * seen)) if c < real else ir.Constant(code.vector.element, 0.0)
                    )
                    code.put(number_, code.at(panel, code.times(k, pitch), c))


def _pack_turned(code: Code, weights: Any, panels: Any, s: Sizes, vectors: int) -> None:
    """Pack the weights, with kernels rotated by 180 degrees, into panels, one per group of registers of input channels.

    The order of a panel is (row, column, output channel, input channel within the group).
    """
    taps = s.kernel * s.kernel_width
    for start, v, number, mask in blocks(code, s.channels_in, vectors):
        pitch = v * code.lanes
        with code.loop(number) as group, code.loop(s.channels) as channel, code.loop(taps) as tap:
            block = code.plus(code.times(group, pitch), start * code.lanes)
            source = code.at(weights, code.times(channel, s.seen), code.times(tap, s.channels_in), block)
            turned = code.minus(taps - 1, tap)
            target = code.at(
                panels,
                code.times(block, taps * s.channels),
                code.times(code.plus(code.times(turned, s.channels), channel), pitch),
            )
            for j in range(v):
                value = code.load(code.at(source, j * code.lanes), mask if j == v - 1 else None)
                code.store(value, code.at(target, j * code.lanes))
