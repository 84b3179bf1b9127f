"""The forest plot of a table: every method's difference to the baseline, with both intervals and all seeds.

Methods that are sets of losses have a dot matrix that says which losses each set holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from collabench.report.content import Condition, Row
from collabench.report.pages.drawing import BASELINE, MAIN, QUIET, one_panel, space_for
from collabench.stats import Paired, simultaneous_interval, told_apart
from collabench.storage.results import Result

#: Method → the losses that it combines.
Sets = Mapping[str, Sequence[str]]

#: With fewer methods that combine losses, their names say enough.
SETS_FOR_MATRIX = 4

_ROW, _COLUMN = 0.26, 0.22


def sorted_rows(condition: Condition) -> list[Row]:
    """The methods with a difference, the lowest error first."""
    rows = [row for row in condition.rows if row.difference is not None]
    return sorted(rows, key=lambda row: row.difference.difference if row.difference else 0.0)


def differences(condition: Condition, results: dict[str, dict[int, Result]], sets: Sets) -> Figure | None:
    """Every seed's difference to the baseline, with mean, 95 % t interval and the interval for the whole family.

    sets: of the methods that combine losses.
    """
    rows = sorted_rows(condition)
    if not rows or condition.baseline is None:
        return None
    names = list(dict.fromkeys(name for row in rows for name in sets.get(row.method, ())))
    if sum(row.method in sets for row in rows) < SETS_FOR_MATRIX:
        names = []
    labels = [row.method for row in rows]
    matrix, height = _COLUMN * len(names), _ROW * len(rows) + 0.1
    top, bottom = 0.1 + (max(map(len, names)) * 0.075 if names else 0), 0.88
    left = space_for(labels) + matrix
    figure, axes = one_panel(4.2, height, left=left, top=top, bottom=bottom)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelleft=not names)
    axes.set_yticks(range(len(rows)), labels)
    axes.axvline(0, color=BASELINE, linewidth=0.8)
    baseline = results[condition.baseline]
    seeds: list[tuple[float, float]] = []
    for position, row in enumerate(rows):
        found = results[row.method]
        values = [100 * (found[seed].last.error - baseline[seed].last.error) for seed in found if seed in baseline]
        seeds += zip(values, heights(position, len(values), 0.28), strict=True)
    # one artist for all dots, because the time of a figure depends on its number of artists
    axes.plot(*np.array(seeds).T, "o", markersize=3.2, color=QUIET, markeredgewidth=0, zorder=2)
    _intervals(axes, rows, condition.family_size)
    _means(axes, rows)
    if names:
        size = figure.get_size_inches()
        place = ((left - matrix) / size[0], bottom / size[1], matrix / size[0], height / size[1])
        _matrix(figure.add_axes(place), rows, names, sets)
    axes.set_xlabel(
        f"difference to {condition.baseline} after the last epoch,\npercentage points (left of 0: lower error)\n"
        f"dots: seeds; thick: 95 % t interval; thin: for {condition.family_size} comparisons together\n"
        "filled diamond: survives Holm's correction at 5 %"
    )
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    return figure


def _intervals(axes: Axes, rows: Sequence[Row], family: int) -> None:
    plain, wide = [], []
    for position, row in enumerate(rows):
        found = row.difference
        if found is None or found.low is None or found.high is None:
            continue
        plain.append((position, found.low, found.high))
        low, high = _simultaneous(found, family)
        if low is not None and high is not None:
            wide.append((position, low, high))
    for lines, width in ((wide, 0.8), (plain, 2.2)):
        if lines:
            axes.hlines(*np.array(lines).T, color=MAIN, linewidth=width, zorder=3)


def _simultaneous(found: Paired, family: int) -> tuple[float, float] | tuple[None, None]:
    return simultaneous_interval(found, max(family, 1), found.level)


def _means(axes: Axes, rows: Sequence[Row]) -> None:
    for survives, face in ((True, MAIN), (False, "white")):
        chosen = [
            (row.difference.difference, position)
            for position, row in enumerate(rows)
            if row.difference and told_apart(row.holm_p) == survives
        ]
        if chosen:
            axes.plot(*np.array(chosen).T, "D", markersize=4.4, markerfacecolor=face, markeredgecolor=MAIN, zorder=4)


def _matrix(axes: Axes, rows: Sequence[Row], names: Sequence[str], sets: Sets) -> None:
    """One column for each loss: a filled dot where a method has it."""
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for filled, colour in ((False, "#DDDDDD"), (True, "#222222")):
        dots = [
            (column, position)
            for position, row in enumerate(rows)
            if row.method in sets
            for column, name in enumerate(names)
            if (name in sets[row.method]) == filled
        ]
        if dots:
            axes.plot(*np.array(dots).T, "o", markersize=4.6, color=colour, markeredgewidth=0)
    axes.set_xticks(range(len(names)), [name.replace("_", "-") for name in names], rotation=90)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def heights(position: int, count: int, reach: float) -> NDArray[np.float64]:
    """Heights around a row's position that keep the dots of equal values apart."""
    return position + (np.linspace(-reach, reach, count) if count > 1 else np.zeros(count))
