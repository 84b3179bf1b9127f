"""The commands ``report`` and ``explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Profile, Root, app, open_study
from collabench.cli.study import print_other_code
from collabench.core.errors import CollabenchError

if TYPE_CHECKING:
    from collabench.study.study import Study


@app.command()
def report(
    profile: Profile = "default",
    root: Root = HERE,
    partial: Annotated[
        bool, typer.Option("--partial", help="From the runs that there are; written elsewhere, shows n.")
    ] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Make the new report the one in reports/.")] = False,
) -> None:
    """Build tables and figures from the results and print the tables."""
    from collabench.report import accepted
    from collabench.report.build import build_report
    from collabench.report.pages.terminal import terminal_summary
    from collabench.study.other_code import runs_of_other_code

    if partial and accept:
        raise CollabenchError("--accept is for the report of a finished study; leave --accept or --partial out")
    study = open_study(root, profile)
    build_report(study.params, study.plan, study.workspace, partial=partial)
    print(terminal_summary(study.workspace, partial=partial))
    print_other_code(runs_of_other_code(study), profile)
    if partial:
        return
    if accept:
        accepted.accept(study.workspace)
    compare_with_accepted(study)


def compare_with_accepted(study: Study) -> None:
    """Say where the tables lie; adopt the report if there is none yet, otherwise show how it differs."""
    from collabench.report.accepted import accept, compare

    accepted = study.workspace.accepted_report
    if not accepted.exists():
        accept(study.workspace)
    differences = compare(study.workspace)
    if differences:
        print(f"These tables differ from the accepted ones in {accepted}, which stay as they are:")
        print("\n".join(f"  {line}" for line in differences[:40]))
        print(
            f"The new ones lie in {study.workspace.report}; `collabench report -p {study.workspace.profile} --accept` adopts them."
        )
    else:
        print(f"Tables and figures: {accepted / 'README.md'}")


@app.command()
def explain(
    words: Annotated[list[str], typer.Argument(help="Names that together choose cells: table, method, noise, id …")],
    profile: Profile = "default",
    root: Root = HERE,
) -> None:
    """The way from a number in a table to the runs behind it.

    Their seeds, configuration, versions, device and commit.
    """
    from collabench.report.explain import explain_cells

    study = open_study(root, profile)
    print(explain_cells(study.plan, study.workspace, " ".join(words)))
