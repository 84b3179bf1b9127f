"""How long sharing a study of 2,000 runs takes: `python -m benchmarks.remotes [--runs N] [REMOTE …]`.

The results are fabricated (of the size of a ResNet-8's on digits), everything else is real: a copy of this project,
DVC, a local folder, an S3 server and an SSH server on the loopback interface. ``push`` is `collabench share`; ``pull``
a fresh clone's `dvc pull`; ``unpack`` the first `collabench plan` after it, which must find every run done.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from tests.support import project, servers, shared_study

REMOTES = tuple(servers.NEEDED)
SEEDS = 8

PROFILE = """
  fabricated:
    description: results without training
    seeds: {seeds}
    tables:
      - {{name: fabricated, datasets: [digits-500], noise: [clean, uniform10, uniform20, uniform30, uniform40],
         models: [resnet8, resnet14, resnet20, resnet32, resnet44], recipes: [digits], methods: [individual,
         label-smoothing, multi-instance-2, multi-instance-4, simple-2, simple-4, hierarchical-4, dml, one-4, \
okddip-4]}}
"""
CONFIGURATIONS = 250


def processor_seconds() -> float:
    """Of the commands that have ended and of this process, in which the servers run."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def seconds(do: Callable[[], object]) -> str:
    """By the clock, and of processor time, which tells how much of the clock's other work on the machine took."""
    start, used = time.perf_counter(), processor_seconds()
    do()
    return f"{time.perf_counter() - start:.1f} ({processor_seconds() - used:.1f})"


def measure(study: Path, kind: str, folder: Path, runs: int) -> list[str]:
    """One row: seconds of push, status, pull, unpacking and status in a clone."""
    folder.mkdir()
    with servers.remote_of(kind, folder) as remote:
        project.use_remote(study, remote)
        push = seconds(lambda: project.collabench(study, "share", "-p", shared_study.PROFILE))
        project.commit_all(study, "shared")
        status = seconds(lambda: project.dvc(study, "status", *shared_study.STAGES))
        cloud = seconds(lambda: project.dvc(study, "status", "--cloud", *shared_study.STAGES))
        clone = folder / "clone"
        project.call(folder, "git", "clone", "-q", str(study), str(clone))
        project.use_remote(clone, remote)
        pull = seconds(lambda: project.dvc(clone, "pull", *shared_study.STAGES))
        unpack = seconds(lambda: shared_study.assert_done(clone, runs))
        again = seconds(lambda: project.dvc(clone, "status", *shared_study.STAGES))
        return [kind, push, status, cloud, pull, unpack, again]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("remotes", nargs="*", metavar="REMOTE", help=", ".join(REMOTES))
    parser.add_argument("--runs", type=int, default=SEEDS * CONFIGURATIONS, help="a multiple of 250")
    arguments = parser.parse_args()
    seeds = max(1, arguments.runs // CONFIGURATIONS)
    with tempfile.TemporaryDirectory() as name:
        study = Path(name) / "study"
        project.copy_project(study, PROFILE.format(seeds=seeds))
        shared_study.fabricate(study)
        shared_study.register(study)
        files = [path for path in (study / "artifacts" / shared_study.PROFILE).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
        print(
            f"{seeds * CONFIGURATIONS} runs, {len(files)} files, {size:.0f} MB; load {os.getloadavg()[0]:.0f}; seconds "
            "(of processor time):",
            flush=True,
        )
        rows = [
            measure(study, kind, Path(name) / kind, seeds * CONFIGURATIONS) for kind in arguments.remotes or REMOTES
        ]
        head = ["remote", "push", "status", "status --cloud", "pull", "unpack", "status of the clone"]
        print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
