"""The text of a cell of a paper's table: the published value above the measured one.

A paper that reports the lowest test error over all epochs has chosen the epoch on test data. Such a table is shown
twice: honestly, and by the paper's own protocol.
"""

from __future__ import annotations

from collections.abc import Iterable

from collabench.papers.schema import UNKNOWN, Protocol
from collabench.papers.tables import PublishedCell
from collabench.report.pages import tables as formats
from collabench.report.published import Measured
from collabench.stats import Summary

MISPRINT = "†"
BREAK = "<br>"


def plain(cell: PublishedCell, measured: Measured | None, suspect: bool) -> str:
    """By the paper's rule, which is the last epoch, with the verdict."""
    parts = _begin(cell, measured, suspect)
    if measured is not None and measured.n:
        parts += [_mean(measured, measured.error or measured.last), *_verdict(measured)]
    return BREAK.join(parts)


def honest(cell: PublishedCell, measured: Measured | None, suspect: bool) -> str:
    """The mean over all seeds after the last epoch, and its difference from the published value; no verdict, since the
    published value is another quantity."""
    parts = _begin(cell, measured, suspect)
    if measured is not None and measured.n:
        parts.append(_mean(measured, measured.last))
        if cell.value is not None and measured.last is not None:
            parts.append(formats.number(measured.last.mean - cell.value, signed=True))
    return BREAK.join(parts)


def own(cell: PublishedCell, measured: Measured | None, suspect: bool) -> str:
    """The paper's number of runs at their best epochs; below it all seeds' best epochs, which give the verdict."""
    parts = _begin(cell, measured, suspect)
    if measured is not None and measured.n and measured.own is not None:
        if measured.own.error is not None:
            parts.append(formats.number(measured.own.error))
            if cell.value is not None:
                parts.append(formats.number(measured.own.error - cell.value, signed=True))
        elif measured.error is None:
            parts.append("best epoch not recorded")
        else:
            parts.append("no run yet")
        if measured.error is not None:
            parts.append(f"all seeds: {_mean(measured, measured.error)}")
            parts += _verdict(measured)
    return BREAK.join(parts)


def in_words(protocol: Protocol) -> str:
    """``one run, its best epoch``."""
    runs = 1 if protocol.runs == "unknown" else protocol.runs
    return "one run, its best epoch" if runs == 1 else f"mean of {runs} runs, their best epochs"


def honest_note() -> str:
    return (
        "Below the published value: mean ± sample standard deviation [95 % t interval], n training runs; the "
        "difference measured minus published in percentage points. It has no verdict, because the published value is "
        "that of a best epoch."
    )


def own_note(measured: Iterable[Measured]) -> str:
    """What the paper's own protocol does, and with which seeds here."""
    seeds = sorted({one.own.seeds for one in measured if one.own is not None})
    named = "; ".join(" ".join(map(str, one)) for one in seeds)
    which = f"seed {named}, the first" if seeds and len(seeds[0]) == 1 else f"the seeds {named}, the first"
    return (
        f"**Optimistic: the epoch is chosen on test data.** Below the published value: the lowest test error over all "
        f"epochs of {which} of this profile, whatever its result; the difference in percentage points; the same of all "
        "seeds, with the verdict. A single run has no interval."
    )


def _begin(cell: PublishedCell, measured: Measured | None, suspect: bool) -> list[str]:
    text = UNKNOWN if cell.value is None else formats.number(cell.value)
    if cell.sd is not None:
        text += f" ± {formats.number(cell.sd)}"
    if suspect:
        text += f" {MISPRINT}"
    if measured is None:
        return [text]
    parts = [f"**{text}**" if cell.value is not None else text]
    return parts if measured.n else [*parts, f"no run yet (0 of {measured.asked})"]


def _mean(measured: Measured, shown: Summary | None) -> str:
    count = f"n {measured.n}" + (f" of {measured.asked}" if measured.n < measured.asked else "")
    return f"{formats.mean_sd(shown)} {formats.interval(shown)}, {count}"


def _verdict(measured: Measured) -> list[str]:
    comparison = measured.published.comparison if measured.published else None
    return [] if comparison is None else [f"{formats.number(comparison.difference, signed=True)}, {comparison.verdict}"]
