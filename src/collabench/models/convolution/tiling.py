"""The choice of register tiles: which outputs a micro-kernel computes at once, with vectors of 8 or of 16 lanes.

A tile is a number of rows (pixels, or weights), each with a number of vector registers (of channels). Its sums stay in
registers. The choice changes the speed, but no bit of the result.
"""

from __future__ import annotations

from functools import cache


def most_rows(lanes: int, vectors: int) -> int:
    """Return the largest number of rows of a tile with ``vectors`` registers per row.

    A tile needs one register for each of its sums, ``vectors`` registers for the factors that all rows share, and one
    for the row's own factor, which is broadcast to all lanes.
    """
    registers = 32 if lanes == 16 else 16
    return (registers - 1 - vectors) // vectors


def cost(rows: int, vectors: int) -> float:
    """Return the estimated clock cycles of one step of a tile's sums.

    A cycle has two fused multiply-adds and two loads. A step takes at least four cycles, the latency of the
    multiply-add that the next step of the same sum waits for.
    """
    return max(4.0, rows * vectors / 2, (rows + vectors) / 2) + 0.5


def vector_groups(count: int, vectors: int) -> list[tuple[int, int, int]]:
    """Divide ``count`` registers into groups of ``vectors`` and a smaller rest.

    Returns (first register, registers of a group, number of groups) for the whole groups and for the rest.
    """
    whole = count // vectors
    groups = [(0, vectors, whole)] if whole else []
    return groups + ([(whole * vectors, count % vectors, 1)] if count % vectors else [])


def parts(count: int, size: int) -> list[tuple[int, int]]:
    """Divide ``count`` into parts of ``size`` and a rest. Returns (size, number of parts) for each of the two."""
    return [(s, n) for s, n in ((size, count // size), (count % size, 1)) if s and n]


@cache
def of_map(lanes: int, rows: int, columns: int, registers: int) -> tuple[int, int, int]:
    """Return the rows and columns of pixels, and the registers per pixel, of the tile with the lowest estimated cost.

    rows, columns: size of the map in pixels. registers: number of vector registers that hold a pixel's channels.
    """
    found = []
    for vectors in range(1, min(4, registers) + 1):
        most = most_rows(lanes, vectors)
        for high in range(1, min(rows, most) + 1):
            for wide in range(1, min(columns, most // high) + 1):
                total = sum(
                    cost(h * w, v) * number_h * number_w * number_v
                    for h, number_h in parts(rows, high)
                    for w, number_w in parts(columns, wide)
                    for _, v, number_v in vector_groups(registers, vectors)
                )
                kinds = len(parts(rows, high)) * len(parts(columns, wide)) * len(vector_groups(registers, vectors))
                found.append((total * (1 + 0.02 * kinds), high, -wide, vectors))
    _, high, wide, vectors = min(found)
    return high, -wide, vectors


@cache
def of_rows(lanes: int, rows: int, registers: int) -> tuple[int, int]:
    """Return the rows, and the registers per row, of the best tile for a matrix of ``rows`` rows."""
    _, wide, vectors = of_map(lanes, 1, rows, registers)
    return wide, vectors
