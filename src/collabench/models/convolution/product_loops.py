"""The loops of a matrix product of any size.

Each sum adds its terms in the order of the inner index, with one fused multiply-add per term.
"""

from __future__ import annotations

from typing import Any

from collabench.models.convolution.language import Code, Size, writes

#: The inner index is processed in blocks of this many terms, so that a block's panels stay in the cache. Each block's
#: sum is added to the blocks before it, so that another number would change the bits of the result.
TERMS = 256

#: Number of lanes → rows of a tile, and vector registers per row.
TILES = {8: (6, 2), 16: (12, 2)}

#: Largest number of rows and of columns of a tile. A matrix is padded to whole tiles by less than this.
MOST_ROWS, MOST_COLUMNS = 12, 32


@writes(pointers=6, sizes=10)
def product(code: Code, arguments: tuple[Any, ...]) -> None:
    """Compute ``c`` (batch, rows, columns), contiguous: ``a`` (batch, rows, depth) times ``b`` (batch, depth, columns).

    Arguments: a, b, c, scratch memory for the panels of a, the panels of b and the tiles of c; the four sizes; and the
    strides of a and then of b (batch, row, column), in float32 values.
    """
    a, b, c, panels_a, panels_b, tiles, batch, rows, columns, depth, *distances = arguments
    high, vectors = TILES[code.lanes]
    wide = vectors * code.lanes
    down, across = (code.over(code.plus(count, size - 1), size) for count, size in ((rows, high), (columns, wide)))
    with code.loop(batch) as one:
        a_here, b_here = (code.at(x, code.times(one, by)) for x, by in ((a, distances[0]), (b, distances[3])))
        _pack(code, a_here, panels_a, rows, depth, distances[1], distances[2], high, down)
        _pack(code, b_here, panels_b, columns, depth, distances[5], distances[4], wide, across)
        code.clear(tiles, code.times(code.times(down, across), high * wide))
        with code.loop(depth, step=TERMS) as first, code.loop(across) as column:
            terms = code.least(code.minus(depth, first), TERMS)
            panel = code.at(panels_b, code.times(code.plus(code.times(column, depth), first), wide))
            with code.loop(down) as row:
                tile = code.at(tiles, code.times(code.plus(code.times(row, across), column), high * wide))
                code.tile(
                    tile, [i * wide for i in range(high)], vectors,
                    code.at(panels_a, code.times(code.plus(code.times(row, depth), first), high)), list(range(high)),
                    panel, [(terms, high, wide)], add=True,
                )  # fmt: skip
        with code.loop(down) as band, code.loop(across) as column:
            source = code.at(tiles, code.times(code.plus(code.times(band, across), column), high * wide))
            first = code.times(band, high)
            target = code.at(c, code.times(code.plus(code.times(one, rows), first), columns), code.times(column, wide))
            _unpack(
                code, source, target, code.least(code.minus(rows, first), high), columns,
                code.least(code.minus(columns, code.times(column, wide)), wide), wide,
            )  # fmt: skip


def _unpack(code: Code, source: Any, target: Any, rows: Size, pitch: Size, columns: Size, wide: int) -> None:
    """Copy the first ``rows`` rows and ``columns`` columns of a tile to a matrix whose rows are ``pitch`` apart."""
    whole = code.times(code.over(columns, code.lanes), code.lanes)
    with code.loop(rows) as row:
        here, there = code.at(source, code.times(row, wide)), code.at(target, code.times(row, pitch))
        with code.loop(whole, step=code.lanes) as j:
            code.store(code.load(code.at(here, j)), code.at(there, j))
        with code.loop(columns, whole) as j:
            code.put(code.number(code.at(here, j)), code.at(there, j))


def _pack(
    code: Code, x: Any, panels: Any, count: Size, depth: Size, by: Size, step: Size, size: int, number: Size
) -> None:
    """Pack ``count`` vectors of ``depth`` values into panels (count / size, depth, size); the last one ends in zeros.

    by, step: distance between neighbouring vectors, and between neighbouring values of a vector.
    number: number of panels.
    """
    whole = code.over(count, size)
    panel = code.times(depth, size)
    with code.loop(whole) as group, code.loop(depth) as k:
        source = code.at(x, code.times(code.times(group, size), by), code.times(k, step))
        target = code.at(panels, code.times(group, panel), code.times(k, size))
        for i in range(size):
            code.put(code.number(code.at(source, code.times(by, i))), code.at(target, i))
    with code.loop(number, whole) as group:
        code.clear(code.at(panels, code.times(group, panel)), panel)
        with code.loop(count, code.times(whole, size)) as i, code.loop(depth) as k:
            place = code.minus(i, code.times(whole, size))
            number_ = code.number(code.at(x, code.times(i, by), code.times(k, step)))
            code.put(number_, code.at(panels, code.times(group, panel), code.times(k, size), place))
