"""Checks of a matrix of label noise: the probability of every label (column) for an image of every class (row)."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The entries of a row may differ from 1 in their sum by this much.
ROW_TOLERANCE = 1e-6


def check_matrix(rows: Sequence[Sequence[float]], name: str) -> None:
    """Raise ValueError unless the rows are square, hold probabilities, sum to 1 and make some label wrong."""
    if len(rows) < 2:
        raise ValueError(f"{name}: its number of rows is {len(rows)}; it needs one for each class")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows):
            raise ValueError(
                f"{name}: row {number} has {len(row)} entries, the matrix {len(rows)} rows; make it square"
            )
        for entry in row:
            if not 0 <= entry <= 1:  # also not a number
                raise ValueError(f"{name}: row {number} holds {entry:g}; probabilities lie between 0 and 1")
        if abs(math.fsum(row) - 1) > ROW_TOLERANCE:
            raise ValueError(f"{name}: row {number} sums to {math.fsum(row):.10g}; it must sum to 1")
    if all(row[number] == 1 for number, row in enumerate(rows)):
        raise ValueError(f"{name}: makes no label wrong; use kind: none")


def check_size(rows: int, classes: int, name: str) -> None:
    """Raise ValueError unless a matrix has one row for each class."""
    if rows != classes:
        raise ValueError(f"{name}: is {rows} x {rows}, and the data set has {classes} classes")
