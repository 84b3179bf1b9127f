"""What ``snakemake --report`` shows of a study: the page of all profiles, errors by table and method, where the tests
of claims stand, figures, and tables as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collabench.core.errors import CollabenchError
from collabench.core.text import html_text
from collabench.report.claim_records import ClaimReport
from collabench.report.content import Report, Table
from collabench.report.folders import CLAIMS, CONTENT, whole_folder
from collabench.report.formatting import Frame
from collabench.report.html.data import read_everything
from collabench.report.html.page import write_page
from collabench.report.pages import tables
from collabench.report.pages.claims import verdict_counts, verdict_table
from collabench.report.pages.drawing import file_name
from collabench.storage.files import read_json
from collabench.study.study import Study

#: Kind of figure, as in its file's name → what it shows.
_FIGURES = {"differences": "differences to the baseline", "curves": "training curves", "heads": "spread over heads"}

_STYLE = (
    "body{font:15px/1.5 sans-serif;margin:1.5rem;color:#1b1f23;background:#fff}"
    "table{border-collapse:collapse;margin:0 0 1.5rem}th,td{border:1px solid #d5dadf;padding:.25rem .6rem;"
    "text-align:right}th:first-child,td:first-child{text-align:left}"
)


@dataclass(frozen=True)
class Shown:
    """A file of the report. category: the heading that it stands under. labels: what tells it apart there."""

    path: Path
    category: str
    labels: dict[str, str] = field(default_factory=dict)


def files_to_show(study: Study) -> list[Shown]:
    """The files of the report, of which those that are no part of the study's own report are written first.

    Raises CollabenchError if the study has no report.
    """
    workspace = study.workspace
    if not (workspace.report / CONTENT).is_file():
        raise CollabenchError(
            f"{workspace.report}: there is no report to show; first: snakemake --config profile={workspace.profile}"
        )
    report = read_json(workspace.report / CONTENT, Report)
    made = workspace.state / "snakemake-report"
    with whole_folder(made) as folder:
        write_page(read_everything(workspace.root, built=True), folder / "all-profiles.html")
        for table in report.tables:
            (folder / f"errors-{table.name}.html").write_bytes(_errors(table).encode())
        if (workspace.report / CLAIMS).is_file():
            claims = read_json(workspace.report / CLAIMS, ClaimReport)
            (folder / "verdicts.html").write_bytes(_verdicts(claims).encode())
    files = [Shown(made / "all-profiles.html", "All profiles on one page", {"page": "claims, methods, costs, papers"})]
    if (made / "verdicts.html").is_file():
        files.append(Shown(made / "verdicts.html", "Claims", {"shows": "counts and verdicts"}))
    if (workspace.report / "figures" / "claims.svg").is_file():
        files.append(Shown(workspace.report / "figures" / "claims.svg", "Claims", {"shows": "forest plot"}))
    files += [Shown(made / f"errors-{table.name}.html", "Errors", {"table": table.title}) for table in report.tables]
    files += _figures(report, workspace.report / "figures")
    files += [Shown(path, "Numbers (CSV)", {"file": path.name}) for path in sorted(workspace.report.glob("*.csv"))]
    return files


def _figures(report: Report, folder: Path) -> Iterator[Shown]:
    for table in report.tables:
        for condition in table.conditions:
            for kind, words in _FIGURES.items():
                path = folder / file_name(table.name, condition.key, kind)
                if path.is_file():
                    yield Shown(path, "Figures", {"table": table.title, "condition": condition.title, "shows": words})
        for path in sorted(folder.glob(file_name(table.name, "", "error-against-noise-*"))):
            yield Shown(path, "Figures", {"table": table.title, "condition": "all", "shows": "error against noise"})


def _errors(table: Table) -> str:
    blocks = [] if len(table.conditions) == 1 else [_html(tables.overview_table(table))]
    for condition in table.conditions:
        blocks += [f"<h2>{html_text(condition.title)}</h2>", _html(tables.short_table(condition))]
    note = f"Test error after the last epoch, percent. {tables.MARK} survives Holm's correction at 5 %."
    return _page(table.title, [f"<p>{html_text(note)}</p>", *blocks])


def _verdicts(claims: ClaimReport) -> str:
    if not claims.here():
        return _page("Claims", ["<p>No claim is tested in this profile.</p>"])
    shared, frame = verdict_table(claims)
    where = [f"<p>On {html_text(shared)}:</p>"] if shared else []
    return _page("Claims", [f"<p>{html_text(verdict_counts(claims))}.</p>", *where, _html(frame)])


def _html(frame: Frame) -> str:
    text: str = frame.map(lambda value: str(value).replace("**", "")).to_html(index=False, escape=True, border=0)
    return text


def _page(title: str, blocks: Sequence[str]) -> str:
    head = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html_text(title)}</title>'
    return f"{head}<style>{_STYLE}</style><h1>{html_text(title)}</h1>" + "".join(blocks) + "</html>\n"
