"""Figures as SVG files, with the same bytes for the same content.

Axes are placed in inches instead of by a layout engine. This is faster, and the space for labels is computed from the
labels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from collabench.report.collect import Collected
from collabench.report.content import Condition, Ranks, Row, Table
from collabench.report.pages.differences import Sets, differences
from collabench.report.pages.drawing import (
    BASELINE,
    COLOURS,
    MAIN,
    MARKERS,
    QUIET,
    STYLE,
    Drawn,
    Task,
    draw,
    file_name,
    one_panel,
    space_for,
)
from collabench.stats import Paired
from collabench.storage.results import Result

_FEW_EPOCHS = 10
"""With at most this many evaluated epochs a curve marks them: a plain line would suggest a value at every epoch."""


def draw_table(folder: Path, table: Table, collected: Collected) -> Drawn:
    """Draw all figures of a table: condition key (``""`` for the whole table) → caption → file name."""
    results = {
        "-".join(key[1:]): {cell.configuration.names["method"]: collected.of(cell) for cell in cells}
        for key, cells in collected.conditions.items()
        if key[0] == table.name
    }
    sets = _sets(table, collected)
    tasks: list[tuple[str, str, Task]] = []  # place and caption of each

    def add(place: str, kind: str, caption: str, make: Callable[..., Figure | None], *arguments: Any) -> None:
        name = file_name(table.name, place, kind)
        tasks.append((place, caption, Task(folder / name, make, arguments)))

    for number, (title, conditions) in enumerate(_noise_series(table), 1):
        kind = f"error-against-noise-{number}"
        add("", kind, f"Test error against noise: {title}", error_against_noise, conditions)
    for number, ranks in enumerate(table.ranks, 1):
        add("", f"ranks-{number}", "Average ranks and critical difference", critical_difference, ranks)
    for condition in table.conditions:
        found = results[condition.key]
        where = condition.title
        caption = f"Differences to the baseline, sorted: {where}"
        add(condition.key, "differences", caption, differences, condition, found, sets)
        add(condition.key, "curves", f"Training curves: {where}", training_curves, condition, found)
        add(condition.key, "heads", f"Spread over heads: {where}", spread_over_heads, condition, found)
    drawn: Drawn = {}
    for (place, caption, task), exists in zip(tasks, draw([task for *_, task in tasks]), strict=True):
        if exists:
            drawn.setdefault(place, {})[caption] = task.path.name
    return drawn


def _sets(table: Table, collected: Collected) -> Sets:
    """The losses of the table's methods that are a set of losses, in the order of the settings."""
    methods = {
        cell.configuration.names["method"]: cell.configuration.method
        for key, cells in collected.conditions.items()
        if key[0] == table.name
        for cell in cells
    }
    return {name: tuple(losses) for name, settings in methods.items() if (losses := getattr(settings, "losses", None))}


def _rows_panel(labels: list[str], row_height: float = 0.26, **margins: float) -> tuple[Figure, Axes]:
    """A panel with one labelled row per method, the first on top."""
    figure, axes = one_panel(4.2, row_height * len(labels) + 0.1, left=space_for(labels), **margins)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return figure, axes


# -------------------------------------------------------------------------------------------------- one condition


def training_curves(condition: Condition, results: dict[str, dict[int, Result]]) -> Figure | None:
    """Test error by epoch: one panel per method, mean and standard deviation over seeds, the baseline in grey."""
    curves = {row.method: _curves(results[row.method].values()) for row in condition.rows}
    known = {method: values for method, values in curves.items() if values.size}
    if not known or max(values.shape[1] for values in known.values()) < 2:
        return None
    baseline = known.get(condition.baseline or "")
    methods = [method for method in known if method != condition.baseline] or list(known)
    columns = min(3, len(methods))
    lines = math.ceil(len(methods) / columns)
    width, height, left, gap_x, gap_y, bottom, top = 1.9, 1.25, 0.5, 0.15, 0.32, 0.5, 0.25
    size = (left + columns * width + (columns - 1) * gap_x + 0.1, bottom + lines * height + (lines - 1) * gap_y + top)
    note = "epoch; line: mean over seeds, band: ± one standard deviation"
    if baseline is not None and len(known) > 1:
        note += f"; grey: {condition.baseline}"
    size = (max(size[0], left + space_for([note])), size[1])
    figure = Figure(figsize=size)
    means = [np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=0) for values in known.values()]
    highest, lowest = max(float(mean.max()) for mean in means), min(float(mean.min()) for mean in means)
    # On a linear axis the decrease in the first epochs would hide the differences between methods.
    logarithmic = lowest > 0 and highest > 4 * lowest
    limits = (0.8 * lowest, min(100.0, 1.15 * highest)) if logarithmic else _with_margin(*_reach(known.values()))
    for index, method in enumerate(methods):
        line, column = divmod(index, columns)
        x = left + column * (width + gap_x)
        y = bottom + (lines - 1 - line) * (height + gap_y)
        axes = figure.add_axes((x / size[0], y / size[1], width / size[0], height / size[1]))
        if logarithmic:
            axes.set_yscale("log")
        if baseline is not None and method != condition.baseline:
            _band(axes, baseline, BASELINE, limits[0])
        _band(axes, known[method], MAIN, limits[0])
        axes.set_title(method, loc="left", pad=3)
        axes.set_ylim(limits)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)) if logarithmic else MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:.10g}")
        axes.yaxis.set_minor_locator(NullLocator())
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("test error %, log axis" if logarithmic else "test error %")
        if index + columns < len(methods):
            axes.tick_params(labelbottom=False)
    figure.text(left / size[0], 0.1 / size[1], note)
    return figure


def _curves(results: Iterable[Result]) -> NDArray[np.float64]:
    """(seeds, epochs) test errors in percent, nan for epochs that were not evaluated or trained; empty without
    curves."""
    rows = [[math.nan if e is None else 100 * e for e in result.curves.test_error] for result in results]
    rows = [row for row in rows if any(not math.isnan(value) for value in row)]
    if not rows:
        return np.empty((0, 0))
    longest = max(map(len, rows))
    return np.array([row + [math.nan] * (longest - len(row)) for row in rows], dtype=np.float64)


def _reach(curves: Iterable[NDArray[np.float64]]) -> tuple[float, float]:
    """The lowest and the highest error within the bands (mean ± one standard deviation) of these curves."""
    evaluated = [values[:, ~np.isnan(values).any(axis=0)] for values in curves]
    middle = [values.mean(axis=0) for values in evaluated]
    spread = [values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1]) for values in evaluated]
    bands = list(zip(middle, spread, strict=True))
    return min(float((m - s).min()) for m, s in bands), max(float((m + s).max()) for m, s in bands)


def _with_margin(lowest: float, highest: float) -> tuple[float, float]:
    margin = 0.06 * (highest - lowest + 1)
    return max(0.0, lowest - margin), min(100.0, highest + margin)


def _band(axes: Axes, values: NDArray[np.float64], colour: str, floor: float) -> None:
    """Draw a band. floor: the lower end of the axis, at which the band is cut off, because a logarithmic axis has no
    zero."""
    evaluated = ~np.isnan(values).any(axis=0)
    epochs, values = np.flatnonzero(evaluated) + 1, values[:, evaluated]
    mean = values.mean(axis=0)
    if len(values) > 1:
        sd = values.std(axis=0, ddof=1)
        axes.fill_between(epochs, np.maximum(mean - sd, floor), mean + sd, color=colour, alpha=0.22, linewidth=0)
    few = len(epochs) <= _FEW_EPOCHS
    axes.plot(epochs, mean, color=colour, marker="o" if few else None, markersize=2.8)


def spread_over_heads(condition: Condition, results: dict[str, dict[int, Result]]) -> Figure | None:
    """For every method with several heads, means over runs: the deployed head, the averaged heads, and the range from
    the best to the worst head of a run."""
    rows = [row for row in condition.rows if row.heads is not None]
    if not rows:
        return None
    figure, axes = _rows_panel([row.method for row in rows], row_height=0.3, bottom=0.6, top=0.35)
    for position, row in enumerate(rows):
        runs = list(results[row.method].values())
        errors = 100 * np.array([[head.error for head in result.heads] for result in runs])
        averaged = 100 * np.array([result.averaged_heads.error for result in runs if result.averaged_heads is not None])
        axes.hlines(
            position, errors.min(axis=1).mean(), errors.max(axis=1).mean(), color=QUIET, linewidth=4.5, zorder=1
        )
        for values, height, marker, colour in (
            (errors[:, 0], position - 0.16, "o", MAIN),
            (averaged, position + 0.16, "D", COLOURS[1]),
        ):
            if values.size:
                mean, spread = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0
                axes.hlines(height, mean - spread, mean + spread, color=colour, linewidth=1.2, zorder=2)
                axes.plot(mean, height, marker, markersize=4, color=colour, zorder=3)
    axes.set_xlabel("test error % after the last epoch\nmeans over runs; lines: ± one standard deviation over runs")
    handles = [
        matplotlib.lines.Line2D([], [], marker="o", markersize=5, linestyle="none", color=MAIN),
        matplotlib.lines.Line2D([], [], marker="D", markersize=5, linestyle="none", color=COLOURS[1]),
        matplotlib.lines.Line2D([], [], color=QUIET, linewidth=4.5),
    ]
    labels = ["deployed head", "averaged heads", "best to worst head"]
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handletextpad=0.4)
    return figure


# ------------------------------------------------------------------------------------------------- a whole table


def _noise_series(table: Table) -> list[tuple[str, list[Condition]]]:
    """Conditions that differ only in the rate of one kind of noise, with clean labels as rate 0; at least two rates."""
    series: dict[tuple[str, ...], list[Condition]] = {}
    for condition in table.conditions:
        if condition.noise.kind != "none" and condition.noise.rate is not None:
            names = condition.names
            key = (names["dataset"], names["model"], names["recipe"], condition.noise.kind, condition.noise.when)
            series.setdefault(key, []).append(condition)
    found = []
    for (dataset, model, recipe, kind, when), noisy in series.items():
        clean = [
            condition
            for condition in table.conditions
            if condition.noise.kind == "none"
            and (condition.names["dataset"], condition.names["model"], condition.names["recipe"])
            == (dataset, model, recipe)
        ]
        conditions = sorted([*clean[:1], *noisy], key=_rate)
        if len({_rate(condition) for condition in conditions}) < max(2, len(conditions)):
            continue  # a single rate, or one rate twice (exact and random numbers of images): no single line
        data, _, backbone, epochs = noisy[0].scope
        anew = ", drawn anew every epoch" if when == "per_epoch" else ""
        found.append((f"{data}, {kind} noise{anew}, {backbone}, {epochs}", conditions))
    return found


def _rate(condition: Condition) -> float:
    assert condition.noise.rate is not None, "noise without a rate is in no series"
    return condition.noise.rate


def error_against_noise(conditions: list[Condition]) -> Figure | None:
    """Mean test error with 95 % t interval by noise rate, one line per method (the style of Fang & Lin's Figure 2)."""
    if not any(row.error for condition in conditions for row in condition.rows):
        return None
    methods = [row.method for row in conditions[0].rows]
    rows: dict[str, list[tuple[float, Row]]] = {
        method: [
            (_rate(condition), row)
            for condition in conditions
            for row in condition.rows
            if row.method == method and row.error is not None
        ]
        for method in methods
    }
    height = max(2.4, 0.19 * len(methods) + 0.2)
    figure, axes = one_panel(
        3.8, height, left=0.55, right=0.4 + space_for([*methods, f"{conditions[0].baseline} (baseline)"]), bottom=0.62
    )
    rates = [_rate(condition) for condition in conditions]
    step = float(np.diff(rates).min())
    for index, method in enumerate(methods):
        if not rows[method]:
            continue
        is_baseline = method == conditions[0].baseline
        colour = BASELINE if is_baseline else COLOURS[index % len(COLOURS)]
        offset = 0.1 * step * (index / max(len(methods) - 1, 1) - 0.5)  # so that intervals do not hide each other
        places = [rate + offset for rate, _ in rows[method]]
        means = [row.error.mean for _, row in rows[method] if row.error]
        low = [_or(row.error.low, row.error.mean) for _, row in rows[method] if row.error]
        high = [_or(row.error.high, row.error.mean) for _, row in rows[method] if row.error]
        axes.plot(
            places,
            means,
            marker=MARKERS[(index // len(COLOURS) + index) % len(MARKERS)],
            markersize=4,
            color=colour,
            linestyle="--" if is_baseline else "-",
            label=f"{method} (baseline)" if is_baseline else method,
        )
        axes.vlines(places, low, high, color=colour, linewidth=0.9)
    axes.set_xticks(rates, [f"{rate:.10g}" for rate in rates])
    axes.set_xlabel("noise rate asked for, %\nmean over seeds, 95 % t interval; methods are set apart sideways")
    axes.set_ylabel("test error % after the last epoch")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)
    return figure


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def critical_difference(ranks: Ranks) -> Figure | None:
    """Average ranks, with a bar of Nemenyi's critical difference (Demšar 2006); None where it was not computed."""
    if ranks.friedman.critical_difference is None:
        return None
    order = sorted(zip(ranks.friedman.average_ranks, ranks.methods, strict=True))
    figure, axes = _rows_panel([method for _, method in order], bottom=0.6, top=0.1)
    reach = ranks.friedman.critical_difference
    for position, (rank, _) in enumerate(order):
        axes.plot([rank - reach / 2, rank + reach / 2], [position] * 2, color=QUIET, linewidth=3, zorder=1)
        axes.plot(rank, position, "D", markersize=4.5, color=MAIN, zorder=2)
    axes.set_xlabel(
        f"average rank over {ranks.friedman.blocks} data sets (1: lowest error)\n"
        f"bars: critical difference {reach:.2f}; where two overlap, they are not told apart"
    )
    return figure


def gain_against_cost(points: list[tuple[str, float, Paired]], baseline: str) -> Figure | None:
    """points: (method, training time relative to the baseline's, its difference in percentage points)."""
    if not points:
        return None
    with matplotlib.rc_context(STYLE):
        methods = [method for method, _, _ in points]
        height = max(2.4, 0.19 * len(methods) + 0.2)
        figure, axes = one_panel(
            3.8, height, left=0.6, right=0.3 + space_for([*methods, f"{baseline} (baseline)"]), bottom=0.74
        )
        axes.axhline(0, color=BASELINE, linewidth=0.8)
        axes.plot(1, 0, "*", markersize=9, color=BASELINE, label=f"{baseline} (baseline)")
        for index, (method, time, difference) in enumerate(points):
            marker = MARKERS[(index // len(COLOURS) + index) % len(MARKERS)]
            colour = COLOURS[index % len(COLOURS)]
            axes.vlines(time, _or(difference.low, difference.difference), _or(difference.high, difference.difference),
                        color=colour, linewidth=0.9)  # fmt: skip
            axes.plot(time, difference.difference, marker, markersize=5, color=colour, label=method, linestyle="none")
        axes.set_xlabel(
            "training time, multiples of the baseline's\n(with the runs that a method needs first)\n"
            "lines: 95 % t intervals of the difference, unadjusted"
        )
        axes.set_ylabel("difference after the last epoch, points")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0, handletextpad=0.2)
    return figure
