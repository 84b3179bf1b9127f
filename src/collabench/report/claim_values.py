"""The values that a claim compares: differences, rates and costs from results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabench.config.configuration import PARTS, Run
from collabench.config.plan import Cell
from collabench.papers.claim_schema import Claim, ClaimScope, ClaimTest, Compared
from collabench.report.collect import Collected, training_seconds
from collabench.stats import slopes
from collabench.storage.results import WEIGHTS, Result, load_record, tensor_shapes
from collabench.storage.workspace import Workspace

# ------------------------------------------------------------------------------------------------- from runs to values


class ClaimRuns:
    """The runs of a profile by names, and the values that hypotheses are about.

    read: the result of a run that the tables do not show (a seed after the first look), None if there is none. further:
    the runs that were read so.
    """

    def __init__(self, collected: Collected, workspace: Workspace, read: Callable[[Run], Result | None]) -> None:
        self.collected, self.workspace, self._read = collected, workspace, read
        self._results: dict[str, Result | None] = dict(collected.results)
        self.further: list[tuple[Run, Result]] = []
        self._cells: dict[tuple[str, ...], Cell] = {}
        for cell in collected.plan.cells:
            names = cell.configuration.names
            key = tuple(names[part] for part in PARTS)
            if key not in self._cells or len(cell.seeds) > len(self._cells[key].seeds):
                self._cells[key] = cell

    def cell(self, scope: ClaimScope, noise: str, compared: Compared, *, baseline: bool) -> Cell | None:
        """The cell of one side of a comparison; None if the profile's tables do not contain it."""
        names = scope.names(noise, compared, baseline=baseline)
        return self._cells.get(tuple(names[part] for part in PARTS))

    def cells(self, test: ClaimTest) -> list[Cell | None]:
        """Every cell that a test compares, each once; None for one that no table contains."""
        found = [
            self.cell(test.scope, noise, compared, baseline=baseline)
            for compared in test.compare
            for noise in test.scope.noise
            for baseline in (False, True)
        ]
        return [cell for index, cell in enumerate(found) if cell not in found[:index]]

    def values(
        self, cell: Cell, seeds: Sequence[int], value: Callable[[Cell, Result], float | None]
    ) -> dict[int, float]:
        """Seed → value, for the runs that exist and have one."""
        found = {}
        for seed in seeds:
            result = self._result(Run(cell.configuration, seed))
            if result is not None and (number := value(cell, result)) is not None:
                found[seed] = number
        return found

    def _result(self, run: Run) -> Result | None:
        if run.id not in self._results:
            found = self._results[run.id] = self._read(run)
            self.further += [] if found is None else [(run, found)]
        return self._results[run.id]

    def weights(self, cell: Cell) -> tuple[int, dict[str, tuple[int, ...]]] | None:
        """Number of parameters of the deployed network, and the shapes of its tensors if its weights are stored."""
        for seed, result in self.collected.of(cell).items():
            folder = self.workspace.folder(Run(cell.configuration, seed))
            if (folder / WEIGHTS).exists():
                return result.parameters, tensor_shapes(folder / WEIGHTS)
            record = load_record(folder)
            return result.parameters, (record and record.shapes) or {}
        return None


@dataclass(frozen=True)
class Differences:
    """Method minus baseline, one value for each of the common ``seeds`` (for costs the logarithms of ratios).

    sizes: the size of the numbers that were subtracted, per seed. missing: why there are no values.
    """

    values: NDArray[np.float64]
    sizes: NDArray[np.float64]
    seeds: tuple[int, ...] = ()
    missing: str | None = None


def differences_of(test: ClaimTest, runs: ClaimRuns, seeds: Sequence[int]) -> list[Differences]:
    """The differences of each part of a test over those of the ``seeds`` that have runs.

    The comparisons of a tendency (``combine: mean``) are one part.
    """
    found = [_paired(test, compared, runs, seeds) for compared in test.compare]
    return [_mean_of(found)] if test.claim.combine == "mean" else found


def _paired(test: ClaimTest, compared: Compared, runs: ClaimRuns, seeds: Sequence[int]) -> Differences:
    scope = test.scope
    by_noise: list[dict[int, float]] = []
    sizes: dict[int, float] = {}
    for noise in scope.noise:
        sides: list[dict[int, float]] = []
        for baseline in (False, True):
            cell = runs.cell(scope, noise, compared, baseline=baseline)
            if cell is None:
                return _none(f"no table of this profile holds {compared.baseline if baseline else compared.method}")
            value = _quantity(test.claim, test.scope_name, scope, compared.head if not baseline else 0, runs)
            sides.append(runs.values(cell, seeds, value))
        method, base = sides
        by_noise.append({seed: method[seed] - base[seed] for seed in method if seed in base})
        for seed in by_noise[-1]:
            sizes[seed] = max(sizes.get(seed, 0.0), abs(method[seed]), abs(base[seed]))
    common = [seed for seed in by_noise[0] if all(seed in one for one in by_noise)]
    if not common:
        return _none("no runs, or they do not record what is asked for")
    table = np.array([[one[seed] for one in by_noise] for seed in common])
    size = np.array([sizes[seed] for seed in common])
    if test.claim.quantity == "error_growth":
        rates = [100 * _rate(runs, scope, noise, compared) for noise in scope.noise]
        return Differences(slopes(table, rates), size / float(np.ptp(rates)), tuple(common))
    return Differences(table[:, 0], size, tuple(common))


def _rate(runs: ClaimRuns, scope: ClaimScope, noise: str, compared: Compared) -> float:
    """The noise rate (a share) of a scope's noise."""
    cell = runs.cell(scope, noise, compared, baseline=False)
    assert cell is not None, "it was found before"
    return cell.configuration.noise.rate


def _none(reason: str) -> Differences:
    return Differences(np.empty(0), np.empty(0), missing=reason)


def _mean_of(parts: Sequence[Differences]) -> Differences:
    """The mean over the comparisons, for every seed that all of them have."""
    missing = next((one.missing for one in parts if one.missing), None)
    if missing is not None:
        return _none(missing)
    seeds = tuple(seed for seed in parts[0].seeds if all(seed in one.seeds for one in parts))
    if not seeds:
        return _none("the comparisons have no seed in common")
    places = [[one.seeds.index(seed) for seed in seeds] for one in parts]
    values = [one.values[place] for one, place in zip(parts, places, strict=True)]
    sizes = [one.sizes[place] for one, place in zip(parts, places, strict=True)]
    return Differences(np.mean(values, axis=0), np.max(sizes, axis=0), seeds)


def _quantity(
    claim: Claim, scope_name: str, scope: ClaimScope, head: int, runs: ClaimRuns
) -> Callable[[Cell, Result], float | None]:
    """The quantity of the claim for one run; None if the run does not record it."""

    def error(cell: Cell, result: Result) -> float | None:
        if head >= len(result.heads):
            return None
        figures = result.last if head == 0 else result.heads[head]
        value = figures.error if scope.metric == "error" else figures.top5_error
        return None if value is None else 100 * value

    def epochs(cell: Cell, result: Result) -> float | None:
        curve = result.curves.test_error
        if not curve:
            return None
        reached = (e for e, v in enumerate(curve, 1) if v is not None and 100 * v <= claim.levels[scope_name])
        return float(next(reached, cell.configuration.recipe.epochs + 1))

    def seconds(cell: Cell, result: Result) -> float | None:
        total = training_seconds(runs.collected, Run(cell.configuration, result.seed))
        return math.log(total) if total else None

    def memory(cell: Cell, result: Result) -> float | None:
        measured = runs.collected.measured.get(result.run_id)
        return math.log(measured.peak_memory_bytes) if measured and measured.peak_memory_bytes else None

    return {
        "error": error, "error_growth": error, "epochs_to_level": epochs, "train_seconds": seconds,
        "peak_memory": memory,
    }[claim.quantity]  # fmt: skip


def why_not_comparable(claim: Claim, scope: ClaimScope, runs: ClaimRuns) -> str | None:
    """Why measured costs give no verdict: other devices, or memory of a process instead of a device. None if they
    do."""
    devices = set()
    for compared in claim.compare:
        for baseline in (False, True):
            cell = runs.cell(scope, scope.noise[0], compared, baseline=baseline)
            for seed in cell.seeds if cell is not None else ():
                assert cell is not None
                run = Run(cell.configuration, seed)
                for part in (run, *run.requires()):
                    measured = runs.collected.measured.get(part.id)
                    if measured is not None:
                        devices.add((measured.device_type, measured.device, measured.threads))
    if len(devices) > 1:
        return f"measured on different devices: {'; '.join(sorted(f'{d[1]} ({d[2]} threads)' for d in devices))}"
    if claim.quantity == "peak_memory" and any(kind == "cpu" for kind, _, _ in devices):
        return "measured on a CPU, where the peak is that of the whole process, libraries included"
    return None
