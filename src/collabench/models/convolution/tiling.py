"""How the outputs of a sum of products are shared out to registers: which tiles, for registers of 8 and of 16 numbers.

A tile is some rows (pixels, or weights) of some registers (of channels); its sums stay in registers. None of it
changes a bit.
"""

from __future__ import annotations

from functools import cache


def most_rows(lanes: int, vectors: int) -> int:
    """Rows of a tile of so many registers each: one register for each sum, each factor of a row and a number."""
    registers = 32 if lanes == 16 else 16
    return (registers - 1 - vectors) // vectors


def cost(rows: int, vectors: int) -> float:
    """Cycles of one step of a tile's sums: two multiply-adds or two reads each, and none sooner than four after the
    last."""
    return max(4.0, rows * vectors / 2, (rows + vectors) / 2) + 0.5


def vector_groups(count: int, vectors: int) -> list[tuple[int, int, int]]:
    """(first register, registers of a group, number of groups) of all whole groups, and of the rest."""
    whole = count // vectors
    groups = [(0, vectors, whole)] if whole else []
    return groups + ([(whole * vectors, count % vectors, 1)] if count % vectors else [])


def parts(count: int, size: int) -> list[tuple[int, int]]:
    """(size, number) of the whole parts of ``count``, and of the rest."""
    return [(s, n) for s, n in ((size, count // size), (count % size, 1)) if s and n]


@cache
def of_map(lanes: int, rows: int, columns: int, registers: int) -> tuple[int, int, int]:
    """Rows and columns of pixels and the registers of a tile for a map of rows x columns pixels with so many
    registers each."""
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
    """The same for so many rows of numbers: rows and registers of a tile."""
    _, wide, vectors = of_map(lanes, 1, rows, registers)
    return wide, vectors
