"""Train the seeds of one job that are missing, on one thread or one GPU, leased or allocated.

A process whose GPU fails or is short of memory is replaced by a fresh one, in which the job goes on and leases more: up
to three times, except on a cluster, which sends the job elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

from collabench.core.errors import DeviceError
from collabench.core.server import SERVER
from pipeline.stages import ROOT, log, run_stage, start

#: Environment variable: how often a process of this job has ended because its GPU failed or was short of memory.
_ATTEMPT = "COLLABENCH_ATTEMPT"


def train(profile: str, job_id: str) -> int:
    from collabench.core.resources import ALLOCATED, Resources
    from collabench.study.needs import lease_for
    from collabench.study.pool import ATTEMPTS
    from collabench.study.study import load_study
    from pipeline.plan import report_marker

    resources, attempt = Resources.from_environment(), int(os.environ.get(_ATTEMPT, "0"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    leases = resources.gpus not in ((), (ALLOCATED,))
    study = load_study(ROOT, profile, planned=True)
    job = study.jobs.find(job_id)
    try:
        # counted before CUDA is initialised, which must see the leased GPU only
        with resources.lease(lease_for(study, job.configuration, attempt)) if leases else nullcontext():
            from collabench.study.runner import Runner

            outcome = Runner(study).train(job.runs, device=resources.device, log=log)
    except DeviceError as error:
        if attempt + 1 == ATTEMPTS or not leases:
            raise
        log(f"{error}; it goes on in another process")
        further = resources if error.shortage else resources.with_last(error.gpu)
        _begin_again([profile, job_id], further.environment() | {_ATTEMPT: str(attempt + 1)})
    if outcome.failed:
        return 1
    report_marker(study).unlink(missing_ok=True)  # older than these results, whatever the clock says
    study.jobs.finish(job)
    return 0


def _begin_again(arguments: Sequence[str], changed: dict[str, str]) -> NoReturn:
    """Put a fresh interpreter in the place of this process, which frees what it holds of the GPU."""
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
