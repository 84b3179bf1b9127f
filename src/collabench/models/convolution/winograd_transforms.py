"""The linear transforms of Winograd's F(4x4, 3x3), for one vector register of channels at a time.

An output tile of 4x4 pixels is computed from an input tile of 6x6 pixels. Input tiles overlap their neighbours by 2
pixels and extend 1 pixel beyond the map's edge, where zeros are read. With the matrices of Lavin & Gray, "Fast
Algorithms for Convolutional Neural Networks" (2015),

    B^T = | 4  0 -5  0  1  0 |    A^T = | 1  1  1  1  1  0 |    G = |  1/4     0     0  |
          | 0 -4 -4  1  1  0 |          | 0  1 -1  2 -2  0 |        | -1/6  -1/6  -1/6 |
          | 0  4 -4 -1  1  0 |          | 0  1  1  4  4  0 |        | -1/6   1/6  -1/6 |
          | 0 -2 -1  2  1  0 |          | 0  1 -1  8 -8  1 |        | 1/24  1/12   1/6 |
          | 0  2 -1 -2  1  0 |                                      | 1/24 -1/12   1/6 |
          | 0  4  0 -5  0  1 |                                      |   0     0     1  |

the transforms are x -> B^T x B (input), M -> A^T M A (products), y -> A y A^T (gradient at the output), g -> G g G^T
(weights) and U -> G^T U G (gradient at the transformed weights). Each is applied along one axis and then along the
other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collabench.models.convolution.language import Code

Values = list[Any]
Map = Callable[[Code, Values], Values]


def both_axes(code: Code, along: Map, square: list[Values]) -> list[Values]:
    """Apply a transform to the columns of a square of registers, then to the rows of the result."""
    columns = [along(code, [row[j] for row in square]) for j in range(len(square[0]))]
    return [along(code, [column[i] for column in columns]) for i in range(len(columns[0]))]


def of_input(code: Code, x: Values) -> Values:
    """Return B^T x for one axis of an input tile."""
    fma, number = code.fma, code.constant
    even, odd = fma(number(-4), x[2], x[4]), fma(number(-4), x[1], x[3])
    near, far = code.sub(x[4], x[2]), code.sub(x[3], x[1])
    return [
        fma(number(4), x[0], fma(number(-5), x[2], x[4])),
        code.add(even, odd),
        code.sub(even, odd),
        fma(number(2), far, near),
        fma(number(-2), far, near),
        fma(number(4), x[1], fma(number(-5), x[3], x[5])),
    ]


def of_products(code: Code, m: Values) -> Values:
    """Return A^T m for one axis of the products."""
    fma, number = code.fma, code.constant
    sum12, sum34, less12, less34 = (
        code.add(m[1], m[2]),
        code.add(m[3], m[4]),
        code.sub(m[1], m[2]),
        code.sub(m[3], m[4]),
    )
    return [
        code.add(code.add(m[0], sum12), sum34),
        fma(number(2), less34, less12),
        fma(number(4), sum34, sum12),
        code.add(fma(number(8), less34, less12), m[5]),
    ]


def of_gradient(code: Code, y: Values) -> Values:
    """Return A y for one axis of a tile of the gradient at the output."""
    fma, number = code.fma, code.constant
    even, odd = code.add(y[0], y[2]), code.add(y[1], y[3])
    wide, far = fma(number(4), y[2], y[0]), fma(number(4), y[3], y[1])
    return [
        y[0], code.add(even, odd), code.sub(even, odd), fma(number(2), far, wide), fma(number(-2), far, wide), y[3],
    ]  # fmt: skip


def of_kernel(code: Code, g: Values) -> Values:
    """Return G g for one axis of a kernel."""
    fma, number = code.fma, code.constant
    ends, sixth = code.add(g[0], g[2]), number(-1 / 6)
    wide, far = fma(number(1 / 6), g[2], code.mul(number(1 / 24), g[0])), code.mul(number(1 / 12), g[1])
    return [
        code.mul(number(1 / 4), g[0]),
        code.mul(sixth, code.add(ends, g[1])),
        code.mul(sixth, code.sub(ends, g[1])),
        code.add(wide, far),
        code.sub(wide, far),
        g[2],
    ]


def to_kernel(code: Code, u: Values) -> Values:
    """Return G^T u for one axis of the gradient at the transformed weights."""
    fma, number = code.fma, code.constant
    sum12, less21, sum34, less34 = (
        code.add(u[1], u[2]),
        code.sub(u[2], u[1]),
        code.add(u[3], u[4]),
        code.sub(u[3], u[4]),
    )
    return [
        fma(number(1 / 24), sum34, fma(number(-1 / 6), sum12, code.mul(number(1 / 4), u[0]))),
        fma(number(1 / 12), less34, code.mul(number(1 / 6), less21)),
        fma(number(1 / 6), code.sub(sum34, sum12), u[5]),
    ]
