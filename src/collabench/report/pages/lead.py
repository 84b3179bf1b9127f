"""The lead of a report: what was found, in sentences made from the verdicts, and one forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from collabench.core.text import markdown_text
from collabench.papers.citations import citation
from collabench.papers.tables import Paper
from collabench.report.across_profiles import ClaimEverywhere
from collabench.report.findings import findings
from collabench.report.pages.drawing import Task
from collabench.report.pages.forest import caption, claims_forest

FOREST = "claims.svg"


def write_lead(
    folder: Path, claims: Sequence[ClaimEverywhere], papers: Mapping[str, Paper], figures: str = "figures"
) -> list[str]:
    """The lead as markdown, with its plot in ``folder / figures``; empty if no claim has a test.

    The sentences and the plot show no costs, which differ with every measurement.
    """
    statistical = [claim for claim in claims if claim.kind == "statistical"]
    if not any(test.standing != "not run" for claim in statistical for test in claim.tests):
        return []
    names = {name: citation(paper.about) for name, paper in papers.items()}
    first, *others = (markdown_text(sentence) for sentence in findings(claims, names))
    lines = [f"**{first}**", "\n".join(f"- {sentence}" for sentence in others)]
    path = folder / figures / FOREST
    path.parent.mkdir(exist_ok=True)
    if Task(path, claims_forest, (claims,)).draw():
        text = markdown_text(caption(claims))
        lines.append(f"![{text}]({path.relative_to(folder).as_posix()})\n\n*{text}*")
    return lines
