"""A study that trains in a second or two: few digits, one small model, one epoch."""

from __future__ import annotations

from pathlib import Path

from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from tests.support.params import params_yaml, profile, table

_SMALL = {"models": "small", "recipes": "short"}
_CLEAN = table(name="clean", datasets="fewer", **_SMALL)
PARAMS = params_yaml(
    {
        "small": profile(
            table("individual smoothed ensemble-2", name="noisy", datasets="few", noise="noisy", **_SMALL),
            _CLEAN,
            description="a study for tests", seeds=2, seeds_per_job=2, device="cpu",
        )
    },
    datasets="few fewer",
    noise={"clean": "", "noisy": "{kind: uniform, rate: 0.2}"},
    recipes={
        "short": "{epochs: 2, batch_size: 20, learning_rate: 0.1}",
        # Weight decay times learning rate is 100: weights grow a hundredfold with every step.
        "broken": "{epochs: 4, batch_size: 8, learning_rate: 100, weight_decay: 1}",
    },
    methods={
        "individual": "",
        "smoothed": "{method: individual, label_smoothing: 0.1}",
        "ensemble-2": "{method: ensemble, members: 2}",
    },
)  # fmt: skip
CLEAN_TABLE = f"      - {_CLEAN}\n"


def write_params(root: Path, *changes: tuple[str, str]) -> None:
    """The study's ``params.yaml`` in ``root``, with each text of ``changes`` replaced by the other."""
    text = PARAMS
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(text)


def study_in(root: Path, *changes: tuple[str, str]) -> Study:
    write_params(root, *changes)
    return load_study(root, "small")


def train_all(study: Study) -> None:
    """Train every run in this process, and mark the jobs as Snakemake's stages do."""
    quiet: list[str] = []
    study.inputs.prepare_datasets(quiet.append)
    study.inputs.prepare_noise(quiet.append)
    outcome = Runner(study).train(study.plan.runs, device="cpu", log=quiet.append)
    assert not outcome.failed, outcome.failed
    for job in study.jobs:
        study.jobs.finish(job)
