"""Verdicts from intervals. The rules are fixed here, before any run.

All differences are treatment minus baseline. ``claimed_side`` is the side of zero where the paper puts the difference:
"below" (lower error) or "above" (higher accuracy). A bound that lies exactly on zero or on a margin decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from collabench.core.errors import ConfigError, ResultError
from collabench.stats.levels import check_positive

Verdict = Literal["supported", "refuted", "inconclusive", "not run"]
Side = Literal["below", "above"]


def decide(low: float | None, high: float | None, claimed_side: Side, smallest_effect: float | None = None) -> Verdict:
    """Verdict on "the difference lies on the claimed side".

    refuted: the whole interval lies on the other side of zero, or between -smallest_effect and +smallest_effect.
    supported: the whole interval lies on the claimed side, and it is not refuted.
    inconclusive: all other intervals, and no interval.

    A claim that states a smallest effect of interest claims an effect of that size. An interval that lies wholly inside
    it therefore refutes the claim even if it excludes zero. An interval that includes zero and reaches beyond the
    smallest effect on the other side only is inconclusive.
    """
    low, high = _toward(low, high, claimed_side)
    if smallest_effect is not None:
        check_positive(smallest_effect, "smallest effect of interest")
    if low is None or high is None:
        return "inconclusive"
    if high < 0 or (smallest_effect is not None and -smallest_effect < low and high < smallest_effect):
        return "refuted"
    return "supported" if low > 0 else "inconclusive"


def no_worse(low: float | None, high: float | None, margin: float, better_side: Side) -> Verdict:
    """Verdict on "no worse": non-inferiority with a stated margin.

    supported: the whole interval is better than ``margin`` on the worse side. refuted: the whole interval is worse than
    that. A difference that is certainly worse than zero but within the margin counts as no worse, by the definition of
    the margin; the interval shown beside the verdict makes this visible.
    """
    check_positive(margin, "margin")
    low, high = _toward(low, high, better_side)
    if low is None or high is None:
        return "inconclusive"
    if low > -margin:
        return "supported"
    return "refuted" if high < -margin else "inconclusive"


def all_parts(supporting: Sequence[Verdict], refuting: Sequence[Verdict] | None = None) -> Verdict:
    """Verdict on a claim that needs all of its parts ("better than each of them"): intersection-union test.

    supporting: verdicts of the parts at the claim's own level. All parts are needed, so no correction over the parts is
    made.
    refuting: verdicts of the same parts from intervals adjusted over the parts (family size times number of parts). One
    part alone refutes the claim, so this side needs the correction. The default is ``supporting``, which is right if
    those intervals were already adjusted over the parts.
    """
    refuting = supporting if refuting is None else refuting
    if not supporting or len(supporting) != len(refuting):
        raise ResultError(
            f"parts: equally many verdicts, at least one, are needed, got {len(supporting)} and {len(refuting)}"
        )
    if "refuted" in refuting:
        return "refuted"
    if "not run" in supporting:
        return "not run"
    return "supported" if all(part == "supported" for part in supporting) else "inconclusive"


def _toward(low: float | None, high: float | None, side: Side) -> tuple[float | None, float | None]:
    """The interval, mirrored if necessary, so that ``side`` is above zero."""
    if side not in ("below", "above"):
        raise ConfigError(f"side: 'below' or 'above' is needed, got {side!r}")
    if (low is None) != (high is None) or (low is not None and high is not None and not low <= high):
        raise ResultError(
            f"interval: a lower and an upper bound in this order, or neither, are needed, got {low}, {high}"
        )
    if side == "above" or low is None or high is None:
        return low, high
    return -high, -low
