"""Train the seeds of one job that are missing, on one thread or one GPU, leased or allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext

from pipeline.stages import ROOT, log, run_stage, start


def train(profile: str, job_id: str) -> int:
    from collabench.core.resources import ALLOCATED, Resources, lease_gpu

    resources = Resources.from_environment()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gpus = () if resources.gpus == (ALLOCATED,) else resources.gpus
    with lease_gpu(gpus, resources.slots_per_gpu) if gpus else nullcontext():
        from collabench.study.runner import Runner  # imports torch, which must see the leased GPU only
        from collabench.study.study import load_study
        from pipeline.plan import report_marker

        study = load_study(ROOT, profile, planned=True)
        job = study.jobs.find(job_id)
        outcome = Runner(study).train(job.runs, device=resources.device, log=log)
    if outcome.failed:
        return 1
    report_marker(study).unlink(missing_ok=True)  # older than these results, whatever the clock says
    study.jobs.finish(job)
    return 0


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 a run failed, 2 the configuration is wrong."""
    return run_stage(train, arguments)


if __name__ == "__main__":
    start("pipeline.stages.train")
