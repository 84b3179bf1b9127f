"""Train the seeds of one job that are missing, on one thread or one GPU, leased or allocated.

A process that is short of memory, or whose GPU fails, is replaced by a fresh one, in which the job resumes: on a GPU up
to three times, with a larger lease each time; on the CPU once, beside no other job of the study. A cluster sends the
job elsewhere instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from collabench.core import flock
from collabench.core.errors import DeviceError
from collabench.core.server import SERVER
from pipeline.stages import ROOT, log, run_stage, start

#: Environment variable: how often a process of this job has ended because its GPU failed or was short of memory.
_ATTEMPT = "COLLABENCH_ATTEMPT"


def train(profile: str, job_id: str) -> int:
    from collabench.core.resources import Resources, on_cluster
    from collabench.study.needs import lease_for
    from collabench.study.pool import check_attempts
    from collabench.study.study import load_study
    from pipeline.plan import report_marker

    resources, attempt = Resources.from_environment(), int(os.environ.get(_ATTEMPT, "0"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    here, alone = not on_cluster(), attempt > 0 or resources.cores == 1
    study = load_study(ROOT, profile, planned=True)
    job = study.jobs.find(job_id)
    try:
        with ExitStack() as held:
            from collabench.study.runner import Runner

            runner = Runner(study)
            if not here:
                pass  # the cluster has allocated what the job may use
            elif not resources.gpus:
                held.enter_context(_beside_others(study.workspace.lock("memory"), alone))
            elif any(map(runner.has_to_train, job.runs)):
                # counted before CUDA is initialised, which must see the leased GPU only
                held.enter_context(resources.lease(lease_for(study, job.configuration, attempt)))
            outcome = runner.train(job.runs, device=resources.device, log=log)
    except DeviceError as error:
        if not here:
            raise
        check_attempts(error, attempt + 1, alone=error.shortage and alone and not resources.gpus)
        log(f"{error}; it resumes in another process" + ("" if resources.gpus else ", when no other job trains"))
        further = resources if error.shortage else resources.with_last(error.gpu)
        _begin_again([profile, job_id], further.environment() | {_ATTEMPT: str(attempt + 1)})
    if outcome.failed:
        return 1
    report_marker(study).unlink(missing_ok=True)  # older than these results, whatever the clock says
    study.jobs.finish(job)
    return 0


def prepare() -> None:
    """Load what every job needs. The server of jobs calls this once; its forks then start sooner."""
    import collabench.study.runner
    import collabench.training  # noqa: F401
    from collabench.config.params import load_params
    from collabench.papers.claims import load_claims
    from collabench.storage.workspace import Workspace
    from collabench.study.source_code import read_all

    read_all()
    place = Workspace(ROOT, "any")
    load_claims(place.papers, load_params(place.params))


@contextmanager
def _beside_others(path: Path, alone: bool) -> Iterator[None]:
    """Train beside other jobs of the study, or, if ``alone``, when none of them trains; then none begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        flock.lock(file.fileno(), shared=not alone)
        yield


def _begin_again(arguments: Sequence[str], changed: dict[str, str]) -> NoReturn:
    """Put a fresh interpreter in the place of this process, which frees its memory and what it holds of the GPU."""
    environment = os.environ | changed
    environment.pop(SERVER, None)  # the server would fork a process beside this one
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "pipeline.stages.train", *arguments], environment)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    return run_stage(train, arguments)


if __name__ == "__main__":
    start("pipeline.stages.train")
