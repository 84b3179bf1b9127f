"""Where the claims of a profile stand: which look has decided, which seeds are still wanted.

Everything here is a function of the declared claims, the plan and the results that exist. Nothing is recorded, so that
stopping a study anywhere changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from collabench.config.configuration import Run
from collabench.config.params import Params
from collabench.config.plan import Plan
from collabench.core.errors import ResultError
from collabench.papers.claim_schema import ERROR, Claims, ClaimTest
from collabench.report.claim_values import ClaimRuns, Differences, differences_of
from collabench.report.collect import Collected
from collabench.stats import Design, Hypothesis, Outcome, Part, chance_of_decision, evaluate_looks, single_look
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Result
from collabench.storage.workspace import Workspace


@dataclass(frozen=True)
class ClaimState:
    """A test about errors in a profile, and what it still needs.

    compared: the comparison, where a claim has a verdict for each. verdict: frozen at the look that decided; None while
    open, and after a stop or the last look without a decision. stopped: for futility. look: the last one that was
    evaluated (1 is the first), 0 if its seeds are not complete. seeds: complete pairs so far, counted from the first
    seed. wanted: seeds per configuration that its next look needs; if nothing more is to be trained, those that it
    used. chance: that the next look decides; None without a look or a next one. configurations: ids of what is
    compared; none if a table that holds them is missing.
    """

    claim: str
    scope: str
    verdict: str | None
    stopped: bool
    look: int
    seeds: int
    wanted: int
    configurations: tuple[str, ...]
    compared: str | None = None
    looks: tuple[int, ...] = ()
    chance: float | None = None

    @property
    def open(self) -> bool:
        """Whether its next look wants seeds that are not there."""
        return self.wanted > self.seeds and bool(self.configurations)


def claim_states(claims: Claims, params: Params, plan: Plan, workspace: Workspace) -> tuple[ClaimState, ...]:
    """The state of every test about errors in the plan's profile, in the order of the claims.

    A result that is missing or cannot be read counts as not there. Costs are looked at once and want no seeds.
    """
    profile = plan.profile
    looks = Looks(claims, params, Collected(plan, {}, {}, ()), workspace, _read)
    return tuple(
        looks.state(test)
        for claim in claims.claims
        if claim.is_tested and not claim.is_cost
        for test in claims.tests(claim, profile)
    )


def _read(run: Run, workspace: Workspace) -> Result | None:
    """The result without the checks of the files beside it, which the study makes when it is loaded."""
    path = workspace.folder(run) / RESULT
    try:
        result = read_json(path, Result) if path.exists() else None
    except ResultError:
        return None
    return result if result is not None and result.run_id == run.id else None


@dataclass(frozen=True)
class Looked:
    """A test at its look. seeds: the declared ones, in order. parts: over all seeds up to the look's that exist.

    complete: pairs without a gap from the first seed on.
    """

    test: ClaimTest
    hypothesis: Hypothesis
    design: Design
    family: int
    seeds: tuple[int, ...]
    parts: list[Differences]
    complete: int
    outcome: Outcome

    @property
    def missing(self) -> str | None:
        """Why there is nothing to look at."""
        return next((part.missing for part in self.parts if part.missing), None)


class Looks:
    """The looks of a profile's tests.

    read: loads the result of a run that is not collected, or None.
    """

    def __init__(
        self,
        claims: Claims,
        params: Params,
        collected: Collected,
        workspace: Workspace,
        read: Callable[[Run, Workspace], Result | None],
    ) -> None:
        self._claims, self._profile_name = claims, collected.plan.profile
        self._profile = params.profiles[self._profile_name]
        self.runs = ClaimRuns(collected, workspace, lambda run: read(run, workspace))
        papers = {claim.paper for claim in claims.claims}
        self._families = {
            (paper, costs): claims.family_size(paper, self._profile_name, costs=costs)
            for paper in papers
            for costs in (False, True)
        }

    def look(self, test: ClaimTest) -> Looked:
        """The test at the look that decides or stops it, or at the last one whose seeds are complete."""
        design, seeds = self._design(test)
        hypothesis = hypothesis_of(test)
        family = self._families[test.claim.paper, test.claim.is_cost]
        for n in design.looks:
            parts = differences_of(test, self.runs, seeds[:n])
            complete = min(_leading(part.seeds, seeds[:n]) for part in parts)
            whole = [Part(part.values[:complete], part.sizes[:complete]) for part in parts]
            outcome = evaluate_looks(hypothesis, whole, design, family)
            looked = Looked(test, hypothesis, design, family, seeds, parts, complete, outcome)
            if outcome.finished or complete < n:
                break
        return looked

    def state(self, test: ClaimTest) -> ClaimState:
        looked = self.look(test)
        outcome, design = looked.outcome, looked.design
        cells = self.runs.cells(test)
        known = [cell for cell in cells if cell is not None]
        there = len(known) == len(cells)
        wanted = outcome.n if outcome.finished else design.looks[outcome.look]
        chance = None
        if outcome.look and not outcome.finished:
            tests = [part.test for part in outcome.parts]
            chance = chance_of_decision(looked.hypothesis, tests, design, outcome.look, looked.family)
        return ClaimState(
            claim=test.claim.id,
            scope=test.scope_name,
            verdict=None if outcome.verdict == "inconclusive" else outcome.verdict,
            stopped=outcome.stopped,
            look=outcome.look,
            seeds=looked.complete,
            wanted=wanted if there else 0,
            configurations=tuple(dict.fromkeys(cell.configuration.id for cell in known)) if there else (),
            compared=test.compared,
            looks=design.looks,
            chance=chance,
        )

    def _design(self, test: ClaimTest) -> tuple[Design, tuple[int, ...]]:
        """The design of a test and its seeds. A replication looks once. Without a declared design, and for costs, all
        of the error is spent at the seeds that the tables hold of everything that is compared."""
        if test.seeds is not None:
            return single_look(test.seeds, ERROR), self._profile.seed_range(test.seeds)
        declared = self._claims.designs.get(self._profile_name)
        if declared is not None and not test.claim.is_cost:
            design = Design(declared.looks, declared.spend, declared.error)
            return design, self._profile.seed_range(design.looks[-1])
        cells = [set(cell.seeds) for cell in self.runs.cells(test) if cell is not None]
        seeds = tuple(sorted(set.intersection(*cells))) if cells else ()
        return single_look(max(len(seeds), 1), declared.error if declared else ERROR), seeds


def hypothesis_of(test: ClaimTest) -> Hypothesis:
    """The hypothesis in the scale of the differences: costs are ratios, compared as differences of logarithms."""
    scale: Callable[[float], float] = math.log1p if test.claim.is_cost else float
    size, margin = test.smallest_effect, test.claim.margin
    return Hypothesis(
        side="above" if test.claim.hypothesis == "higher" else "below",
        smallest_effect=None if size is None else scale(size),
        margin=None if margin is None else scale(margin),
    )


def _leading(seeds: Sequence[int], declared: Sequence[int]) -> int:
    """How many of the declared seeds are there, from the first one on, without a gap."""
    there = set(seeds)
    return next((index for index, seed in enumerate(declared) if seed not in there), len(declared))
