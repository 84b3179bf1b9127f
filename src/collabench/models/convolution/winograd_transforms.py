"""The linear maps of Winograd's F(4x4, 3x3) on tiles of channels-last maps, as loops that numba compiles.

An output tile of 4x4 pixels comes from an input tile of 6x6, which overlaps its neighbours by 2 pixels (1 beyond the map's
edge, where zeros are read). With the matrices of Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2015),

    B^T = | 4  0 -5  0  1  0 |    A^T = | 1  1  1  1  1  0 |
          | 0 -4 -4  1  1  0 |          | 0  1 -1  2 -2  0 |
          | 0  4 -4 -1  1  0 |          | 0  1  1  4  4  0 |
          | 0 -2 -1  2  1  0 |          | 0  1 -1  8 -8  1 |
          | 0  2 -1 -2  1  0 |
          | 0  4  0 -5  0  1 |

the four maps are, for every tile and channel, x -> B^T x B (forward) and its transpose, and M -> A^T M A and its transpose. Each
is done along one axis of the tile and then along the other, for a block of channels at a time, whose tile fits the first cache.

Arrays are flat: maps in the order (image, row, column, channel), tiles in the order (6x6 place, tile, channel). Indices are
unsigned, since numba asks of every signed index whether it counts from the end, and does not vectorise the loop.
"""

from __future__ import annotations

import numpy as np

from collabench.models.convolution.blocks import WINOGRAD as BLOCK
from collabench.models.convolution.compiled import compiled, inlined

_U = np.uintp
_0, _1, _2, _3, _4, _5, _6, _36 = (_U(k) for k in (0, 1, 2, 3, 4, 5, 6, 36))
_C, _4C, _6C = (_U(k * BLOCK) for k in (1, 4, 6))
_TWO, _FOUR, _FIVE, _EIGHT = (np.float32(k) for k in (2, 4, 5, 8))
_TILE, _HALF, _OUTPUT = 36 * BLOCK, 24 * BLOCK, 16 * BLOCK


@inlined
def _b(x, y, start, step):  # y = B^T x for six vectors of a block's channels that lie ``step`` apart
    for c in range(_C):
        i0 = start + c
        i1, i2, i3, i4, i5 = i0 + step, i0 + _2 * step, i0 + _3 * step, i0 + _4 * step, i0 + _5 * step
        x0, x1, x2, x3, x4, x5 = x[i0], x[i1], x[i2], x[i3], x[i4], x[i5]
        y[i0] = _FOUR * x0 - _FIVE * x2 + x4
        even, odd = x4 - _FOUR * x2, x3 - _FOUR * x1
        y[i1] = even + odd
        y[i2] = even - odd
        even, odd = x4 - x2, _TWO * (x3 - x1)
        y[i3] = even + odd
        y[i4] = even - odd
        y[i5] = _FOUR * x1 - _FIVE * x3 + x5


@inlined
def _b_transposed(y, x, start, step):  # x = B y
    for c in range(_C):
        i0 = start + c
        i1, i2, i3, i4, i5 = i0 + step, i0 + _2 * step, i0 + _3 * step, i0 + _4 * step, i0 + _5 * step
        y0, y1, y2, y3, y4, y5 = y[i0], y[i1], y[i2], y[i3], y[i4], y[i5]
        x[i0] = _FOUR * y0
        x[i1] = _FOUR * (y5 - (y1 - y2)) - _TWO * (y3 - y4)
        x[i2] = -_FIVE * y0 - _FOUR * (y1 + y2) - (y3 + y4)
        x[i3] = (y1 - y2) + _TWO * (y3 - y4) - _FIVE * y5
        x[i4] = y0 + (y1 + y2) + (y3 + y4)
        x[i5] = y5


@inlined
def _a(m, y, start, to, step):  # y = A^T m: from six vectors to four
    for c in range(_C):
        i, k = start + c, to + c
        m0, m1, m2, m3 = m[i], m[i + step], m[i + _2 * step], m[i + _3 * step]
        m4, m5 = m[i + _4 * step], m[i + _5 * step]
        y[k] = m0 + (m1 + m2) + (m3 + m4)
        y[k + step] = (m1 - m2) + _TWO * (m3 - m4)
        y[k + _2 * step] = (m1 + m2) + _FOUR * (m3 + m4)
        y[k + _3 * step] = (m1 - m2) + _EIGHT * (m3 - m4) + m5


@inlined
def _a_transposed(y, m, start, to, step):  # m = A y
    for c in range(_C):
        i, k = start + c, to + c
        y0, y1, y2, y3 = y[i], y[i + step], y[i + _2 * step], y[i + _3 * step]
        m[k] = y0
        m[k + step] = (y0 + y2) + (y1 + y3)
        m[k + _2 * step] = (y0 + y2) - (y1 + y3)
        even, odd = y0 + _FOUR * y2, _TWO * y1 + _EIGHT * y3
        m[k + _3 * step] = even + odd
        m[k + _4 * step] = even - odd
        m[k + _5 * step] = y3


@compiled
def input_tiles(x, tiles, images, height, width, channels):
    """``tiles = B^T x B`` of every tile of ``x``; sizes are of unsigned type."""
    d, e = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    rows, columns = height // _4, width // _4
    count, t = images * rows * columns, _0
    for n in range(images):
        for a in range(rows):
            for b in range(columns):
                for block in range(_0, channels, _C):
                    for i in range(_6):
                        row = _4 * a + i  # one more than the pixel's
                        for j in range(_6):
                            column, o = _4 * b + j, (_6 * i + j) * _C
                            if _1 <= row <= height and _1 <= column <= width:
                                p = ((n * height + row - _1) * width + column - _1) * channels + block
                                for c in range(_C):
                                    d[o + c] = x[p + c]
                            else:
                                for c in range(_C):
                                    d[o + c] = np.float32(0)
                    for i in range(_6):
                        _b(d, e, i * _6C, _C)
                    for j in range(_6):
                        _b(e, d, j * _C, _6C)
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            tiles[p + c] = d[k * _C + c]
                t += _1


@compiled
def input_tiles_transposed(tiles, x, images, height, width, channels):
    """The transpose of :func:`input_tiles`: ``x`` becomes the sum of what its tiles, ``B tiles B^T``, hold of each pixel."""
    d, e = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    rows, columns = height // _4, width // _4
    count, t = images * rows * columns, _0
    for i in range(images * height * width * channels):
        x[i] = np.float32(0)
    for n in range(images):
        for a in range(rows):
            for b in range(columns):
                for block in range(_0, channels, _C):
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            d[k * _C + c] = tiles[p + c]
                    for i in range(_6):
                        _b_transposed(d, e, i * _6C, _C)
                    for j in range(_6):
                        _b_transposed(e, d, j * _C, _6C)
                    for i in range(_6):
                        row = _4 * a + i
                        for j in range(_6):
                            column, o = _4 * b + j, (_6 * i + j) * _C
                            if _1 <= row <= height and _1 <= column <= width:
                                p = ((n * height + row - _1) * width + column - _1) * channels + block
                                for c in range(_C):
                                    x[p + c] += d[o + c]
                t += _1


@compiled
def output_tiles(tiles, y, images, height, width, channels):
    """``y = A^T tiles A`` for every tile of ``y``."""
    d, e, f = np.empty(_TILE, np.float32), np.empty(_HALF, np.float32), np.empty(_OUTPUT, np.float32)
    rows, columns = height // _4, width // _4
    count, t = images * rows * columns, _0
    for n in range(images):
        for a in range(rows):
            for b in range(columns):
                for block in range(_0, channels, _C):
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            d[k * _C + c] = tiles[p + c]
                    for i in range(_6):
                        _a(d, e, i * _6C, i * _4C, _C)
                    for j in range(_4):
                        _a(e, f, j * _C, j * _C, _4C)
                    for i in range(_4):
                        for j in range(_4):
                            p = ((n * height + _4 * a + i) * width + _4 * b + j) * channels + block
                            o = (_4 * i + j) * _C
                            for c in range(_C):
                                y[p + c] = f[o + c]
                t += _1


@compiled
def output_tiles_transposed(y, tiles, images, height, width, channels):
    """The transpose of :func:`output_tiles`: ``tiles = A y A^T`` of every tile of ``y``."""
    d, e, f = np.empty(_TILE, np.float32), np.empty(_HALF, np.float32), np.empty(_OUTPUT, np.float32)
    rows, columns = height // _4, width // _4
    count, t = images * rows * columns, _0
    for n in range(images):
        for a in range(rows):
            for b in range(columns):
                for block in range(_0, channels, _C):
                    for i in range(_4):
                        for j in range(_4):
                            p = ((n * height + _4 * a + i) * width + _4 * b + j) * channels + block
                            o = (_4 * i + j) * _C
                            for c in range(_C):
                                f[o + c] = y[p + c]
                    for j in range(_4):
                        _a_transposed(f, e, j * _C, j * _C, _4C)
                    for i in range(_6):
                        _a_transposed(e, d, i * _4C, i * _6C, _C)
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            tiles[p + c] = d[k * _C + c]
                t += _1
