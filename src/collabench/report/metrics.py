"""The main figures of a report as ``metrics.json``, for tools that compare revisions, such as ``dvc metrics diff``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collabench.report.across_profiles import ClaimEverywhere, count
from collabench.report.content import Report
from collabench.storage.files import write_atomically

METRICS = "metrics.json"


def metrics_of(report: Report, claims: Sequence[ClaimEverywhere]) -> dict[str, Any]:
    """Where the tests of claims about test error stand, and the mean test error (percent) of every table's methods.

    Costs are no part of it, since they differ with every measurement.
    """
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for table in report.tables:
        for condition in table.conditions:
            known = {row.method: row.error.mean for row in condition.rows if row.error is not None}
            if known:
                errors.setdefault(table.name, {})[condition.key] = known
    return {"tests": dict(count(claims, "statistical")), "error": errors}


def write_metrics(folder: Path, report: Report, claims: Sequence[ClaimEverywhere]) -> None:
    """Write :data:`METRICS` as plain JSON, without a checksum, which such a tool would show as a figure."""
    text = json.dumps(metrics_of(report, claims), indent=1, sort_keys=True, allow_nan=False)
    write_atomically(folder / METRICS, f"{text}\n".encode())
