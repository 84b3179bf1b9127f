"""The commands ``report`` and ``explain``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Exact, Profile, Root, Set, app, open_study
from collabench.cli.study import lines_on_other_code
from collabench.core.errors import CollabenchError
from collabench.core.text import wrapped

if TYPE_CHECKING:
    from collabench.storage.workspace import Workspace
    from collabench.study.study import Study


class Format(StrEnum):
    """A form of the tables beside markdown."""

    LATEX = "latex"
    CSV = "csv"


@app.command()
def report(
    profile: Profile = "default",
    root: Root = HERE,
    partial: Annotated[
        bool, typer.Option("--partial", help="From the runs that there are; written elsewhere, shows n.")
    ] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Make the new report the one in reports/.")] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Only write the page of all profiles, from the reports that there are.")
    ] = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Also say where every table lies as LaTeX (booktabs) or CSV.")
    ] = None,
    exact: Exact = False,
    settings: Set = None,
) -> None:
    """Build tables and figures from the results and print the tables."""
    from collabench.report import accepted
    from collabench.report.build import build_report
    from collabench.report.pages.terminal import terminal_summary
    from collabench.study import variants
    from collabench.study.other_code import runs_of_other_code

    if html:
        if partial or accept or exact or format_ or settings:
            raise CollabenchError("--html writes pages from reports and builds none; leave the other options out")
        print("\n".join(write_pages(root.resolve())))
        return
    if partial and accept:
        raise CollabenchError("--accept is for the report of a finished study; leave --accept or --partial out")
    study = open_study(root, profile, settings)
    profile = study.workspace.profile
    if accept or exact:
        variants.refuse(profile, "--accept" if accept else "--exact")
    build_report(study.params, study.plan, study.workspace, partial=partial)
    print(terminal_summary(study.workspace, partial=partial))
    print("".join(f"{line}\n" for line in lines_on_other_code(runs_of_other_code(study), profile)), end="")
    if format_:
        print("\n".join(_files_of(study, format_, partial)))
    if partial:
        print(f"Next: `collabench plan -p {profile}` says what is missing and why.")
        return
    if variants.is_variant(profile):
        print(f"Tables and figures: {study.workspace.report / 'README.md'}")
        return
    if accept:
        accepted.accept(study.workspace)
    compare_with_accepted(study, exact)


def _files_of(study: Study, form: Format, partial: bool) -> list[str]:
    """One line for each file of the tables in this form."""
    from collabench.report.folders import COSTS, report_folder
    from collabench.report.pages.latex import write_latex

    folder = report_folder(study.workspace, partial=partial)
    costs = folder / COSTS if partial else study.workspace.costs
    if form is Format.LATEX:
        return [f"LaTeX: {path}" for path in write_latex(folder, costs, study.workspace.latex)]
    return [f"CSV: {path}" for place in (folder, costs) for path in sorted(place.glob("*.csv"))]


def write_pages(root: Path, profile: str = "") -> list[str]:
    """Write the pages that join all profiles. Returns one line for each report that they leave out, then what was found
    and where the pages are.

    profile: whose own findings come first.

    ``reports/index.html``, ``reports/README.md`` and the marked lines of ``README.md`` show what is accepted. Where a
    report that was built here differs from the accepted one, ``artifacts/index.html`` shows what was built here.
    """
    from collabench.report.gather import built_differs
    from collabench.report.html.data import read_everything
    from collabench.report.html.page import write_page
    from collabench.report.pages.all_profiles import renew_findings, write_all_profiles
    from collabench.storage.workspace import Workspace

    workspace = Workspace(root, "")
    accepted = read_everything(root)
    lines = [f"left out of the page: {problem}" for problem in accepted.found.problems]
    write_all_profiles(accepted, workspace.page.with_name("README.md"))
    renew_findings(accepted, root / "README.md")
    built = read_everything(root, built=True) if built_differs(root, accepted.params.profiles) else None
    shown = built or accepted
    names = (f"{profile} (built here)", profile)
    if profile and (own := next(filter(None, map(shown.lead_of, names)), "")):
        lines.append(wrapped(f"Profile {profile}: {own}"))
    if any(claim.tests for claim in accepted.claims):
        lines.append(wrapped(f"Over all profiles: {accepted.lead[0]}"))
    lines.append(f"All profiles on one page: {write_page(accepted, workspace.page)}")
    if built is not None:
        lines.append(f"The same page with what was built here: {write_page(built, workspace.built_page)}")
    return lines


def compare_with_accepted(study: Study, exact: bool = False) -> None:
    """Print how the report compares with the accepted one, and where it is. Accept it if there is none yet.

    exact: end with exit code 1 if any byte differs.
    """
    text, same = comparison_with_accepted(study)
    print(text)
    if exact and not same:
        raise typer.Exit(1)


def comparison_with_accepted(study: Study) -> tuple[str, bool]:
    """The text that :func:`compare_with_accepted` prints, and whether every byte is equal."""
    from collabench.report.accepted import accept
    from collabench.report.comparison import compare_reports
    from collabench.storage.files import write_atomically

    workspace = study.workspace
    page = f"Tables and figures: {workspace.accepted_report / 'README.md'}"
    if not workspace.accepted_report.exists():
        accept(workspace)
        first = "No report was accepted before: this one is now."
        return "\n".join([first, page, *write_pages(workspace.root, workspace.profile), _next(workspace)]), True
    found = compare_reports(workspace)
    if found.same_bytes:
        lines = [*found.lines, page, *write_pages(workspace.root, workspace.profile), _next(workspace)]
        return "\n".join(lines), True
    write_atomically(workspace.differences, ("\n".join(found.details) + "\n").encode())
    where = [
        f"Every difference: {workspace.differences}",
        f"The new tables: {workspace.report / 'README.md'}",
        *write_pages(workspace.root, workspace.profile),
        f"Next: `collabench report -p {workspace.profile} --accept` adopts the new tables.",
    ]
    return "\n".join([*map(wrapped, found.lines), *where]), False


def _next(workspace: Workspace) -> str:
    profile = workspace.profile
    return wrapped(f"Next: open the page in a browser; `collabench verify -p {profile}` checks what it rests on.")


@app.command()
def explain(
    words: Annotated[list[str], typer.Argument(help="Names that together choose cells: table, method, noise, id …")],
    profile: Profile = "default",
    root: Root = HERE,
    runs: Annotated[
        bool, typer.Option("--runs", help="Also each run: files, required runs, versions, device, commit.")
    ] = False,
) -> None:
    """The way from a number in a table to what is behind it.

    The cell, its seeds and its configuration; with --runs also the runs.
    """
    from collabench.report.explain import explain_cells

    study = open_study(root, profile)
    print(explain_cells(study.plan, study.workspace, " ".join(words), runs=runs))
