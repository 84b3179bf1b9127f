"""Verdicts on the papers' claims, one for each claim in each scope, by rules that were fixed beforehand.

The rules are those of :mod:`collabench.stats`; ``docs/statistics.md`` says them in words. Costs are evaluated
separately from errors, because they are measured again whenever runs are repeated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from collabench.config.params import Params
from collabench.config.plan import Plan
from collabench.papers.claims import Claim, Claims, ClaimScope, Compared
from collabench.report import titles
from collabench.report.claim_records import UNITS, ClaimReport, ClaimVerdict, PartVerdict, ScopeVerdict
from collabench.report.claim_values import ClaimRuns, Differences, mean_of, paired_differences, why_not_comparable
from collabench.report.collect import Collected
from collabench.report.content import LEVEL, rounded
from collabench.stats import (
    Hypothesis,
    Verdict,
    all_parts,
    conjunction_p,
    equality,
    holm,
    one_sample,
    simultaneous_interval,
)
from collabench.storage.workspace import Workspace


def evaluate(
    claims: Claims,
    params: Params,
    collected: Collected,
    workspace: Workspace,
    kind: Literal["results", "costs"],
    *,
    partial: bool = False,
) -> ClaimReport:
    """Verdicts on the claims of one kind in the profile of ``collected``."""
    profile = collected.plan.profile
    where = _describe_scopes(claims, params)
    families = {paper: claims.family_size(paper, profile) for paper in dict.fromkeys(c.paper for c in claims.claims)}
    chosen = [claim for claim in claims.claims if claim.is_cost == (kind == "costs")]
    found = ClaimRuns(collected, workspace)
    verdicts: dict[str, list[ScopeVerdict]] = {}
    for claim in chosen:
        verdicts[claim.id] = [
            _scope(claim, name, claims.scopes[name], where[name], found, families[claim.paper])
            for name in claim.scopes
            if claims.scopes[name].profile == profile
        ]
    _adjust(chosen, verdicts, families)
    report = ClaimReport(
        profile=profile,
        kind=kind,
        partial=partial,
        level=LEVEL,
        families={paper: size for paper, size in families.items() if size},
        claims=tuple(_claim(claim, claims, verdicts[claim.id], where, collected.plan, params) for claim in chosen),
        untested=claims.untested if kind == "results" else (),
    )
    return ClaimReport.model_validate_json(json.dumps(rounded(json.loads(report.model_dump_json()))))


# ------------------------------------------------------------------------------------------ from values to verdicts


def _scope(
    claim: Claim, name: str, scope: ClaimScope, where: titles.Parts, runs: ClaimRuns, family: int
) -> ScopeVerdict:
    if claim.quantity == "network":
        parts = [_same_network(scope, compared, runs) for compared in claim.compare]
        verdict, p = all_parts([part.verdict for part in parts]), None
    else:
        parts, refuting, p = _tested_parts(claim, name, scope, runs, family)
        verdict = all_parts([part.verdict for part in parts], refuting)
    note = None
    if claim.is_cost and verdict != "not run":
        note = why_not_comparable(claim, scope, runs)
        if note is not None:
            parts = [part.model_copy(update={"verdict": "inconclusive", "seeds_needed": None}) for part in parts]
            verdict, p = "inconclusive", None
    if verdict == "not run":
        note = next(part.note for part in parts if part.verdict == "not run")
    return ScopeVerdict(
        scope=name,
        where=where,
        published=scope.published,
        declared_after_runs=scope.declared_after_runs,
        verdict=verdict,
        p=p,
        parts=tuple(parts),
        note=note,
    )


def _tested_parts(
    claim: Claim, name: str, scope: ClaimScope, runs: ClaimRuns, family: int
) -> tuple[list[PartVerdict], list[Verdict], float | None]:
    """The parts, their verdicts at the level at which a single part refutes, and the p value of the whole claim."""
    found = [paired_differences(claim, name, scope, compared, runs) for compared in claim.compare]
    names = [str(compared) for compared in claim.compare]
    effects: Sequence[float | None] = claim.published_effects.get(name, [None] * len(found))
    if claim.combine == "mean":
        known = [effect for effect in effects if effect is not None]
        found, names = [mean_of(found)], [f"mean of {len(names)} comparisons: {'; '.join(names)}"]
        effects = [float(np.mean(known)) if known else None]
    parts, refuting, p_values = [], [], []
    for one, compared, effect in zip(found, names, effects, strict=True):
        part, alone, p = _part(claim, one, compared, effect, family, len(found))
        parts.append(part)
        refuting.append(alone)
        p_values.append(p)
    return parts, refuting, parts[0].p if len(parts) == 1 else conjunction_p(p_values)


def _part(
    claim: Claim, found: Differences, compared: str, effect: float | None, family: int, parts: int
) -> tuple[PartVerdict, Verdict, float | None]:
    if found.missing is not None:
        part = PartVerdict(compared=compared, n=0, published_effect=effect, verdict="not run", note=found.missing)
        return part, "not run", None
    # Costs are compared as ratios, that is, as differences of logarithms. Shares in the claim are converted to such
    # differences.
    to_unit: Callable[[float], float] = math.exp if claim.is_cost else float
    scale: Callable[[float], float] = math.log1p if claim.is_cost else float
    hypothesis = Hypothesis(
        side="above" if claim.hypothesis == "higher" else "below",
        smallest_effect=None if claim.smallest_effect is None else scale(claim.smallest_effect),
        margin=None if claim.margin is None else scale(claim.margin),
    )
    test = one_sample(found.values, LEVEL, found.magnitude)
    against = test if hypothesis.margin is None else hypothesis.test(found.values, LEVEL, found.magnitude)
    interval = simultaneous_interval(test, family, LEVEL)
    verdict, alone = hypothesis.verdicts(test, LEVEL, family, parts)
    needed, note = None, None
    if test.n < 2:
        note = "one seed has no interval"
    elif not test.sd:
        note = "all differences are equal, so that there is no interval"
    elif verdict == "inconclusive":
        plan = hypothesis.seeds_needed(effect, test, LEVEL, family)
        needed, note = plan.seeds, plan.reason
    part = PartVerdict(
        compared=compared,
        n=test.n,
        estimate=to_unit(test.difference),
        low=_mapped(to_unit, test.low),
        high=_mapped(to_unit, test.high),
        adjusted_low=_mapped(to_unit, interval[0]),
        adjusted_high=_mapped(to_unit, interval[1]),
        p=against.p,
        sign_flip_p=against.sign_flip_p,
        published_effect=effect,
        seeds_needed=needed,
        verdict=verdict,
        note=note,
    )
    return part, alone, hypothesis.p_of_support(against)


def _mapped(function: Callable[[float], float], value: float | None) -> float | None:
    return None if value is None else function(value)


def _same_network(scope: ClaimScope, compared: Compared, runs: ClaimRuns) -> PartVerdict:
    cells = [runs.cell(scope, scope.noise[0], compared, baseline=baseline) for baseline in (False, True)]
    for cell, method in zip(cells, (compared.method, compared.baseline), strict=True):
        if cell is None:
            note = f"no table of this profile holds {method}"
            return PartVerdict(compared=str(compared), n=0, verdict="not run", note=note)
    found = [runs.weights(cell) for cell in cells if cell is not None]
    deployed, plain = found
    if deployed is None or plain is None:
        return PartVerdict(compared=str(compared), n=0, verdict="not run", note="no runs")
    known = bool(deployed[1] and plain[1])
    equal = deployed == plain if known or deployed[0] != plain[0] else None
    said = {
        True: f", the same {len(plain[1])} tensors by name and shape",
        False: ", or other tensors",
        None: "; the weights are not stored here",
    }[equal]
    note = f"{deployed[0]:,} against {plain[0]:,} parameters{said}"
    return PartVerdict(compared=str(compared), n=0, verdict=equality(equal), note=note)


# -------------------------------------------------------------------------------------------------- across claims


def _adjust(chosen: Sequence[Claim], verdicts: dict[str, list[ScopeVerdict]], families: Mapping[Any, int]) -> None:
    """Fill in Holm's adjusted p values. Declared tests without a p value count as if it were 1."""
    for paper, size in families.items():
        keys = [(c.id, index) for c in chosen if c.paper == paper for index in range(len(verdicts[c.id]))]
        adjusted = holm([verdicts[claim][index].p for claim, index in keys], size) if size else []
        for (claim, index), p in zip(keys, adjusted, strict=False):
            verdicts[claim][index] = verdicts[claim][index].model_copy(update={"holm_p": p})


def _claim(
    claim: Claim, claims: Claims, scopes: list[ScopeVerdict], where: dict[str, titles.Parts], plan: Plan, params: Params
) -> ClaimVerdict:
    others = [name for name in claim.scopes if claims.scopes[name].profile != plan.profile]
    elsewhere = tuple(
        f"{', '.join(where[name])} ({f'profile {owner}' if (owner := claims.scopes[name].profile) else 'no profile'})"
        for name in others
    )
    words = {scope.verdict for scope in scopes}
    verdict = "not run" if not words else words.pop() if len(words) == 1 else "mixed"
    return ClaimVerdict(
        id=claim.id,
        paper=claim.paper,
        statement=claim.statement,
        source=str(claim.source),
        reading=claim.reading,
        hypothesis=_hypothesis(claim),
        unit=UNITS[claim.quantity],
        verdict=verdict,
        line=_line(scopes, _published_data(others, claims, params), [claims.scopes[name].profile for name in others]),
        scopes=tuple(scopes),
        elsewhere=elsewhere,
    )


def _line(scopes: list[ScopeVerdict], unrun: Sequence[str], profiles: Iterable[str | None]) -> str:
    """``supported on digits, 20 % noise; not run on CIFAR-100``.

    unrun: published data sets that have no scope here. profiles: those of the scopes that are tested elsewhere.
    """
    grouped: dict[str, list[str]] = {}
    for scope in scopes:
        grouped.setdefault(scope.verdict, []).append(", ".join(scope.where[:3]))
    if unrun:
        grouped.setdefault("not run", []).append(", ".join(unrun))
    told = [f"{verdict} on {', and on '.join(places)}" for verdict, places in grouped.items()]
    others = sorted({profile for profile in profiles if profile})
    if not scopes:
        told.append(f"tested in the profile{'s' if len(others) > 1 else ''} {', '.join(others)}" if others
                    else "no profile holds its runs")  # fmt: skip
    return "; ".join(told)


def _published_data(names: Sequence[str], claims: Claims, params: Params) -> list[str]:
    """The data sets of the published scopes, each once."""
    chosen = [claims.scopes[name] for name in names if claims.scopes[name].published]
    return list(dict.fromkeys(titles.dataset(scope.dataset, params.datasets[scope.dataset]) for scope in chosen))


def _hypothesis(claim: Claim) -> str:
    """The hypothesis in words, including its margin."""
    levels = " or ".join(f"{level:g}" for level in sorted(set(claim.levels.values())))
    quantity = {
        "error": "test error after the last epoch",
        "error_growth": "slope of the test error after the last epoch over the noise rate",
        "epochs_to_level": f"first epoch with a test error of at most {levels} % (never reached: one more than all)",
        "train_seconds": "training time, with the runs that a method needs first",
        "peak_memory": "peak memory in training",
        "network": "deployed network",
    }[claim.quantity]
    size = claim.smallest_effect if claim.smallest_effect is not None else claim.margin
    unit = UNITS[claim.quantity]
    amount = "" if size is None else f"{100 * size:g} %" if claim.is_cost else f"{size:g} {unit}"
    relation = {
        "lower": f"lower; smallest effect of interest {amount}",
        "higher": f"higher; smallest effect of interest {amount}",
        "no_worse": f"not higher by {amount} or more (non-inferiority)",
        "same": "has the same parameters: number, names and shapes of its tensors",
    }[claim.hypothesis]
    compared = "; ".join(str(one) for one in claim.compare)
    needed = ""
    if len(claim.compare) > 1:
        needed = " (mean of all)" if claim.combine == "mean" else " (all are needed)"
    return f"{quantity}: {relation}. Compared{needed}: {compared}"


def _describe_scopes(claims: Claims, params: Params) -> dict[str, titles.Parts]:
    """Scope → data set, noise, backbone and recipe in words, without the method."""
    return {name: _describe(scope, params) for name, scope in claims.scopes.items()}


def _describe(scope: ClaimScope, params: Params) -> titles.Parts:
    noise = " / ".join(titles.noise(params.noise[name]) for name in scope.noise)
    return (
        titles.dataset(scope.dataset, params.datasets[scope.dataset]),
        noise,
        titles.model(scope.model, params.models[scope.model]),
        titles.recipe(params.recipes[scope.recipe]) + (", top-5 error" if scope.metric == "top5_error" else ""),
    )
