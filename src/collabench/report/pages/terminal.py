"""The tables and claims as shown on a terminal, in lines that fit it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from collabench.config.configuration import READINGS
from collabench.core.errors import ResultError
from collabench.core.text import counted_of, terminal_width, wrapped
from collabench.report.claim_records import ClaimReport
from collabench.report.content import Condition, Report, Row
from collabench.report.folders import CONTENT, OVERVIEW, report_folder
from collabench.report.pages import claims as claims_page
from collabench.report.pages import tables
from collabench.storage.files import read_json
from collabench.storage.workspace import Workspace

_HEADERS = ("method", "test error %", "n", "difference", "p (Holm)")
_HANGING = 14


def terminal_summary(workspace: Workspace, *, partial: bool = False, width: int | None = None) -> str:
    """All tables in short form (method, test error, n, difference from the baseline, Holm's p), and where the report
    is.

    width: of the lines, in characters; the terminal's by default. Lines that end with a path may be longer, so that the
    path can be copied. Raises ResultError if there is no built report.
    """
    width = width or terminal_width()
    folder = report_folder(workspace, partial=partial)
    if not (folder / CONTENT).exists():
        raise ResultError(f"{folder}: there is no report of {workspace.profile!r} yet; build it first")
    report = read_json(folder / CONTENT, Report)
    blocks = []
    for table in report.tables:
        for condition in table.conditions:
            title = condition.title + (" (partial)" if report.partial else "")
            blocks.append(f"{wrapped(title, width)}\n{_table(condition, width)}")
    claims = folder / claims_page.JSON
    if claims.exists() and (found := read_json(claims, ClaimReport)).here():
        blocks.append(_claims(found, width))
    if report.missing:
        blocks.append(counted_of(len(report.missing), report.runs, "run", "missing") + ".")
    note = (
        "Test error % after the last epoch, mean ± sd over n seeds [95 % interval]; difference to the baseline in "
        "points, paired by seed, with its unadjusted 95 % interval; p: paired t test, Holm-adjusted."
    )
    blocks.append(f"{wrapped(note, width)}\nThe whole report: {folder / OVERVIEW}")
    return "\n\n".join(blocks)


def _claims(report: ClaimReport, width: int) -> str:
    """One paragraph for each claim and verdict, which stands before it, with the scopes in which it was reached."""
    scopes = [scope for claim in report.here() for scope in claim.scopes]
    varies = [len(set(parts)) > 1 for parts in zip(*(scope.where for scope in scopes), strict=True)]
    shared = ", ".join(part for part, differs in zip(scopes[0].where, varies, strict=True) if not differs)
    lines = [wrapped(f"Claims of the papers{f', on {shared}' if shared else ''}", width)]
    for claim in report.here():
        for state in dict.fromkeys(scope.state for scope in claim.scopes):
            places = []
            for scope in claim.scopes:
                own = [part for part, differs in zip(scope.where, varies, strict=True) if differs]
                if scope.state == state:
                    places.append(", ".join([*([scope.compared] if scope.compared else []), *own]))
            told = "; ".join(place for place in dict.fromkeys(places) if place)
            reading = ", our reading" if claim.paper in READINGS else ""
            text = f"{state:<{_HANGING}}{claim.statement} [{claim.paper}{reading}]" + (f" ({told})" if told else "")
            lines.append(textwrap.fill(text, width, subsequent_indent=" " * _HANGING, break_on_hyphens=False))
    lines.append(wrapped(f"{claims_page.verdict_counts(report)}.", width))
    return "\n".join(lines)


def _table(condition: Condition, width: int) -> str:
    """The table on lines of this width: intervals below their numbers, then names broken, where it needs that."""
    wide = _grid(condition, " ", None)
    if _width(wide) <= width:
        return wide
    stacked = _grid(condition, "\n", None)
    excess = _width(stacked) - width
    if excess <= 0:
        return stacked
    longest = max(len(tables.name_of(row, condition)) for row in condition.rows)
    return _grid(condition, "\n", max(longest - excess, 8))


def _width(text: str) -> int:
    return max(map(len, text.splitlines()))


def _grid(condition: Condition, between: str, names: int | None) -> str:
    """between: what stands between a number and its interval. names: largest width of a method's name."""
    from tabulate import tabulate

    rows = [_cells(row, condition, between, names) for row in condition.rows]
    headers = [*_HEADERS[:-1], _HEADERS[-1].replace(" ", between)]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True)


def _cells(row: Row, condition: Condition, between: str, names: int | None) -> Sequence[str]:
    difference, shown = row.difference, tables.NOTHING
    if difference:
        shown = (
            f"{tables.number(difference.difference, signed=True)}{between}{tables.interval(difference, signed=True)}"
        )
    name = tables.name_of(row, condition)
    return (
        "\n".join(textwrap.wrap(name, names)) if names else name,
        f"{tables.mean_sd(row.error)}{between}{tables.interval(row.error)}" if row.error else "no run",
        str(len(row.seeds)),
        shown,
        tables.p_value(row.holm_p),
    )
