"""A study in a copy of this project, fabricated or really trained, as DVC knows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from collabench.core.seeding import numpy_generator
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.storage import archives
from collabench.storage.files import sha256_of, write_atomically, write_json
from collabench.storage.results import LOGITS, RESULT, WEIGHTS
from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from pipeline import plan
from tests.support import fabricated
from tests.support.project import collabench, commit_all, dvc, stages

PROFILE = "fabricated"
STAGES = stages(PROFILE)


def fabricate(folder: Path, *, weights_bytes: int = 305_616) -> Study:
    """Write every run of the profile :data:`PROFILE`, of the sizes of a ResNet-8's on digits, without training."""
    study = load_study(folder, PROFILE)
    study.inputs.prepare_datasets(lambda line: None)
    digests = {
        key: (study.workspace.datasets / key / "manifest.json").read_text().split('"digest": "')[1][:64]
        for key in study.inputs.dataset_keys()
    }
    (digest,) = digests.values()
    study.inputs.prepare_noise(lambda line: None)
    study.workspace.noise.mkdir(parents=True, exist_ok=True)
    for run in study.plan.runs:
        target = study.workspace.folder(run)
        target.mkdir(parents=True)
        random = numpy_generator(run.seed, "bootstrap", run.configuration.id)
        for name, size in ((LOGITS, 26_020), (WEIGHTS, weights_bytes)):
            (target / name).write_bytes(random.integers(0, 256, size, dtype=np.uint8).tobytes())
        result = fabricated.result_of(run, fabricated.plausible(run), dataset_digest=digest)
        files = {name: sha256_of(target / name) for name in (LOGITS, WEIGHTS)}
        write_json(target / RESULT, result.model_copy(update={"files": files}), durable=False)
        write_json(study.workspace.measured_file(run), fabricated.measured_of(run), durable=False)
    for job in study.jobs:
        study.jobs.finish(job)
    study.workspace.report.mkdir()
    (study.workspace.report / "README.md").write_text("fabricated\n")
    archives.pack_runs(study.workspace)
    archives.pack_measured(study.workspace)
    return study


def train(folder: Path) -> Study:
    """Train every run of the profile :data:`PROFILE` in this process and build its report."""
    study = load_study(folder, PROFILE)
    study.inputs.prepare_datasets(lambda line: None)
    study.inputs.prepare_noise(lambda line: None)
    for key in study.inputs.noise_files():
        write_atomically(plan.noise_marker(study, key), b"")
    assert not Runner(study).train(study.plan.runs, device="cpu", log=lambda line: None).failed
    for job in study.jobs:
        study.jobs.finish(job)
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    archives.pack_runs(study.workspace)
    archives.pack_measured(study.workspace)
    return study


def register(folder: Path) -> None:
    """Give the results to DVC, as `dvc repro` does when it has run the stages, and commit what belongs in git."""
    dvc(folder, "commit", "--force", *STAGES)
    commit_all(folder, "results")


def assert_done(folder: Path, runs: int) -> None:
    """The plan of a clone finds every one of ``runs`` runs done."""
    found = json.loads(collabench(folder, "plan", "-p", PROFILE, "--json").stdout.splitlines()[-1])
    assert found["states"] == {"done": runs}, found["states"]
