"""The loops of a matrix product of any sizes: a sum's terms in the order of the inner index, one fused multiply-add
each."""

from __future__ import annotations

from typing import Any

from collabench.models.convolution.language import Code, Size, writes

#: Terms of every sum that are added before the next numbers of another sum: panels of so many stay in a cache. It
#: belongs to the result.
TERMS = 256

#: Rows and registers of a tile, by the numbers that a register holds.
TILES = {8: (6, 2), 16: (12, 2)}

#: Most rows and columns by which a tile is larger than a matrix.
MOST_ROWS, MOST_COLUMNS = 12, 32


@writes(pointers=6, sizes=10)
def product(code: Code, arguments: tuple[Any, ...]) -> None:
    """``c`` (batch, rows, columns), contiguous, of ``a`` (batch, rows, depth) and ``b`` (batch, depth, columns); room
    for panels of both and for tiles of c. Sizes, then the distances of a's batches, rows and columns, and of b's."""
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
    """The part of a tile (rows, wide) that belongs to a matrix of rows ``pitch`` apart."""
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
    """``count`` vectors of ``depth`` numbers, ``by`` and ``step`` apart, in panels (vectors / size, depth, size);
    zeros behind them."""
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
