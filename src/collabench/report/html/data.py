"""All that the page shows, as plain data for its script.

Records are passed on as they are: no figure is computed twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collabench.config.params import Params, load_params
from collabench.core.text import printable
from collabench.papers.citations import citation, cited
from collabench.papers.claim_schema import Claims
from collabench.papers.claims import load_claims
from collabench.papers.tables import Paper, load_papers
from collabench.report.across_profiles import ClaimEverywhere, ScopeTest, join_claims
from collabench.report.findings import findings, summary
from collabench.report.formatting import plainly_printable
from collabench.report.gather import AllReports, Gathered, gather
from collabench.report.pages.claims import UNTUNED
from collabench.report.standing import SYMBOLS
from collabench.storage.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Everything:
    """The reports of all profiles, and what joins them."""

    params: Params
    claims: tuple[ClaimEverywhere, ...]
    declared: Claims
    papers: Mapping[str, Paper]
    found: AllReports

    @property
    def names(self) -> dict[str, str]:
        """Paper → how it is cited."""
        return {name: citation(paper.about) for name, paper in self.papers.items()}

    @property
    def lead(self) -> list[str]:
        """The sentences of the lead, as they may be shown."""
        return [printable(sentence) for sentence in findings(self.claims, self.names)]

    @property
    def summary(self) -> list[str]:
        """The lead in three sentences, for the project's README."""
        return [printable(sentence) for sentence in summary(self.claims, self.names)]

    def lead_of(self, profile: str) -> str:
        """The first sentence of a profile's own lead; empty if no test of a claim has run there."""
        own = [
            dataclasses.replace(claim, tests=tuple(test for test in claim.tests if test.profile == profile), not_run=())
            for claim in self.claims
        ]
        if not any(test.standing != "not run" for claim in own if claim.kind == "statistical" for test in claim.tests):
            return ""
        return printable(findings(own, self.names)[0])


def read_everything(root: Path, *, built: bool = False) -> Everything:
    """Read ``params.yaml``, ``papers/`` and the reports below ``root``. Raises ConfigError (one line).

    built: prefer what was built here to what is accepted.
    """
    workspace = Workspace(root, "")
    params = load_params(workspace.params)
    folder = workspace.papers
    there = folder.is_dir()
    papers = load_papers(folder, params, resolved=False) if there else {}
    claims = load_claims(folder, params) if there else Claims(scopes={}, claims=())
    found = gather(root, params.profiles, list(papers), built=built)
    return Everything(params, join_claims(claims, params, papers, found.verdicts()), claims, papers, found)


def page_data(everything: Everything) -> dict[str, Any]:
    """The data of the page, JSON-ready."""
    return {
        "untuned": UNTUNED,
        "standings": list(SYMBOLS.items()),
        "quantiles": _quantiles(everything.found.reports),
        "papers": [
            {"name": name, "cite": everything.names[name], "title": paper.about.title}
            for name, paper in everything.papers.items()
        ],
        "claims": [_claim(claim) for claim in everything.claims],
        "untested": [
            {
                "paper": one.paper,
                "statement": one.statement,
                "source": cited(everything.papers[one.paper].about, one.source.file, one.source.place),
                "reason": one.reason,
            }
            for one in everything.declared.untested
        ],
        "profiles": [_profile(report) for report in everything.found.reports],
    }


def _quantiles(reports: Sequence[Gathered]) -> list[float | None]:
    """At place n Student's t that a mean of n values stays below with 97.5 %, for every number of seeds of a report."""
    from scipy.stats import t

    most = max((len(runs["seeds"]) for report in reports for runs in report.runs.values()), default=0)
    return [None, None, *(float(f"{t.ppf(0.975, n - 1):.10g}") for n in range(2, most + 1))]


def _claim(claim: ClaimEverywhere) -> dict[str, Any]:
    plain = {field.name: getattr(claim, field.name) for field in dataclasses.fields(claim)}
    return plain | {
        "tests": [_test(test) for test in claim.tests],
        "not_run": [dataclasses.asdict(scope) for scope in claim.not_run],
    }


def _test(test: ScopeTest) -> dict[str, Any]:
    verdict = test.verdict.model_dump(mode="json", exclude_none=True)
    parts = [part | {"standing": stands} for part, stands in zip(verdict["parts"], test.parts, strict=True)]
    about = {"profile": test.profile, "standing": test.standing, "parts": parts, "early": test.verdict.is_early}
    return verdict | about


def _profile(report: Gathered) -> dict[str, Any]:
    return {
        "name": report.name,
        "profile": report.profile,
        "report": report.report.model_dump(mode="json", exclude_none=True),
        "runs": report.runs,
        "prices": {"/".join(key): price for key, price in report.prices.items()},
        "origin": report.origin.model_dump(mode="json") if report.origin else None,
        "cells": _cells(report),
    }


def _cells(report: Gathered) -> dict[str, Any] | None:
    if report.cells is None:
        return None
    return {name: cell.model_dump(mode="json") for name, cell in report.cells.cells.items()}


def as_script(data: dict[str, Any]) -> str:
    """JSON for a ``<script>`` element: nothing in it can end the element, begin a comment, or steer the text's
    direction."""
    plain = plainly_printable(data)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
