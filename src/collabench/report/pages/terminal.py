"""The tables as shown on a terminal."""

from __future__ import annotations

from collabench.core.errors import ResultError
from collabench.report.claim_records import ClaimReport
from collabench.report.content import Condition, Report
from collabench.report.folders import CONTENT, OVERVIEW, report_folder
from collabench.report.pages import claims as claims_page
from collabench.report.pages import tables
from collabench.storage.files import read_json
from collabench.storage.workspace import Workspace


def terminal_summary(workspace: Workspace, *, partial: bool = False) -> str:
    """All tables in short form (method, test error, n, difference from the baseline, Holm's p), and where the report
    is.

    Raises ResultError if there is no built report.
    """
    folder = report_folder(workspace, partial=partial)
    if not (folder / CONTENT).exists():
        raise ResultError(f"{folder}: there is no report of {workspace.profile!r} yet; build it first")
    report = read_json(folder / CONTENT, Report)
    blocks = []
    for table in report.tables:
        for condition in table.conditions:
            lines = [condition.title, _table(condition)]
            if report.partial:
                lines[0] += " (partial)"
            blocks.append("\n".join(lines))
    claims = folder / claims_page.JSON
    if claims.exists() and (found := read_json(claims, ClaimReport)).here():
        blocks.append(_claims(found))
    if report.missing:
        blocks.append(f"{len(report.missing)} of {report.runs} runs are missing.")
    blocks.append(
        "Test error % after the last epoch, mean ± sd over n seeds [95 % interval]; difference to the baseline in\n"
        "points, paired by seed, with its unadjusted 95 % interval; p: paired t test, Holm-adjusted.\n"
        f"The whole report: {folder / OVERVIEW}"
    )
    return "\n\n".join(blocks)


def _claims(report: ClaimReport) -> str:
    shared, frame = claims_page.verdict_table(report)
    table = frame.replace(r"\*\*", "", regex=True).to_markdown(index=False, tablefmt="simple", disable_numparse=True)
    where = f", on {shared}" if shared else ""
    return f"Claims of the papers{where}\n{table}\n{claims_page.counted(report)}."


def _table(condition: Condition) -> str:
    from tabulate import tabulate

    rows = []
    for row in condition.rows:
        difference = row.difference
        shown = tables.NOTHING
        if difference:
            shown = f"{tables.number(difference.difference, signed=True)} {tables.interval(difference, signed=True)}"
        rows.append(
            [
                tables.name_of(row, condition),
                f"{tables.mean_sd(row.error)} {tables.interval(row.error)}" if row.error else "no run",
                str(len(row.seeds)),
                shown,
                tables.p_value(row.holm_p),
            ]
        )
    headers = ["method", "test error %", "n", "difference", "p (Holm)"]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)
