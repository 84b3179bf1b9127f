"""A study of seconds in a folder of its own, made in this process: what tests damage, disguise and attack."""

from __future__ import annotations

from pathlib import Path

from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from tests.support.params import params_yaml, profile, table

PROFILE = "tiny"


def tiny_params(*, noise: str = "uniform", methods: str = "individual", seeds: int = 2, dataset: str = "") -> str:
    """The file of a project with one small profile. dataset: more fields of the data set, such as ``, resize: 8``."""
    rows = table(methods, name=PROFILE, noise=noise, models="resnet8", recipes="brief")
    return params_yaml(
        {PROFILE: profile(rows, description="a study of seconds", seeds=seeds, device="cpu")},
        datasets={"digits": f"{{source: digits, train_images: 60, test_images: 50{dataset}}}"},
        noise={"clean": "", "uniform": "{kind: uniform, rate: 0.4}"},
        models={"resnet8": "{family: cifar_resnet, depth: 8, width: 4}"},
        recipes={"brief": "{epochs: 1, batch_size: 20, learning_rate: 0.05}"},
        methods="individual kd",
    )


def tiny_project(root: Path, **values: object) -> Path:
    """A project with the file of :func:`tiny_params`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "papers").mkdir(exist_ok=True)
    (root / "params.yaml").write_text(tiny_params(**values))
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
