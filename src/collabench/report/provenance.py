"""The way from a number of a table to the runs that it comes from."""

from __future__ import annotations

import json
from pathlib import Path

from collabench.errors import ConfigError, ResultError
from collabench.records import read_json
from collabench.report.collect import why_missing
from collabench.results import RESULT, Measured, load_result
from collabench.spec import Cell, Plan, Run
from collabench.workspace import Workspace

_PARTS = ("dataset", "noise", "model", "recipe", "method")


def explain(plan: Plan, workspace: Workspace, words: str) -> str:
    """Every cell of the plan that ``words`` point to: its configuration, and of each run seed, error, files, versions,
    device and commit.

    words: names of ``params.yaml``, a table's name or a configuration id, in any order, apart by spaces, ``/`` or
    ``·``; a cell must have them all. Raises ConfigError if none has.
    """
    wanted = words.replace("/", " ").replace("·", " ").split()
    cells = [cell for cell in plan.cells if wanted and set(wanted) <= _names(cell)]
    if not cells:
        known = sorted({name for cell in plan.cells for name in (cell.table, *cell.configuration.names.values())})
        raise ConfigError(
            f"no cell of {plan.profile!r} has all of {' '.join(wanted) or 'nothing'!r}; names: {', '.join(known)}"
        )
    return "\n\n".join(_explain(cell, workspace) for cell in cells)


def _names(cell: Cell) -> set[str]:
    return {cell.table, cell.configuration.id, *(cell.configuration.names[part] for part in _PARTS)}


def _explain(cell: Cell, workspace: Workspace) -> str:
    configuration = cell.configuration
    lines = [f"{configuration.label}  (table {cell.table})", f"configuration {configuration.id}:"]
    for part, value in configuration.identity().items():
        lines.append(f"  {part}: {json.dumps(value, sort_keys=True)}")
    for required in configuration.requires:
        lines.append(f"  needs first: {required.configuration.label}, member {required.member}")
    lines.append(f"runs ({len(cell.seeds)} seeds):")
    for seed in cell.seeds:
        lines += _run(Run(configuration, seed), workspace)
    return "\n".join(lines)


def _run(run: Run, workspace: Workspace) -> list[str]:
    folder = workspace.run(run.configuration.id, run.seed)
    try:
        if not (folder / RESULT).exists():
            raise ResultError(why_missing(run, workspace))
        result = load_result(folder, run)
    except ResultError as error:
        return [f"  seed {run.seed}: {error}"]
    best = "" if result.best_error is None else f", best epoch {100 * result.best_error:.2f} % (optimistic)"
    lines = [
        f"  seed {run.seed}: last epoch {100 * result.last.error:.2f} %{best}; {_relative(folder / RESULT, workspace)}",
        f"    data {result.dataset_digest[:12]}, {result.train_images:,} training, {result.test_images:,} test images; "
        f"{100 * result.noise.corruption:.2f} % wrong labels; deterministic: {'yes' if result.deterministic else 'no'}",
    ]
    path = workspace.measured_file(run.configuration.id, run.seed)
    if not path.exists():
        return [*lines, "    not measured here"]
    measured = read_json(path, Measured)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(measured.versions.items()))
    commit = "unknown" if measured.commit is None else measured.commit[:12] + (", changed" if measured.dirty else "")
    return [*lines, f"    {measured.device} ({measured.device_type}); {versions}; commit {commit}; {measured.finished}"]


def _relative(path: Path, workspace: Workspace) -> str:
    return path.relative_to(workspace.root).as_posix()
