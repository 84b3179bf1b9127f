"""Records of the verdicts on claims."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from collabench.core.record import Record
from collabench.papers.claim_schema import Untested
from collabench.report.content import Reached
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
    of the ratios. low, high: 95 % t interval, not adjusted. adjusted_low, adjusted_high: the interval that decides, at
    adjusted_level: one-sided α w / m on each side, at the look. p: two-sided paired t test, against the margin if the
    claim is "no worse". sign_flip_p: exact test, for sensitivity; None if n cannot reach 5 %. published_effect: method
    minus baseline, as published. seeds_needed: number of seeds that would show the published effect, or the smallest
    effect of interest, with 80 % power at the level of the last look; for inconclusive parts only. note: why there is
    no interval or no such number of seeds.
    """

    compared: str
    n: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    adjusted_low: float | None = None
    adjusted_high: float | None = None
    adjusted_level: float | None = None
    p: float | None = None
    sign_flip_p: float | None = None
    published_effect: float | None = None
    seeds_needed: int | None = None
    verdict: Verdict
    note: str | None = None


class ScopeVerdict(Record):
    """A claim in one scope; where each of its comparisons is a test of its own, one of them.

    where: data set, noise, backbone and recipe in words. compared: the comparison, if the verdict is about one alone.
    smallest_effect: of interest, in the claim's unit (for costs a share). pilot: how it was found.
    look: the last one that was evaluated, which is the one that decided if one did; 0 if its seeds are not complete.
    looks: seeds at each. n: seeds at the look. spent: error spent up to it, of the family's ``error``. stopped: for
    futility. p: of the whole claim at the look, two-sided; with several required parts the largest, where a part on the
    other side counts as 1. adjusted_p: one-sided p of support, over looks and family.
    """

    scope: str
    where: tuple[str, str, str, str]
    published: bool
    declared_after_runs: bool
    compared: str | None = None
    smallest_effect: float | None = None
    pilot: str | None = None
    verdict: Verdict
    look: int = 0
    looks: tuple[int, ...] = ()
    n: int = 0
    spent: float = 0.0
    error: float | None = None
    stopped: bool = False
    p: float | None = None
    adjusted_p: float | None = None
    parts: tuple[PartVerdict, ...] = ()
    note: str | None = None
    #: Of reports that were built before there were looks; no longer written.
    holm_p: float | None = Field(default=None, exclude=True, repr=False)

    @property
    def is_analogue(self) -> bool:
        """Whether data set or backbone are not those of the paper."""
        return not self.published

    @property
    def is_decided(self) -> bool:
        return self.verdict in ("supported", "refuted")

    @property
    def is_early(self) -> bool:
        """Whether it was decided before its last look. Such estimates overstate the effect on average."""
        return self.is_decided and self.look < len(self.looks)

    @property
    def is_open(self) -> bool:
        """Whether a further look could still decide."""
        return self.verdict == "inconclusive" and not self.stopped and self.look < len(self.looks)

    @property
    def state(self) -> str:
        """The verdict in one word: a test that was stopped for futility is not open, and an open one is undecided."""
        return "stopped" if self.stopped else "open" if self.is_open else self.verdict


class ClaimVerdict(Record):
    """A claim with its verdicts in this profile.

    verdict: the common verdict of all scopes, else "mixed". elsewhere: scopes that other profiles test, or none. unrun:
    the papers' own data sets among them.
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
    unrun: tuple[str, ...] = ()

    @property
    def is_tested(self) -> bool:
        """Whether a statistical test decides the claim. Equality of networks is decided without one."""
        return bool(self.unit)


class ClaimReport(Record):
    """All verdicts of one kind in a profile.

    kind: whether the verdicts rest on results or on measured costs. families: paper → number of differences that are
    tested in this profile, of this kind. untested: further statements of the texts; with results only.
    """

    schema_version: Literal[1] = SCHEMA
    profile: str
    kind: Literal["results", "costs"]
    partial: bool
    level: float
    families: dict[str, int]
    claims: tuple[ClaimVerdict, ...]
    untested: tuple[Untested, ...] = ()

    def verdicts(self, *, tested: bool) -> tuple[ScopeVerdict, ...]:
        """The verdicts of statistical tests, or those on the equality of networks, which no test decides."""
        return tuple(scope for claim in self.claims if claim.is_tested == tested for scope in claim.scopes)

    def here(self) -> tuple[ClaimVerdict, ...]:
        """The claims that have a scope in this profile."""
        return tuple(claim for claim in self.claims if claim.scopes)

    def reached(self) -> tuple[Reached, ...]:
        """The verdict of every test, for ``report.json``."""
        return tuple(
            Reached(
                claim=claim.id,
                statement=claim.statement,
                scope=scope.scope,
                where=scope.where,
                compared=scope.compared,
                verdict=scope.verdict,
            )
            for claim in self.claims
            for scope in claim.scopes
        )
