"""One target of one profile through Snakemake: what each stage of ``dvc.yaml`` runs.

``python -m pipeline.snakemake <profile> <target> [further arguments for snakemake]``

With ``COLLABENCH_SCHEDULER=slurm`` in the environment the jobs go to a Slurm cluster (``profiles/slurm``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from collabench.errors import CollabenchError
from collabench.resources import ANCESTOR, end_with_parent, on_cluster
from pipeline import plan

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """The exit code: 0 all done, 1 a job failed, 2 the configuration is wrong."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    profile, target, *further = arguments
    end_with_parent()
    if on_cluster():
        os.environ.pop(ANCESTOR, None)  # a process of this host, which jobs on other hosts would miss
    try:
        study, resources = plan.load(ROOT, profile)
    except CollabenchError as error:
        print(f"collabench: error: {error}", file=sys.stderr)
        return 2
    with held(study.workspace.lock("snakemake")):
        plan.drop_stale_markers(study)
        study.workspace.noise.mkdir(parents=True, exist_ok=True)  # an output of DVC's, also where no label is noisy
        if target == "report":
            plan.report_marker(study).unlink(missing_ok=True)  # a stage that DVC starts has a reason
        return snakemake(
            [
                target,
                "--config", f"profile={profile}",
                "--profile", str(ROOT / "profiles" / "default"),
                *(("--workflow-profile", str(ROOT / "profiles" / "slurm")) if on_cluster() else ()),
                "--snakefile", str(ROOT / "Snakefile"),
                "--cores", str(resources.cores),
                *(() if on_cluster() else ("--resources", f"gpu={resources.workers if resources.gpus else 0}")),
                "--quiet", "rules", "progress", "host",
                "--nolock",  # the lock above ends with this process; Snakemake's own stays after a kill
                *further,
            ]
        )  # fmt: skip


def held(path: Path) -> FileLock:
    """A lock, held; says whom it waits for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process schedules this profile ({path} is held); waiting for it", flush=True)
        lock.acquire()
    return lock


def snakemake(arguments: list[str]) -> int:
    """Run Snakemake in this process, which holds the lock."""
    from snakemake.cli import main as run

    try:
        run(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
