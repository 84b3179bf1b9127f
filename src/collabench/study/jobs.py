"""Jobs: blocks of seeds of one configuration, which Snakemake schedules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from collabench.config.configuration import Configuration, Run, digest
from collabench.config.plan import Plan
from collabench.core.errors import CollabenchError, Log, ResultError
from collabench.core.regular import read_file
from collabench.storage.files import write_atomically
from collabench.storage.results import RESULT, load_result
from collabench.storage.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """One configuration and one block of its seeds, run by one process and scheduled by Snakemake.

    ``marker`` is the only file that Snakemake knows. Its name contains the seeds, so that an additional seed makes
    another job, which trains only what is missing. ``priority`` is higher for earlier blocks of seeds.
    """

    id: str
    configuration: Configuration
    seeds: tuple[int, ...]
    requires: tuple[str, ...]
    priority: int
    marker: Path

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(Run(self.configuration, seed) for seed in self.seeds)

    @property
    def marker_content(self) -> bytes:
        return ("\n".join(run.id for run in self.runs) + "\n").encode()


class Jobs:
    """The jobs of a plan in run order: earlier blocks of seeds first, required configurations before those that need
    them."""

    def __init__(self, plan: Plan, workspace: Workspace, seeds_per_job: int) -> None:
        self._plan, self._workspace, self._block = plan, workspace, seeds_per_job

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    @cached_property
    def _jobs(self) -> list[Job]:
        grouped: dict[tuple[str, int, int], list[Run]] = {}
        growth, first = self._plan.growth, self._plan.first_seed
        edges = growth.edges if growth is not None else ()
        for run in self._plan.runs:  # in order: earlier blocks of seeds first, required runs first
            # No job crosses the end of a look, so that a study that grows keeps the jobs that it has.
            look = bisect_right(edges, run.data_seed - first)
            grouped.setdefault((run.configuration.id, look, run.seed // self._block), []).append(run)
        job_of = {run.id: _job_id(runs) for runs in grouped.values() for run in runs}
        jobs = []
        for position, runs in enumerate(grouped.values()):
            job_id = _job_id(runs)
            configuration = runs[0].configuration
            jobs.append(
                Job(
                    id=job_id,
                    configuration=configuration,
                    seeds=tuple(run.seed for run in runs),
                    requires=tuple(dict.fromkeys(job_of[r.id] for run in runs for r in run.requires())),
                    priority=len(grouped) - position,
                    marker=self._workspace.runs
                    / configuration.id
                    / f"{job_id.removeprefix(configuration.id)[1:]}.done",
                )
            )
        return jobs

    def find(self, job_id: str) -> Job:
        """The job of this id. Raises CollabenchError if the plan has none."""
        for job in self._jobs:
            if job.id == job_id:
                return job
        raise CollabenchError(f"the plan of profile {self._workspace.profile} has no job {job_id!r}")

    def drop_stale_markers(self, log: Log | None = None) -> list[Path]:
        """Remove the markers of jobs with missing result files, so that they are run again.

        log: if given, the checksum of every result file is verified as well, and damaged files are logged.
        """
        stale = []
        for job in self._jobs:
            if not job.marker.exists():
                continue
            try:
                if _content(job.marker) != job.marker_content:
                    raise ResultError(f"{job.marker}: damaged marker")
                for run in job.runs:
                    if log is not None:
                        load_result(self._workspace.folder(run), run)
                    elif not (self._workspace.folder(run) / RESULT).exists():
                        raise ResultError(f"{self._workspace.folder(run) / RESULT}: is missing")
            except ResultError as error:
                if log is not None:
                    log(f"{error}; it is made again")
                job.marker.unlink(missing_ok=True)
                stale.append(job.marker)
        return stale

    def finish(self, job: Job) -> None:
        """Write a job's marker."""
        write_atomically(job.marker, job.marker_content)


def _job_id(runs: Sequence[Run]) -> str:
    seeds = [run.seed for run in runs]
    return f"{runs[0].configuration.id}.seeds-{min(seeds)}-{max(seeds)}-{digest(seeds)[:6]}"


def _content(path: Path) -> bytes | None:
    try:
        return read_file(path)
    except OSError:
        return None
