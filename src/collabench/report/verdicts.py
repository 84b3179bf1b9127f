"""Verdicts on the papers' claims, one for each claim in each scope, by rules that were fixed beforehand.

The rules are those of :mod:`collabench.stats`; ``docs/statistics.md`` says them in words. Costs are evaluated
separately from errors, because they are measured again whenever runs are repeated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from collabench.config.configuration import Run
from collabench.config.params import Params
from collabench.config.plan import Plan
from collabench.core.errors import ResultError
from collabench.papers.citations import cited_claim
from collabench.papers.claim_schema import Claim, Claims, ClaimScope, ClaimTest, Compared
from collabench.papers.tables import read_abouts
from collabench.report import titles
from collabench.report.claim_records import UNITS, ClaimReport, ClaimVerdict, PartVerdict, ScopeVerdict
from collabench.report.claim_values import Differences, why_not_comparable
from collabench.report.collect import Collected, check_further
from collabench.report.content import LEVEL, rounded
from collabench.report.looks import Looked, Looks
from collabench.stats import Part, PartOutcome, all_parts, equality, simultaneous_level
from collabench.storage.results import RESULT, Result, load_result
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
    """Verdicts on the claims of one kind in the profile of ``collected``.

    Seeds after the first look, which no table shows, are read from the workspace. Raises ResultError if one of them is
    damaged (unless ``partial``), or not comparable with the others.
    """
    profile = collected.plan.profile
    where = describe_scopes(claims, params)
    chosen = [claim for claim in claims.claims if claim.is_cost == (kind == "costs")]

    def read(run: Run, workspace: Workspace) -> Result | None:
        folder = workspace.folder(run)
        try:
            return load_result(folder, run) if (folder / RESULT).exists() else None
        except ResultError:
            if not partial:
                raise
            return None

    looks = Looks(claims, params, collected, workspace, read)
    abouts = read_abouts(workspace.papers)
    papers = dict.fromkeys(claim.paper for claim in claims.claims)
    families = {paper: claims.family_size(paper, profile, costs=kind == "costs") for paper in papers}
    scopes = {
        claim.id: [_scope(test, where[test.scope_name], looks) for test in claims.tests(claim, profile)]
        for claim in chosen
    }
    check_further(collected, looks.runs.further, workspace)
    report = ClaimReport(
        profile=profile,
        kind=kind,
        partial=partial,
        level=LEVEL,
        families={paper: size for paper, size in families.items() if size},
        claims=tuple(
            _claim(
                claim,
                cited_claim(abouts, claim.paper, claim.source),
                claims,
                scopes[claim.id],
                where,
                collected.plan,
                params,
            )
            for claim in chosen
        ),
        untested=claims.untested if kind == "results" else (),
    )
    return ClaimReport.model_validate_json(json.dumps(rounded(json.loads(report.model_dump_json()))))


# ------------------------------------------------------------------------------------------ from values to verdicts


def _scope(test: ClaimTest, where: titles.Parts, looks: Looks) -> ScopeVerdict:
    found = ScopeVerdict(
        scope=test.scope_name,
        where=where,
        published=test.scope.published,
        declared_after_runs=test.scope.declared_after_runs,
        compared=test.compared,
        smallest_effect=test.smallest_effect,
        pilot=test.scope.pilot if test.claim.smallest_effect is None else None,
        verdict="not run",
    )
    if not test.claim.is_tested:
        same = tuple(_same_network(test.scope, compared, looks) for compared in test.compare)
        return _with_note(found.model_copy(update={"verdict": all_parts([p.verdict for p in same]), "parts": same}))
    looked = looks.look(test)
    outcome, design = looked.outcome, looked.design
    parts = [
        _part(looked, index, differences, name, effect)
        for index, (differences, (name, effect)) in enumerate(zip(looked.parts, _parts_of(test), strict=True))
    ]
    found = found.model_copy(
        update={
            "verdict": "not run" if looked.missing else outcome.verdict,
            "p": outcome.p,
            "adjusted_p": outcome.adjusted_p,
            "parts": tuple(parts),
            "look": outcome.look,
            "looks": design.looks,
            "n": outcome.n,
            "spent": outcome.spent,
            "error": design.error,
            "stopped": outcome.stopped,
        }
    )
    reason = why_not_comparable(test.claim, test.scope, looks.runs) if test.claim.is_cost else None
    if reason is not None and found.verdict != "not run":
        undecided = [part.model_copy(update={"verdict": "inconclusive", "seeds_needed": None}) for part in parts]
        changes = {"verdict": "inconclusive", "p": None, "adjusted_p": None, "parts": tuple(undecided), "note": reason}
        return found.model_copy(update=changes)
    if not looked.missing and looked.complete < design.looks[0]:
        note = f"the first look needs {design.looks[0]} seeds without a gap, {looked.complete} are there"
        return found.model_copy(update={"note": note})
    return _with_note(found)


def _with_note(found: ScopeVerdict) -> ScopeVerdict:
    if found.verdict != "not run":
        return found
    return found.model_copy(update={"note": next(part.note for part in found.parts if part.verdict == "not run")})


def _parts_of(test: ClaimTest) -> list[tuple[str, float | None]]:
    """Each part in words, and the effect that was published."""
    names = [str(compared) for compared in test.compare]
    if test.claim.combine != "mean":
        return list(zip(names, test.effects, strict=True))
    known = [effect for effect in test.effects if effect is not None]
    mean = math.fsum(known) / len(known) if known else None
    return [(f"mean of {len(names)} comparisons: {'; '.join(names)}", mean)]


def _part(looked: Looked, index: int, found: Differences, compared: str, effect: float | None) -> PartVerdict:
    if found.missing is not None:
        return PartVerdict(compared=compared, n=0, published_effect=effect, verdict="not run", note=found.missing)
    hypothesis = looked.hypothesis
    n = looked.outcome.n or found.values.size  # not enough for a look: what is there is shown, and decides nothing
    test, against = Part(found.values, found.sizes).first(n, hypothesis, sensitivity=True)
    decided: PartOutcome | None = looked.outcome.parts[index] if looked.outcome.look else None
    interval = (None, None) if decided is None else decided.interval
    verdict = "inconclusive" if decided is None else decided.verdict
    # Costs are compared as ratios, that is, as differences of logarithms.
    to_unit: Callable[[float], float] = math.exp if looked.test.claim.is_cost else float
    needed, note = None, None
    if test.n < 2:
        note = "one seed has no interval"
    elif not test.sd:
        note = "all differences are equal, so that there is no interval"
    elif verdict == "inconclusive":
        last = simultaneous_level(looked.design.level(len(looked.design.looks)), looked.family)
        plan = hypothesis.seeds_needed(effect, test, last)
        needed, note = plan.seeds, plan.reason
    return PartVerdict(
        compared=compared,
        n=test.n,
        estimate=to_unit(test.difference),
        low=_mapped(to_unit, test.low),
        high=_mapped(to_unit, test.high),
        adjusted_low=_mapped(to_unit, interval[0]),
        adjusted_high=_mapped(to_unit, interval[1]),
        adjusted_level=decided.level if decided is not None and interval[0] is not None else None,
        p=against.p,
        sign_flip_p=against.sign_flip_p,
        published_effect=effect,
        seeds_needed=needed,
        verdict=verdict,
        note=note,
    )


def _mapped(function: Callable[[float], float], value: float | None) -> float | None:
    return None if value is None else function(value)


def _same_network(scope: ClaimScope, compared: Compared, looks: Looks) -> PartVerdict:
    runs = looks.runs
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


def _claim(
    claim: Claim,
    source: str,
    claims: Claims,
    scopes: list[ScopeVerdict],
    where: dict[str, titles.Parts],
    plan: Plan,
    params: Params,
) -> ClaimVerdict:
    here = {scope.scope for scope in scopes}
    others = [name for name in claim.scopes if name not in here]
    elsewhere = tuple(
        f"{', '.join(where[name])} ({f'profile {owner}' if (owner := claims.scopes[name].profile) else 'no profile'})"
        for name in others
    )
    unrun = _published_data(others, claims, params)
    words = {scope.verdict for scope in scopes}
    verdict = "not run" if not words else words.pop() if len(words) == 1 else "mixed"
    return ClaimVerdict(
        id=claim.id,
        paper=claim.paper,
        statement=claim.statement,
        source=source,
        reading=claim.reading,
        hypothesis=_hypothesis(claim),
        unit=UNITS[claim.quantity],
        verdict=verdict,
        line=_line(scopes, unrun, [claims.scopes[name].profile for name in others]),
        scopes=tuple(scopes),
        elsewhere=elsewhere,
        unrun=tuple(unrun),
    )


def _line(scopes: list[ScopeVerdict], unrun: Sequence[str], profiles: Iterable[str | None]) -> str:
    """``supported on digits, 20 % noise; not run on CIFAR-100``.

    unrun: published data sets that have no scope here. profiles: those of the scopes that are tested elsewhere.
    """
    grouped: dict[str, list[str]] = {}
    for scope in scopes:
        place = ", ".join([*([scope.compared] if scope.compared else []), *scope.where[:3]])
        analogue = "an analogue: " if scope.is_analogue else ""
        grouped.setdefault(scope.state, []).append(analogue + place)
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
    least = f"smallest effect of interest {amount or 'as its scope states'}"
    relation = {
        "lower": f"lower; {least}",
        "higher": f"higher; {least}",
        "no_worse": f"not higher by {amount} or more (non-inferiority)",
        "same": "has the same parameters: number, names and shapes of its tensors",
    }[claim.hypothesis]
    compared = "; ".join(str(one) for one in claim.compare)
    needed = ""
    if len(claim.compare) > 1:
        needed = {"mean": " (mean of all)", "all": " (all are needed)", "each": " (a test each)"}[claim.combine]
    return f"{quantity}: {relation}. Compared{needed}: {compared}"


def describe_scopes(claims: Claims, params: Params) -> dict[str, titles.Parts]:
    """Scope → data set, noise, backbone and recipe in words, without the method."""
    return {name: _describe(scope, params) for name, scope in claims.scopes.items()}


def _describe(scope: ClaimScope, params: Params) -> titles.Parts:
    dataset = params.datasets[scope.dataset]
    noise = " / ".join(titles.noise(params.noise[name], dataset) for name in scope.noise)
    return (
        titles.dataset(scope.dataset, dataset),
        noise,
        titles.model(scope.model, params.models[scope.model]),
        titles.recipe(params.recipes[scope.recipe], dataset)
        + (", top-5 error" if scope.metric == "top5_error" else ""),
    )
