"""What the page shows without a script of its own: the verdicts at its top, a bar per paper, how to reproduce."""

from __future__ import annotations

from typing import Any

from collabench.config.configuration import READINGS
from collabench.report.across_profiles import count
from collabench.report.gather import Gathered
from collabench.report.html.data import Everything
from collabench.report.standing import DECIDED, STANDINGS

#: Number of verdicts at the top of the page.
_SHOWN = 8


def verdict_lines(everything: Everything) -> dict[str, Any]:
    """The claims with a verdict from a test of errors: the answer to the page's question, before anything else."""
    lines = []
    for standing in DECIDED:
        for claim in everything.claims:
            places = [", ".join(test.verdict.where[:3]) for test in claim.tests if test.standing == standing]
            if claim.kind != "statistical" or not places:
                continue
            more = len(set(places)) - 1
            lines.append(
                {
                    "standing": standing,
                    "id": claim.id,
                    "statement": claim.statement,
                    "paper": everything.names.get(claim.paper, claim.paper),
                    "where": places[0] + (f" and {more} other test{'s' if more > 1 else ''}" if more else ""),
                }
            )
    rest = [sentence for sentence in everything.lead[1:] if not sentence.startswith(("Supported:", "Refuted:"))]
    return {"shown": lines[:_SHOWN], "more": len(lines[_SHOWN:]), "rest": " ".join(rest)}


def paper_bars(everything: Everything) -> list[dict[str, Any]]:
    """For each paper with claims: how many tests of test error stand where, and how many tests are about else."""
    bars = []
    for name, paper in everything.papers.items():
        claims = [claim for claim in everything.claims if claim.paper == name]
        found = count(claims, "statistical")
        counts = [(standing, found[standing]) for standing in STANDINGS if found[standing] and standing != "not run"]
        bars.append(
            {
                "name": name,
                "cite": everything.names[name],
                "counts": counts,
                "tests": sum(n for _, n in counts),
                "others": sum(len(claim.tests) for claim in claims if claim.kind != "statistical"),
                "reading": READINGS.get(paper.name),
            }
        )
    return bars


def reproducible(report: Gathered) -> dict[str, Any]:
    """A profile's commands, versions, digests and the record of its verification."""
    content = report.report
    cells = report.cells.cells.values() if report.cells else ()
    data = dict.fromkeys(cell.dataset_digest for cell in cells if cell.dataset_digest)
    return {
        "name": report.name,
        "profile": report.profile,
        "description": content.description[:1].upper() + content.description[1:],
        "runs": content.runs,
        "missing": len(content.missing),
        "verified": report.verified.model_dump(mode="json") if report.verified else None,
        "verified_now": report.verified_now,
        "origin": report.origin.model_dump(mode="json") if report.origin else None,
        "digests": [*report.digests.items(), *(("data set", digest) for digest in data)],
    }
