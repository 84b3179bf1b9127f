"""A small study that is really trained: in a folder of its own, with the definitions of the real params.yaml."""

from __future__ import annotations

from pathlib import Path

from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from tests.support.params import real_definitions

PROFILE = """\
  small:
    description: a few runs
    seeds: 3
    tables:
      - {name: small, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [brief],
         methods: [individual, ensemble-2, wang2018]}
"""
RECIPE = "  brief: {epochs: 2, batch_size: 32, learning_rate: 0.1}\n"


def write_params(root: Path) -> None:
    (root / "params.yaml").write_text(real_definitions(PROFILE, recipes=RECIPE))


def trained(root: Path) -> Study:
    """Every run of the profile ``small`` trained, and its report accepted."""
    write_params(root)
    study = load_study(root, "small")
    quiet = lambda line: None  # noqa: E731
    study.inputs.prepare_datasets(quiet)
    study.inputs.prepare_noise(quiet)
    outcome = Runner(study).train(study.plan.runs, device="cpu", log=quiet)
    assert not outcome.failed and len(outcome.trained) == len(study.plan.runs)
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    return study
