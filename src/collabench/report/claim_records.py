"""Records of the verdicts on claims."""

from __future__ import annotations

from typing import Final, Literal

from collabench.core.record import Record
from collabench.papers.claims import Untested
from collabench.stats import Verdict

SCHEMA: Final = 1

#: Quantity → the unit of estimates and intervals.
UNITS = {
    "error": "percentage points",
    "error_growth": "percentage points per point of noise",
    "epochs_to_level": "epochs",
    "train_seconds": "ratio",
    "peak_memory": "ratio",
    "network": "",
}


class PartVerdict(Record):
    """One comparison of a claim in one scope. A claim with ``combine: mean`` has one part for all of its comparisons.

    n: number of pairs, one per seed. estimate: method minus baseline, in the claim's unit; for costs the geometric mean
    of the ratios. low, high: 95 % t interval, not adjusted. adjusted_low, adjusted_high: the simultaneous interval,
    which decides. p: two-sided paired t test, against the margin if the claim is "no worse". sign_flip_p: exact test,
    for sensitivity; None if n cannot reach 5 %. published_effect: method minus baseline, as published. seeds_needed:
    number of seeds that would show the published effect, or the smallest effect of interest, with 80 % power; for
    inconclusive parts only. note: why there is no interval or no such number of seeds.
    """

    compared: str
    n: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    adjusted_low: float | None = None
    adjusted_high: float | None = None
    p: float | None = None
    sign_flip_p: float | None = None
    published_effect: float | None = None
    seeds_needed: int | None = None
    verdict: Verdict
    note: str | None = None


class ScopeVerdict(Record):
    """A claim in one scope.

    where: data set, noise, backbone and recipe in words. p: of the whole claim; with several required parts the
    largest, where a part on the other side counts as 1. holm_p: adjusted over the family.
    """

    scope: str
    where: tuple[str, str, str, str]
    published: bool
    declared_after_runs: bool
    verdict: Verdict
    p: float | None = None
    holm_p: float | None = None
    parts: tuple[PartVerdict, ...] = ()
    note: str | None = None


class ClaimVerdict(Record):
    """A claim with its verdicts in this profile.

    verdict: the common verdict of all scopes, else "mixed". elsewhere: scopes that other profiles test, or none.
    """

    id: str
    paper: str
    statement: str
    source: str
    reading: str | None
    hypothesis: str
    unit: str
    verdict: Literal["supported", "refuted", "inconclusive", "not run", "mixed"]
    line: str
    scopes: tuple[ScopeVerdict, ...]
    elsewhere: tuple[str, ...]


class ClaimReport(Record):
    """All verdicts of one kind in a profile.

    kind: whether the verdicts rest on results or on measured costs. families: paper → number of tests declared for this
    profile, of both kinds. untested: further statements of the texts; with results only.
    """

    schema_version: Literal[1] = SCHEMA
    profile: str
    kind: Literal["results", "costs"]
    partial: bool
    level: float
    families: dict[str, int]
    claims: tuple[ClaimVerdict, ...]
    untested: tuple[Untested, ...] = ()

    def here(self) -> tuple[ClaimVerdict, ...]:
        """The claims that have a scope in this profile."""
        return tuple(claim for claim in self.claims if claim.scopes)
