"""The scheduling of one target of one profile by Snakemake, as the only process that does so."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from collabench.core.device_errors import kills_for_memory
from collabench.core.processes import ANCESTOR, this_process
from collabench.core.resources import Resources, executor_profile, on_cluster
from collabench.core.server import dismiss, serve
from collabench.storage import archives
from collabench.storage.locks import holding
from collabench.study.cleanup import set_aside
from collabench.study.executors import check_shares_folders
from collabench.study.study import Study
from pipeline import plan, rounds
from pipeline.stages import log, run_stage

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 all done, 1 a job failed, 2 the configuration is wrong."""
    if len(arguments) < 2:
        print("usage: python -m pipeline.snakemake PROFILE TARGET [ARGUMENTS OF SNAKEMAKE]", file=sys.stderr)
        return 2
    return run_stage(schedule, arguments)


def schedule(profile: str, target: str, *further: str) -> int:
    """Run Snakemake on what is missing of the target, as the only process that does so. Raises CollabenchError."""
    if on_cluster():
        os.environ.pop(ANCESTOR, None)  # a process of this host, which jobs on other hosts would miss
    else:
        os.environ.setdefault(ANCESTOR, this_process())
    study, resources = plan.load(ROOT, profile)
    # A server would train outside of the image.
    serves = target == "train" and not resources.gpus and not on_cluster() and not os.environ.get(plan.CONTAINER)
    served = serve() if serves else None
    try:
        return _schedule(study, resources, target, further)
    finally:
        dismiss(served)


def _schedule(study: Study, resources: Resources, target: str, further: Sequence[str]) -> int:
    profile = study.workspace.profile
    with holding(study.workspace.lock("snakemake"), f"scheduling of profile {profile}", log):
        study.mend(log, results=target == "train")  # a report verifies what it reads
        set_aside(study, log)  # or DVC would record what was tried before
        plan.drop_stale_markers(study)
        study.workspace.noise.mkdir(parents=True, exist_ok=True)  # an output of DVC's, also where no label is noisy
        if target == "report":
            plan.report_marker(study).unlink(missing_ok=True)  # a stage that DVC starts has a reason
        run = partial(_run, resources=resources, target=target, further=further)
        if target == "train" and not {"-n", "--dry-run"} & set(further):
            code = rounds.train(study, resources, run, log)
        elif target == "train":
            code = run(study)
        else:  # what undecided claims still need is for another time
            study = plan.with_blocks(study)
            plan.choose_study(study, resources)
            code = run(study)
        if target == "train" and code == 0:
            archives.pack_runs(study.workspace)
        return code


def _run(study: Study, *, resources: Resources, target: str, further: Sequence[str]) -> int:
    """Run Snakemake on what is missing of the target in the study that was chosen; its exit code."""
    os.environ[plan.PROFILE] = study.workspace.profile  # on a command line Snakemake reads a number where it can
    dry = bool({"-n", "--dry-run"} & set(further))
    checkpoints = plan.checkpoints(study) if on_cluster() else {}
    killed, cores, gpu = kills_for_memory(), resources.cores, resources.workers if resources.gpus else 0
    while (code := snakemake(_arguments(study, cores, gpu, target, further))) != 0 and not dry:
        if on_cluster():
            before, checkpoints = checkpoints, plan.checkpoints(study)
            if not plan.advanced(before, checkpoints):
                break
            print("jobs ended before their runs did, whose checkpoints advanced: they are submitted again", flush=True)
            continue
        earlier, killed = killed, kills_for_memory()
        if killed == earlier or (gpu or cores) == 1:
            break
        cores, gpu = max(1, cores // 2), gpu and max(1, gpu // 2)
        log(f"memory ran out, and the system killed processes: their runs resume, {gpu or cores} at a time")
    if code == 0 and not dry:
        plan.require_complete(study, [target])
    return code


def _arguments(study: Study, cores: int, gpu: int, target: str, further: Sequence[str]) -> list[str]:
    """Snakemake's arguments. cores, gpu: how many jobs run at a time on this machine, and how many of them on GPUs."""
    return [
        target,
        "--config", f"profile={study.workspace.profile}",
        "--profile", str(ROOT / "profiles" / "default"),
        *(_for_cluster() if on_cluster() else ()),
        "--snakefile", str(ROOT / "Snakefile"),
        "--cores", str(cores),
        *(() if on_cluster() else ("--resources", f"gpu={gpu}")),
        "--quiet", "rules", "progress", "host",
        "--nolock",  # the lock above ends with this process; Snakemake's own stays after a kill
        *(("--software-deployment-method", "apptainer") if os.environ.get(plan.CONTAINER) else ()),
        *further,
    ]  # fmt: skip


def _for_cluster() -> list[str]:
    """Arguments of Snakemake for the executor that schedules the jobs, whose hosts may not see this environment."""
    own = sorted(name for name in os.environ if name.startswith("COLLABENCH_"))
    profile = executor_profile(ROOT)
    check_shares_folders(profile.name)
    return ["--workflow-profile", str(profile), "--executor", profile.name, "--envvars", *own]


def snakemake(arguments: list[str]) -> int:
    """Run Snakemake in this process, which holds the lock."""
    from snakemake.cli import main as run

    before = signal.getsignal(signal.SIGTERM)
    try:
        run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, before)  # Snakemake's own would have no effect between two rounds
    return 0
