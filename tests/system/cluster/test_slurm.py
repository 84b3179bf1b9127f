"""The same Snakefile on a real Slurm of one node, which a script in tests/support starts and ends: several runs per
job, time and memory from estimates, a job that is killed, jobs with GPUs, and the bytes of a study on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from collabench.study.allocation import allocation, needs_of_run
from collabench.study.study import load_study
from tests.support.growing import LOOKS, growing_project
from tests.support.project import ROOT, collabench, commit_all, contents, copy_project, environment
from tests.support.running import PROFILE as GROWING
from tests.support.running import finish, home

SCRIPT = ROOT / "tests" / "support" / "one_node_slurm.sh"
PROFILE = "cluster"

#: One job of two runs for the teacher, and one for its student.
PARAMS = """
  cluster:
    description: jobs for a cluster
    seeds: 2
    seeds_per_job: 2
    tables:
      - {name: students, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke],
          methods: [individual, kd-same-initialisation]}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory) -> None:
    """Skips, with the reason, where no Slurm can be started."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "unshare", "setpriv") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("starting Slurm's daemons with a folder of their own needs root")
    trial = subprocess.run(
        [SCRIPT, tmp_path_factory.mktemp("trial"), "1", "srun", "--ntasks=1", "true"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    if trial.returncode != 0:
        pytest.skip(f"Slurm cannot be started here: {' '.join(trial.stdout.split())[-300:]}")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of this tree with the profile above, and shorter waits between two looks at the queue."""
    folder = tmp_path_factory.mktemp("cluster") / "project"
    copy_project(folder, PARAMS)
    change(folder / "profiles/slurm/config.yaml", "before-status-checks: 15", "before-status-checks: 3")
    commit_all(folder, "shorter waits")
    return folder


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def on_slurm(folder: Path, command: str) -> tuple[int, str, list[dict[str, str]]]:
    """Run a shell command, in which ``collabench`` is one, beside a Slurm with two cores and two GPUs.

    Returns its exit code and output, and Slurm's own record of every job.
    """
    state = folder.parent / "slurm"
    records = state / "jobs.txt"
    beside = (
        f"""collabench() {{ {sys.executable} -c 'from collabench.cli import main; main()' "$@"; }}; """
        f"({command}); code=$?; scontrol --oneliner show jobs > {records}; exit $code"
    )
    done = subprocess.run(
        [SCRIPT, state, "2", "bash", "-c", beside],
        cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=1000,
    )  # fmt: skip
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(state) in " ".join(p.info["cmdline"] or ())]
    jobs = [dict(re.findall(r"(\S+?)=(\S+)", line)) for line in records.read_text().splitlines()]
    shutil.rmtree(state)
    return done.returncode, done.stdout, jobs


def minutes(limit: str) -> int:
    """Of Slurm's ``days-hours:minutes:seconds``."""
    days, _, rest = limit.rpartition("-")
    hours, whole, _ = rest.split(":")
    return int(days or 0) * 1440 + int(hours) * 60 + int(whole)


# Ends the first training job that is seen running, as a node that fails would.
KILL_ONE = (
    "(while ! squeue --noheader --states=RUNNING --format=%i | head -n 1 | grep -q .; do sleep 0.2; done; sleep 5; "
    "scancel $(squeue --noheader --states=RUNNING --format=%i | head -n 1)) & "
)


def test_a_study_on_slurm_gives_the_bytes_of_a_study_on_this_machine(project, tmp_path):
    collabench(project, "estimate", "-p", PROFILE, "--cores", "2")
    study = load_study(project, PROFILE)
    teacher, student = sorted(study.jobs, key=lambda job: len(job.requires))
    expected = allocation(needs_of_run(study, teacher.configuration, "cpu"), len(teacher.seeds))
    study.workspace.estimate(student.configuration.id).unlink()  # the student's job asks for the profile's default

    code, output, jobs = on_slurm(project, f"{KILL_ONE} collabench reproduce -p {PROFILE} --slurm")
    log = (project / f"artifacts/{PROFILE}/state/logs/reproduce.log").read_text()
    assert code == 0, output + log[-3000:]
    assert "1 of 2 configurations" in output and "jobs go to Slurm" in output

    # Two jobs for four runs, one of them a second time, with more time and memory.
    assert sorted(job["JobState"] for job in jobs) == ["CANCELLED", "COMPLETED", "COMPLETED"]
    killed, again, last = [
        (minutes(job["TimeLimit"]), int(job["MinMemoryNode"].removesuffix("M")))
        for job in sorted(jobs, key=lambda job: int(job["JobId"]))
    ]
    assert killed == (expected.minutes, expected.megabytes)
    assert again > killed and again[1] > killed[1]
    assert last == (1440, 8000)

    runs = project / "artifacts" / PROFILE / "runs"
    here = {name: content for name, content in contents(runs).items() if not name.endswith(".done")}
    assert sum(name.endswith("result.json") for name in here) == 4
    shutil.copytree(project, tmp_path / "again", ignore=shutil.ignore_patterns("artifacts", ".snakemake", "dvc.lock"))
    collabench(tmp_path / "again", "run", "-p", PROFILE, "--cores", "1")
    assert contents(tmp_path / "again" / "artifacts" / PROFILE / "runs") == here
    assert json.loads(collabench(project, "plan", "-p", PROFILE, "--json").stdout)["states"] == {"done": 4}


def test_a_study_that_grows_gives_on_slurm_the_bytes_of_this_machine(tmp_path):
    few = {"seeds_per_job": LOOKS[0], "claims": ["kd-lower"]}  # jobs, which start slowly
    folder = growing_project(tmp_path / "project", workflow=True, **few)
    change(folder / "profiles/slurm/config.yaml", "before-status-checks: 15", "before-status-checks: 3")
    code, output, jobs = on_slurm(folder, f"collabench reproduce -p {GROWING} --slurm")
    log = (home(folder) / "state" / "logs" / "reproduce.log").read_text()
    assert code == 0, output + log[-3000:]
    assert "round 2: " in log and {job["JobState"] for job in jobs} == {"COMPLETED"}
    here = {name: content for name, content in contents(home(folder) / "runs").items() if not name.endswith(".done")}
    again = growing_project(tmp_path / "again", **few)
    finish(again, "run", "--cores", "1")
    assert contents(home(again) / "runs") == here


def test_jobs_of_a_profile_for_gpus_get_one_each(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("artifacts", ".snakemake", "dvc.lock"))
    change(copy / "params.yaml", "description: jobs for a cluster\n    seeds: 2", "description: one job\n    seeds: 1")
    # What a job asks for is known when it is in the queue; without a GPU here it could only fail. All ends with Slurm.
    queued = "until squeue --noheader --format=%i | grep -q .; do kill -0 $! || exit 1; sleep 0.3; done"
    code, output, jobs = on_slurm(copy, f"collabench reproduce -p {PROFILE} --slurm --gpus 0 & {queued}")
    assert code == 0, output
    assert jobs and all("gpu:1" in job["TresPerJob"] + job.get("TresPerNode", "") for job in jobs)
