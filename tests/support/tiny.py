"""A study of seconds in a folder of its own, made in this process: what tests damage, disguise and attack."""

from __future__ import annotations

from pathlib import Path

from collabench.study.runner import Runner
from collabench.study.study import Study, load_study

PROFILE = "tiny"

PARAMS = """\
datasets:
  digits: {{source: digits, train_images: 60, test_images: 50{dataset}}}
noise:
  clean: {{kind: none}}
  uniform: {{kind: uniform, rate: 0.4}}
models:
  resnet8: {{family: cifar_resnet, depth: 8, width: 4}}
recipes:
  brief: {{epochs: 1, batch_size: 20, learning_rate: 0.05}}
methods:
  individual: {{method: individual}}
  kd: {{method: kd, same_initialisation: true}}
profiles:
  tiny:
    description: a study of seconds
    seeds: {seeds}
    device: cpu
    tables:
      - {{name: tiny, datasets: [digits], noise: [{noise}], models: [resnet8], recipes: [brief], methods: [{methods}]}}
"""


def tiny_project(
    root: Path, *, noise: str = "uniform", methods: str = "individual", seeds: int = 2, dataset: str = ""
) -> Path:
    """A project with one small profile."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "papers").mkdir(exist_ok=True)
    (root / "params.yaml").write_text(PARAMS.format(noise=noise, methods=methods, seeds=seeds, dataset=dataset))
    return root


def tiny_study(root: Path, **values: object) -> Study:
    return load_study(tiny_project(root, **values), PROFILE)


def trained(study: Study) -> Study:
    """The study with everything made that it lacks, in this process."""
    quiet = lambda line: None  # noqa: E731
    study.inputs.prepare_for(study.plan.runs, quiet)
    outcome = Runner(study).train(study.plan.runs, device="cpu", log=quiet)
    assert not outcome.failed, outcome.failed
    for job in study.jobs:
        study.jobs.finish(job)
    return study
