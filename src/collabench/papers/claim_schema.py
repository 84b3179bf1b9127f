"""Claims as typed records: the schema of ``papers/claims.yaml``, whose header explains its fields.

A claim is a hypothesis about methods and baselines of ``params.yaml`` in named scopes. A test is a claim in one scope,
or one of its comparisons there. The tests of one paper that a profile's scopes declare are one family, whether their
runs exist or not; those of costs are a family of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from collabench.config.fields import Line, Name
from collabench.config.sections import ProfileConfig
from collabench.core.record import NO_REPEATS, Record

Quantity = Literal["error", "error_growth", "epochs_to_level", "train_seconds", "peak_memory", "network"]
Hypothesis = Literal["lower", "higher", "no_worse", "same"]

#: Quantities that were measured during training. They are not determined by configuration and seed.
COSTS: tuple[Quantity, ...] = ("train_seconds", "peak_memory")

#: The error that a family of tests spends where no design says otherwise. It is less than the 5 % that the rate of
#: wrong verdicts may reach, because skewed differences raise that rate (docs/sequential-simulation.md).
ERROR = 0.04

Positive = Annotated[float, Field(gt=0)]


class DesignConfig(Record):
    """When the claims of a profile are looked at, fixed before its runs; see the header of ``papers/claims.yaml``.

    looks: numbers of seeds, rising; the first is the profile's ``seeds``. spend: the share of the error that each look
    spends. error: of a family, spent over its tests and looks. fresh_from: profiles whose seeds this one must not use.
    """

    looks: Annotated[tuple[Annotated[int, Field(ge=2, le=1000)], ...], Field(min_length=1)]
    spend: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]
    error: Annotated[float, Field(gt=0, lt=0.25)] = ERROR
    fresh_from: Annotated[tuple[Name, ...], NO_REPEATS] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError("looks must rise")
        if len(self.spend) != len(self.looks):
            raise ValueError(f"spend: {len(self.looks)} shares are needed, one a look")
        if math.fsum(self.spend) > 1 + 1e-12:
            raise ValueError(f"spend: the shares add up to {math.fsum(self.spend):.10g}; at most 1 can be spent")
        return self


class ClaimScope(Record):
    """Data set, noise, backbone and recipe, by names of ``params.yaml``; see the header of ``papers/claims.yaml``.

    declared_after_runs: the runs existed when the hypotheses were written. smallest_effect: the difference of errors,
    in percentage points, below which it would be too little to matter here. pilot: how that number was found.
    """

    profile: Name | None = None
    published: bool = False
    declared_after_runs: bool = False
    dataset: Name
    noise: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS] = ("clean",)
    model: Name
    recipe: Name
    wide_model: Name | None = None
    wide_recipe: Name | None = None
    metric: Literal["error", "top5_error"] = "error"
    smallest_effect: Positive | None = None
    pilot: Line | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pilot is not None and self.smallest_effect is None:
            raise ValueError("pilot says how smallest_effect was found: it needs smallest_effect")
        return self

    def names(self, noise: str, compared: Compared, *, baseline: bool) -> dict[str, str]:
        """The five names in ``params.yaml`` of one side of a comparison here."""
        model, recipe = self.model, self.recipe
        if baseline and compared.wide_baseline:
            model, recipe = self.wide_model or model, self.wide_recipe or recipe
        method = compared.baseline if baseline else compared.method
        return {"dataset": self.dataset, "noise": noise, "model": model, "recipe": recipe, "method": method}


class Compared(Record):
    """A method, or one of its heads (0 is the deployed one), and the baseline that it is compared with.

    wide_baseline: the baseline is the network with twice the filters.
    """

    method: Name
    baseline: Name
    head: int = Field(default=0, ge=0)
    wide_baseline: bool = False

    def __str__(self) -> str:
        head = f", head {self.head + 1}" if self.head else ""
        return f"{self.method}{head} against {self.baseline}{' with twice the filters' if self.wide_baseline else ''}"


class ClaimSource(Record):
    """file: one of the source texts. place: section and sentence. words: some words of the sentence, verbatim."""

    file: Annotated[str, StringConstraints(pattern=r"^[0-9]{3}_[0-9a-f]+\.txt$")]
    place: Line
    words: Line

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: “{self.words}”"


class Claim(Record):
    """One claim of a paper; see the header of ``papers/claims.yaml``."""

    id: Name
    paper: Name
    statement: Line
    source: ClaimSource
    reading: Line | None = None
    quantity: Quantity
    hypothesis: Hypothesis
    combine: Literal["all", "mean", "each"] = "all"
    smallest_effect: Positive | None = None
    margin: Positive | None = None
    compare: Annotated[tuple[Compared, ...], Field(min_length=1), NO_REPEATS]
    levels: dict[Name, Annotated[float, Field(gt=0, lt=100)]] = Field(default_factory=dict)
    published_effects: dict[Name, tuple[float, ...]] = Field(default_factory=dict)
    scopes: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        directed = self.hypothesis in ("lower", "higher")
        if (self.quantity == "network") != (self.hypothesis == "same"):
            raise ValueError("hypothesis: same goes with quantity: network, and no other hypothesis does")
        if self.smallest_effect is not None and not directed:
            raise ValueError("smallest_effect belongs to the hypotheses lower and higher")
        if directed and self.smallest_effect is None and self.quantity != "error":
            raise ValueError(
                f"smallest_effect is needed: scopes state one for quantity: error, not for {self.quantity}"
            )
        if (self.hypothesis == "no_worse") != (self.margin is not None):
            raise ValueError("margin belongs to the hypothesis no_worse, which needs it")
        if (self.quantity == "epochs_to_level") != bool(self.levels):
            raise ValueError("levels belong to quantity: epochs_to_level, which needs them")
        if self.quantity == "epochs_to_level" and set(self.levels) != set(self.scopes):
            raise ValueError("levels are needed for every scope and for no other")
        if any(c.head for c in self.compare) and self.quantity not in ("error", "error_growth"):
            raise ValueError("head belongs to the quantities error and error_growth")
        if self.combine == "mean" and (len(self.compare) < 2 or self.quantity != "error"):
            raise ValueError("combine: mean is for quantity: error with two comparisons or more")
        if self.combine == "each" and (len(self.compare) < 2 or not self.is_tested):
            raise ValueError("combine: each is for two comparisons or more, and not for quantity: network")
        for scope, effects in self.published_effects.items():
            if scope not in self.scopes:
                raise ValueError(f"published_effects: {scope!r} is not one of the claim's scopes")
            if len(effects) != len(self.compare):
                raise ValueError(f"published_effects of {scope!r}: {len(self.compare)} numbers are needed, one a part")
        return self

    @property
    def is_cost(self) -> bool:
        return self.quantity in COSTS

    @property
    def is_tested(self) -> bool:
        """Whether a statistical test decides the claim. Equality of networks is decided without a test."""
        return self.quantity != "network"


@dataclass(frozen=True)
class ClaimTest:
    """What one verdict is about: a claim in a scope; with ``combine: each`` one of its comparisons there.

    compare: the comparisons, all of which are needed, or whose mean is meant. effects: as published, one a comparison.
    smallest_effect: in the claim's unit (the claim's own, else the scope's). seeds: of a replication, which looks once.
    """

    claim: Claim
    scope_name: str
    scope: ClaimScope
    compare: tuple[Compared, ...]
    effects: tuple[float | None, ...]
    seeds: int | None = None

    @property
    def smallest_effect(self) -> float | None:
        if self.claim.hypothesis not in ("lower", "higher"):
            return None
        return self.claim.smallest_effect or self.scope.smallest_effect

    @property
    def compared(self) -> str | None:
        """The comparison that the verdict is about, where a claim has a verdict for each; else None."""
        return str(self.compare[0]) if self.claim.combine == "each" else None

    def names(self) -> Iterator[dict[str, str]]:
        """The five names of every configuration that the test compares, baselines first; some more than once."""
        for baseline in (True, False):
            for compared in self.compare:
                for noise in self.scope.noise:
                    yield self.scope.names(noise, compared, baseline=baseline)

    @property
    def difference(self) -> tuple[object, ...]:
        """What is estimated, and on which side: superiority and non-inferiority of one difference are one test."""
        claim, scope = self.claim, self.scope
        place = (scope.dataset, scope.noise, scope.model, scope.recipe, scope.metric)
        wide = (scope.wide_model, scope.wide_recipe) if any(one.wide_baseline for one in self.compare) else None
        level = claim.levels.get(self.scope_name)
        return claim.quantity, level, claim.hypothesis == "higher", claim.combine == "mean", self.compare, place, wide


class FirstEffect(Record):
    """A comparison as the first study found it, in the claim's unit. low, high: 95 % interval, not adjusted."""

    compared: Line
    estimate: float
    low: float
    high: float


class Replicated(Record):
    """A test that ``profile`` has decided and that another one makes again, with the seeds of the look that decided.

    claim, scope: of ``papers/claims.yaml``. compared: where each comparison has a verdict of its own. effects: those
    that the first verdict rests on.
    """

    profile: Name
    claim: Name
    scope: Name
    compared: Line | None = None
    verdict: Literal["supported", "refuted"]
    seeds: Annotated[int, Field(ge=2, le=1000)]
    effects: Annotated[tuple[FirstEffect, ...], Field(min_length=1)]


class Replications(Record):
    """The whole of ``papers/replications.yaml``: the tests of each profile that replicates others."""

    replications: dict[Name, Annotated[tuple[Replicated, ...], Field(min_length=1)]]


class Untested(Record):
    """A statement of a text that no comparison of runs decides, with the reason."""

    paper: Name
    statement: Line
    source: ClaimSource
    reason: Line


class Claims(Record):
    """The whole of ``papers/claims.yaml``, and the tests that ``papers/replications.yaml`` makes again."""

    designs: dict[Name, DesignConfig] = Field(default_factory=dict)
    scopes: dict[Name, ClaimScope]
    claims: tuple[Claim, ...]
    untested: Annotated[tuple[Untested, ...], NO_REPEATS] = ()
    _replicated: dict[str, tuple[Replicated, ...]] = PrivateAttr(default_factory=dict)

    @property
    def replicated(self) -> dict[str, tuple[Replicated, ...]]:
        """Profile → the tests that it makes again."""
        return self._replicated

    def with_replications(self, replicated: dict[str, tuple[Replicated, ...]]) -> Self:
        """These claims, with tests that some profiles make again."""
        claims = self.model_copy()
        claims._replicated = replicated
        return claims

    def tests(self, claim: Claim, profile: str) -> tuple[ClaimTest, ...]:
        """What a claim has verdicts on in a profile, in the order of its scopes and comparisons."""
        everywhere = list(self._tests(claim))
        again = {
            (one.scope, one.compared): one.seeds for one in self.replicated.get(profile, ()) if one.claim == claim.id
        }
        return (
            *(test for test in everywhere if test.scope.profile == profile),
            *(
                replace(test, scope=test.scope.model_copy(update={"profile": profile}), seeds=seeds)
                for test in everywhere
                if (seeds := again.get((test.scope_name, test.compared)))
            ),
        )

    def _tests(self, claim: Claim) -> Iterator[ClaimTest]:
        """The tests of a claim in all of its scopes."""
        for name in claim.scopes:
            scope = self.scopes[name]
            effects: tuple[float | None, ...] = claim.published_effects.get(name, (None,) * len(claim.compare))
            if claim.combine != "each":
                yield ClaimTest(claim, name, scope, claim.compare, effects)
                continue
            for compared, effect in zip(claim.compare, effects, strict=True):
                yield ClaimTest(claim, name, scope, (compared,), (effect,))

    def seeds(self, name: str, profile: ProfileConfig) -> set[int]:
        """Every seed that a profile may use, up to its last look."""
        counts = [profile.seeds, *(table.seeds or 0 for table in profile.tables)]
        counts += [self.designs[name].looks[-1]] if name in self.designs else []
        counts += [test.seeds for test in self.replicated.get(name, ())]
        return set(profile.seed_range(max(counts)))

    def family_size(self, paper: str, profile: str, *, costs: bool = False) -> int:
        """How many differences of a paper are tested in a profile: of costs, or of everything else."""
        return len(
            {
                test.difference
                for claim in self.claims
                if claim.paper == paper and claim.is_tested and claim.is_cost == costs
                for test in self.tests(claim, profile)
            }
        )
