"""A profile's runs, curves and verdicts as data frames of pandas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas

from collabench.api.own_methods import check_own_methods
from collabench.config.configuration import PARTS
from collabench.core.errors import ConfigError, ResultError
from collabench.report.cells import CELLS, Cells
from collabench.report.collect import Collected, collect
from collabench.report.folders import COSTS
from collabench.report.gather import RUNS
from collabench.report.pages.claims import CSV as CLAIMS
from collabench.storage.files import read_json
from collabench.storage.workspace import Workspace
from collabench.study.study import load_study


def load_runs(root: str | Path, profile: str, *, accepted: bool = False, partial: bool = False) -> pandas.DataFrame:
    """Every run of the profile's tables, one a row.

    Columns: ``dataset``, ``noise``, ``model``, ``recipe``, ``method`` (names of ``params.yaml``), ``seed``, ``run_id``;
    errors and rates in percent (``error_last``: of the deployed head after the last epoch), epochs counted from 1,
    ``negative_log_likelihood`` in nats per image. docs/reference/python.md explains each.

    Args:
        root: the project's folder, where ``params.yaml`` lies.
        accepted: read the accepted report in ``reports/`` in place of the results in ``artifacts/``.
        partial: leave runs out that are not there. Otherwise a missing run is an error.

    Raises:
        ConfigError: there is no such profile, or ``params.yaml`` is wrong.
        ResultError: runs are missing or damaged, or nothing is accepted.
    """
    if accepted:
        return _read(_workspace(root, profile).accepted_report / RUNS, _ACCEPT)
    frame = _collected(root, profile, partial).frame
    unknown = [name for name in frame if frame[name].isna().all()]
    return frame.astype(dict.fromkeys(unknown, float))


def load_curves(root: str | Path, profile: str, *, accepted: bool = False, partial: bool = False) -> pandas.DataFrame:
    """The curves of every run of the profile's tables, one epoch a row.

    Columns: the five names, ``seed``, ``run_id``, ``epoch`` (from 1), ``test_error`` and ``validation_error`` (percent
    of the deployed head; missing where an epoch was not evaluated), ``learning_rate``, and ``loss_<term>`` for every
    term of the method's loss (mean over the epoch's images). With ``accepted`` there are ``configuration``, ``seed``,
    ``epoch`` and ``test_error`` alone: reports keep no more. Arguments and errors as of :func:`load_runs`.
    """
    if accepted:
        path = _workspace(root, profile).accepted_report / CELLS
        if not path.is_file():
            raise ResultError(f"{path}: does not exist; {_ACCEPT}")
        cells = read_json(path, Cells).cells
        rows = [
            {"configuration": name, "seed": int(seed), "epoch": epoch, "test_error": error}
            for name, cell in cells.items()
            for seed, curve in cell.curves.items()
            for epoch, error in enumerate(curve, 1)
        ]
        return pandas.DataFrame(rows, columns=["configuration", "seed", "epoch", "test_error"])
    rows, collected = [], _collected(root, profile, partial)
    for cell in {tuple(cell.configuration.names.values()): cell for cell in collected.plan.cells}.values():
        for seed, result in collected.of(cell).items():
            curves = result.curves
            for epoch, rate in enumerate(curves.learning_rate):
                losses = {f"loss_{name}": values[epoch] for name, values in curves.losses.items()}
                rows.append(
                    {
                        **cell.configuration.names,
                        "seed": seed,
                        "run_id": result.run_id,
                        "epoch": epoch + 1,
                        "test_error": _percent(curves.test_error[epoch]),
                        "validation_error": _percent((curves.validation_error or (None,) * (epoch + 1))[epoch]),
                        "learning_rate": rate,
                        **losses,
                    }
                )
    first = [*PARTS, "seed", "run_id", "epoch", "test_error", "validation_error", "learning_rate"]
    terms = sorted({name for row in rows for name in row} - set(first))
    frame = pandas.DataFrame(rows, columns=[*first, *terms])
    return frame.astype(dict.fromkeys(["test_error", "validation_error", *terms], float))


def load_verdicts(root: str | Path, profile: str, *, accepted: bool = False) -> pandas.DataFrame:
    """The verdicts on the papers' claims in this profile's report, one comparison a row.

    Columns: ``kind`` (``results`` or ``costs``), then those of ``claims.csv``: ``claim``, ``scope``, ``verdict``,
    ``n``, ``estimate`` with ``low`` and ``high`` (its unit is in ``unit``), ``adjusted_p`` and others. Arguments as of
    :func:`load_runs`. Raises ResultError if no report was built, or none was accepted.
    """
    workspace = _workspace(root, profile)
    report, costs, remedy = workspace.report, workspace.costs, f"collabench report -p {profile} builds it"
    if accepted:
        report, costs, remedy = workspace.accepted_report, workspace.accepted_report / COSTS, _ACCEPT
    if not report.is_dir():
        raise ResultError(f"{report}: does not exist; {remedy}")
    frames = []
    for kind, path in (("results", report / CLAIMS), ("costs", costs / CLAIMS)):
        if path.is_file():  # a profile that no claim is about has none
            frame = _read(path, remedy)
            frame.insert(0, "kind", kind)
            frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=["kind", "claim"])


_ACCEPT = "collabench report --accept adopts a report"


def _workspace(root: str | Path, profile: str) -> Workspace:
    folder = Path(root).resolve()
    if not (folder / "params.yaml").is_file():
        raise ConfigError(f"{folder}: has no params.yaml; root must be the project's folder")
    return Workspace(folder, profile)


def _collected(root: str | Path, profile: str, partial: bool) -> Collected:
    folder = _workspace(root, profile).root
    check_own_methods(folder)
    study = load_study(folder, profile)
    return collect(study.plan, study.workspace, partial=partial)


def _read(path: Path, remedy: str) -> pandas.DataFrame:
    if not path.is_file():
        raise ResultError(f"{path}: does not exist; {remedy}")
    try:
        return pandas.read_csv(path, dtype={"error_of_heads": str})
    except (ValueError, OSError) as error:
        raise ResultError(f"{path}: cannot be read ({error})") from None


_percent: Callable[[float | None], float | None] = lambda share: None if share is None else 100 * share  # noqa: E731
