"""``collabench estimate``: what is refused, what scripts get, what is timed again. Timings themselves: tests/study."""

from __future__ import annotations

import json

import pytest
import torch

from collabench.core.resources import Resources
from collabench.study import estimate
from collabench.study.study import load_study
from collabench.study.timing import Prediction
from collabench.training.device import choose_device, describe
from tests.support.studies import study_in


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path / "project")


@pytest.fixture
def timed(monkeypatch) -> list[list[str]]:
    """Configurations that each call had timed, in the place of timing them: each takes 3,600 s a run."""
    calls: list[list[str]] = []
    device = describe(choose_device("cpu"))

    def predict_all(configurations, forms, resources: Resources) -> list[Prediction]:
        if configurations:
            calls.append(list(configurations))
        return [
            Prediction(
                configuration_id=name, device=device, workers=resources.workers, torch=torch.__version__,
                form=forms[name], train_seconds=3600.0, evaluate_seconds=0.0, memory_bytes=2_000_000,
                disk_bytes=1_000_000, flops=3_000_000, timed_batch=2,
            )
            for name in configurations
        ]  # fmt: skip

    monkeypatch.setattr(estimate, "predict_all", predict_all)
    return calls


def options(study) -> tuple[object, ...]:
    return ("estimate", "-p", "small", "--root", study.workspace.root, "--cores", "1")


@pytest.mark.parametrize("budget", ["0", "-1", "nan"])
def test_a_budget_of_no_hours_is_refused_before_anything_is_timed(collabench, study, timed, budget):
    called = collabench(*options(study), "--budget", budget)
    assert called.code == 2 and called.out == "" and timed == []
    assert called.err == f"collabench: error: --budget {budget}: a budget is a positive number of hours\n"
    assert not (study.workspace.root / "artifacts").exists()


def test_json_is_one_line_with_every_configuration(collabench, study, timed):
    called = collabench(*options(study), "--json")
    assert called.code == 0 and called.out.count("\n") == 1
    content = json.loads(called.out)
    runs = load_study(study.workspace.root, "small").plan.runs
    assert content["workers"] == 1 and content["process_seconds"] == 3600.0 * len(runs)
    rows = {row["configuration"]: row for row in content["configurations"]}
    assert rows.keys() == study.plan.configurations.keys() and sum(row["runs"] for row in rows.values()) == len(runs)
    for name, row in rows.items():
        assert row["predicted"]["configuration_id"] == name and row["predicted"]["train_seconds"] == 3600.0
        assert row["measured_runs"] == 0 and row["measured_seconds"] is None


def test_what_was_timed_on_this_machine_is_timed_once_unless_again_is_said(collabench, study, timed):
    first = collabench(*options(study))
    assert collabench(*options(study)).out == first.out and len(timed) == 1
    assert collabench(*options(study), "--again").out == first.out
    assert timed == [list(study.plan.configurations)] * 2


def test_a_budget_says_what_it_buys_of_each_table(collabench, study, timed):
    out = collabench(*options(study), "--budget", "2000").out
    assert "What 2000 hours on 1 process can train, by table:" in out
    for table in ("noisy", "clean"):
        assert f"  {table}: 2 of 2 seeds: differences of" in out
    few = collabench(*options(study), "--budget", "0.5").out
    assert "  noisy: 0 of 2 seeds: no comparison is possible" in few
