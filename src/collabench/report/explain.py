"""The runs behind a number of a table."""

from __future__ import annotations

import json
from pathlib import Path

from collabench.config.configuration import PARTS, Run
from collabench.config.plan import Cell, Plan
from collabench.core.errors import ConfigError, ResultError
from collabench.core.text import counted
from collabench.papers.schema import METRICS, UNKNOWN
from collabench.papers.tables import Paper, load_papers
from collabench.report.collect import why_missing
from collabench.report.content import LEVEL
from collabench.report.pages import tables
from collabench.stats import summary
from collabench.storage.results import RESULT, Result, load_measured, load_result
from collabench.storage.workspace import Workspace


def explain_cells(plan: Plan, workspace: Workspace, words: str, *, runs: bool = False) -> str:
    """All cells of the plan that match ``words``, with everything behind their numbers.

    That is: the number, each seed's error, published values and their places, and the configuration. runs: also the
    files, required runs, versions, device and commit of each run.

    words: names of ``params.yaml``, a table's name or a configuration id, in any order, separated by spaces, ``/`` or
    ``·``. A cell must match all of them. Raises ConfigError if none does.
    """
    wanted = words.replace("/", " ").replace("·", " ").split()
    cells = [cell for cell in plan.cells if wanted and set(wanted) <= _names(cell)]
    if not cells:
        known = sorted({name for cell in plan.cells for name in (cell.table, *cell.configuration.names.values())})
        raise ConfigError(
            f"no cell of {plan.profile!r} has all of {' '.join(wanted) or 'nothing'!r}; names: {', '.join(known)}"
        )
    papers = load_papers(workspace.papers, None) if workspace.papers.is_dir() else {}
    return "\n\n".join(_explain(cell, workspace, papers, with_runs=runs) for cell in cells)


def _names(cell: Cell) -> set[str]:
    return {cell.table, cell.configuration.id, *(cell.configuration.names[part] for part in PARTS)}


def _explain(cell: Cell, workspace: Workspace, papers: dict[str, Paper], *, with_runs: bool) -> str:
    configuration = cell.configuration
    runs = [Run(configuration, seed) for seed in cell.seeds]
    found = [_load(run, workspace) for run in runs]
    errors = [100 * one.last.error for one in found if isinstance(one, Result)]
    known = [run.seed for run, one in zip(runs, found, strict=True) if isinstance(one, Result)]
    lines = [f"{configuration.label}  (table {cell.table})"]
    if errors:
        over = summary(errors, LEVEL)
        lines.append(f"test error after the last epoch: {tables.mean_sd(over)} {tables.interval(over)} %, n {over.n}")
        each = ", ".join(f"{seed}: {error:.2f}" for seed, error in zip(known, errors, strict=True))
        lines.append(f"by seed: {each}")
    lines += _published(cell, papers)
    lines.append(f"configuration {configuration.id}:")
    for part, value in configuration.identity().items():
        lines.append(f"  {part}: {json.dumps(value, sort_keys=True)}")
    for required in configuration.requires:
        lines.append(f"  needs first: {required.configuration.label}, member {required.member}")
    if not with_runs:
        left = len(runs) - len(known)
        missing = f", {left} of them missing" if left else ""
        return "\n".join(
            [*lines, f"{counted(len(runs), 'run')}{missing}; files, versions, device and commit of each: --runs"]
        )
    lines.append(f"runs ({counted(len(cell.seeds), 'seed')}):")
    for run, one in zip(runs, found, strict=True):
        lines += _run(run, one, workspace)
    return "\n".join(lines)


def _published(cell: Cell, papers: dict[str, Paper]) -> list[str]:
    """The published values of the cell, if it belongs to a table of a paper."""
    names = {part: cell.configuration.names[part] for part in PARTS}
    return [
        f"published: {UNKNOWN if one.value is None else tables.number(one.value)} ({METRICS[one.metric]}; {one.source})"
        for paper in papers.values()
        for table in paper.tables.values()
        if table.key == cell.table
        for one in table.cells.values()
        if one.not_run is None and one.names == names
    ]


def _load(run: Run, workspace: Workspace) -> Result | ResultError:
    """The run's result, or the error that says why there is none."""
    folder = workspace.folder(run)
    try:
        return load_result(folder, run) if (folder / RESULT).exists() else ResultError(why_missing(run, workspace))
    except ResultError as error:
        return error


def _run(run: Run, result: Result | ResultError, workspace: Workspace) -> list[str]:
    if isinstance(result, ResultError):
        return [f"  seed {run.seed}: {result}"]
    folder = workspace.folder(run)
    known = run.configuration.dataset.training_labels
    wrong = "wrong labels" if known == "clean" else "labels others than as given"
    best = "" if result.best_error is None else f", best epoch {100 * result.best_error:.2f} % (optimistic)"
    lines = [
        f"  seed {run.seed}: last epoch {100 * result.last.error:.2f} %{best}; {_relative(folder / RESULT, workspace)}",
        f"    data {result.dataset_digest[:12]}, {result.train_images:,} training, {result.test_images:,} test images; "
        f"{100 * result.noise.corruption:.2f} % {wrong}; deterministic: {'yes' if result.deterministic else 'no'}",
    ]
    for first in run.requires():
        path = workspace.folder(first) / RESULT
        lines.append(
            f"    rests on seed {first.seed}: {_relative(path, workspace)}{'' if path.exists() else ' (not here)'}"
        )
    path = workspace.measured_file(run)
    if not path.exists():
        return [*lines, "    not measured here"]
    measured = load_measured(path, run)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(measured.versions.items()))
    return [
        *lines,
        f"    {measured.device} ({measured.device_type}); {versions}; commit {measured.commit_text}; "
        f"{measured.finished}",
    ]


def _relative(path: Path, workspace: Workspace) -> str:
    return path.relative_to(workspace.root).as_posix()
