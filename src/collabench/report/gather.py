"""Reading the reports of all profiles of a project, for the pages that join them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabench.config.configuration import CONDITION
from collabench.core.errors import ResultError
from collabench.report.cells import CELLS, Cells
from collabench.report.claim_records import ClaimReport
from collabench.report.comparison import ORIGIN, Origin
from collabench.report.content import Report
from collabench.report.folders import CLAIMS, CONTENT, COSTS, RUNS, digests_of
from collabench.report.verification import Verified, load_verified, still_holds
from collabench.storage.files import read_json
from collabench.storage.workspace import Workspace

#: Columns of ``runs.csv`` with one number per run that a page shows.
PER_RUN = (
    "error_last",
    "error_best_epoch",
    "best_epoch",
    "error_validation_selected",
    "top5_error",
    "negative_log_likelihood",
    "calibration_error",
    "error_averaged_heads",
)
_HEADS = "error_of_heads"

#: Columns of ``costs.csv`` that a page shows.
_COSTS = (
    "train_seconds",
    "train_seconds_sd",
    "train_seconds_relative",
    "images_per_second",
    "peak_memory_bytes",
    "peak_memory_bytes_relative",
    "runs_measured",
)


@dataclass(frozen=True)
class Gathered:
    """The report of one profile.

    accepted: whether it is the one in git, else the one that was built here. results, costs: the verdicts on claims.
    runs: configuration id → column → one value per run; ``seeds`` is one of the columns, ``heads`` has a list per run.
    prices: (table, condition key, method) → measured costs. published: paper → rows of its CSV file. digests: file name
    → SHA-256. origin, cells, verified: None if the report does not have the file. verified_now: whether the report is
    still the one that ``collabench verify`` checked.
    """

    profile: str
    accepted: bool
    report: Report
    results: ClaimReport | None
    costs: ClaimReport | None
    runs: dict[str, dict[str, list[Any]]]
    prices: dict[tuple[str, str, str], dict[str, Any]]
    published: dict[str, list[dict[str, str]]]
    digests: dict[str, str]
    origin: Origin | None = None
    cells: Cells | None = None
    verified: Verified | None = None
    verified_now: bool = False

    @property
    def name(self) -> str:
        return self.profile if self.accepted else f"{self.profile} (built here)"


@dataclass(frozen=True)
class AllReports:
    """problems: one line for each report that cannot be read."""

    reports: tuple[Gathered, ...]
    problems: tuple[str, ...] = field(default=())

    def verdicts(self) -> Iterator[tuple[str, ClaimReport]]:
        """All verdicts on claims, each with the name of its report."""
        for report in self.reports:
            yield from ((report.name, one) for one in (report.results, report.costs) if one is not None)


def gather(root: Path, profiles: Iterable[str], papers: Sequence[str] = (), *, built: bool = False) -> AllReports:
    """The reports below ``root``: the accepted one of each profile or, if nothing is accepted, the one built here.

    profiles: the order; profiles with an accepted report that it does not name follow in alphabetical order. papers:
    names of the papers whose CSV files are read. built: prefer what was built here to what is accepted.

    A report that cannot be read is left out, with a line that says why.
    """
    order = list(dict.fromkeys([*profiles, *Workspace(root, "").with_accepted_report()]))
    found, problems = [], []
    for profile in order:
        workspace = Workspace(root, profile)
        places = {
            True: (workspace.accepted_report, workspace.accepted_report / COSTS),
            False: (workspace.report, workspace.costs),
        }
        for is_accepted in (False, True) if built else (True, False):
            folder, costs = places[is_accepted]
            if not (folder / CONTENT).is_file():
                continue
            try:
                found.append(_read(profile, folder, costs, papers, is_accepted))
            except ResultError as error:
                problems.append(str(error))
            break
    return AllReports(tuple(found), tuple(problems))


def built_differs(root: Path, profiles: Iterable[str]) -> bool:
    """Whether the report of some profile was built here and differs from the accepted one."""
    for profile in profiles:
        workspace = Workspace(root, profile)
        built, accepted = digests_of(workspace.report), digests_of(workspace.accepted_report)
        if CONTENT in built and CONTENT in accepted and built != accepted:
            return True
    return False


def _read(profile: str, folder: Path, costs: Path, papers: Sequence[str], accepted: bool) -> Gathered:
    report = read_json(folder / CONTENT, Report)
    if report.profile != profile:
        raise ResultError(
            f"{folder / CONTENT}: is the report of {report.profile!r}, but lies where {profile!r} belongs"
        )
    verified = load_verified(folder)
    return Gathered(
        profile=profile,
        accepted=accepted,
        report=report,
        results=_record(folder / CLAIMS, ClaimReport),
        costs=_record(costs / CLAIMS, ClaimReport),
        runs=_runs(folder / RUNS),
        prices=_prices(costs / "costs.csv"),
        published={paper: rows for paper in papers if (rows := _rows(folder / f"{paper}.csv"))},
        digests=digests_of(folder),
        origin=_record(costs / ORIGIN, Origin),
        cells=_record(folder / CELLS, Cells),
        verified=verified,
        verified_now=verified is not None and still_holds(folder, verified),
    )


def _record(path: Path, kind: type[Any]) -> Any:
    return read_json(path, kind) if path.is_file() else None


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (ValueError, csv.Error) as error:
        raise ResultError(f"{path}: is no table in CSV ({error}); build the report again") from None


def _number(path: Path, line: int, column: str, text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise ResultError(
            f"{path}: line {line}: {column}: a number is needed, got {text!r}; build the report again"
        ) from None


def _runs(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Configuration id → column → values in the order of the file, which has a configuration's seeds in order."""
    found: dict[str, dict[str, list[Any]]] = {}
    for line, row in enumerate(_rows(path), 2):
        seed, run = row.get("seed") or "", row.get("run_id") or ""
        configuration = run.removesuffix(f"-s{seed}")
        columns = found.setdefault(configuration, {"seeds": [], "heads": [], **{name: [] for name in PER_RUN}})
        if seed in map(str, columns["seeds"]):  # two sets of names for one configuration
            continue
        columns["seeds"].append(int(_number(path, line, "seed", seed) or 0))
        heads = (row.get(_HEADS) or "").split()
        columns["heads"].append([_number(path, line, _HEADS, value) for value in heads])
        for name in PER_RUN:
            columns[name].append(_number(path, line, name, row.get(name)))
    return {
        configuration: {name: values for name, values in columns.items() if any(v not in (None, []) for v in values)}
        for configuration, columns in found.items()
    }


def _prices(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = {}
    for line, row in enumerate(_rows(path), 2):
        condition = "-".join(row.get(part) or "" for part in CONDITION)
        numbers = {name: _number(path, line, name, row.get(name)) for name in _COSTS}
        found[row.get("table") or "", condition, row.get("method") or ""] = {
            **numbers,
            "devices": row.get("devices") or "",
        }
    return found
