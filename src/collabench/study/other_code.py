"""Finished runs that an older version of the code computed, and older code that a person accepted as equivalent.

An edit of a method's code does not change the ids of its runs unless its ``revision`` is raised. Without this check,
old runs would be used beside new ones without notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from collabench.config.configuration import Configuration
from collabench.core.errors import ResultError
from collabench.core.record import Record
from collabench.core.text import counted
from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT, Result
from collabench.storage.workspace import Workspace
from collabench.study import source_code
from collabench.study.source_code import source_digest
from collabench.study.study import Study

UNRECORDED = "unrecorded"


class AcceptedCode(Record):
    """Pairs of digests of code, ``[old, new]``, for which a person stated that both compute the same numbers."""

    same: tuple[tuple[str, str], ...] = ()

    def all_like(self, digest: str) -> set[str]:
        """Return ``digest`` and the digests of older code that was accepted as equivalent, directly or indirectly."""
        found = {digest}
        while True:
            more = {old for old, new in self.same if new in found} - found
            if not more:
                return found
            found |= more


@dataclass(frozen=True)
class OtherCode:
    """A configuration with finished runs that other code than the present one computed.

    present: digest of the present code.
    seeds: digest of the code, or :data:`UNRECORDED` → the seeds that it computed. The present code is included.
    """

    configuration: Configuration
    present: str
    seeds: dict[str, list[int]] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """One line with the configuration and the number of runs that each version of the code computed."""
        parts = [
            f"{len(seeds)} by " + ("the present code" if source == self.present else f"code {source[:12]}")
            for source, seeds in sorted(self.seeds.items(), key=lambda item: min(item[1]))
        ]
        name = f"{self.configuration.label} [{self.configuration.id}]"
        if set(self.seeds) == {UNRECORDED}:
            return f"{name}: runs whose code was not recorded"
        return f"{name}: runs {', '.join(parts)}"


def what_to_do(found: list[OtherCode], profile: str) -> str:
    """Return one line on how to train the runs again, or how to keep them."""
    return (
        f"Other code computed runs of {counted(len(found), 'configuration')}. If their numbers change: raise "
        "`revision` in the method's file, and they are trained again. If not: "
        f"`collabench plan -p {profile} --accept-code` records that"
    )


def runs_of_other_code(study: Study) -> list[OtherCode]:
    """Return the plan's configurations with finished runs of code that is neither the present one nor accepted."""
    accepted = _accepted(study.workspace)
    found = []
    for configuration, seeds in _sources(study).values():
        present = source_digest(configuration)
        if not set(seeds) <= accepted.all_like(present):
            found.append(OtherCode(configuration, present, seeds))
    return found


def files_of_the_user(study: Study) -> set[Path]:
    """Return the files outside the library that the code of the plan's runs consists of."""
    every = study.plan.configurations.values()
    return {path for configuration in every for path in source_code.files_of_the_user(configuration)}


def accept_code(study: Study) -> list[OtherCode]:
    """Record that the code of all finished runs computes the same numbers as the present code.

    Returns the configurations concerned. Runs whose code was not recorded cannot be accepted, because it is unknown
    what computed them.
    """
    found = [other for other in runs_of_other_code(study) if set(other.seeds) != {UNRECORDED}]
    pairs = {
        (source, other.present)
        for other in found
        for source in other.seeds
        if source not in (UNRECORDED, other.present)
    }
    if pairs:
        before = _accepted(study.workspace).same
        write_json(study.workspace.accepted_code, AcceptedCode(same=tuple(sorted({*before, *pairs}))))
    return found


def _accepted(workspace: Workspace) -> AcceptedCode:
    path = workspace.accepted_code
    return read_json(path, AcceptedCode) if path.exists() else AcceptedCode()


def _sources(study: Study) -> dict[str, tuple[Configuration, dict[str, list[int]]]]:
    """Return, by configuration id, the configuration and the seeds of its finished runs by the digest of their code."""
    found: dict[str, tuple[Configuration, dict[str, list[int]]]] = {}
    for run in study.plan.runs:
        path = study.workspace.folder(run) / RESULT
        if not path.exists():
            continue
        try:
            source = read_json(path, Result).source or UNRECORDED
        except ResultError:
            continue  # the code that uses this result reports it and makes it again
        _, seeds = found.setdefault(run.configuration.id, (run.configuration, {}))
        seeds.setdefault(source, []).append(run.seed)
    return found
