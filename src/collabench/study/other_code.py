"""Runs that other code than the present one computed, and code that a person accepted as computing the same.

An edit of a method's code does not change the ids of its runs unless its ``revision`` is raised, so the old runs would
be used without notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collabench.config.configuration import Configuration
from collabench.core.errors import ResultError
from collabench.core.record import Record
from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT, Result
from collabench.storage.workspace import Workspace
from collabench.study.source_code import source_digest
from collabench.study.study import Study

UNRECORDED = "unrecorded"


class AcceptedCode(Record):
    """Pairs of digests of code, ``[old, new]``, for which a person stated that both compute the same."""

    same: tuple[tuple[str, str], ...] = ()

    def all_like(self, digest: str) -> set[str]:
        """The digests of older code that was accepted as equal to this one, directly or through others, and this
        one."""
        found = {digest}
        while True:
            more = {old for old, new in self.same if new in found} - found
            if not more:
                return found
            found |= more


@dataclass(frozen=True)
class OtherCode:
    """A configuration with finished runs that the present code did not compute.

    seeds: digest of the code, or :data:`UNRECORDED` → seeds, including those of the present code. present: its digest.
    """

    configuration: Configuration
    present: str
    seeds: dict[str, list[int]] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """One line: the configuration, and how many runs each code version computed."""
        parts = [
            f"{len(seeds)} by " + ("the present code" if source == self.present else f"code {source[:12]}")
            for source, seeds in sorted(self.seeds.items(), key=lambda item: min(item[1]))
        ]
        name = f"{self.configuration.label} [{self.configuration.id}]"
        if set(self.seeds) == {UNRECORDED}:
            return f"{name}: runs whose code was not recorded"
        return f"{name}: runs {', '.join(parts)}"


def what_to_do(found: list[OtherCode], profile: str) -> str:
    """One line on how to train the runs again, or how to keep them."""
    return (
        f"{len(found)} configurations hold runs that other code computed. If their numbers change: raise `revision` in "
        "the "
        f"method's file, and they are trained again. If not: `collabench plan -p {profile} --accept-code` records that"
    )


def runs_of_other_code(study: Study) -> list[OtherCode]:
    """The plan's configurations with finished runs of code that is neither the present one nor accepted."""
    accepted = _accepted(study.workspace)
    found = []
    for configuration, seeds in _sources(study).values():
        present = source_digest(configuration)
        if not set(seeds) <= accepted.all_like(present):
            found.append(OtherCode(configuration, present, seeds))
    return found


def accept_code(study: Study) -> list[OtherCode]:
    """Record that the code of all finished runs computes the same as the present code. Returns the configurations
    concerned.

    Runs whose code was not recorded cannot be accepted, because it is unknown what computed them.
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
    """Configuration id → the configuration and the seeds of its finished runs, by the digest of their code."""
    found: dict[str, tuple[Configuration, dict[str, list[int]]]] = {}
    for run in study.plan.runs:
        path = study.workspace.folder(run) / RESULT
        if not path.exists():
            continue
        try:
            source = read_json(path, Result).source or UNRECORDED
        except ResultError:
            continue  # reported and made again by the code that uses it
        _, seeds = found.setdefault(run.configuration.id, (run.configuration, {}))
        seeds.setdefault(source, []).append(run.seed)
    return found
