"""Comparison of a new report with the accepted one.

It answers five questions. Do all runs give the same numbers? Which verdicts changed? Do the cells agree within the
randomness of training? What is the largest change of a mean? What is the likely cause?
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collabench.config.configuration import PARTS
from collabench.core.record import Record
from collabench.core.text import counted
from collabench.report.accepted import NUMBERS_EQUAL, compare
from collabench.report.claim_records import ClaimReport
from collabench.report.folders import CONTENT, COSTS
from collabench.stats import holm, paired
from collabench.storage.files import read_json, write_json
from collabench.storage.results import Measured
from collabench.storage.workspace import Workspace

#: File in the folder of costs: where the runs were made, and with which versions. It is not in the report itself,
#: because it differs whenever runs are repeated elsewhere.
ORIGIN = "origin.json"

#: Relative difference below which a change of a likelihood or a calibration error counts as rounding.
ROUNDING = 1e-5
_ROUNDED = ("negative_log_likelihood", "calibration_error")

#: Significance level of the tests for cells that differ by more than the randomness of training, over all cells.
LEVEL = 0.05

_RUNS = "runs.csv"
_CLAIMS = "claims.json"
_SHOWN = 3
#: Ends the names of those columns of a table that need the test images' labels.
_ACROSS_IMAGES = "_over_seeds_and_images: "
_NO_ORIGIN = "the accepted report does not record where its runs were made"


class Origin(Record):
    """The devices, versions and commits of the measured runs of a report. Each field contains the distinct values."""

    devices: tuple[str, ...]
    versions: tuple[str, ...]
    commits: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    lines: one per question. details: all differences. same_bytes: whether all files of the report are equal.
    """

    lines: tuple[str, ...]
    details: tuple[str, ...]
    same_bytes: bool


def origin_of(measured: list[Measured]) -> Origin:
    """Return the distinct devices, versions and commits of measured runs."""
    return Origin(
        devices=tuple(sorted({f"{one.device} ({one.device_type})" for one in measured})),
        versions=tuple(sorted({f"{name} {version}" for one in measured for name, version in one.versions.items()})),
        commits=tuple(sorted({one.commit_text for one in measured})),
    )


def write_origin(folder: Path, measured: list[Measured]) -> None:
    """Write the file :data:`ORIGIN` into a folder of costs."""
    write_json(folder / ORIGIN, origin_of(measured))


def compare_reports(workspace: Workspace) -> Comparison:
    """Compare the report that was built with the accepted one. Raises ResultError if there is no built report."""
    details = compare(workspace)
    new, old = workspace.report, workspace.accepted_report
    runs = _rows(new / _RUNS)
    count = len({row["run_id"] for row in runs})
    all_runs = f"All {counted(count, 'run')}" if count != 1 else "The numbers of the one run"
    if not details:
        return Comparison((f"{all_runs} equal the accepted ones, byte for byte.",), (), True)
    if not (old / _RUNS).exists():
        return Comparison(tuple(details), tuple(details), False)
    news = [line for line in details if not _is_rounding(line)]
    before = _rows(old / _RUNS)
    causes = [
        _settings(before, runs),
        _further_runs(old, new),
        _without_images(details, workspace),
        *_origins(old / COSTS, workspace.costs),
    ]
    lines = [_verdicts(old, new), *_cells(before, runs), _likely(causes)]
    if all(NUMBERS_EQUAL in line for line in details):
        rest = "; ".join(line.replace(f", {NUMBERS_EQUAL}", "") for line in details)
        lines = [
            f"All numbers of {counted(count, 'run')} equal the accepted ones. Another version wrote the rest: {rest}."
        ]
    elif not news:
        lines = [
            f"{all_runs} agree with the accepted ones: only likelihoods and calibration errors differ, by "
            f"rounding (less than {ROUNDING:g} of their value)."
        ]
    return Comparison(tuple(line for line in lines if line), tuple(details), False)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_rounding(line: str) -> bool:
    """Return whether a line of :func:`collabench.report.accepted.compare` is a difference by rounding only."""
    head, _, values = line.rpartition(": ")
    if not any(name in head for name in _ROUNDED):
        return False
    try:
        before, after = (float(value) for value in values.split(" → "))
    except ValueError:
        return False
    return math.isclose(before, after, rel_tol=ROUNDING)


def _verdicts(old: Path, new: Path) -> str:
    """Return one line with the number of equal verdicts and the verdicts that changed; empty without verdicts."""
    before, after = (_verdicts_of(folder / _CLAIMS) for folder in (old, new))
    if not before and not after:
        return ""
    common = before.keys() & after.keys()
    changed = [f"{name}: {before[name]} → {after[name]}" for name in sorted(common) if before[name] != after[name]]
    text = f"Verdicts: {len(common) - len(changed)} of {len(after)} are the same"
    if changed:
        text += f", {len(changed)} changed ({_some(changed)})"
    unmatched = len(before.keys() ^ after.keys())
    return text + (f", {unmatched} are in one report only." if unmatched else ".")


def _verdicts_of(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    report = read_json(path, ClaimReport)
    return {
        f"{claim.id} on {scope.scope}" + (f" ({scope.compared})" if scope.compared else ""): scope.verdict
        for claim in report.claims
        for scope in claim.scopes
    }


def _cells(old: list[dict[str, str]], new: list[dict[str, str]]) -> Iterator[str]:
    """Yield lines on the cells that agree within the randomness of training, and on the largest change of a mean."""
    before, after = _errors(old), _errors(new)
    seeds = {cell: sorted(before[cell].keys() & after[cell].keys()) for cell in after if cell in before}
    pairs = {
        cell: ([after[cell][seed] for seed in common], [before[cell][seed] for seed in common])
        for cell, common in seeds.items()
        if common
    }
    if not pairs:
        yield "Cells: the two reports have no configuration and seed in common."
        return
    same = [cell for cell, (now, then) in pairs.items() if now == then]
    tested = {cell: paired(*values) for cell, values in pairs.items() if cell not in same}
    adjusted = dict(zip(tested, holm([test.p for test in tested.values()]), strict=True))
    differing = [cell for cell, p in adjusted.items() if p is not None and p < LEVEL]
    undecided = [cell for cell, p in adjusted.items() if p is None]
    agreeing = len(tested) - len(differing) - len(undecided)
    text = f"Cells: {len(same)} of {len(pairs)} have equal errors"
    if agreeing:
        text += f", {agreeing} agree within the randomness of training (paired by seed, Holm, {LEVEL:.0%})"
    if undecided:
        text += f", {len(undecided)} cannot be compared (too few seeds or no spread)"
    if differing:
        text += f", {len(differing)} differ by more ({_some([' · '.join(cell) for cell in differing])})"
    yield text + "."
    if tested:
        largest = max(tested, key=lambda cell: abs(tested[cell].difference))
        yield f"Largest change of a mean: {tested[largest].difference:+.2f} points ({' · '.join(largest)})."
    left = len(before.keys() ^ after.keys())
    if left:
        yield f"{left} cells are in one report only."


def _errors(rows: list[dict[str, str]]) -> dict[tuple[str, ...], dict[str, float]]:
    """Return the test errors in percent: cell → seed → error."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        found.setdefault(tuple(row[part] for part in PARTS), {})[row["seed"]] = float(row["error_last"])
    return found


def _settings(old: list[dict[str, str]], new: list[dict[str, str]]) -> str:
    """Return which cells have other settings, by the ids of their runs; empty if none has."""
    before, after = _configurations(old), _configurations(new)
    changed = [" · ".join(cell) for cell in after if cell in before and before[cell].isdisjoint(after[cell])]
    return f"other settings of {_some(changed)}" if changed else ""


def _configurations(rows: list[dict[str, str]]) -> dict[tuple[str, ...], set[str]]:
    found: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        found.setdefault(tuple(row[part] for part in PARTS), set()).add(row["run_id"].rpartition("-s")[0])
    return found


def _further_runs(old: Path, new: Path) -> str:
    """Return how many runs beside the tables' the claims of each report have used; empty if these are equally many."""
    before, after = (
        json.loads((folder / CONTENT).read_text("utf-8")).get("further_runs", 0) if (folder / CONTENT).exists() else 0
        for folder in (old, new)
    )
    if before == after:
        return ""
    return f"claims were tested with {counted(after, 'further run')} beside the tables, before with {before:,}"


def _without_images(details: list[str], workspace: Workspace) -> str:
    """Return that data sets are not prepared here, if the new report therefore lacks intervals; empty otherwise."""
    if not any(_ACROSS_IMAGES in line and line.endswith(" → nothing") for line in details):
        return ""
    return (
        "intervals over seeds and test images need the data sets, which are not prepared here: "
        f"collabench data prepare -p {workspace.profile}"
    )


def _origins(old: Path, new: Path) -> list[str]:
    """Return how the recorded origins of the two reports differ, one text for each kind."""
    if not (old / ORIGIN).exists() or not (new / ORIGIN).exists():
        return [_NO_ORIGIN]
    before, after = read_json(old / ORIGIN, Origin), read_json(new / ORIGIN, Origin)
    causes = []
    for name in ("devices", "versions", "commits"):
        gone = sorted(set(getattr(before, name)) - set(getattr(after, name)))
        come = sorted(set(getattr(after, name)) - set(getattr(before, name)))
        if gone or come:
            causes.append(f"{name}: {_some(gone) or 'the same'} → {_some(come) or 'some of them'}")
    return causes


def _likely(causes: list[str]) -> str:
    """Return one line on the causes that are known."""
    known = [cause for cause in causes if cause and cause != _NO_ORIGIN]
    if known:
        return f"Likely cause: {'; '.join(known)}."
    if _NO_ORIGIN in causes:
        return f"Likely cause: unknown, since {_NO_ORIGIN}."
    return "Likely cause: unknown: settings, devices, versions and commits are the same."


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
