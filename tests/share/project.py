"""A copy of this project with a fabricated study in it, and the commands that share it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from collabench import packs, report
from collabench.records import sha256_of, write_atomically, write_json
from collabench.results import LOGITS, RESULT, WEIGHTS
from collabench.seeding import numpy_generator
from collabench.study import Study, load_study
from pipeline import plan
from tests.report import fabricated

ROOT = Path(__file__).parents[2]
PROFILE = "fabricated"
STAGES = [f"{name}@{PROFILE}" for name in ("datasets", "noise", "train", "report", "measured")]


def call(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the project; its output, both streams, in ``stdout``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COLLABENCH_", "PYTEST_"))}
    environment |= {
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500
    )
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done


def collabench(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-c", "from collabench.cli import main; main()", *arguments, check=check)


def dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-m", "dvc", *arguments, check=check)


def git(folder: Path, *arguments: str) -> str:
    return call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments).stdout


def commit_all(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message, "--allow-empty")


def use_remote(folder: Path, remote: Mapping[str, str]) -> None:
    """Make ``remote`` the default remote of this clone alone."""
    dvc(folder, "remote", "add", "--local", "--default", "--force", "tested", remote["url"])
    for name, value in remote.items():
        if name != "url":
            dvc(folder, "remote", "modify", "--local", "tested", name, value)


def copy_project(folder: Path, profile: str) -> None:
    """A copy of the tree as it stands, without reports and results, with one more profile (YAML), as a git repository."""
    names = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("reports/", "artifacts/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    with (folder / "params.yaml").open("a") as file:
        file.write(profile)
    git(folder, "init", "-q", ".")
    commit_all(folder, "project")


def fabricate(folder: Path, *, weights_bytes: int = 305_616) -> Study:
    """Write every run of the profile :data:`PROFILE`, of the sizes of a ResNet-8's on digits, without training."""
    study = load_study(folder, PROFILE)
    study.prepare_datasets(lambda line: None)
    digests = {
        key: (study.workspace.datasets / key / "manifest.json").read_text().split('"digest": "')[1][:64]
        for key in study.dataset_keys()
    }
    (digest,) = digests.values()
    study.prepare_noise(lambda line: None)
    study.workspace.noise.mkdir(parents=True, exist_ok=True)
    for run in study.plan.runs:
        target = study.workspace.run(run.configuration.id, run.seed)
        target.mkdir(parents=True)
        random = numpy_generator(run.seed, "bootstrap", run.configuration.id)
        for name, size in ((LOGITS, 26_020), (WEIGHTS, weights_bytes)):
            (target / name).write_bytes(random.integers(0, 256, size, dtype=np.uint8).tobytes())
        result = fabricated.result_of(run, fabricated.plausible(run), dataset_digest=digest)
        files = {name: sha256_of(target / name) for name in (LOGITS, WEIGHTS)}
        write_json(target / RESULT, result.model_copy(update={"files": files}), durable=False)
        write_json(
            study.workspace.measured_file(run.configuration.id, run.seed), fabricated.measured_of(run), durable=False
        )
    for job in study.jobs():
        study.finish_job(job)
    study.workspace.report.mkdir()
    (study.workspace.report / "README.md").write_text("fabricated\n")
    packs.pack_runs(study.workspace)
    packs.pack_measured(study.workspace)
    return study


def train(folder: Path) -> Study:
    """Train every run of the profile :data:`PROFILE` in this process and build its report."""
    study = load_study(folder, PROFILE)
    study.prepare_datasets(lambda line: None)
    study.prepare_noise(lambda line: None)
    for key in study.noise_files():
        write_atomically(plan.noise_marker(study, key), b"")
    assert not study.train(study.plan.runs, device="cpu", tell=lambda line: None).failed
    for job in study.jobs():
        study.finish_job(job)
    report.build(study.params, study.plan, study.workspace)
    report.accept(study.workspace)
    packs.pack_runs(study.workspace)
    packs.pack_measured(study.workspace)
    return study


def register(folder: Path) -> None:
    """Give the results to DVC, as `dvc repro` does when it has run the stages, and commit what belongs in git."""
    dvc(folder, "commit", "--force", *STAGES)
    commit_all(folder, "results")


def assert_done(folder: Path, runs: int) -> None:
    """The plan of a clone finds every one of ``runs`` runs done."""
    found = json.loads(collabench(folder, "plan", "-p", PROFILE, "--json").stdout.splitlines()[-1])
    assert found["states"] == {"done": runs}, found["states"]
