"""Any executor plugin of Snakemake's schedules jobs: here cluster-generic, whose nodes do not see the environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from tests.support.params import CLUSTER as PROFILE
from tests.support.params import CLUSTER_PARAMS as PARAMS
from tests.support.params import real_definitions
from tests.support.project import ROOT, contents, copy_project, environment
from tests.support.project import collabench as project_command

#: A cluster that gives a job nothing of the environment in which it was submitted but where programs lie.
SUBMIT = """#!/bin/sh
echo "$1" >> {jobs}
env -i PATH="$PATH" HOME="$HOME" PYTHONPATH="$PYTHONPATH" sh "$1" > "{folder}/job-$$.log" 2>&1 &
echo $!
"""


#: What plugins such as snakemake-executor-plugin-kubernetes say of themselves.
PLUGIN = """
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import CommonSettings
common_settings = CommonSettings(non_local_exec=True, implies_no_shared_fs=True, job_deploy_sources=True)
class Executor(RemoteExecutor): ...
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("executor") / "project"
    copy_project(folder, PARAMS)
    place = folder / "profiles" / "cluster-generic" / "config.yaml"
    settings = yaml.safe_load(place.read_text())
    script = folder.parent / "submit.sh"
    script.write_text(SUBMIT.format(jobs=folder.parent / "jobs.txt", folder=folder.parent))
    script.chmod(0o755)
    settings |= {"cluster-generic-submit-cmd": f"{script}", "latency-wait": 5, "retries": 0}
    del settings["cluster-generic-cancel-cmd"]
    place.write_text(yaml.safe_dump(settings))
    return folder


def with_settings(folder: Path) -> Path:
    """A folder with the profile of :data:`PARAMS` and the executors' settings."""
    (folder / "params.yaml").write_text(real_definitions(PARAMS.lstrip("\n")))
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    return folder


@pytest.mark.slow
def test_a_study_by_another_executor_gives_the_bytes_of_this_machine(project, tmp_path):
    done = project_command(project, "reproduce", "-p", PROFILE, "--executor", "cluster-generic", check=False)
    log = (project / f"artifacts/{PROFILE}/state/logs/reproduce.log").read_text()
    assert done.returncode == 0, done.stdout[-2000:] + log[-3000:]
    assert "jobs go to the executor cluster-generic, each with one core" in done.stdout
    jobs = (project.parent / "jobs.txt").read_text().split()
    assert len(jobs) == 2 and all(os.sep in job for job in jobs), "training alone is sent"
    runs = project / "artifacts" / PROFILE / "runs"
    here = {name: content for name, content in contents(runs).items() if not name.endswith(".done")}
    copy_project(tmp_path / "again", PARAMS)
    project_command(tmp_path / "again", "run", "-p", PROFILE, "--cores", "1")
    assert contents(tmp_path / "again" / "artifacts" / PROFILE / "runs") == here


def asked(folder: Path, scheduler: str, gpus: str) -> dict[str, str]:
    """What a job asks a cluster for, as Snakemake's dry run says it. Nothing runs."""
    settings = ["--profile", "profiles/default", "--workflow-profile", f"profiles/{scheduler}", "--executor", scheduler]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "train", "-n", "--cores", "1", "--config", f"profile={PROFILE}", *settings],
        cwd=folder, env=environment(folder) | {"COLLABENCH_SCHEDULER": scheduler, "COLLABENCH_GPUS": gpus},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    (line, *_) = re.findall(r"rule train_job:.*?resources: (.*?)\n", done.stdout + done.stderr, re.DOTALL)
    return dict(one.split("=") for one in line.split(", "))


@pytest.mark.slow
def test_a_job_asks_for_cores_beside_its_gpu_and_for_no_more_minutes_than_the_partition_allows(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("artifacts", ".snakemake", "dvc.lock"))
    params, settings = copy / "params.yaml", copy / "profiles" / "slurm" / "config.yaml"
    assert params.read_text().count("    device: cpu\n    tables:\n      - {name: two,") == 1
    params.write_text(params.read_text().replace("    device: cpu\n    tables:\n      - {name: two,",
                                                 "    device: auto\n    tables:\n      - {name: two,"))  # fmt: skip
    usual = asked(copy, "slurm", "none")
    assert (usual["gpu"], usual["cpus_per_task"], usual["runtime"]) == ("0", "1", "1440")
    settings.write_text(settings.read_text().replace("  - mem_mb=8000\n", "  - mem_mb=8000\n  - longest_minutes=600\n"))
    beside = asked(copy, "slurm", "0")
    assert (beside["gpu"], beside["cpus_per_task"], beside["runtime"]) == ("1", "2", "600")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "kubernets"],
         "the package snakemake-executor-plugin-kubernets is missing: pip install snakemake-executor-plugin-kubernets"),
        (["--executor", "local"], "COLLABENCH_SCHEDULER=local: is no cluster"),
        (["--executor", "../x"], "must be the name of an executor plugin"),
        (["--executor", "cluster-generic", "--slurm"], "--executor cluster-generic: --slurm names another"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_runs(collabench, tmp_path, arguments, message):
    called = collabench("reproduce", "-p", PROFILE, *arguments, "--root", with_settings(tmp_path))
    assert called.code == 2 and message in called.err and called.err.count("\n") == 1, called
    assert not (tmp_path / "artifacts").exists()


def test_an_executor_without_settings_is_one_line(collabench, tmp_path):
    place = with_settings(tmp_path) / "profiles" / "cluster-generic"
    place.rename(tmp_path / "away")
    called = collabench("reproduce", "-p", PROFILE, "--executor", "cluster-generic", "--root", tmp_path)
    assert called.code == 2 and "profiles/cluster-generic/config.yaml: does not exist" in called.err


@pytest.fixture
def without_shared_folders(tmp_path, monkeypatch):
    """A plugin ``afar`` for Snakemake, whose jobs see no folder of the machine that submits."""
    name = "snakemake_executor_plugin_afar"
    (tmp_path / "plugins" / name).mkdir(parents=True)
    (tmp_path / "plugins" / name / "__init__.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    monkeypatch.setattr(ExecutorPluginRegistry, "_instance", None)  # it has looked for plugins once
    yield
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_an_executor_whose_jobs_share_no_folder_is_one_line(collabench, tmp_path, without_shared_folders):
    (place := with_settings(tmp_path) / "profiles" / "afar").mkdir()
    (place / "config.yaml").write_text("executor: afar\njobs: 2\nshared-fs-usage: [input-output]\n")
    called = collabench("reproduce", "-p", PROFILE, "--executor", "afar", "--root", tmp_path)
    assert called.code == 2 and called.err.count("\n") == 1, called
    assert "--executor afar: its jobs share no folder with this machine, and a study needs one" in called.err
    assert not (tmp_path / "artifacts").exists()
