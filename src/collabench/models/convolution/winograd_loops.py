"""The loops of Winograd's convolutions. A few images at a time are transformed, multiplied and transformed back, so
that their data stay in the cache.

Arrays are flat: maps in the order (image, row, column, channel), weights (output channel, row, column, input channel),
tiles (element of the 6x6 tile, tile, channel) and transformed weights (element of the 6x6 tile, group of registers,
input channel, output channel within the group). A gap of a few values follows each of the 36 elements of the tiles:
elements at a distance of a power of two would compete for the same cache lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from collabench.models.convolution import tiling
from collabench.models.convolution.direct_loops import pad
from collabench.models.convolution.geometry import Maps
from collabench.models.convolution.language import Code, Size, writes
from collabench.models.convolution.weight_loops import turn
from collabench.models.convolution.winograd_transforms import (
    both_axes,
    of_gradient,
    of_input,
    of_kernel,
    of_products,
    to_kernel,
)

#: Size, in float32 values, of the input's tiles and of the products that are processed together; and the smallest
#: number of tiles processed together, for which the transformed weights are read once.
CACHED, LEAST_TILES = 160 * 1024, 24
#: The same for the gradient at the weights, whose sums are read and written once per group of tiles. Other values would
#: change the bits of the result.
CACHED_FOR_WEIGHTS, LEAST_TILES_FOR_WEIGHTS = 320 * 1024, 64

_GAP = 16
_PLACES = 36


class Sizes(NamedTuple):
    """Sizes of a 3x3 convolution with stride 1 and padding 1. Height and width are multiples of 4, channels of 16."""

    height: int
    width: int
    channels_in: int
    channels: int

    @property
    def maps(self) -> Maps:
        """The padded input."""
        return Maps(self.height, self.width, self.channels_in, 1, 1, self.height + 2, self.width + 2)

    @property
    def tiles(self) -> int:
        """Number of tiles of an image."""
        return self.height // 4 * (self.width // 4)

    def together(self, for_weights: bool = False) -> int:
        """Return the number of images that are processed together."""
        cached, least = (CACHED_FOR_WEIGHTS, LEAST_TILES_FOR_WEIGHTS) if for_weights else (CACHED, LEAST_TILES)
        fitting = cached // (_PLACES * (self.channels_in + self.channels))
        return max(1, round(max(fitting, least) / self.tiles))

    def place(self, channels: int, for_weights: bool = False) -> int:
        """Return the distance, in float32 values, between neighbouring elements of tiles with ``channels`` channels."""
        return self.together(for_weights) * self.tiles * channels + _GAP

    def scratch(self, for_weights: bool = False) -> tuple[int, int, int]:
        """Return the sizes, in float32 values, of the padded images, of the input's tiles and of the products."""
        padded = self.together(for_weights) * self.maps.size
        before, behind = (_PLACES * self.place(one, for_weights) for one in (self.channels_in, self.channels))
        return padded, before, behind


def _tile(code: Code, s: Sizes, rows: int) -> tuple[int, int]:
    return tiling.of_rows(code.lanes, rows, s.channels // code.lanes)


def _each_tile(code: Code, s: Sizes, images: Size, channels: int) -> Any:
    """Write loops over the tiles of ``images`` images and over the vector registers of ``channels`` channels.

    Yields the image, the tile's row and column, the tile's index and the register's first channel.
    """
    down, across = s.height // 4, s.width // 4
    with code.loop(images) as image, code.loop(down) as a, code.loop(across) as b:
        tile = code.plus(code.times(code.plus(code.times(image, down), a), across), b)
        with code.loop(channels, step=code.lanes) as channel:
            yield image, a, b, tile, channel


def _input_tiles(code: Code, s: Sizes, padded: Any, tiles: Any, images: Size, place: int) -> None:
    maps, channels = s.maps, s.channels_in
    for image, a, b, tile, channel in _each_tile(code, s, images, channels):
        corner = code.at(
            padded,
            code.times(image, maps.size),
            code.times(a, 4 * maps.wide * channels),
            code.times(b, 4 * channels),
            channel,
        )
        x = [[code.load(code.at(corner, (i * maps.wide + j) * channels)) for j in range(6)] for i in range(6)]
        to = code.at(tiles, code.times(tile, channels), channel)
        for i, row in enumerate(both_axes(code, of_input, x)):
            for j, value in enumerate(row):
                code.store(value, code.at(to, (6 * i + j) * place))


def _output_tiles(code: Code, s: Sizes, products: Any, y: Any, images: Size, place: int) -> None:
    channels = s.channels
    for image, a, b, tile, channel in _each_tile(code, s, images, channels):
        source = code.at(products, code.times(tile, channels), channel)
        m = [[code.load(code.at(source, (6 * i + j) * place)) for j in range(6)] for i in range(6)]
        to = _corner(code, s, y, image, a, b, channel)
        for i, row in enumerate(both_axes(code, of_products, m)):
            for j, value in enumerate(row):
                code.store(value, code.at(to, (i * s.width + j) * channels))


def _gradient_tiles(code: Code, s: Sizes, gradient: Any, products: Any, images: Size, place: int) -> None:
    channels = s.channels
    for image, a, b, tile, channel in _each_tile(code, s, images, channels):
        corner = _corner(code, s, gradient, image, a, b, channel)
        y = [[code.load(code.at(corner, (i * s.width + j) * channels)) for j in range(4)] for i in range(4)]
        to = code.at(products, code.times(tile, channels), channel)
        for i, row in enumerate(both_axes(code, of_gradient, y)):
            for j, value in enumerate(row):
                code.store(value, code.at(to, (6 * i + j) * place))


def _corner(code: Code, s: Sizes, maps: Any, image: Any, a: Any, b: Any, channel: Any) -> Any:
    channels = s.channels
    return code.at(
        maps,
        code.times(image, s.height * s.width * channels),
        code.times(a, 4 * s.width * channels),
        code.times(b, 4 * channels),
        channel,
    )


def _kernels(
    code: Code, s: Sizes, kernel: Any, transformed: Any, vectors: int, strides: tuple[int, int], turned: bool
) -> None:
    """Compute the transformed weights U = G g G^T. The lanes of a register are neighbouring output channels.

    strides: distance between neighbouring elements of a kernel, and between neighbouring input channels.
    turned: rotate the kernels by 180 degrees.
    """
    place, between = strides
    for start, v, number in tiling.vector_groups(s.channels // code.lanes, vectors):
        pitch = v * code.lanes
        with code.loop(number) as group, code.loop(s.channels_in) as channel:
            block = code.plus(code.times(group, pitch), start * code.lanes)
            for j in range(v):
                source = code.at(kernel, code.times(channel, between), block, j * code.lanes)
                places = [[3 * i + k for k in range(3)] for i in range(3)]
                g = [[code.load(code.at(source, (8 - p if turned else p) * place)) for p in row] for row in places]
                to = code.at(transformed, code.times(block, s.channels_in), code.times(channel, pitch), j * code.lanes)
                for i, row in enumerate(both_axes(code, of_kernel, g)):
                    for k, value in enumerate(row):
                        code.store(value, code.at(to, (6 * i + k) * s.channels_in * s.channels))


def _values(code: Code, arguments: tuple[Any, ...], s: Sizes, turned: bool) -> None:
    x, weights, y, kernel, transformed, padded, tiles, products, images = arguments
    together = s.together()
    rows, vectors = _tile(code, s, together * s.tiles)
    if turned:
        _kernels(code, s, weights, transformed, vectors, (s.channels, 9 * s.channels), True)
    else:
        turn_back(code, weights, kernel, s.channels, 9 * s.channels_in)
        _kernels(code, s, kernel, transformed, vectors, (s.channels_in * s.channels, s.channels), False)
    before, behind = s.place(s.channels_in), s.place(s.channels)
    code.clear(padded, code.times(code.least(images, together), s.maps.size))
    with code.loop(images, step=together) as first:
        count = code.least(code.minus(images, first), together)
        pad(code, s.maps, code.at(x, code.times(first, s.height * s.width * s.channels_in)), padded, count)
        _input_tiles(code, s, padded, tiles, count, before)
        number = code.times(count, s.tiles)
        with code.loop(_PLACES) as place:
            for start, v, groups in tiling.vector_groups(s.channels // code.lanes, vectors):
                pitch = v * code.lanes
                with code.loop(groups) as group:
                    block = code.plus(code.times(group, pitch), start * code.lanes)
                    b = code.at(
                        transformed, code.times(place, s.channels_in * s.channels), code.times(block, s.channels_in)
                    )
                    for tile, r in code.groups(number, _sizes(rows)):
                        code.tile(
                            code.at(products, code.times(place, behind), code.times(tile, s.channels), block),
                            [i * s.channels for i in range(r)],
                            v,
                            code.at(tiles, code.times(place, before), code.times(tile, s.channels_in)),
                            [i * s.channels_in for i in range(r)],
                            b,
                            [(s.channels_in, 1, pitch)],
                        )
        _output_tiles(code, s, products, code.at(y, code.times(first, s.height * s.width * s.channels)), count, behind)


def _sizes(rows: int) -> list[int]:
    return [rows, *(size for size in (8, 4) if size < rows), 1] if rows > 1 else [1]


def turn_back(code: Code, weights: Any, kernel: Any, channels: int, seen: int) -> None:
    """Write code that transposes ``weights`` (channel, seen) to ``kernel`` (seen, channel)."""
    for first, count in code.groups(channels, [8, 1]):
        with code.loop(seen) as k:
            source, target = (
                code.at(weights, code.times(first, seen), k),
                code.at(kernel, code.times(k, channels), first),
            )
            for c in range(count):
                code.put(code.number(code.at(source, c * seen)), code.at(target, c))


@writes(pointers=8, sizes=1)
def winograd_values(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the output ``y`` (images, height, width, channels) of a convolution.

    Arguments: the input ``x`` (images, height, width, input channels), the weights, ``y``, and the number of images
    after scratch memory for five arrays: the weights in the order (row, column, input channel, output channel), the
    transformed weights, the padded images, the input's tiles and the products.
    """
    _values(code, arguments, Sizes(*constants), turned=False)


@writes(pointers=8, sizes=1)
def winograd_at_input(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the gradient at the input (images, height, width, channels).

    It is the convolution of the gradient at the output with the kernels rotated by 180 degrees. The arguments are
    those of :func:`winograd_values`; the input channels here are the output channels of the weights.
    """
    _values(code, arguments, Sizes(*constants), turned=True)


@writes(pointers=8, sizes=1)
def winograd_at_weights(code: Code, arguments: tuple[Any, ...], *constants: int) -> None:
    """Compute the gradient at the weights, ``result`` (output channel, row, column, input channel).

    Arguments: the input ``x``, the gradient at the output, ``result``, the same scratch memory as for
    :func:`winograd_values`, and the number of images.
    """
    (x, gradient, result, kernel, transformed, padded, tiles, products, images), s = arguments, Sizes(*constants)
    together = s.together(for_weights=True)
    before, behind = (s.place(channels, for_weights=True) for channels in (s.channels_in, s.channels))
    registers, between = s.channels // code.lanes, s.channels_in * s.channels
    rows, vectors = tiling.of_rows(code.lanes, s.channels_in, registers)
    code.clear(padded, code.times(code.least(images, together), s.maps.size))
    code.clear(transformed, _PLACES * between)
    with code.loop(images, step=together) as first:
        count = code.least(code.minus(images, first), together)
        pixels = code.times(first, s.height * s.width)
        pad(code, s.maps, code.at(x, code.times(pixels, s.channels_in)), padded, count)
        _input_tiles(code, s, padded, tiles, count, before)
        _gradient_tiles(code, s, code.at(gradient, code.times(pixels, s.channels)), products, count, behind)
        number = code.times(count, s.tiles)
        with code.loop(_PLACES) as place:
            for start, v, groups in tiling.vector_groups(registers, vectors):
                with code.loop(groups) as group:
                    block = code.plus(code.times(group, v * code.lanes), start * code.lanes)
                    for channel, r in code.groups(
                        s.channels_in, [size for size, _ in tiling.parts(s.channels_in, rows)]
                    ):
                        code.tile(
                            code.at(transformed, code.times(place, between), code.times(channel, s.channels), block),
                            [i * s.channels for i in range(r)],
                            v,
                            code.at(tiles, code.times(place, before), channel),
                            list(range(r)),
                            code.at(products, code.times(place, behind), block),
                            [(number, s.channels_in, s.channels)],
                            add=True,
                        )
    with code.loop(between, step=code.lanes) as j:
        u = [[code.load(code.at(transformed, j, (6 * i + k) * between)) for k in range(6)] for i in range(6)]
        for i, row in enumerate(both_axes(code, to_kernel, u)):
            for k, value in enumerate(row):
                code.store(value, code.at(kernel, j, (3 * i + k) * between))
    turn(code, kernel, result, s.channels, 9 * s.channels_in)
