"""What stands behind the numbers of a report: settings and curves of each configuration, as its file ``cells.json``.

The page of all profiles shows them. ``runs.csv`` has every run's error; this file has what a table of runs cannot hold.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from collabench.core.record import Record
from collabench.report.collect import Collected

CELLS = "cells.json"
SCHEMA: Final = 1

_DECIMALS = 4


class CellRuns(Record):
    """The runs of one configuration.

    settings: everything that a run's id is made of. needs: labels of the runs that it requires first. dataset_digest:
    of the prepared data set; None without a run. curves: seed → test error (percent, four decimals) of the deployed
    head, one number per epoch, None where the epoch was not evaluated; empty for a method that does not train.
    """

    settings: dict[str, Any]
    needs: tuple[str, ...]
    dataset_digest: str | None
    curves: dict[str, tuple[float | None, ...]]


class Cells(Record):
    """cells: configuration id → what stands behind its numbers."""

    schema_version: Literal[1] = SCHEMA
    profile: str
    cells: dict[str, CellRuns]


def cells_of(collected: Collected) -> Cells:
    """The configurations of the plan's tables, each once, in the plan's order."""
    found: dict[str, CellRuns] = {}
    for cell in collected.plan.cells:
        configuration, results = cell.configuration, collected.of(cell)
        known = found.get(configuration.id)
        digests = [result.dataset_digest for result in results.values()]
        if known is not None and known.dataset_digest is not None:
            digests.append(known.dataset_digest)
        curves = {
            str(seed): tuple(None if value is None else round(100 * value, _DECIMALS) for value in curve)
            for seed, result in results.items()
            if (curve := result.curves.test_error)
        }
        found[configuration.id] = CellRuns(
            settings=configuration.identity(),
            needs=tuple(one.configuration.label for one in configuration.requires),
            dataset_digest=next(iter(digests), None),
            curves=(known.curves if known else {}) | curves,
        )
    return Cells(profile=collected.plan.profile, cells=found)
