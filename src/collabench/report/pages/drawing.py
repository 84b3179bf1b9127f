"""Drawing of figures with matplotlib: style, files and processes."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from collabench.core.processes import end_with_parent
from collabench.core.resources import choose

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

#: Settings of matplotlib that do not concern drawing or cannot be set alone. Only these keep a user's own values.
_NOT_DRAWING = ("backend", "backend_fallback", "interactive", "toolbar", "timezone")

#: The style starts from matplotlib's defaults, so that a user's own settings have no effect.
STYLE: dict[RcKeyType, Any] = {
    **{key: value for key, value in matplotlib.rcParamsDefault.items() if key not in _NOT_DRAWING},
    "text.parse_math": False,  # a dollar sign in a title is not the start of a formula
    "svg.hashsalt": "collabench",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.titley": 1.0,  # fixed, because searching for a free height takes a third of the time of a figure
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.facecolor": "white",  # a transparent figure is unreadable on a dark page
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
BASELINE, MAIN, QUIET = "#777777", "#0072B2", "#BBBBBB"

#: Upper limit of the average width of a label's character, in inches, in the font above.
_CHARACTER = 0.068

_LONGEST_NAME = 180

#: Number of figures that one process draws before a second one has started.
_FEW = 8

Drawn = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Task:
    """A figure to be drawn to ``path`` by ``make(*arguments)``, unless that returns None."""

    path: Path
    make: Callable[..., Figure | None]
    arguments: tuple[Any, ...]

    def draw(self) -> bool:
        """Draw the figure. Returns whether there is one."""
        with matplotlib.rc_context(STYLE):
            figure = self.make(*self.arguments)
            if figure is not None:
                save(figure, self.path)
        return figure is not None


def file_name(*parts: str) -> str:
    """Return the name of a figure's file. The end of a name that is too long is replaced by a digest of it."""
    name = "-".join(part for part in parts if part)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.svg"


def draw(tasks: Sequence[Task]) -> list[bool]:
    """Draw figures on all cores that this process may use. Returns for each whether there is one.

    Drawing takes most of the time of a large report: a tenth of a second per figure. Forked processes have all modules
    loaded, while new processes would import them for seconds. Forking is safe on Linux only; on other systems this
    process draws all figures.
    """
    processes = min(choose("cpu").cores, len(tasks) // _FEW) if sys.platform == "linux" else 1
    if processes < 2:
        return [task.draw() for task in tasks]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _start_drawing, (os.getpid(), tasks)) as pool:
        return list(pool.map(_draw_given, range(len(tasks))))


#: The figures to be drawn, as a forked process inherits them. Sending each task would take longer.
_given: list[Task] = []


def _start_drawing(parent: int, tasks: Sequence[Task]) -> None:
    end_with_parent(parent)
    _given.extend(tasks)
    gc.freeze()  # garbage collection of the parent's objects took a tenth of the time


def _draw_given(index: int) -> bool:
    return _given[index].draw()


def save(figure: Figure, path: Path) -> None:
    """Save the figure without dates and versions and with fixed identifiers, so that equal figures are equal files."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def one_panel(
    width: float, height: float, *, left: float, right: float = 0.15, top: float = 0.15, bottom: float = 0.45
) -> tuple[Figure, Axes]:
    """A figure with one panel of ``width`` by ``height`` inches and these margins around it."""
    size = (left + width + right, bottom + height + top)
    figure = Figure(figsize=size)
    return figure, figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]))


def space_for(labels: Iterable[str]) -> float:
    return 0.2 + _CHARACTER * max(map(len, labels), default=0)
