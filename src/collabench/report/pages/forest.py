"""The forest plot of claims: every comparison with both intervals, sorted by where the claim stands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from collabench.report.across_profiles import ClaimEverywhere
from collabench.report.claim_records import PartVerdict
from collabench.report.pages.drawing import BASELINE, QUIET, one_panel
from collabench.report.standing import STANDINGS, Standing

#: Colour and marker of a standing: colour is never the only sign.
SIGNS: dict[Standing, tuple[str, str]] = {
    "supported": ("#0072B2", "D"),
    "leans for": ("#0072B2", "o"),
    "open": ("#777777", "o"),
    "stopped": ("#777777", "s"),
    "leans against": ("#D55E00", "o"),
    "refuted": ("#D55E00", "X"),
}

#: With more tests than this, only those that are decided or lean are drawn.
MOST = 30

_UNIT = "percentage points"
_CHARACTERS = 58
_LINE, _GAP = 0.135, 0.12


@dataclass(frozen=True)
class Line:
    """A test. where: its scope. part: of its comparisons the one that is furthest from the claim. parts: their number.
    towards: the sign of a difference on the claimed side."""

    statement: str
    where: tuple[str, ...]
    part: PartVerdict
    parts: int
    standing: Standing
    towards: int

    @property
    def distance(self) -> float:
        """How far the estimate lies on the claimed side."""
        return self.towards * (self.part.estimate or 0.0)


def lines_of(claims: Sequence[ClaimEverywhere]) -> list[Line]:
    """The tests of test error that are drawn, in the order of standings, then of their distance on the claimed side."""
    found = list(_lines(claims))
    if len(found) > MOST:
        found = [line for line in found if line.standing not in ("open", "stopped")]
    return sorted(found, key=lambda line: (STANDINGS.index(line.standing), -line.distance))


def _lines(claims: Sequence[ClaimEverywhere]) -> Iterator[Line]:
    for claim in claims:
        towards = 1 if claim.side == "above" else -1
        for test in claim.tests if claim.unit == _UNIT else ():
            parts = [part for part in test.verdict.parts if part.estimate is not None]
            if parts:
                part = min(parts, key=lambda part: towards * (part.estimate or 0.0))
                yield Line(claim.statement, test.verdict.where[:3], part, len(parts), test.standing, towards)


def _labels(lines: Sequence[Line]) -> list[list[str]]:
    """Statement and what differs between the scopes, in lines that fit."""
    varies = [len(set(values)) > 1 for values in zip(*(line.where for line in lines), strict=True)]
    labels = []
    for line in lines:
        where = ", ".join(text for text, differs in zip(line.where, varies, strict=True) if differs)
        compared = f" [{line.part.compared}]" if line.parts > 1 else ""
        text = f"{line.statement.rstrip('.')}{compared}" + (f": {where}" if where else "")
        labels.append(textwrap.wrap(text, _CHARACTERS))
    return labels


def caption(claims: Sequence[ClaimEverywhere]) -> str:
    """What the plot shows, and what it leaves out."""
    left = len(list(_lines(claims))) - len(lines_of(claims))
    several = any(line.parts > 1 for line in lines_of(claims))
    return (
        "Tests of claims about test error: difference of method minus baseline. Thick line: 95 % interval, not "
        "adjusted. Thin line: the interval that decides."
        + (" Of several comparisons the one that is furthest from the claim is drawn." if several else "")
        + (f" {left} open tests are not drawn." if left else "")
    )


def claims_forest(claims: Sequence[ClaimEverywhere]) -> Figure | None:
    """The plot; None if there is nothing to show."""
    lines = lines_of(claims)
    if not lines:
        return None
    labels = _labels(lines)
    heights = np.array([_LINE * max(len(label), 1) + _GAP for label in labels])
    centres = np.cumsum(heights) - heights / 2
    total = float(heights.sum())
    figure, axes = one_panel(3.6, total, left=3.35, bottom=0.62, top=0.4)
    axes.set_ylim(total, 0)
    axes.set_yticks(centres, ["\n".join(label) for label in labels])
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.axvline(0, color=BASELINE, linewidth=0.8)
    axes.hlines(np.cumsum(heights)[:-1], 0, 1, transform=axes.get_yaxis_transform(), color=QUIET, linewidth=0.3)
    for standing, (colour, marker) in SIGNS.items():
        own = [(centre, line.part) for centre, line in zip(centres, lines, strict=True) if line.standing == standing]
        for low, high, width in (("adjusted_low", "adjusted_high", 0.8), ("low", "high", 2.6)):
            ends = [(y, getattr(part, low), getattr(part, high)) for y, part in own if getattr(part, low) is not None]
            if ends:
                axes.hlines(*np.array(ends, dtype=float).T, color=colour, linewidth=width)
        if own:
            estimates = np.array([part.estimate for _, part in own], dtype=float)
            axes.plot(
                estimates,
                [y for y, _ in own],
                marker,
                color=colour,
                markersize=5,
                markeredgecolor="white",
                markeredgewidth=0.6,
            )
    axes.set_xlabel("difference in test error, percentage points (left of 0: lower error)\n"
                    "thick: 95 % interval, not adjusted; thin: the interval that decides")  # fmt: skip
    used = [standing for standing in SIGNS if any(line.standing == standing for line in lines)]
    handles = [Line2D([], [], marker=SIGNS[s][1], color=SIGNS[s][0], linestyle="none", markersize=5) for s in used]
    axes.legend(handles, used, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(used), borderaxespad=0.2,
                handletextpad=0.2, columnspacing=1.0)  # fmt: skip
    return figure
