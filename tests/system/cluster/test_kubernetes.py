"""Jobs on Kubernetes by the executor cluster-generic and ``kubectl``, in whose place a program runs what a job says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.params import CLUSTER as PROFILE
from tests.support.params import CLUSTER_PARAMS as PARAMS
from tests.support.project import ROOT, contents, copy_project
from tests.support.project import collabench as project_command

SCRIPT = "profiles/cluster-generic/kubernetes.sh"
#: ``create`` runs the container's command in its folder, with nothing of the environment but where programs lie.
#: ``get`` asks whether it has ended. A job is a folder.
KUBECTL = """#!{python}
import json, os, subprocess, sys, tempfile, yaml
jobs, given = "{jobs}", sys.argv[1:]
open(jobs + "/calls.txt", "a").write(json.dumps(given) + "\\n")
if given[0] == "create":
    job = yaml.safe_load(sys.stdin)
    folder = tempfile.mkdtemp(prefix=job["metadata"]["generateName"], dir=jobs)
    yaml.safe_dump(job, open(folder + "/job.yaml", "w"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    plain = {{name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}}
    shell = 'cd "$1" || exit; shift; if "$@"; then echo 1/ > {{0}}/ended; else echo /1 > {{0}}/ended; fi'.format(folder)
    subprocess.Popen(["sh", "-c", shell, "sh", container["workingDir"], *container["command"]], env=plain,
                     stdin=subprocess.DEVNULL, stdout=open(folder + "/log", "w"), stderr=subprocess.STDOUT)
    print(os.path.basename(folder), end="")
elif given[:2] == ["get", "job"]:
    folder = jobs + "/" + given[2]
    if not os.path.exists(jobs + "/here"):
        sys.exit("the server could not be reached")
    if os.path.exists(folder):
        print(open(folder + "/ended").read().strip() if os.path.exists(folder + "/ended") else "/", end="")
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """The folder of the pretended cluster's jobs; ``kubectl`` is on the path."""
    programs, jobs = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    jobs.mkdir()
    (jobs / "here").touch()
    kubectl = programs / "kubectl"
    kubectl.write_text(KUBECTL.format(python=sys.executable, jobs=jobs))
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return jobs


def settings() -> dict[str, str]:
    """What the page says to put into ``profiles/cluster-generic/config.yaml``."""
    page = (ROOT / "docs" / "how-to" / "cluster.md").read_text()
    (block,) = re.findall(r"^```yaml\n(cluster-generic.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(block)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, *arguments], cwd=folder, text=True, capture_output=True, check=False)


@pytest.mark.slow
def test_a_study_on_kubernetes_gives_the_bytes_of_this_machine(tmp_path, cluster):
    copy_project(project := tmp_path / "project", PARAMS)
    place = project / "profiles" / "cluster-generic" / "config.yaml"
    given = (
        yaml.safe_load(place.read_text())
        | settings()
        | {"latency-wait": 5, "retries": 0, "seconds-between-status-checks": 1}
    )
    place.write_text(yaml.safe_dump(given))
    done = project_command(project, "reproduce", "-p", PROFILE, "--executor", "cluster-generic", check=False)
    log = (project / f"artifacts/{PROFILE}/state/logs/reproduce.log").read_text()
    assert done.returncode == 0, done.stdout[-2000:] + log[-3000:]
    jobs = [yaml.safe_load(path.read_text()) for path in cluster.glob("*/job.yaml")]
    assert len(jobs) == 2, "training alone is sent"
    for job in jobs:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["workingDir"] == str(project)
        assert container["resources"] == {"requests": {"cpu": 1, "memory": "8000M"}, "limits": {"memory": "8000M"}}
        assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 1440 * 60
    here = {
        name: content
        for name, content in contents(project / "artifacts" / PROFILE / "runs").items()
        if not name.endswith(".done")
    }
    copy_project(tmp_path / "again", PARAMS)
    project_command(tmp_path / "again", "run", "-p", PROFILE, "--cores", "1")
    assert contents(tmp_path / "again" / "artifacts" / PROFILE / "runs") == here


def test_a_job_mounts_the_volume_and_asks_for_its_gpu(tmp_path, cluster):
    folder = tmp_path / "a project"
    (folder / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(ROOT / SCRIPT, folder / SCRIPT)
    (folder / "script.sh").write_text("pwd > where\nexit 3\n")
    name = call(folder, "submit", "90", "2000", "2", "1", str(folder / "script.sh")).stdout
    job = yaml.safe_load((cluster / name / "job.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0)
    pod = job["spec"]["template"]["spec"]
    assert (pod["restartPolicy"], pod["activeDeadlineSeconds"]) == ("Never", 5400)
    (container,), (volume,) = pod["containers"], pod["volumes"]
    assert container["command"] == ["sh", str(folder / "script.sh")] and container["workingDir"] == str(folder)
    # an extended resource is set as a limit: Kubernetes refuses a request alone
    assert container["resources"]["limits"] == {"memory": "2000M", "nvidia.com/gpu": 1}
    text = (ROOT / SCRIPT).read_text()
    image, claim, mount = (re.findall(rf"^{key}=(\S+)", text, re.MULTILINE)[0] for key in ("image", "claim", "mount"))
    assert container["image"] == image and volume["persistentVolumeClaim"] == {"claimName": claim}
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": mount}]


@pytest.mark.parametrize(
    ("status", "said"),
    [("/", "running"), ("1/", "success"), ("/1", "failed"), (None, "failed"), ("no answer", "running")],
)
def test_the_states_of_a_job(cluster, status, said):
    (job := cluster / "collabench-1").mkdir()
    if status is None:
        job.rmdir()
    elif status == "no answer":  # else every job would count as failed while a cluster restarts its API
        (cluster / "here").unlink()
    else:
        (job / "ended").write_text(status)
    done = call(ROOT, "status", "collabench-1")
    assert (done.returncode, done.stdout) == (0, f"{said}\n"), done.stderr


def test_jobs_that_are_no_longer_wanted_are_deleted(cluster):
    assert call(ROOT, "cancel", "collabench-1", "collabench-2").returncode == 0
    (said,) = (cluster / "calls.txt").read_text().splitlines()
    assert said.startswith('["delete", "job", "collabench-1", "collabench-2", ')
    assert call(ROOT, "sbmit").returncode == 2


def test_a_job_that_the_cluster_refuses_ends_the_submission(tmp_path, cluster):
    (cluster.parent / "bin" / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    assert call(ROOT, "submit", "90", "2000", "1", "0", "script.sh").returncode != 0
