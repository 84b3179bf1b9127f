"""Numbers, intervals and tables as text: markdown and CSV."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas

from collabench.core.text import markdown_cell, printable
from collabench.stats import Paired, Summary


def write_csv(path: Path, frame: pandas.DataFrame) -> None:
    """Write numbers with ten significant digits, Unix line ends, and empty cells for unknown values."""
    frame.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")


NOTHING = "–"

Frame = pandas.DataFrame

# --------------------------------------------------------------------------------------------------- formatting


def number(value: float | None, decimals: int = 2, *, signed: bool = False) -> str:
    """``12.34``, with a true minus sign; ``–`` for None."""
    if value is None:
        return NOTHING
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def mean_sd(summary: Summary | None, decimals: int = 2) -> str:
    if summary is None:
        return NOTHING
    spread = "" if summary.sd is None else f" ± {number(summary.sd, decimals)}"
    return number(summary.mean, decimals) + spread


def interval(value: Summary | Paired | None, decimals: int = 2, *, signed: bool = False) -> str:
    if value is None or value.low is None:
        return NOTHING
    return f"[{number(value.low, decimals, signed=signed)}, {number(value.high, decimals, signed=signed)}]"


def p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def plainly_printable(value: Any) -> Any:
    """Plain data, as JSON has it or with tuples, in which every text is printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {plainly_printable(key): plainly_printable(child) for key, child in value.items()}
    return [plainly_printable(child) for child in value] if isinstance(value, list | tuple) else value


def markdown(frame: Frame, *, words: Collection[str] = (), unbroken: bool = False) -> str:
    """A markdown table. Its first column and those that are named in ``words`` are aligned to the left, all others to
    the right.

    unbroken: no line ends between a number and its spread or interval, whatever the width of the page.
    """
    alignment = ["left" if place == 0 or name in words else "right" for place, name in enumerate(frame.columns)]
    frame = safe_cells(frame)
    if unbroken:
        frame = frame.rename(columns=_unbroken).map(_unbroken)
    return frame.to_markdown(index=False, colalign=alignment, disable_numparse=True)


def _unbroken(text: str) -> str:
    for space in (" ± ", " [", ", ", " %", " ✱"):
        text = text.replace(space, space.replace(" ", "\u00a0"))
    return text


def safe_cells(frame: Frame) -> Frame:
    """The frame with headings and texts that cannot end a cell of a markdown table."""
    frame = frame.rename(columns=lambda name: markdown_cell(str(name)))
    return frame.map(lambda value: markdown_cell(value) if isinstance(value, str) else value)
