"""A finished study pushed to a real remote (a folder, an S3 server, an SSH server on loopback) is in a clone after `dvc pull`:
every table, every byte, and no job to train."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.share import project, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("remotes")]

PROFILE = """
  fabricated:
    description: two methods, really trained
    seeds: 2
    seeds_per_job: 2
    tables:
      - {name: two, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke], methods: [individual, label-smoothing]}
"""

NEEDED = {"local": [], "s3": ["dvc_s3", "moto", "flask", "boto3"], "ssh": ["dvc_ssh", "asyncssh"]}


@contextmanager
def remote_of(kind: str, folder: Path):
    missing = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install 'collabench[remotes,test]')")
    if kind == "local":
        yield servers.local_folder(folder)
    elif kind == "s3":
        with servers.s3_server() as remote:
            yield remote
    else:
        with servers.ssh_server(folder) as remote:
            yield remote


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "project"
    project.copy_project(folder, PROFILE)
    project.train(folder)
    project.register(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["local", "s3", "ssh"])
def test_a_pulled_study_has_all_tables_and_trains_nothing(study, tmp_path, kind):
    with remote_of(kind, tmp_path) as remote:
        project.use_remote(study, remote)
        project.collabench(study, "share", "-p", project.PROFILE)
        project.commit_all(study, "shared")
        clone = tmp_path / "clone"
        project.call(tmp_path, "git", "clone", "-q", str(study), str(clone))
        project.use_remote(clone, remote)
        project.dvc(clone, "pull", *project.STAGES)
    home, cloned = study / "artifacts" / project.PROFILE, clone / "artifacts" / project.PROFILE
    assert contents(cloned / "report") == contents(home / "report") != {}
    project.assert_done(clone, 4)
    assert contents(cloned / "runs") == contents(home / "runs") != {}
    assert contents(cloned / "measured") == contents(home / "measured") != {}
    before = contents(cloned / "measured")
    snakemake = [sys.executable, "-m", "snakemake", "--config", f"profile={project.PROFILE}", "--cores", "1"]
    jobs = project.call(clone, *snakemake, "--dry-run", "--", "train").stdout
    assert "Nothing to be done" in jobs, jobs
    assert "up to date" in project.dvc(clone, "status", *project.STAGES).stdout
    tables = project.collabench(clone, "report", "-p", project.PROFILE).stdout
    assert "individual" in tables and "Tables and figures" in tables
    assert contents(cloned / "report") == contents(home / "report")
    assert contents(cloned / "measured") == before
    assert project.git(clone, "status", "--porcelain") == ""


def test_a_clone_that_only_pulled_repeats_the_pipeline_without_training(study, tmp_path):
    """DVC finds the runs missing, which never travel as they are; the train stage unpacks them and has nothing to train."""
    with remote_of("local", tmp_path) as remote:
        project.use_remote(study, remote)
        project.collabench(study, "share", "-p", project.PROFILE)
        project.commit_all(study, "shared")
        clone = tmp_path / "clone"
        project.call(tmp_path, "git", "clone", "-q", str(study), str(clone))
        project.use_remote(clone, remote)
        project.dvc(clone, "pull", *project.STAGES)
    cloned = clone / "artifacts" / project.PROFILE
    assert not (cloned / "runs").exists()
    done = project.dvc(clone, "repro", f"report@{project.PROFILE}")
    assert "train_job" not in done.stdout, done.stdout
    home = study / "artifacts" / project.PROFILE
    assert contents(cloned / "runs") == contents(home / "runs")
    assert contents(cloned / "measured") == contents(home / "measured")  # training would have measured
    assert project.git(clone, "status", "--porcelain") == ""
