"""Where a claim stands in one scope: its verdict or, while it is open, which way its unadjusted interval points.

The leaning is a description of the data, no verdict: the interval is not widened for the number of tests.
"""

from __future__ import annotations

from typing import Literal, get_args

from collabench.papers.claim_schema import Claim
from collabench.report.claim_records import PartVerdict, ScopeVerdict

Standing = Literal["supported", "leans for", "open", "leans against", "refuted", "stopped", "not run"]

#: In the order in which they are shown, from the claim's side to the other one.
STANDINGS: tuple[Standing, ...] = get_args(Standing)

#: The sign that stands before each, so that colour is never the only one.
SYMBOLS: dict[Standing, str] = dict(zip(STANDINGS, "✓↗○↘✗■·", strict=True))

#: Verdicts that a test has reached.
DECIDED: tuple[Standing, ...] = ("supported", "refuted")

Kind = Literal["statistical", "equality", "cost"]


def kind_of(claim: Claim) -> Kind:
    """What decides the claim: a test of errors, the equality of two networks, or measured costs."""
    if not claim.is_tested:
        return "equality"
    return "cost" if claim.is_cost else "statistical"


def standing(scope: ScopeVerdict, claim: Claim | None) -> Standing:
    """Where the claim stands in this scope.

    claim: its declaration, which says the claimed side. None if it is no longer declared: an undecided scope is then
    open.
    """
    if scope.verdict in ("supported", "refuted", "not run"):
        return scope.verdict
    if scope.stopped:
        return "stopped"
    if claim is None or not claim.is_tested or scope.note is not None:
        return "open"
    leanings = [_leaning(part, claim) for part in scope.parts]
    if "leans against" in leanings:
        return "leans against"
    return "leans for" if leanings and set(leanings) == {"leans for"} else "open"


def bound(claim: Claim) -> float:
    """The value in the claim's unit that separates the two sides: no difference, or the margin of "no worse"."""
    neutral = 1.0 if claim.is_cost else 0.0
    return neutral + (claim.margin or 0.0)


def standing_of_part(part: PartVerdict, claim: Claim) -> Standing:
    """Where one of the claim's comparisons stands."""
    if part.verdict != "inconclusive":
        return part.verdict
    return _leaning(part, claim)


def _leaning(part: PartVerdict, claim: Claim) -> Standing:
    if not claim.is_tested or part.low is None or part.high is None:
        return "open"
    below, above = part.high < bound(claim), part.low > bound(claim)
    if not (below or above):
        return "open"
    return "leans for" if above == (claim.hypothesis == "higher") else "leans against"
