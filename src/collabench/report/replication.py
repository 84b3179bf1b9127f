"""A replication beside the studies that it repeats: are the effects the same, and are the verdicts reached again?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from collabench.core.record import Record
from collabench.papers.claim_schema import Claims, FirstEffect, Replicated
from collabench.report.claim_records import ClaimReport, ClaimVerdict, PartVerdict, ScopeVerdict
from collabench.stats import Verdict


class RepeatedEffect(Record):
    """An effect in the first study and in the replication, in the claim's unit.

    low, high: 95 % intervals, not adjusted. same_sign: of the two estimates. inside: the second estimate lies in the
    first interval. predicted: it lies in the first interval widened by √2, which holds 95 % of second estimates with as
    many seeds if nothing but chance differs.
    """

    compared: str
    first: FirstEffect
    estimate: float
    low: float
    high: float
    same_sign: bool
    inside: bool
    predicted: bool


class RepeatedTest(Record):
    """A test that was decided once and made again. first_verdict: of the profile ``first``. seeds: as in both studies.

    verdict, effects: of the replication; without effects while runs are missing.
    """

    claim: str
    statement: str
    scope: str
    where: tuple[str, str, str, str]
    compared: str | None
    first: str
    seeds: int
    first_verdict: Literal["supported", "refuted"]
    verdict: Verdict
    effects: tuple[RepeatedEffect, ...]

    @property
    def state(self) -> Literal["the same", "undecided", "the other", "not run"]:
        """How the second verdict compares with the first."""
        if self.verdict == self.first_verdict:
            return "the same"
        if self.verdict == "not run":
            return "not run"
        return "undecided" if self.verdict == "inconclusive" else "the other"


class Replication(Record):
    """All tests that a profile makes again, in the order of the claims."""

    profile: str
    tests: tuple[RepeatedTest, ...]

    @property
    def effects(self) -> tuple[RepeatedEffect, ...]:
        return tuple(effect for test in self.tests for effect in test.effects)


def replication_of(claims: Claims, report: ClaimReport) -> Replication | None:
    """The replication that the verdicts of a profile make; None if the profile repeats no other."""
    wanted = claims.replicated.get(report.profile)
    if not wanted:
        return None
    there = {
        (claim.id, scope.scope, scope.compared): (claim, scope) for claim in report.claims for scope in claim.scopes
    }
    order = [claim.id for claim in claims.claims]
    tests = [
        _test(first, *there[first.claim, first.scope, first.compared])
        for first in sorted(wanted, key=lambda one: order.index(one.claim))
    ]
    return Replication(profile=report.profile, tests=tuple(tests))


def _test(first: Replicated, claim: ClaimVerdict, scope: ScopeVerdict) -> RepeatedTest:
    return RepeatedTest(
        claim=claim.id,
        statement=claim.statement,
        scope=scope.scope,
        where=scope.where,
        compared=scope.compared,
        first=first.profile,
        seeds=first.seeds,
        first_verdict=first.verdict,
        verdict=scope.verdict if scope.look else "not run",
        effects=tuple(_effects(first, scope.parts)) if scope.look else (),
    )


def _effects(first: Replicated, parts: Sequence[PartVerdict]) -> list[RepeatedEffect]:
    by_name = {part.compared: part for part in parts}
    found = []
    for effect in first.effects:
        part = by_name.get(effect.compared)
        if part is None or part.estimate is None or part.low is None or part.high is None:
            continue
        half = math.sqrt(2) * (effect.high - effect.low) / 2
        found.append(
            RepeatedEffect(
                compared=effect.compared,
                first=effect,
                estimate=part.estimate,
                low=part.low,
                high=part.high,
                same_sign=part.estimate * effect.estimate > 0,
                inside=effect.low <= part.estimate <= effect.high,
                predicted=abs(part.estimate - effect.estimate) <= half,
            )
        )
    return found


def decided_tests(report: ClaimReport) -> list[Replicated]:
    """The tests about errors that a study has decided, as a replication makes them again.

    Of a claim with several parts the effects are those that carry the verdict: all of them if it is supported, the
    refuted ones if it is refuted.
    """
    return [
        Replicated(
            profile=report.profile,
            claim=claim.id,
            scope=scope.scope,
            compared=scope.compared,
            verdict=scope.verdict,
            seeds=scope.n,
            effects=tuple(
                FirstEffect(compared=part.compared, estimate=part.estimate, low=part.low, high=part.high)
                for part in scope.parts
                if (scope.verdict == "supported" or part.verdict == "refuted")
                and part.estimate is not None and part.low is not None and part.high is not None
            ),
        )
        for claim in report.claims
        if claim.is_tested
        for scope in claim.scopes
        if scope.verdict == "supported" or scope.verdict == "refuted"
    ]  # fmt: skip
