"""The same Snakefile on a real Slurm of one node, which a script beside this file starts: jobs with GPUs, a killed job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflow.test_smoke import ROOT, call, collabench, contents, edit, git

SCRIPT = Path(__file__).with_name("one_node_slurm.sh")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("slurmctld", "slurmd", "munged", "unshare")),
        reason="needs slurmctld, slurmd and munged: apt-get install slurm-wlm munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="starting Slurm's daemons with a folder of their own needs root"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A clone of this tree whose smoke profile has two methods of one family and a teacher's student."""
    folder = tmp_path_factory.mktemp("cluster") / "project"
    for name in filter(
        None, call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    ):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    edit(
        folder, (r"methods: \[individual.*?\]", "methods: [individual, kd]"), (r"noise: \[.*?\]", "noise: [uniform20]")
    )
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "before")
    return folder


def on_slurm(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return call(folder, str(SCRIPT), str(folder.parent / "slurm"), "2", *command)


def test_a_study_on_slurm_gives_the_bytes_of_a_study_on_this_machine(project, tmp_path):
    command = (sys.executable, "-c", "from collabench.cli import main; main()", "reproduce", "-p", "smoke", "--slurm")
    done = on_slurm(project, *command)
    assert "jobs go to Slurm" in done.stdout
    log = (project / "artifacts/smoke/state/logs/reproduce.log").read_text()
    submitted = re.findall(r"(?i)submitted with SLURM jobid (\d+)|jobid '?(\d+)'?", log)
    assert submitted, log[-3000:]
    runs = project / "artifacts" / "smoke" / "runs"
    here = {name: content for name, content in contents(runs).items() if not name.endswith(".done")}
    assert any(name.endswith("result.json") for name in here)
    shutil.copytree(project, tmp_path / "again", ignore=shutil.ignore_patterns("artifacts", ".snakemake", "dvc.lock"))
    collabench(tmp_path / "again", "run", "-p", "smoke", "--cores", "2")
    alone = contents(tmp_path / "again" / "artifacts" / "smoke" / "runs")
    assert {name: alone[name] for name in here} == here
