"""The loops of a 3x3 convolution with padding of 1, for numba to compile: sums of outer products that stay in registers.

What a convolution gives, its gradient at the weights and its gradient at the input are all sums

    c[i, :] (+)= sum over j0, j1 and j2 of  a[i, j0, j1, j2] * b[j0, j1, j2, :]

of a few numbers a (one for each row of c) times 16 neighbouring numbers b, since the three pixels of a row that a kernel sees lie one
behind the other in channels-last maps. numba keeps an array's entries in memory, where every product would be read and written
again; so this sum is written in LLVM's own language, with one register for every 8 numbers of c.

Arrays are flat: maps in the order (image, row, column, channel), given by their address, which costs a call of numba's much less
than an array. Sizes are unsigned, as numba vectorises loops with unsigned indices only.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from collabench.models.convolution.blocks import DIRECT as BLOCK
from collabench.models.convolution.compiled import compiled

_LANES = 8  # numbers of a register; a block takes two
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_UNDEFINED, _FIRST = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
_EVERYWHERE = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
_FUSED = ("contract",)  # a multiplication and an addition may become one instruction

_U = np.uintp
_0, _1, _2, _3, _4, _6, _8, _9, _16 = (_U(number) for number in (0, 1, 2, 3, 4, 6, 8, 9, BLOCK))

#: Numbers of padded images that are worked on together, so that sums stay in registers for more of small images; half of a first cache.
_CACHED = _U(4096)


@intrinsic
def _pointer(context, address):
    """To numbers at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(address), generate


def _sum_of_products(rows: int) -> Any:
    """The function of numba's that computes the sum for ``rows`` rows of c.

    Row i of an array lies i % 2 times ``near`` and i // 2 times ``far`` behind its first. The function's arguments: c, the place of
    c[0, 0], near and far; a, the place of a[0, 0, 0, 0], near and far, the distances along j0, j1 and j2; b, the place of
    b[0, 0, 0, 0], the distances along j0, j1 and j2; how many j0, j1 and j2 there are; whether c is added to.
    """

    @intrinsic
    def function(
        context,
        c,
        c_at,
        c_near,
        c_far,
        a,
        a_at,
        a_near,
        a_far,
        a_0,
        a_1,
        a_2,
        b,
        b_at,
        b_0,
        b_1,
        b_2,
        n_0,
        n_1,
        n_2,
        add,
    ):
        arguments = (
            c, c_at, c_near, c_far, a, a_at, a_near, a_far, a_0, a_1, a_2, b, b_at, b_0, b_1, b_2, n_0, n_1, n_2, add
        )  # fmt: skip
        return types.void(*arguments), _generate

    def _generate(context, builder, signature, arguments):
        c, a, b = (
            cgutils.create_struct_proxy(signature.args[place])(context, builder, value=arguments[place]).data
            for place in (0, 4, 11)
        )
        c_at, c_near, c_far = arguments[1:4]
        a_at, a_near, a_far, *a_steps = arguments[5:11]
        b_at, *b_steps = arguments[12:16]
        *counts, add = arguments[16:]
        size = c_at.type

        def moved(place, distance, number):
            number = ir.Constant(size, number) if isinstance(number, int) else number
            return builder.add(place, builder.mul(distance, number))

        def row_of(place, near, far, row):
            return moved(moved(place, near, row % 2), far, row // 2)

        def eight(base, place, half):
            place = builder.add(place, ir.Constant(size, half * _LANES))
            return builder.bitcast(builder.gep(base, [place]), ir.PointerType(_VECTOR))

        halves = range(BLOCK // _LANES)
        cells = [(row, half) for row in range(rows) for half in halves]
        in_memory = {(row, half): eight(c, row_of(c_at, c_near, c_far, row), half) for row, half in cells}
        sums = {cell: cgutils.alloca_once(builder, _VECTOR) for cell in cells}  # LLVM makes registers of them
        for cell in cells:
            builder.store(ir.Constant(_VECTOR, [0.0] * _LANES), sums[cell])
        with builder.if_then(add):
            for cell in cells:
                builder.store(builder.load(in_memory[cell], align=4), sums[cell])
        with ExitStack() as loops:
            for count, a_step, b_step in zip(counts, a_steps, b_steps, strict=True):
                j = loops.enter_context(cgutils.for_range(builder, count, intp=size)).index
                a_at, b_at = moved(a_at, a_step, j), moved(b_at, b_step, j)
            factors = [builder.load(eight(b, b_at, half), align=4) for half in halves]
            for row in range(rows):
                number = builder.load(builder.gep(a, [row_of(a_at, a_near, a_far, row)]))
                number = builder.insert_element(_UNDEFINED, number, _FIRST)
                number = builder.shuffle_vector(number, _UNDEFINED, _EVERYWHERE)
                for half in halves:
                    product = builder.fmul(number, factors[half], flags=_FUSED)
                    total = builder.fadd(builder.load(sums[row, half]), product, flags=_FUSED)
                    builder.store(total, sums[row, half])
        for cell in cells:
            builder.store(builder.load(sums[cell]), in_memory[cell], align=4)
        return context.get_dummy_value()

    return function


_three_rows, _four_rows, _six_rows = (_sum_of_products(rows) for rows in (3, 4, 6))


@compiled
def _pad(x, padded, at, image, height, width, channels):
    """One image of ``x`` into the middle of that (height + 2, width + 2, channels) of ``padded``, whose edge is zero."""
    count, distance = width * channels, (width + _2) * channels
    for row in range(height):
        source, target = (image * height + row) * count, at + (row + _1) * distance + channels
        for j in range(count):
            padded[target + j] = x[source + j]


@compiled
def _packed(weights, channels_in, channels):
    """Weights of the order (channel out, row, column, channel in) in the order (block of 16 channels out, row, column, channel in,
    channel out within its block)."""
    seen = _9 * channels_in
    packed = np.empty(seen * channels, np.float32)
    for block in range(_0, channels, _16):
        for k in range(seen):
            for c in range(_16):
                packed[block * seen + k * _16 + c] = weights[(block + c) * seen + k]
    return packed


@compiled
def _packed_for_gradient(weights, channels_in, channels):
    """The same of the convolution whose values are the gradient at the input: kernels turned about, channels in for channels out."""
    packed = np.empty(_9 * channels_in * channels, np.float32)
    for channel in range(channels):
        for place in range(_9):
            for block in range(_0, channels_in, _16):
                source = (channel * _9 + place) * channels_in + block
                target = (block * _9 + (_8 - place) * _16) * channels + channel * _16
                for c in range(_16):
                    packed[target + c] = weights[source + c]
    return packed


@compiled
def _of_four(columns):
    """Rows and columns of four pixels that are computed at once."""
    return (_2, _2) if columns % _4 else (_1, _4)


@compiled
def _convolve(x, kernels, y, images, height, width, channels_in, channels, stride, rows, columns):
    distance, seen, step = (width + _2) * channels_in, _3 * channels_in, stride * channels_in
    high, wide = _of_four(columns)
    far, far_in = (_2 * channels, _2 * step) if high == _1 else (columns * channels, stride * distance)
    padded = np.zeros((height + _2) * distance, np.float32)
    for image in range(images):
        _pad(x, padded, _0, image, height, width, channels_in)
        for block in range(_0, channels, _16):
            for row in range(_0, rows, high):
                for column in range(_0, columns, wide):
                    _four_rows(
                        y, ((image * rows + row) * columns + column) * channels + block, channels, far,
                        padded, stride * row * distance + column * step, step, far_in, _0, distance, _1,
                        kernels, block * _3 * seen, _0, seen * _16, _16, _1, _3, seen, False,
                    )  # fmt: skip


@compiled
def maps(x, weights, y, images, height, width, channels_in, channels, stride, rows, columns):
    """``y`` (images, rows, columns, channels) of ``x`` (images, height, width, channels in); weights are of the order (channel out,
    row, column, channel in). ``columns`` is a multiple of 4, or rows and columns of 2; ``channels`` one of 16."""
    x = carray(_pointer(x), (images * height * width * channels_in,))
    weights = carray(_pointer(weights), (_9 * channels_in * channels,))
    y = carray(_pointer(y), (images * rows * columns * channels,))
    kernels = _packed(weights, channels_in, channels)
    _convolve(x, kernels, y, images, height, width, channels_in, channels, stride, rows, columns)


@compiled
def at_input(gradient, weights, result, images, height, width, channels_in, channels, stride, rows, columns):
    """``result`` (images, height, width, channels in), the gradient at the input, of ``gradient`` (images, rows, columns,
    channels). ``columns`` is a multiple of 4, or rows and columns of 2; channels in and out are multiples of 16."""
    gradient = carray(_pointer(gradient), (images * rows * columns * channels,))
    weights = carray(_pointer(weights), (_9 * channels_in * channels,))
    result = carray(_pointer(result), (images * height * width * channels_in,))
    if stride == _1:
        kernels = _packed_for_gradient(weights, channels_in, channels)
        _convolve(gradient, kernels, result, images, height, width, channels, channels_in, _1, height, width)
        return
    count, distance, step = width * channels_in, (width + _2) * channels_in, stride * channels_in
    high, wide = _of_four(columns)
    far, far_in = (_2 * channels, _2 * step) if high == _1 else (columns * channels, stride * distance)
    padded = np.empty((height + _2) * distance, np.float32)
    for image in range(images):
        for j in range(len(padded)):
            padded[j] = np.float32(0)
        for row in range(_0, rows, high):
            for place in range(_9):
                corner = (stride * row + place // _3) * distance + place % _3 * channels_in
                for block in range(_0, channels_in, _16):
                    for column in range(_0, columns, wide):
                        _four_rows(
                            padded, corner + column * step + block, step, far_in,
                            gradient, ((image * rows + row) * columns + column) * channels, channels, far, _0, _0, _1,
                            weights, place * channels_in + block, _0, _0, _9 * channels_in, _1, _1, channels, True,
                        )  # fmt: skip
        for row in range(height):
            source, target = (row + _1) * distance + channels_in, (image * height + row) * count
            for j in range(count):
                result[target + j] = padded[source + j]


@compiled
def at_weights(x, gradient, result, images, height, width, channels_in, channels, stride, rows, columns):
    """``result`` (channel out, row, column, channel in), the gradient at the weights, of ``gradient`` (images, rows, columns,
    channels); ``channels`` is a multiple of 16."""
    x = carray(_pointer(x), (images * height * width * channels_in,))
    gradient = carray(_pointer(gradient), (images * rows * columns * channels,))
    result = carray(_pointer(result), (_9 * channels_in * channels,))
    distance, seen, step = (width + _2) * channels_in, _3 * channels_in, stride * channels_in
    size = (height + _2) * distance
    together = max(_1, _CACHED // size)
    padded = np.zeros(together * size, np.float32)
    sums = np.zeros(_3 * seen * channels, np.float32)  # (row, column, channel in, channel out)
    for first in range(_0, images, together):
        count = min(together, images - first)
        for image in range(count):
            _pad(x, padded, image * size, first + image, height, width, channels_in)
        for row in range(_3):
            for block in range(_0, channels, _16):
                of_image = first * rows * columns * channels + block
                if channels_in & _1:
                    for k in range(_0, seen, _3):
                        _three_rows(
                            sums, (row * seen + k) * channels + block, channels, _2 * channels,
                            padded, row * distance + k, _1, _2, size, stride * distance, step,
                            gradient, of_image, rows * columns * channels, columns * channels, channels, count, rows, columns, True,
                        )  # fmt: skip
                else:
                    for k in range(_0, seen, _6):
                        _six_rows(
                            sums, (row * seen + k) * channels + block, channels, _2 * channels,
                            padded, row * distance + k, _1, _2, size, stride * distance, step,
                            gradient, of_image, rows * columns * channels, columns * channels, channels, count, rows, columns, True,
                        )  # fmt: skip
    for channel in range(channels):
        for k in range(_3 * seen):
            result[channel * _3 * seen + k] = sums[k * channels + channel]
