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

from typing import Any

import numpy as np
from numba import njit

from collabench.models._winograd import BLOCK

_U = np.uintp
_0, _1, _4, _6, _36 = _U(0), _U(1), _U(4), _U(6), _U(36)
_C, _2C, _3C, _4C, _5C, _6C = (_U(k * BLOCK) for k in (1, 2, 3, 4, 5, 6))
_8C, _12C, _16C, _18C, _20C, _24C, _30C = (_U(k * BLOCK) for k in (8, 12, 16, 18, 20, 24, 30))
_2, _5, _8 = np.float32(2), np.float32(5), np.float32(8)
_FOUR = np.float32(4)
_TILE, _HALF, _OUTPUT = 36 * BLOCK, 24 * BLOCK, 16 * BLOCK

_COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


@njit(forceinline=True, **_COMPILED)
def _b_rows(x, y, start):  # y = B^T x for six vectors that lie one block apart
    for c in range(_C):
        i = start + c
        x0, x1, x2, x3, x4, x5 = x[i], x[i + _C], x[i + _2C], x[i + _3C], x[i + _4C], x[i + _5C]
        y[i] = _FOUR * x0 - _5 * x2 + x4
        even, odd = x4 - _FOUR * x2, x3 - _FOUR * x1
        y[i + _C] = even + odd
        y[i + _2C] = even - odd
        even, odd = x4 - x2, _2 * (x3 - x1)
        y[i + _3C] = even + odd
        y[i + _4C] = even - odd
        y[i + _5C] = _FOUR * x1 - _5 * x3 + x5


@njit(forceinline=True, **_COMPILED)
def _b_columns(x, y, start):  # the same, six blocks apart
    for c in range(_C):
        i = start + c
        x0, x1, x2, x3, x4, x5 = x[i], x[i + _6C], x[i + _12C], x[i + _18C], x[i + _24C], x[i + _30C]
        y[i] = _FOUR * x0 - _5 * x2 + x4
        even, odd = x4 - _FOUR * x2, x3 - _FOUR * x1
        y[i + _6C] = even + odd
        y[i + _12C] = even - odd
        even, odd = x4 - x2, _2 * (x3 - x1)
        y[i + _18C] = even + odd
        y[i + _24C] = even - odd
        y[i + _30C] = _FOUR * x1 - _5 * x3 + x5


@njit(forceinline=True, **_COMPILED)
def _b_transposed_rows(y, x, start):  # x = B y
    for c in range(_C):
        i = start + c
        y0, y1, y2, y3, y4, y5 = y[i], y[i + _C], y[i + _2C], y[i + _3C], y[i + _4C], y[i + _5C]
        x[i] = _FOUR * y0
        x[i + _C] = _FOUR * (y5 - (y1 - y2)) - _2 * (y3 - y4)
        x[i + _2C] = -_5 * y0 - _FOUR * (y1 + y2) - (y3 + y4)
        x[i + _3C] = (y1 - y2) + _2 * (y3 - y4) - _5 * y5
        x[i + _4C] = y0 + (y1 + y2) + (y3 + y4)
        x[i + _5C] = y5


@njit(forceinline=True, **_COMPILED)
def _b_transposed_columns(y, x, start):
    for c in range(_C):
        i = start + c
        y0, y1, y2, y3, y4, y5 = y[i], y[i + _6C], y[i + _12C], y[i + _18C], y[i + _24C], y[i + _30C]
        x[i] = _FOUR * y0
        x[i + _6C] = _FOUR * (y5 - (y1 - y2)) - _2 * (y3 - y4)
        x[i + _12C] = -_5 * y0 - _FOUR * (y1 + y2) - (y3 + y4)
        x[i + _18C] = (y1 - y2) + _2 * (y3 - y4) - _5 * y5
        x[i + _24C] = y0 + (y1 + y2) + (y3 + y4)
        x[i + _30C] = y5


@njit(forceinline=True, **_COMPILED)
def _a_rows(m, y, start, to):  # y = A^T m: six vectors one block apart, four one block apart
    for c in range(_C):
        i, k = start + c, to + c
        m0, m1, m2, m3, m4, m5 = m[i], m[i + _C], m[i + _2C], m[i + _3C], m[i + _4C], m[i + _5C]
        y[k] = m0 + (m1 + m2) + (m3 + m4)
        y[k + _C] = (m1 - m2) + _2 * (m3 - m4)
        y[k + _2C] = (m1 + m2) + _FOUR * (m3 + m4)
        y[k + _3C] = (m1 - m2) + _8 * (m3 - m4) + m5


@njit(forceinline=True, **_COMPILED)
def _a_columns(m, y, start):  # six and four vectors, four blocks apart
    for c in range(_C):
        i = start + c
        m0, m1, m2, m3, m4, m5 = m[i], m[i + _4C], m[i + _8C], m[i + _12C], m[i + _16C], m[i + _20C]
        y[i] = m0 + (m1 + m2) + (m3 + m4)
        y[i + _4C] = (m1 - m2) + _2 * (m3 - m4)
        y[i + _8C] = (m1 + m2) + _FOUR * (m3 + m4)
        y[i + _12C] = (m1 - m2) + _8 * (m3 - m4) + m5


@njit(forceinline=True, **_COMPILED)
def _a_transposed_columns(y, m, start):  # m = A y
    for c in range(_C):
        i = start + c
        y0, y1, y2, y3 = y[i], y[i + _4C], y[i + _8C], y[i + _12C]
        m[i] = y0
        m[i + _4C] = (y0 + y2) + (y1 + y3)
        m[i + _8C] = (y0 + y2) - (y1 + y3)
        even, odd = y0 + _FOUR * y2, _2 * y1 + _8 * y3
        m[i + _12C] = even + odd
        m[i + _16C] = even - odd
        m[i + _20C] = y3


@njit(forceinline=True, **_COMPILED)
def _a_transposed_rows(y, m, start, to):
    for c in range(_C):
        i, k = start + c, to + c
        y0, y1, y2, y3 = y[i], y[i + _C], y[i + _2C], y[i + _3C]
        m[k] = y0
        m[k + _C] = (y0 + y2) + (y1 + y3)
        m[k + _2C] = (y0 + y2) - (y1 + y3)
        even, odd = y0 + _FOUR * y2, _2 * y1 + _8 * y3
        m[k + _3C] = even + odd
        m[k + _4C] = even - odd
        m[k + _5C] = y3


@njit(**_COMPILED)
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
                        _b_rows(d, e, i * _6C)
                    for j in range(_6):
                        _b_columns(e, d, j * _C)
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            tiles[p + c] = d[k * _C + c]
                t += _1


@njit(**_COMPILED)
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
                        _b_transposed_rows(d, e, i * _6C)
                    for j in range(_6):
                        _b_transposed_columns(e, d, j * _C)
                    for i in range(_6):
                        row = _4 * a + i
                        for j in range(_6):
                            column, o = _4 * b + j, (_6 * i + j) * _C
                            if _1 <= row <= height and _1 <= column <= width:
                                p = ((n * height + row - _1) * width + column - _1) * channels + block
                                for c in range(_C):
                                    x[p + c] += d[o + c]
                t += _1


@njit(**_COMPILED)
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
                        _a_rows(d, e, i * _6C, i * _4C)
                    for j in range(_4):
                        _a_columns(e, f, j * _C)
                    for i in range(_4):
                        for j in range(_4):
                            p = ((n * height + _4 * a + i) * width + _4 * b + j) * channels + block
                            o = (_4 * i + j) * _C
                            for c in range(_C):
                                y[p + c] = f[o + c]
                t += _1


@njit(**_COMPILED)
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
                        _a_transposed_columns(f, e, j * _C)
                    for i in range(_6):
                        _a_transposed_rows(e, d, i * _4C, i * _6C)
                    for k in range(_36):
                        p = (k * count + t) * channels + block
                        for c in range(_C):
                            tiles[p + c] = d[k * _C + c]
                t += _1
