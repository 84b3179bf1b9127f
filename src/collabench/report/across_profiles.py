"""The papers' claims over all profiles: each claim with every scope in which some profile tests it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from collabench.config.params import Params
from collabench.papers.citations import cited
from collabench.papers.claim_schema import Claim, Claims
from collabench.papers.tables import Paper
from collabench.report.claim_records import ClaimReport, ClaimVerdict, ScopeVerdict
from collabench.report.standing import STANDINGS, Kind, Standing, bound, kind_of, standing, standing_of_part
from collabench.report.titles import Parts
from collabench.report.verdicts import describe_scopes


@dataclass(frozen=True)
class ScopeTest:
    """A claim in one scope of one profile. parts: the standing of each of the verdict's comparisons. again: the profile
    replicates another one, which had decided this test."""

    profile: str
    verdict: ScopeVerdict
    standing: Standing
    parts: tuple[Standing, ...]
    again: bool = False


@dataclass(frozen=True)
class NotRun:
    """A scope without a report. profile: the one whose tables would hold its runs; None if no profile does."""

    where: Parts
    profile: str | None
    published: bool


@dataclass(frozen=True)
class ClaimEverywhere:
    """A claim with all of its tests, and the declared scopes that no report holds.

    source: as a paper is cited. quote: words of the text. compared: each declared comparison in words. bound: the value
    that separates the two sides, in ``unit``. side: where the claim's side lies, seen from the bound; None for the
    equality of networks. smallest_effect: of interest, in ``unit``; for costs a share.
    """

    id: str
    paper: str
    statement: str
    source: str
    quote: str
    reading: str | None
    compared: tuple[str, ...]
    hypothesis: str
    unit: str
    kind: Kind
    side: str | None
    bound: float | None
    smallest_effect: float | None
    tests: tuple[ScopeTest, ...]
    not_run: tuple[NotRun, ...]


def join_claims(
    claims: Claims,
    params: Params,
    papers: Mapping[str, Paper],
    reports: Iterable[tuple[str, ClaimReport]],
) -> tuple[ClaimEverywhere, ...]:
    """Every declared claim, in the order of ``papers/claims.yaml``.

    reports: verdicts, each with the name of its profile as it is shown.
    Words and claimed side are those declared now; verdicts are those of the reports. A verdict on a claim that is no
    longer declared is left out, since nothing says any more what it was about.
    """
    where = describe_scopes(claims, params)
    found: dict[str, list[tuple[str, ClaimVerdict, bool]]] = {}
    for profile, report in reports:
        for claim in report.here():
            again = report.profile in claims.replicated
            found.setdefault(claim.id, []).append((profile, claim, again))
    return tuple(_everywhere(claim, claims, papers, found.get(claim.id, []), where) for claim in claims.claims)


def _everywhere(
    claim: Claim,
    claims: Claims,
    papers: Mapping[str, Paper],
    verdicts: Sequence[tuple[str, ClaimVerdict, bool]],
    where: Mapping[str, Parts],
) -> ClaimEverywhere:
    tests = tuple(
        ScopeTest(
            profile, scope, standing(scope, claim), tuple(standing_of_part(part, claim) for part in scope.parts), again
        )
        for profile, verdict, again in verdicts
        for scope in verdict.scopes
    )
    has_runs = {test.verdict.scope for test in tests}
    words = next((verdict for _, verdict, _ in verdicts), None)
    about = papers[claim.paper].about if claim.paper in papers else None
    return ClaimEverywhere(
        id=claim.id,
        paper=claim.paper,
        statement=claim.statement,
        source=claim.source.place if about is None else cited(about, claim.source.file, claim.source.place),
        quote=claim.source.words,
        reading=claim.reading,
        compared=tuple(map(str, claim.compare)),
        hypothesis=words.hypothesis if words else "",
        unit=words.unit if words else "",
        kind=kind_of(claim),
        side=None if not claim.is_tested else "above" if claim.hypothesis == "higher" else "below",
        bound=bound(claim) if claim.is_tested else None,
        smallest_effect=claim.smallest_effect,
        tests=tests,
        not_run=tuple(
            NotRun(where[name], claims.scopes[name].profile, claims.scopes[name].published)
            for name in claim.scopes
            if name not in has_runs
        ),
    )


def without_replications(claims: Iterable[ClaimEverywhere]) -> list[ClaimEverywhere]:
    """The claims without the tests that are made again, so that no result counts twice; all of them if there are no
    others."""
    claims = list(claims)
    if all(test.again for claim in claims for test in claim.tests):
        return claims
    return [replace(claim, tests=tuple(test for test in claim.tests if not test.again)) for claim in claims]


def count(claims: Iterable[ClaimEverywhere], kind: Kind | None = None) -> Counter[Standing]:
    """How many tests stand where, over the claims of one kind or of all, without those that are made again."""
    chosen = without_replications(claim for claim in claims if kind in (None, claim.kind))
    found = Counter(test.standing for claim in chosen for test in claim.tests)
    return Counter({name: found[name] for name in STANDINGS if found[name]})
