"""The few figures of a report that a person reads first, for tools that compare revisions: ``dvc metrics diff``.

Such a tool shows a file as a row and its keys as columns. So there is one file for each standing of a claim's tests and
one for each condition of a table, and all have the same few keys: the papers, the baseline and the lowest error.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from collabench.config.configuration import CONDITION
from collabench.report.across_profiles import ClaimEverywhere, count
from collabench.report.content import Condition, Report, Row, Table
from collabench.storage.files import write_atomically

#: Folder of these files in a report.
METRICS = "metrics"


def metrics_of(
    report: Report, claims: Sequence[ClaimEverywhere], papers: Collection[str]
) -> dict[str, dict[str, int | float]]:
    """File name without ending → the figures of its row, by paper.

    ``claims-supported``, ``claims-refuted``, ``claims-open`` (also stopped ones): number of tests of claims about test
    error. A condition of a table, as mean test errors in percent: ``base`` of the declared baseline, ``lowest`` of all
    methods, and of each paper the lowest of its own methods. Costs are no part of it, since they differ with every
    measurement. papers: their short names.
    """
    found: dict[str, dict[str, int | float]] = {}
    for paper in papers:
        counts = count([claim for claim in claims if claim.paper == paper], "statistical")
        counts.pop("not run", None)
        decided = {"supported": counts["supported"], "refuted": counts["refuted"]}
        for name, number in {**decided, "open": counts.total() - sum(decided.values())}.items():
            if counts:
                found.setdefault(f"claims-{name}", {})[paper] = number
    for table in report.tables:
        for condition in table.conditions:
            known = {row.method: row for row in condition.rows if row.error is not None}
            errors = {
                "base": _lowest(row for name, row in known.items() if name == condition.baseline),
                "lowest": _lowest(known.values()),
            }
            for paper in papers:
                errors[paper] = _lowest(row for row in known.values() if _is_method_of(row, paper))
            shown = {name: error for name, error in errors.items() if error is not None}
            if shown:
                found[_name(table, condition)] = shown
    return found


def _lowest(rows: Iterable[Row]) -> float | None:
    return min((row.error.mean for row in rows if row.error is not None), default=None)


def _is_method_of(row: Row, paper: str) -> bool:
    """Whether the row's method has the paper's name, which the readable part of the configuration's id holds."""
    return paper.replace("_", "-") in row.configuration_id.split("-")[2:-1]


def _name(table: Table, condition: Condition) -> str:
    """``noise-uniform20``: the table, and what tells its conditions apart."""
    parts = [part for part in CONDITION if len({one.names[part] for one in table.conditions}) > 1]
    without = [part for part in parts if part != "recipe"]  # left out where the others tell enough
    if len({tuple(one.names[part] for part in without) for one in table.conditions}) == len(table.conditions):
        parts = without
    return "-".join([table.name, *(condition.names[part] for part in parts)])


def write_metrics(folder: Path, report: Report, claims: Sequence[ClaimEverywhere], papers: Collection[str]) -> None:
    """Write :data:`METRICS` as plain JSON, without checksums, which such a tool would show as figures."""
    (folder / METRICS).mkdir()
    for name, figures in metrics_of(report, claims, papers).items():
        text = json.dumps(figures, indent=1, sort_keys=True, allow_nan=False)
        write_atomically(folder / METRICS / f"{name}.json", f"{text}\n".encode())
