"""``reports/README.md``: the claims over all profiles, for those who read in the repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas

from collabench.core.text import markdown_text
from collabench.report.across_profiles import ClaimEverywhere, count
from collabench.report.formatting import safe_cells
from collabench.report.gather import Gathered
from collabench.report.html.data import Everything
from collabench.report.pages.lead import FOREST, write_lead
from collabench.report.standing import DECIDED, STANDINGS, Standing
from collabench.storage.files import folder_beside, write_atomically

#: Standings of which every test has a row; of the others the page shows them.
_LISTED: tuple[Standing, ...] = ("supported", "refuted", "leans for", "leans against")

#: Between these marks the project's README has the lead.
BEGIN, END = "<!-- findings: `collabench report --html` writes them -->", "<!-- end of the findings -->"

_RULES = """\
**Supported** and **refuted** are verdicts: the interval that decides lies on one side. **Leans for** and **leans
against** describe an undecided test by the 95 % interval that is not widened for the number of tests; they decide
nothing. A verdict holds for its scope only. The rules: [docs/statistics.md](../docs/statistics.md).
"""


def write_all_profiles(everything: Everything, path: Path) -> Path:
    """Write the page and its plot beside it; files that have these bytes are left alone. Raises StorageError if they
    cannot be written."""
    with folder_beside(path) as folder:
        text = "\n\n".join(_page(everything, folder)) + "\n"
        plot = folder / FOREST
        for target, body in (
            (path.with_name(FOREST), plot.read_bytes() if plot.exists() else None),
            (path, text.encode()),
        ):
            if body is None:
                target.unlink(missing_ok=True)
            elif not target.is_file() or target.read_bytes() != body:
                write_atomically(target, body)
    return path


def renew_findings(everything: Everything, path: Path) -> None:
    """Write the lead in three sentences between two marks of a page, such as the project's README.

    Do nothing to a page without them.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return
    lead = "\n".join(f"{n}. {markdown_text(sentence)}" for n, sentence in enumerate(everything.summary, 1))
    renewed = f"{before}{BEGIN}\n\n{lead}\n\n{END}{after}"
    if renewed != text:
        write_atomically(path, renewed.encode())


def _page(everything: Everything, folder: Path) -> list[str]:
    claims, reports = everything.claims, everything.found.reports
    lines = ["# Which claims of the papers hold?"]
    lines += write_lead(folder, claims, everything.papers, ".") or [markdown_text(one) for one in everything.lead]
    lines.append("[One page for all profiles](index.html), to open in a browser: filters, every interval, every cell.")
    lines += [
        f"Left out, because it cannot be read: {markdown_text(problem)}." for problem in everything.found.problems
    ]
    counted = _counts(everything)
    if not counted.empty:
        lines += ["## By paper", "Tests of claims about test error, and where they stand:", _table(counted)]
    for kind, title in (("statistical", "Claims about test error"), ("equality", "Claims about the deployed network")):
        rows = _rows([claim for claim in claims if claim.kind == kind], everything.names)
        lines += [f"## {title}", _table(rows)] if not rows.empty else []
    if any(claim.kind == "cost" and claim.tests for claim in claims):
        lines.append(
            "Verdicts about training time and memory change with every measurement; they stand with the costs."
        )
    if reports:
        lines += ["## Profiles", _table(pandas.DataFrame([_profile(report, claims) for report in reports]))]
    return [*lines, "---", _RULES.strip()]


def _table(frame: pandas.DataFrame) -> str:
    return safe_cells(frame).to_markdown(index=False, disable_numparse=True)


def _counts(everything: Everything) -> pandas.DataFrame:
    found = {
        paper: count((claim for claim in everything.claims if claim.paper == paper), "statistical")
        for paper in everything.papers
    }
    shown = [standing for standing in STANDINGS if any(counts[standing] for counts in found.values())]
    return pandas.DataFrame(
        [
            {"Paper": everything.names[paper], **{standing: str(counts[standing]) for standing in shown}}
            for paper, counts in found.items()
            if counts
        ]
    )


def _rows(claims: Sequence[ClaimEverywhere], names: dict[str, str]) -> pandas.DataFrame:
    """One row for each claim and standing that is listed, with the places of its tests."""
    rows = []
    for standing in _LISTED:
        word = f"**{standing}**" if standing in DECIDED else standing
        for claim in claims:
            places = [", ".join(test.verdict.where[:3]) for test in claim.tests if test.standing == standing]
            if places:
                rows.append(
                    {
                        "Verdict": word,
                        "Claim": markdown_text(claim.statement),
                        "Paper": markdown_text(names.get(claim.paper, claim.paper)),
                        "Where": markdown_text("; ".join(dict.fromkeys(places))),
                    }
                )
    return pandas.DataFrame(rows)


def _profile(report: Gathered, claims: Sequence[ClaimEverywhere]) -> dict[str, str]:
    own = [test.standing for claim in claims for test in claim.tests if test.profile == report.name]
    decided = sum(standing in DECIDED for standing in own)
    name = markdown_text(report.name)
    return {
        "Profile": f"[{name}]({report.profile}/README.md)" if report.accepted else name,
        "What it runs": markdown_text(report.report.description),
        "Runs": f"{report.report.runs:,}",
        "Tests decided": f"{decided} of {len(own)}" if own else "no tests",
    }
