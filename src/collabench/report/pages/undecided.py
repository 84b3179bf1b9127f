"""The section of the claims page that says why a test is undecided, and what a verdict would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas

from collabench.report.claim_records import ClaimReport, ClaimVerdict, PartVerdict, ScopeVerdict
from collabench.report.formatting import NOTHING, markdown, number

TITLE = "Why tests are undecided, and what they would take"
ANCHOR = "why-tests-are-undecided-and-what-they-would-take"

SMALL, SPREAD, FEW = "effect too small", "spread too large", "too few seeds yet"

#: Columns of words; the others hold numbers.
_WORDS = ("Where", "Compared", "State", "Why")

_HOW = f"""\
**{SMALL.capitalize()}**: the estimate lies inside the smallest effect of interest, on either side of zero. For either
verdict half of the interval then has to be narrower than that effect. **{SPREAD.capitalize()}**: the estimate lies
outside it, and the interval is too wide for a verdict. “No worse” has a margin in place of a smallest effect.
**{FEW.capitalize()}**: there is no interval. Seeds needed: as in the tables below. A test that needs more seeds than
its last look has will probably stay undecided. Of several comparisons the one that needs most seeds is shown."""


def is_needed(report: ClaimReport) -> bool:
    """Whether a test is undecided. Tests of costs have one look."""
    return report.kind != "costs" and any(True for _ in _undecided(report))


def section(report: ClaimReport, where: Callable[[ScopeVerdict], str]) -> list[str]:
    """The section's paragraphs: one row for each test that is undecided; empty unless :func:`is_needed`.

    where: what a scope does not share with all others, in words.
    """
    if not is_needed(report):
        return []
    rows = [_row(claim, scope, where(scope)) for claim, scope in _undecided(report)]
    return [f"## {TITLE}", _HOW, markdown(pandas.DataFrame(rows), words=_WORDS)]


def _undecided(report: ClaimReport) -> Iterator[tuple[ClaimVerdict, ScopeVerdict]]:
    for claim in report.claims:
        for scope in claim.scopes:
            if claim.is_tested and scope.verdict == "inconclusive" and scope.parts:
                yield claim, scope


def why(scope: ScopeVerdict, part: PartVerdict) -> str:
    """What keeps the part from a verdict: :data:`SMALL`, :data:`SPREAD` or :data:`FEW`."""
    if part.estimate is None or part.low is None:
        return FEW
    small = scope.smallest_effect is not None and abs(part.estimate) < scope.smallest_effect
    return SMALL if small else SPREAD


def hardest(scope: ScopeVerdict) -> PartVerdict:
    """The undecided part that needs most seeds. One without such a number, for example because it needs more than
    10,000, comes before all others."""
    parts = [part for part in scope.parts if part.verdict == "inconclusive"] or list(scope.parts)
    return max(parts, key=lambda part: (part.seeds_needed is None, part.seeds_needed or 0))


def _row(claim: ClaimVerdict, scope: ScopeVerdict, where: str) -> dict[str, str]:
    part = hardest(scope)
    decimals = 4 if "per point" in claim.unit else 2
    needed = f"{part.seeds_needed:,}" if part.seeds_needed is not None else part.note or NOTHING
    return {
        "Test": f"[{claim.id}](#{claim.id})",
        "Where": where or NOTHING,
        "Compared": part.compared.partition(":")[0],  # of a mean without the comparisons, which stand with the test
        "State": scope.state,
        "Estimate": number(part.estimate, decimals, signed=True),
        "Smallest effect": number(scope.smallest_effect, decimals),
        "n": str(part.n),
        "Last look": str(scope.looks[-1]) if scope.looks else NOTHING,
        "Seeds needed": needed,
        "Why": why(scope, part),
    }
