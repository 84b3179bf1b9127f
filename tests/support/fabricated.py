"""Results that no training made: written by the real writers, with figures that a test can work out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collabench.config.configuration import Run
from collabench.config.params import Params, load_params
from collabench.config.plan import Plan, make_plan
from collabench.core.seeding import numpy_generator
from collabench.storage.files import write_json
from collabench.storage.results import RESULT, Curves, Failure, Measured, Metrics, NoiseRealised, Result
from collabench.storage.workspace import Workspace
from tests.support.params import real_definitions

RECIPE = "  forty: {epochs: 40, batch_size: 64, learning_rate: 0.1, milestones: [20, 30]}\n"

#: Last-epoch test error (share) of a method with a seed.
Errors = Callable[[Run], float]


@dataclass
class Study:
    params: Params
    plan: Plan
    workspace: Workspace


def make_study(root: Path, profile: str) -> Study:
    """The study of one profile (given as YAML, indented by two) over the definitions of the real params.yaml and a
    recipe ``forty`` of 40 epochs."""
    (root / "params.yaml").write_text(real_definitions(profile, recipes=RECIPE))
    params = load_params(root / "params.yaml")
    name = next(iter(params.profiles))
    return Study(params, make_plan(params, name), Workspace(root, name))


def cell_runs(study: Study) -> list[Run]:
    """The distinct runs that the tables show."""
    runs = {run.id: run for cell in study.plan.cells for run in (Run(cell.configuration, seed) for seed in cell.seeds)}
    return list(runs.values())


def plausible(run: Run) -> float:
    """An error that depends on noise, method and seed, with a part that the methods of one seed share."""
    method, noise = run.configuration.names["method"], run.configuration.noise
    shared = numpy_generator(run.seed, "bootstrap", "shared").normal(0, 0.01)
    own = numpy_generator(run.seed, "bootstrap", method, noise.rate).normal(0, 0.006)
    gain = {"individual": 0.0, "label-smoothing": 0.004}.get(method, 0.015 + 0.03 * noise.rate)
    return round(float(np.clip(0.08 + 0.5 * noise.rate - gain + shared + own, 0, 1)) * 1297) / 1297


def heads_of(run: Run) -> int:
    return getattr(run.configuration.method, "heads", 1)


def metrics(error: float) -> Metrics:
    return Metrics(
        error=error, top5_error=error / 10, negative_log_likelihood=3 * error, calibration_error=min(1.0, error / 2)
    )


def result_of(run: Run, error: float, **changes: object) -> Result:
    """A result whose curve falls to ``error`` and lies a percentage point lower in the last epoch but one."""
    configuration, epochs = run.configuration, run.configuration.recipe.epochs
    trains = configuration.method.method != "ensemble"
    curve = [error + 0.4 * math.exp(-4 * epoch / epochs) for epoch in range(epochs)]
    if epochs > 1:
        curve[-2] = max(0.0, error - 0.01)
    curve[-1] = error
    curve = [min(value, 1.0) for value in curve] if trains else []
    count = heads_of(run)
    heads = tuple(
        metrics(min(1.0, max(0.0, error + 0.002 * ((head + 1) // 2) * (-1) ** head))) for head in range(count)
    )
    realised = configuration.noise.rate * 0.9
    values: dict[str, object] = {
        "run_id": run.id,
        "configuration_id": configuration.id,
        "seed": run.seed,
        "identity": configuration.identity(),
        "dataset_digest": "a" * 64,
        "train_images": configuration.dataset.train_images or 1437,
        "test_images": 1297,
        "parameters": 77_000,
        "training_parameters": 77_000 * count,
        "noise": NoiseRealised(
            kind=configuration.noise.kind,
            rate=configuration.noise.rate,
            corruption=realised + 1e-4 * (run.seed % 1000) * realised,
        ),
        "last": heads[0],
        "best_error": min(curve) if curve else None,
        "best_epoch": curve.index(min(curve)) if curve else None,
        "heads": heads,
        "averaged_heads": metrics(max(0.0, error - 0.004)) if count > 1 else None,
        "curves": Curves(test_error=tuple(curve)),
        "deterministic": True,
        "files": {},
    }
    return Result(**{**values, **changes})


def measured_of(run: Run, **changes: object) -> Measured:
    """A cost that is proportional to the heads; an ensemble itself costs no training."""
    trains = run.configuration.method.method != "ensemble"
    values: dict[str, object] = {
        "run_id": run.id,
        "train_seconds": (10.0 + run.seed % 10) * heads_of(run) if trains else 0.0,
        "evaluate_seconds": 1.0,
        "images_per_second": 2000.0 / heads_of(run) if trains else 0.0,
        "peak_memory_bytes": 400_000_000 + 50_000_000 * heads_of(run),
        "device_type": "cpu",
        "device": "a processor",
        "threads": 1,
        "versions": {"torch": "2.13.0", "python": "3.12.3"},
        "commit": "0123456789abcdef",
        "dirty": False,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    }
    return Measured(**{**values, **changes})


def write_results(study: Study, runs: Iterable[Run] | None = None, errors: Errors = plausible) -> None:
    for run in cell_runs(study) if runs is None else runs:
        folder = study.workspace.folder(run)
        write_json(folder / RESULT, result_of(run, errors(run)))


def write_measured(study: Study, runs: Iterable[Run] | None = None, **changes: object) -> None:
    for run in study.plan.runs if runs is None else runs:
        write_json(study.workspace.measured_file(run), measured_of(run, **changes))


def write_failure(study: Study, run: Run, reason: str) -> None:
    write_json(
        study.workspace.failure(run.id),
        Failure(run_id=run.id, label=run.configuration.label, reason=reason, when="2026-01-01T00:00:00+00:00"),
    )
