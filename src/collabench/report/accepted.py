"""The accepted report in git: comparison with a new report, and acceptance of a new one (by explicit command only)."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from collabench.config.configuration import PARTS
from collabench.core.errors import ResultError
from collabench.report.folders import COSTS, OVERVIEW, digests_of, whole_folder
from collabench.report.verification import VERIFIED
from collabench.storage.workspace import Workspace

#: Number of differences per file that are listed one by one.
_SHOWN = 40

#: In every line of :func:`compare` that tells of no number.
NUMBERS_EQUAL = "although all numbers are equal"

_KEYS = ("table", "row", "column", "claim", "scope", "part", *PARTS, "seed")


def compare(workspace: Workspace) -> list[str]:
    """The differences between the built report and the accepted one, one readable line each.

    Costs are ignored, because they differ whenever runs are repeated. Raises ResultError if there is no built report.
    """
    new, old = workspace.report, workspace.accepted_report
    _require(workspace)
    if not (old / OVERVIEW).exists():
        return [f"reports/{workspace.profile}: nothing is accepted yet"]
    new_files, old_files = _files(new), _files(old)
    lines = [f"{name}: only in the accepted report" for name in sorted(old_files - new_files)]
    lines += [f"{name}: only in the new report" for name in sorted(new_files - old_files)]
    changed = [name for name in sorted(new_files & old_files) if (new / name).read_bytes() != (old / name).read_bytes()]
    numbers = [name for name in changed if name.endswith(".csv")]
    for name in sorted(numbers, key=lambda name: (name == "runs.csv", name)):
        lines += _compare_csv(name, old / name, new / name)
    figures = [name for name in changed if name.endswith(".svg")]
    if figures:
        reason = "" if numbers else f", {NUMBERS_EQUAL}: another version of matplotlib?"
        lines.append(f"figures: {len(figures)} are drawn differently{reason}")
    texts = [name for name in changed if name.endswith((".md", ".json"))]
    if texts and not numbers:
        lines.append(f"texts differ, {NUMBERS_EQUAL}: {', '.join(texts)}")
    return lines


def accept(workspace: Workspace) -> None:
    """Make the built report, with its costs, the accepted one. The old one stays until the new one is complete.

    What ``collabench verify`` has recorded of the old one goes with it, unless the new one is the same report.

    Raises ResultError if there is no built report.
    """
    _require(workspace)
    verified = workspace.accepted_report / VERIFIED
    same = digests_of(workspace.report) == digests_of(workspace.accepted_report)
    with whole_folder(workspace.accepted_report) as folder:
        shutil.copytree(workspace.report, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
        if same and verified.is_file():
            shutil.copyfile(verified, folder / VERIFIED)
        if workspace.costs.is_dir():
            shutil.copytree(workspace.costs, folder / COSTS, copy_function=shutil.copyfile)


def _require(workspace: Workspace) -> None:
    if not (workspace.report / OVERVIEW).exists():
        raise ResultError(f"{workspace.report}: there is no report of {workspace.profile!r} yet; build it first")


def _files(folder: Path) -> set[str]:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith((f"{COSTS}/", ".")) and name != VERIFIED}


def _compare_csv(name: str, old: Path, new: Path) -> list[str]:
    """``default.csv: digits · clean · resnet8 · fast · simple-4: error_last_mean: 4.5 → 4.25``."""
    before, after = _rows(old), _rows(new)
    lines = [f"{name}: {key}: row is gone" for key in before if key not in after]
    lines += [f"{name}: {key}: row is new" for key in after if key not in before]
    for key in after:
        if key in before:
            first, second = before[key], after[key]
            for column in dict.fromkeys([*first, *second]):
                old_value, new_value = first.get(column, ""), second.get(column, "")
                if old_value != new_value:
                    lines.append(f"{name}: {key}: {column}: {old_value or 'nothing'} → {new_value or 'nothing'}")
    if not lines:
        lines = [f"{name}: the same numbers in another order or form"]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"{name}: and {len(lines) - _SHOWN} more differences"]
    return lines


def _rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {
            " · ".join(f"seed {row[key]}" if key == "seed" else row[key] for key in _KEYS if row.get(key)): row
            for row in csv.DictReader(file)
        }
