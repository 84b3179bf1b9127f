"""The status of a run, and the reason why it is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from collabench.config.configuration import Run, differences
from collabench.config.plan import Plan
from collabench.core.errors import ResultError
from collabench.storage.files import read_json
from collabench.storage.locks import is_held
from collabench.storage.results import RESULT, Failure, Result
from collabench.storage.workspace import Workspace


@dataclass(frozen=True)
class RunStatus:
    """``elsewhere``: another profile has the run, which will be linked. ``why``: the reason for ``failed`` and
    ``todo``."""

    run: Run
    state: Literal["done", "failed", "running", "elsewhere", "todo"]
    why: str = ""


def status_of(workspace: Workspace, run: Run) -> RunStatus:
    """Whether a run is done, failed, in training, available elsewhere or to be trained, and why."""
    if (workspace.folder(run) / RESULT).exists():
        return RunStatus(run, "done")
    if workspace.failure(run.id).exists():
        return RunStatus(run, "failed", _why_failed(workspace, run))
    if is_held(workspace.lock(run.id)):
        return RunStatus(run, "running")
    for sibling in workspace.siblings():
        if (sibling.folder(run) / RESULT).exists():
            return RunStatus(run, "elsewhere", f"{sibling.title} has it")
    return RunStatus(run, "todo")


def _why_failed(workspace: Workspace, run: Run) -> str:
    try:
        return read_json(workspace.failure(run.id), Failure).reason
    except ResultError as error:
        return f"reason unknown: {error}"


def explain_missing(plan: Plan, workspace: Workspace, runs: Iterable[Run]) -> dict[str, str]:
    """Configuration id → why its runs are missing: the fields in which the nearest stored run differs."""
    wanted = {run.configuration.id: run.configuration for run in runs}
    stored: dict[str, dict] = {}
    places = (workspace.runs, workspace.aside.runs) if wanted else ()
    for folder in (folder for place in places for folder in sorted(place.glob("*/seed-*"))):
        if folder.parent.name not in stored and folder.parent.name not in plan.configurations:
            try:
                stored[folder.parent.name] = read_json(folder / RESULT, Result).identity
            except ResultError:
                continue
    reasons = {}
    for identifier, configuration in wanted.items():
        candidates = [_changes(identity, configuration.identity()) for identity in stored.values()]
        nearest = min(candidates, key=len, default=None)
        if any((workspace.runs / identifier).glob("seed-*")):
            reasons[identifier] = "new seeds"
        elif not nearest or len(nearest) > 4:
            reasons[identifier] = "never run"
        else:
            reasons[identifier] = "changed: " + "; ".join(nearest)
    return reasons


def _changes(before: dict, after: dict) -> list[str]:
    """The changed fields. Ids of required runs, which follow from them, are given only if nothing else changed."""
    found = list(differences(before, after))
    return [change for change in found if not change.startswith("requires")] or found
