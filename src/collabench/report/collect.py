"""Loading of exactly those results that a plan's tables need, and rejection of results that are not comparable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from collabench.config.configuration import CONDITION, Run
from collabench.config.plan import Cell, Plan
from collabench.core.errors import ResultError
from collabench.report.content import MissingRun
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, Failure, Measured, Result, load_measured, load_result
from collabench.storage.workspace import Workspace

if TYPE_CHECKING:
    import pandas

_SHOWN = 10
"""Number of missing runs that an error message lists one by one."""


@dataclass(frozen=True)
class Collected:
    """The results of a plan's cells by run id.

    measured: of those runs and of the runs that they require, if they were measured here. missing: the runs without a
    result, in the plan's order.
    """

    plan: Plan
    results: dict[str, Result]
    measured: dict[str, Measured]
    missing: tuple[MissingRun, ...]

    def of(self, cell: Cell) -> dict[int, Result]:
        """Seed → result of the cell's existing runs, in the order of its seeds."""
        found = ((seed, self.results.get(Run(cell.configuration, seed).id)) for seed in cell.seeds)
        return {seed: result for seed, result in found if result is not None}

    @cached_property
    def conditions(self) -> dict[tuple[str, ...], list[Cell]]:
        """Cells by (table, data set, noise, model, recipe), in the plan's order."""
        grouped: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.plan.cells:
            names = cell.configuration.names
            key = (cell.table, *(names[part] for part in CONDITION))
            grouped.setdefault(key, []).append(cell)
        return grouped

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """One row per run and set of names, errors in percent, for further analysis."""
        import pandas

        rows, seen = [], set()
        for cell in self.plan.cells:
            names = cell.configuration.names
            for seed, result in self.of(cell).items():
                if (result.run_id, *names.values()) in seen:
                    continue
                seen.add((result.run_id, *names.values()))
                rows.append({**names, "seed": seed, "run_id": result.run_id, **_values(result)})
        return pandas.DataFrame(rows)


def _values(result: Result) -> dict[str, object]:
    heads = [100 * head.error for head in result.heads]
    return {
        "error_last": 100 * result.last.error,
        "error_best_epoch": None if result.best_error is None else 100 * result.best_error,
        "best_epoch": None if result.best_epoch is None else result.best_epoch + 1,
        "error_validation_selected": None if result.selected is None else 100 * result.selected.error,
        "selected_epoch": None if result.selected_epoch is None else result.selected_epoch + 1,
        "top5_error": None if result.last.top5_error is None else 100 * result.last.top5_error,
        "negative_log_likelihood": result.last.negative_log_likelihood,
        "calibration_error": 100 * result.last.calibration_error,
        "heads": len(heads),
        "error_of_heads": " ".join(f"{error:.10g}" for error in heads),
        "error_averaged_heads": None if result.averaged_heads is None else 100 * result.averaged_heads.error,
        "parameters": result.parameters,
        "training_parameters": result.training_parameters,
        "noise_rate": None if result.noise.rate is None else 100 * result.noise.rate,
        "corruption": 100 * result.noise.corruption,
        "train_images": result.train_images,
        "test_images": result.test_images,
    }


def collect(plan: Plan, workspace: Workspace, *, partial: bool = False) -> Collected:
    """Load every run of the plan's cells.

    Raises ResultError if runs are missing, failed or damaged (unless ``partial``), or if the runs of one condition were
    made under different circumstances (see :func:`_check_comparable`).
    """
    results, measured, missing = {}, {}, []
    for run in _distinct_runs(plan):
        folder = workspace.folder(run)
        try:
            if not (folder / RESULT).exists():
                raise ResultError(why_missing(run, workspace))
            results[run.id] = load_result(folder, run)
        except ResultError as error:
            label = run.configuration.label
            missing.append(MissingRun(run_id=run.id, label=label, seed=run.seed, reason=str(error)))
        for part in (run, *run.requires()):
            path = workspace.measured_file(part)
            if part.id not in measured and path.exists():
                measured[part.id] = load_measured(path, part)
    if missing and not partial:
        raise ResultError(describe_missing(plan.profile, len(results) + len(missing), missing))
    collected = Collected(plan, results, measured, tuple(missing))
    for cells in collected.conditions.values():
        _check_comparable(collected, cells)
    return collected


def check_further(collected: Collected, further: Iterable[tuple[Run, Result]], workspace: Workspace) -> None:
    """Raise ResultError if runs with seeds that no table shows are not comparable with those of their condition."""
    results, measured = dict(collected.results), dict(collected.measured)
    cells = {cell.configuration.id: cell for cell in collected.plan.cells}
    seeds = {id_: list(cell.seeds) for id_, cell in cells.items()}
    touched = set()
    for run, result in further:
        results[run.id] = result
        seeds[run.configuration.id].append(run.seed)
        touched.add(tuple(run.configuration.names[part] for part in CONDITION))
        path = workspace.measured_file(run)
        if run.id not in measured and path.exists():
            measured[run.id] = load_measured(path, run)
    whole = Collected(collected.plan, results, measured, ())
    for condition in sorted(touched):
        same = [cell for cell in cells.values() if condition == tuple(cell.configuration.names[p] for p in CONDITION)]
        _check_comparable(
            whole, [Cell("claims", cell.configuration, tuple(seeds[cell.configuration.id])) for cell in same]
        )


def training_seconds(collected: Collected, run: Run) -> float | None:
    """Training time in seconds of the run and of the runs that it requires; None unless all of them were measured."""
    parts = [collected.measured.get(part.id) for part in (run, *run.requires())]
    known = [part.train_seconds for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _distinct_runs(plan: Plan) -> Iterator[Run]:
    seen = set()
    for cell in plan.cells:
        for seed in cell.seeds:
            run = Run(cell.configuration, seed)
            if run.id not in seen:
                seen.add(run.id)
                yield run


def why_missing(run: Run, workspace: Workspace) -> str:
    """``not run``, or ``failed`` with the recorded reason."""
    path = workspace.failure(run.id)
    if not path.exists():
        return "not run"
    return f"failed: {read_json(path, Failure).reason}"


def describe_missing(profile: str, runs: int, missing: list[MissingRun]) -> str:
    """The error for missing runs: which ones are missing, and what to do."""
    lines = [f"{m.label}, seed {m.seed} ({m.run_id}): {m.reason}" for m in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        lines.append(f"and {len(missing) - _SHOWN} more")
    return (
        f"the report of {profile!r} lacks {len(missing)} of {runs} runs; run them, or ask for a partial report "
        "(--partial). Missing: " + "; ".join(lines)
    )


def _check_comparable(collected: Collected, cells: list[Cell]) -> None:
    """Raise ResultError if the runs of one condition differ in data, static noise or device.

    A difference between methods would then include a difference between images, labels or devices. Precision and
    compilation need no check: the recipe sets them, and the runs of a condition have one recipe.
    """
    seen: dict[tuple[str, int | None], tuple[object, str]] = {}

    def check(what: str, value: object, run_id: str, seed: int | None = None) -> None:
        first_value, first_run = seen.setdefault((what, seed), (value, run_id))
        if value != first_value:
            where = " · ".join(cells[0].configuration.names[part] for part in CONDITION)
            raise ResultError(
                f"table {cells[0].table!r}, {where}: the runs cannot be compared, their {what} differs: "
                f"{first_value} in {first_run}, {value} in {run_id}; train one of them again"
            )

    for cell in cells:
        for seed, result in collected.of(cell).items():
            check("data set (digest)", result.dataset_digest, result.run_id)
            check("number of test images", result.test_images, result.run_id)
            if cell.configuration.noise.is_static:
                # A mean over epochs may differ in its last bits from that of a run with fewer epochs.
                check("share of wrong labels for one seed", round(result.noise.corruption, 9), result.run_id, seed)
            measured = collected.measured.get(result.run_id)
            if measured is not None:
                check("device type", measured.device_type, result.run_id)
