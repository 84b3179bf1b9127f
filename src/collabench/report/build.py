"""Building the report of a study from its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.params import Params
from collabench.config.plan import Plan
from collabench.report.collect import collect
from collabench.report.content import Report
from collabench.report.folders import COSTS, report_folder, whole_folder
from collabench.storage.workspace import Workspace

if TYPE_CHECKING:
    from collabench.report.published import PublishedValue


@dataclass(frozen=True)
class ReportFiles:
    """The folders of a report: ``folder`` for what results determine, ``costs`` for what was measured."""

    folder: Path
    costs: Path
    report: Report


def build_report(
    params: Params,
    plan: Plan,
    workspace: Workspace,
    *,
    partial: bool = False,
    published: Sequence[PublishedValue] = (),
) -> ReportFiles:
    """Write the report of the plan's tables and, beside it, the costs. Both are replaced as a whole.

    partial: accept missing runs and write to ``partial-report``.
    published: additional published values, shown beside the results of their configuration. The values of the project's
    folder ``papers/`` are always shown, with a page for each paper.

    The same results give the same bytes. Raises ResultError if runs are missing, failed, damaged or not comparable.
    """
    from collabench.papers.claims import load_claims
    from collabench.report.across_images import add_across_images
    from collabench.report.across_profiles import join_claims
    from collabench.report.analyse import analyse
    from collabench.report.cells import CELLS, cells_of
    from collabench.report.comparison import write_origin
    from collabench.report.metrics import write_metrics
    from collabench.report.pages import claims as claims_page
    from collabench.report.pages import replication as replication_page
    from collabench.report.pages.costs import write_costs
    from collabench.report.pages.lead import write_lead
    from collabench.report.pages.overview import write_report
    from collabench.report.pages.papers import write_papers
    from collabench.report.published import published_values, read_papers
    from collabench.report.replication import replication_of
    from collabench.report.verdicts import evaluate
    from collabench.storage.files import write_json

    collected = collect(plan, workspace, partial=partial)
    papers = read_papers(params, workspace)
    claims = load_claims(workspace.papers, params)
    report = analyse(params, collected, partial=partial, published=[*published, *published_values(papers)])
    report = add_across_images(report, collected, workspace)
    on_results = evaluate(claims, params, collected, workspace, "results", partial=partial)
    on_costs = evaluate(claims, params, collected, workspace, "costs", partial=partial)
    further = {run.id for run in plan.due} - {run.id for run in plan.of_tables.runs}
    waiting = sum(scope.is_open for scope in on_results.verdicts(tested=True))
    ended = {"further_runs": len(further), "open_tests": waiting, "verdicts": on_results.reached()}
    report = report.model_copy(update=ended)
    abouts = {name: paper.about for name, paper in papers.items()}
    target = report_folder(workspace, partial=partial)
    costs = target / COSTS if partial else workspace.costs
    with whole_folder(target) as folder:
        pages = write_papers(folder, papers, report, collected)
        joined = join_claims(claims, params, papers, [(plan.profile, on_results)])
        lead = write_lead(folder, joined, papers)
        again = replication_of(claims, on_results)
        sections = [*replication_page.overview(again), *claims_page.overview(on_results, on_costs)]
        write_report(folder, report, collected, pages, sections, lead)
        claims_page.write_claims(folder, on_results, abouts)
        replication_page.write_replication(folder, again)
        write_json(folder / CELLS, cells_of(collected))
        write_metrics(folder, report, joined, papers)
        if partial:
            (folder / COSTS).mkdir()
            write_costs(folder / COSTS, report, collected)
            claims_page.write_claims(folder / COSTS, on_costs, abouts)
    if not partial:
        with whole_folder(costs) as folder:
            write_costs(folder, report, collected)
            write_origin(folder, list(collected.measured.values()))
            claims_page.write_claims(folder, on_costs, abouts)
    return ReportFiles(target, costs, report)
