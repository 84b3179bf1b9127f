"""From an interval to a verdict. The rules are fixed here, before any run.

All differences are treatment minus baseline. ``claimed_side`` says where the paper puts the difference: "below" zero
(lower error) or "above" (higher accuracy). Bounds that lie exactly on zero or on a margin decide nothing.
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

    refuted: the interval lies wholly on the other side of zero, or wholly between -smallest_effect and
    +smallest_effect. supported: wholly on the claimed side. Otherwise, and without an interval: inconclusive.
    A claim that states a smallest effect of interest claims an effect of that size, so an interval that is wholly
    inside it refutes the claim even where it excludes zero. An interval that straddles zero and reaches beyond the
    smallest effect on the other side only stays inconclusive.
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

    supported: the whole interval is better than ``margin`` on the worse side. refuted: the whole interval is worse
    than that. A difference that is worse than zero for certain and still within the margin is no worse by definition
    of the margin; the interval beside the verdict shows it.
    """
    check_positive(margin, "margin")
    low, high = _toward(low, high, better_side)
    if low is None or high is None:
        return "inconclusive"
    if low > -margin:
        return "supported"
    return "refuted" if high < -margin else "inconclusive"


def all_parts(supporting: Sequence[Verdict], refuting: Sequence[Verdict] | None = None) -> Verdict:
    """Verdict on a claim that needs all of its parts ("each beats"): intersection-union.

    supporting: verdicts of the parts at the claim's own level: since all are needed, no correction over the parts.
    refuting: verdicts of the same parts from intervals adjusted over the parts (family size times number of parts):
    one part alone refutes the claim, so that side does need the correction. Default: the supporting ones, right where
    those intervals were adjusted over the parts already.
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
    """The interval mirrored where needed, so that ``side`` is above zero."""
    if side not in ("below", "above"):
        raise ConfigError(f"side: 'below' or 'above' is needed, got {side!r}")
    if (low is None) != (high is None) or (low is not None and high is not None and not low <= high):
        raise ResultError(
            f"interval: a lower and an upper bound in this order, or neither, are needed, got {low}, {high}"
        )
    if side == "above" or low is None or high is None:
        return low, high
    return -high, -low
