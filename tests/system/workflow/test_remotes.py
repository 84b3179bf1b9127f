"""A finished study pushed to a real remote (a folder, an S3 server, an SSH server on loopback) is in a clone after `dvc
pull`: every table, every byte, and no job to train."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import project, servers, shared_study
from tests.support.project import contents
from tests.support.shared_study import PROFILE

pytestmark = pytest.mark.slow

PARAMS = """
  fabricated:
    description: two methods, really trained
    seeds: 2
    seeds_per_job: 2
    tables:
      - {name: two, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke],
          methods: [individual, label-smoothing]}
"""


@contextmanager
def remote_of(kind: str, folder: Path) -> Iterator[servers.Remote]:
    missing = [name for name in servers.NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install 'collabench[remotes,test]')")
    with servers.remote_of(kind, folder) as remote:
        yield remote


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "project"
    project.copy_project(folder, PARAMS)
    shared_study.train(folder)
    project.collabench(folder, "report", "--html")  # the pages over all profiles are committed, as in every project
    shared_study.register(folder)
    return folder


@pytest.mark.parametrize("kind", ["local", "s3", "ssh"])
def test_a_pulled_study_has_all_tables_and_trains_nothing(study, tmp_path, kind):
    with remote_of(kind, tmp_path) as remote:
        clone = project.clone_and_pull(study, PROFILE, tmp_path, remote)
    home, cloned = study / "artifacts" / PROFILE, clone / "artifacts" / PROFILE
    assert contents(cloned / "report") == contents(home / "report") != {}
    shared_study.assert_done(clone, 4)
    assert contents(cloned / "runs") == contents(home / "runs") != {}
    assert contents(cloned / "measured") == contents(home / "measured") != {}
    before = contents(cloned / "measured")
    snakemake = [sys.executable, "-m", "snakemake", "--config", f"profile={PROFILE}", "--cores", "1"]
    jobs = project.call(clone, *snakemake, "--dry-run", "--", "train").stdout
    assert "Nothing to be done" in jobs, jobs
    assert "up to date" in project.dvc(clone, "status", *shared_study.STAGES).stdout
    tables = project.collabench(clone, "report", "-p", PROFILE).stdout
    assert "individual" in tables and "Tables and figures" in tables
    assert contents(cloned / "report") == contents(home / "report")
    assert contents(cloned / "measured") == before
    assert project.git(clone, "status", "--porcelain") == ""


def test_a_clone_that_only_pulled_repeats_the_pipeline_without_training(study, tmp_path):
    """DVC finds the runs missing, which never travel as they are; the train stage unpacks them and has nothing to
    train."""
    with remote_of("local", tmp_path) as remote:
        clone = project.clone_and_pull(study, PROFILE, tmp_path, remote)
    cloned = clone / "artifacts" / PROFILE
    assert not (cloned / "runs").exists()
    done = project.dvc(clone, "repro", f"report@{PROFILE}")
    assert "train_job" not in done.stdout, done.stdout
    home = study / "artifacts" / PROFILE
    assert contents(cloned / "runs") == contents(home / "runs")
    assert contents(cloned / "measured") == contents(home / "measured")  # training would have measured
    assert project.git(clone, "status", "--porcelain") == ""
