"""The study that Snakemake schedules, with the markers that no longer hold removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.core.errors import CollabenchError
from collabench.core.resources import Resources, allocated, choose, on_cluster
from collabench.core.text import counted
from collabench.storage.results import RESULT
from collabench.study import growth as growing
from collabench.study.blocks import next_blocks, seconds_of
from collabench.study.jobs import Job
from collabench.study.shards import from_environment, runs_of
from collabench.study.study import Study, load_study

if TYPE_CHECKING:
    from pipeline.shown import Shown

#: Names the profile to the Snakefile and to its jobs, as it is written; without it, ``--config profile=`` does.
PROFILE = "COLLABENCH_PROFILE"
#: Environment variable with the image in which jobs train (docs/how-to/install.md#in-a-container).
CONTAINER = "COLLABENCH_CONTAINER"

#: The noise stage's marker: there exactly if every static noise file of its key is.
NOISE_MARKER = "drawn"

#: Of a prepared data set; :mod:`collabench.data` would import torch.
MANIFEST = "manifest.json"


#: The study of this process, once it was loaded or chosen.
_chosen: list[tuple[Study, Resources]] = []
#: Whether nothing schedules further rounds: Snakemake was called by itself.
_alone: list[bool] = []


def load(root: Path, profile: str) -> tuple[Study, Resources]:
    """The profile's study and what it may use of this machine, or what each of its jobs asks a cluster for; child
    processes then use the same. Claims' further seeds are in the order of the decisions expected an hour.

    Raises CollabenchError in one line.
    """
    if not _chosen:
        study = load_study(root, profile)
        resources = allocated(study.profile.device) if on_cluster() else choose(study.profile.device)
        os.environ.update(resources.environment())
        drop_stale_markers(study)
        if study.claims:
            found = next_blocks(study, seconds_of(study, resources.device))
            study = with_blocks(study, [block.numbers for block in found])
        scheduled = growing.from_environment(profile) is not None  # a cluster's job, on its node
        choose_study(study, resources)
        _alone[:] = [] if scheduled else [True]
    return _chosen[0]


def choose_study(study: Study, resources: Resources) -> None:
    """Have the Snakefile and its jobs plan with this study, whatever results are added meanwhile."""
    _alone.clear()
    _chosen[:] = [(study, resources)]
    os.environ.update(growing.environment(study.workspace.profile, study.plan.growth))


def with_blocks(study: Study, blocks: Sequence[Mapping[str, int]] = ()) -> Study:
    """The study with these blocks of seeds beyond what looks have used."""
    return study.with_growth(growing.only(study.plan.growth, blocks))


def profile_of(config: Mapping[str, object]) -> str:
    """The profile that Snakemake is to schedule."""
    return os.environ.get(PROFILE) or str(config.get("profile", "default"))


def drop_stale_markers(study: Study) -> None:
    """Remove the markers of jobs whose files are not all there, so that Snakemake runs them.

    The report's goes with them: Snakemake makes no file that is missing for one that is there.
    """
    study.jobs.drop_stale_markers()
    if not all(job.marker.exists() for job in study.jobs):
        report_marker(study).unlink(missing_ok=True)
    for key, runs in study.inputs.noise_files().items():
        if not all(study.inputs.noise_file(run).exists() for run in runs):
            noise_marker(study, key).unlink(missing_ok=True)


def lacking(study: Study, target: str) -> list[str]:
    """The files that a target stands for and that are not there: counted, whatever Snakemake says of its jobs."""
    workspace = study.workspace
    if target == "datasets":
        files = [workspace.datasets / key / MANIFEST for key in study.inputs.dataset_keys()]
    elif target == "noise":
        files = [study.inputs.noise_file(run) for runs in study.inputs.noise_files().values() for run in runs]
    elif target == "train":
        files = [workspace.folder(run) / RESULT for run in runs_of(study.plan, from_environment())]
    elif target == "report":
        files = [*(workspace.folder(run) / RESULT for run in study.plan.runs), workspace.report, workspace.costs]
    else:
        files = []
    return [str(path) for path in files if not path.exists()]


def require_complete(study: Study, targets: Iterable[str]) -> None:
    """Raise CollabenchError, naming the first, where files that the targets stand for are not there."""
    for target in targets:
        if missing := lacking(study, target):
            raise CollabenchError(
                f"{target}: nothing failed, but it lacks {counted(len(missing), 'file')}, the first {missing[0]}; "
                "start again"
            )


def lacks_failed_runs_only(study: Study) -> bool:
    """Whether everything that this host's jobs lack has failed, or needs what has failed."""
    workspace, failed = study.workspace, set[str]()
    for job in jobs_of_part(study):  # required jobs come first
        missing = [run for run in job.runs if not (workspace.folder(run) / RESULT).exists()]
        if any(workspace.failure(run.id).exists() for run in missing) or failed.intersection(job.requires):
            failed.add(job.id)
        elif missing:
            return False
    return bool(failed)


def checkpoints(study: Study) -> dict[str, int]:
    """Run id → when its checkpoint was written (nanoseconds), for the unfinished runs that have one."""
    found = {}
    for run in study.plan.runs:
        if (path := study.workspace.checkpoint(run.id)).exists():
            found[run.id] = path.stat().st_mtime_ns
    return found


def advanced(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Whether an unfinished run has a checkpoint that it did not have before."""
    return any(before.get(name) != time for name, time in now.items())


def tell_what_waits(study: Study) -> None:
    """Say, where Snakemake was called by itself, that claims need a further round."""
    waiting = sum(state.open for state in study.grown().claims) if _alone and study.plan.growth else 0
    if waiting:
        print(f"undecided claims that need more seeds: {waiting}; start again", flush=True)


def jobs_of_part(study: Study) -> list[Job]:
    """The jobs that this host trains: those of the part that $COLLABENCH_SHARD names, all where it names none."""
    ids = {run.configuration.id for run in runs_of(study.plan, from_environment())}
    return [job for job in study.jobs if job.configuration.id in ids]


def noise_marker(study: Study, key: str) -> Path:
    """The marker of the noise files of a key. Its name is the same with more seeds: jobs that are done keep their
    inputs."""
    return study.workspace.noise / key / NOISE_MARKER


def files_to_show(study: Study, arguments: Sequence[str]) -> list[Shown]:
    """The files of ``snakemake --report``; none if Snakemake was called without it.

    Raises CollabenchError if the study has no report, or if it was to follow a run: the files that it shows must be
    there when Snakemake starts.
    """
    if not any(argument == "--report" or argument.startswith("--report=") for argument in arguments):
        return []
    if "--report-after-run" in arguments:
        raise CollabenchError("--report-after-run: a report shows what is there; run first, then call --report alone")
    from pipeline import shown  # takes a second, which no job should wait for

    return shown.files_to_show(study)


def report_marker(study: Study) -> Path:
    """When the report was last built here; not shared, since a report is cheap."""
    return study.workspace.state / "report.done"
