"""The pages on the papers' claims: the claims page, the section of the overview, and CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas

from collabench.config.configuration import READINGS
from collabench.core.text import counted
from collabench.papers.citations import cited_claim
from collabench.papers.schema import About
from collabench.report.claim_records import ClaimReport, ClaimVerdict, PartVerdict, ScopeVerdict
from collabench.report.formatting import NOTHING, markdown, number, p_value, safe_cells
from collabench.report.pages import undecided
from collabench.storage.files import write_json

PAGE, JSON, CSV = "claims.md", "claims.json", "claims.csv"

UNTUNED = "Refuted: with weights that were not tuned here (`fang2021` chose its own by a grid search)."

WORDS = ("supported", "refuted", "inconclusive", "not run")

HOW_DECIDED = """\
The interval decides. It is a t interval of the paired difference over seeds. All tests of one paper in this profile
are a family. A family holds a wrong verdict in at most 5 % of studies; it spends 4 %, because skewed differences raise
that rate. `papers/claims.yaml` declares before the runs at which numbers of seeds a test is looked at and which share
of the error each look spends. The first look that decides freezes the verdict. **Supported**: the interval lies wholly
on the claimed side. **Refuted**: it lies wholly on the other side, or wholly inside the smallest effect of interest.
**Inconclusive**: neither. **Stopped**: at any truth within one standard error of the estimate the last look would
decide nothing, so that no more seeds are trained. **Open**: a further look could decide, and its seeds are not trained
yet. **Not run**: without runs. “No worse” needs the interval to stay within the margin. A claim with several parts
needs all of them, and one part refutes it only at a level corrected for their number. Estimates are method minus
baseline. An estimate that was frozen at an early look overstates the effect on average.

A verdict holds for its scope (data set, noise, backbone, epochs) and for training randomness on a fixed test set, or
for the whole pool of images where the split is drawn per seed. *Analogue*: data set or backbone are not the paper's.
The methods' weights were not tuned here: each has the weights that its paper states, or that this project fixed.
`fang2021` chose its weights by a grid search.

p: two-sided paired t test against zero, for “no worse” against the margin, on either side of it; of a claim with
several parts the largest, 1 for a part on the other side, so that it speaks of support alone. Adjusted p: the smallest
one-sided p of support over the looks, each multiplied by the size of the family and divided by the look's share of the
error. Sign-flip p: exact, of the same hypothesis, a sensitivity check, which with n pairs cannot fall below 2 / 2ⁿ
(0.0625 with five: there it is left out). Seeds needed: for 80 % power, at the last look's level, at the published
effect or, without one, the smallest effect of interest, for “no worse” the margin, from an upper 80 % limit of the
standard deviation. `docs/statistics.md` says more.
"""


def write_claims(folder: Path, report: ClaimReport, abouts: Mapping[str, About]) -> None:
    """Write the page, as markdown, JSON and CSV. Writes nothing if no claim is declared.

    abouts: paper → ``paper.yaml``, by which sources are cited.
    """
    from collabench.report.formatting import write_csv

    if report.claims:
        (folder / PAGE).write_bytes(page(report, abouts).encode())
        write_json(folder / JSON, report)
        write_csv(folder / CSV, numbers(report))


# ----------------------------------------------------------------------------------------------------- the overview


def overview(results: ClaimReport, costs: ClaimReport) -> list[str]:
    """The section of the report's overview; empty if no claim is declared.

    Claims about costs are only counted: their verdicts change with every measurement and are shown with the costs.
    """
    if not results.claims and not costs.claims:
        return []
    lines = ["## What the papers claim"]
    if not results.here() and not costs.here():
        lines.append(f"No claim is declared for this profile; which profiles test them: [{PAGE}]({PAGE}).")
    if results.here():
        shared, frame = verdict_table(results)
        lines += [
            f"{verdict_counts(results)}. Verdicts hold for their scope only; a paper's family of tests holds a wrong "
            f"one in at most 5 % of studies. Rules, intervals and the claims not run here: [{PAGE}]({PAGE}).",
            *([f"On {shared}:"] if shared else []),
            safe_cells(frame).to_markdown(index=False, disable_numparse=True),
            *_caveats(results),
            *(
                [f"Why tests are undecided, test by test: [{PAGE}]({PAGE}#{undecided.ANCHOR})."]
                if undecided.is_needed(results)
                else []
            ),
        ]
    if costs.here():
        lines.append(
            f"{counted(len(costs.here()), 'claim')} about training time and memory: [costs/{PAGE}](costs/{PAGE}), as "
            "measured."
        )
    return lines


def _caveats(report: ClaimReport) -> list[str]:
    """What a reader must know beside the words of the verdicts that stand there."""
    scopes = [scope for claim in report.here() for scope in claim.scopes]
    lines = []
    if any(scope.is_analogue for scope in scopes):
        lines.append("Analogue: data set or backbone are not those of the paper.")
    if any(scope.verdict == "refuted" for scope in report.verdicts(tested=True)):
        lines.append(UNTUNED)
    return [" ".join(lines)] if lines else []


def verdict_counts(report: ClaimReport) -> str:
    """``16 tests on 12 claims: 6 supported, 3 refuted, 7 inconclusive``, and apart from these what no test decides."""
    told = []
    for tested, noun in ((True, "test"), (False, "comparison")):
        claims = [claim for claim in report.here() if claim.is_tested == tested]
        verdicts = [scope for claim in claims for scope in claim.scopes]
        if not verdicts:
            continue
        states = [scope.state for scope in verdicts]
        counts = ", ".join(f"{states.count(word)} {word}" for word in (*WORDS, "stopped", "open") if word in states)
        told.append(
            f"{counted(len(verdicts), noun)} {'on' if tested else 'of networks, without a test, on'} "
            f"{counted(len(claims), 'claim')}: {counts}"
        )
    return "; ".join(told)


def verdict_table(report: ClaimReport) -> tuple[str, pandas.DataFrame]:
    """The common part of all scopes, in words, and one row for each claim that is tested here."""
    shared = _shared(report)
    rows = [
        {
            "Paper": claim.paper + (" (our reading)" if claim.paper in READINGS else ""),
            "Claim": claim.statement,
            "Verdict": _verdicts(claim, shared),
        }
        for claim in report.here()
    ]
    return ", ".join(shared), pandas.DataFrame(rows)


def _pieces(scope: ScopeVerdict) -> list[str]:
    """The parts of a scope, and what its last one says of the training, a piece each."""
    *parts, training = scope.where
    return [*parts, *re.split(r", (?![^(]*\))", training)]


def _shared(report: ClaimReport) -> list[str]:
    """What all scopes of a report have in common, in their order."""
    pieces = [_pieces(scope) for claim in report.here() for scope in claim.scopes]
    return [piece for piece in pieces[0] if all(piece in others for others in pieces)] if pieces else []


def _own_pieces(scope: ScopeVerdict, shared: Sequence[str]) -> list[str]:
    return [piece for piece in _pieces(scope) if piece not in shared]


def _verdicts(claim: ClaimVerdict, shared: Sequence[str]) -> str:
    """``**refuted**, analogue (20 % uniform noise; clean labels)``: each verdict with what is not common to all scopes;
    with the methods, where each is a test: ``**open**: simple-2 and simple-4 against individual (clean labels)``."""
    grouped: dict[str, dict[str, list[str]]] = {}
    for scope in claim.scopes:
        own = _own_pieces(scope, shared)
        own += ["hypothesis younger than its runs"] if scope.declared_after_runs and claim.unit else []
        places = grouped.setdefault(f"**{scope.state}**" + (", analogue" if scope.is_analogue else ""), {})
        places.setdefault(", ".join(own), []).extend([scope.compared] if scope.compared is not None else [])
    told = []
    for verdict, places in grouped.items():
        if any(places.values()):
            tests = [_against(compared) + (f" ({own})" if own else "") for own, compared in places.items()]
            told.append(f"{verdict}: {'; '.join(tests)}")
        else:
            told.append(verdict + (f" ({'; '.join(places)})" if any(places) else ""))
    return "; ".join(told)


def _against(compared: Sequence[str]) -> str:
    """``simple-2 and simple-4 against individual``, of comparisons with the same baseline."""
    methods: dict[str, list[str]] = {}
    for one in compared:
        method, _, baseline = one.partition(" against ")
        methods.setdefault(baseline, []).append(method)
    return ", ".join(
        " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) + (f" against {baseline}" if baseline else "")
        for baseline, names in methods.items()
    )


# --------------------------------------------------------------------------------------------------------- the page


def page(report: ClaimReport, abouts: Mapping[str, About]) -> str:
    """The claims page of one kind: a line for each claim, then each claim's hypothesis, numbers and verdicts."""
    about = "about training time and memory, " if report.kind == "costs" else ""
    families = "; ".join(f"{paper}: {size}" for paper, size in report.families.items())
    other = {"results": "[claims about time and memory](costs/claims.md)", "costs": "[costs](README.md)"}[report.kind]
    lines = [
        f"# Claims of the papers, {about}in the profile `{report.profile}`",
        "[Overview](README.md) · " + other if report.kind == "results" else other,
    ]
    if report.partial:
        lines.append("**Partial report: some runs are missing; n says how many pairs there are.**")
    lines.append(HOW_DECIDED.strip())
    lines.append(
        f"Differences tested in this profile, the size of each paper's family: {families or 'none'}. "
        f"Those of {'costs' if report.kind == 'results' else 'errors'} are a family of their own."
    )
    shared = _shared(report)
    if shared:
        lines.append(f"All tests here ran on {', '.join(shared)}.")
    for paper in dict.fromkeys(claim.paper for claim in report.claims):
        claims = [claim for claim in report.claims if claim.paper == paper]
        lines += [f"## {paper}", *([f"These are results of {READINGS[paper]}."] if paper in READINGS else [])]
        tested, others = [c for c in claims if c.scopes], [c for c in claims if not c.scopes]
        lines += ["\n".join(_verdict_line(claim, shared) for claim in tested)] if tested else []
        not_run = "\n".join(f"- {claim.statement} ({claim.line})" for claim in others)
        lines += ["Not run in this profile:", not_run] if others else []
        untested = [
            f"- {one.statement} ({cited_claim(abouts, one.paper, one.source)}) {one.reason}"
            for one in report.untested
            if one.paper == paper
        ]
        lines += ["Also stated, and decided by no comparison of runs:", "\n".join(untested)] if untested else []
    lines += undecided.section(report, lambda scope: ", ".join(_own_pieces(scope, shared)))
    lines.append("---")
    for claim in report.here():
        lines += _claim(claim)
    return "\n\n".join(lines) + "\n"


def _verdict_line(claim: ClaimVerdict, shared: Sequence[str]) -> str:
    elsewhere = f"; **not run** on {', '.join(claim.unrun)}" if claim.unrun else ""
    return f"- [{claim.statement}](#{claim.id}) {_verdicts(claim, shared)}{elsewhere}"


def _claim(claim: ClaimVerdict) -> list[str]:
    lines = [f"### {claim.id}", f"{claim.statement} ({claim.source})", f"Hypothesis: {claim.hypothesis}."]
    if claim.reading:
        lines.append(f"Reading: {claim.reading}")
    for scope in claim.scopes:
        lines += _scope(claim, scope)
    if claim.elsewhere:
        lines.append(f"Not run here: {'; '.join(claim.elsewhere)}.")
    return lines


def _scope(claim: ClaimVerdict, scope: ScopeVerdict) -> list[str]:
    late = " (hypothesis written down after these runs)" if scope.declared_after_runs and claim.unit else ""
    p = f"; p {p_value(scope.p)}, adjusted p {p_value(scope.adjusted_p)}" if scope.p is not None else ""
    note = f" ({scope.note})" if scope.note else ""
    of = f"{scope.compared}, " if scope.compared else ""
    analogue = "an analogue: " if scope.is_analogue else ""
    lines = [f"**{scope.state}** on {analogue}{of}{', '.join(scope.where)}{late}{p}{note}."]
    if scope.verdict == "not run":
        return lines
    if not claim.unit:
        return [*lines, "\n".join(f"- {part.compared}: {part.verdict}: {part.note}" for part in scope.parts)]
    lines += [" ".join(_about_look(claim, scope))] if scope.looks else []
    frame = pandas.DataFrame([_cells(claim, part) for part in scope.parts])
    for column in ("Sign-flip p", "Published", "Seeds needed"):
        if (frame[column] == NOTHING).all():
            frame = frame.drop(columns=column)
    return [*lines, markdown(frame, words=["Verdict"])]


def _about_look(claim: ClaimVerdict, scope: ScopeVerdict) -> list[str]:
    """The look, the error spent, what remains, and what a reader must know beside the verdict."""
    told = []
    if scope.look:
        error = f" of {100 * scope.error:.10g} %" if scope.error is not None else ""
        spent = f"{100 * scope.spent:.10g} %{error} of error spent"
        told.append(f"Look {scope.look} of {len(scope.looks)}, at {scope.n} seeds; {spent}.")
    if scope.stopped:
        told.append(f"Stopped: would need more than {scope.looks[-1]} seeds.")
    elif scope.is_open:
        told.append(f"Open: its next look is at {scope.looks[scope.look]} seeds.")
    if scope.is_early:
        told.append("Decided early, so the estimate overstates the effect on average.")
    if scope.smallest_effect is not None:
        ratio = claim.unit == "ratio"
        size = f"{100 * scope.smallest_effect:.10g} %" if ratio else f"{scope.smallest_effect:.10g} {claim.unit}"
        told.append(f"Smallest effect of interest: {size}{f' ({scope.pilot})' if scope.pilot else ''}.")
    if scope.verdict == "refuted" and claim.unit != "ratio":
        told.append("The methods' weights were not tuned here.")
    return told


def _cells(claim: ClaimVerdict, part: PartVerdict) -> dict[str, str]:
    decimals = 4 if "per point" in claim.unit else 2
    signed = claim.unit != "ratio"

    def shown(value: float | None) -> str:
        return number(value, decimals, signed=signed)

    def interval(low: float | None, high: float | None) -> str:
        return NOTHING if low is None else f"[{shown(low)}, {shown(high)}]"

    return {
        "Compared": part.compared,
        f"Estimate, {claim.unit}": shown(part.estimate),
        "95 % interval, unadjusted": interval(part.low, part.high),
        "Interval that decides": interval(part.adjusted_low, part.adjusted_high),
        "n": str(part.n),
        "p": p_value(part.p),
        "Sign-flip p": p_value(part.sign_flip_p),
        "Published": shown(part.published_effect),
        "Seeds needed": _seeds(part),
        "Verdict": part.verdict,
    }


def _seeds(part: PartVerdict) -> str:
    if part.seeds_needed is not None:
        return f"{part.seeds_needed:,}"
    return part.note or NOTHING


# -------------------------------------------------------------------------------------------------------------- CSV


def numbers(report: ClaimReport) -> pandas.DataFrame:
    """All parts of all claims that are tested here, one per row, unformatted."""
    rows = [
        {
            "claim": claim.id,
            "paper": claim.paper,
            "scope": scope.scope,
            "part": part.compared,
            "claim_verdict": scope.verdict,
            "p_of_claim": scope.p,
            "adjusted_p": scope.adjusted_p,
            "compared": scope.compared,
            "look": scope.look,
            "seeds_at_look": scope.n,
            "error_spent": scope.spent,
            "stopped": scope.stopped,
            "smallest_effect": scope.smallest_effect,
            "family_size": report.families.get(claim.paper),
            "unit": claim.unit,
            **part.model_dump(exclude={"compared"}),
        }
        for claim in report.claims
        for scope in claim.scopes
        for part in scope.parts
    ]
    return pandas.DataFrame(rows, columns=list(rows[0]) if rows else ["claim", "scope", "part"])
