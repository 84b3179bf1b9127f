"""What a user with one GPU types, on the pretended GPU: the commands themselves, and the processes that they start."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from collabench.study.needs import lease_for
from collabench.study.study import load_study
from tests.support import pretended_gpu
from tests.support.running import COLLABENCH, PROFILE, environment, home, small_project, with_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretended_gpu.why_not() is not None, reason=str(pretended_gpu.why_not())),
]

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return small_project(tmp_path_factory.mktemp("first") / "project", methods="individual kd")


@pytest.fixture(scope="module")
def typed(project) -> Typed:
    """Run ``collabench`` in the project, on a machine with the pretended GPU."""
    given = environment(project) | {"COLLABENCH_GPU_LEASES": str(project.parent / "leases")}
    seen = pretended_gpu.surroundings(pretended_gpu.build(project.parent), given)

    def run(*arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COLLABENCH, *arguments], cwd=project, env=seen | variables, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    return run


def leases(project: Path) -> list[int]:
    """Bytes that the slots of the GPU were leased with last."""
    return sorted(int(path.read_text()) for path in (project.parent / "leases").glob("*.bytes"))


def test_the_first_run_trains_on_the_gpu_and_the_next_finds_all_there_and_leases_nothing(project, typed):
    said = typed("doctor").stdout
    assert "ok       GPU: 1 on which torch computes" in said and "(CUDA 13.0)" in said
    run = typed("run", "-p", PROFILE, COLLABENCH_GPU_SLOTS="2")
    assert (
        "2 training processes: " in run.stdout and "GPU 0 (up to 2 a GPU, as its memory allows, in turns" in run.stdout
    )
    assert "2 trained, 0 linked, 0 already there, 0 failed" in run.stdout
    measured = [json.loads(path.read_text()) for path in (home(project) / "measured").rglob("*.json")]
    assert [(one["device_type"], one["device"]) for one in measured] == [("cuda", "pretended GPU")] * 2
    study = load_study(project, PROFILE)
    assert leases(project)[-1] in {lease_for(study, one) for one in study.plan.configurations.values()}
    for path in (project.parent / "leases").glob("*.bytes"):
        path.unlink()
    assert "0 trained, 0 linked, 2 already there, 0 failed" in typed("run", "-p", PROFILE).stdout
    assert leases(project) == []


def test_reproduce_trains_on_the_gpu_in_jobs_and_its_report_names_the_gpu(project, typed):
    """Snakemake's jobs lease and train; DVC locks what they made."""
    with_workflow(project)
    shutil.rmtree(home(project) / "runs")
    shutil.rmtree(home(project) / "measured")
    said = typed("reproduce", "-p", PROFILE)
    assert "GPU 0 (up to" in said.stdout and "Test error" in said.stdout
    measured = [json.loads(path.read_text()) for path in (home(project) / "measured").rglob("*.json")]
    assert [one["device"] for one in measured] == ["pretended GPU"] * 2
    assert leases(project)[-1] > 1e9
    costs = (project / "reports" / PROFILE / "costs" / "README.md").read_text()
    assert "pretended GPU" in costs
    assert typed("plan", "-p", PROFILE).stdout.endswith("2 runs in 2 configurations: 2 done\n")


def test_a_gpu_that_is_not_there_or_not_wanted(project, typed):
    assert (
        "GPUS=0,1: must name GPUs that are visible (0)" in typed("run", "-p", PROFILE, "--gpus", "0,1", code=2).stderr
    )
    assert "no GPU" in typed("run", "-p", PROFILE, "--gpus", "none").stdout


def test_an_estimate_times_on_the_gpu_with_the_leases_that_runs_will_have(project, typed):
    found = json.loads(typed("estimate", "-p", PROFILE, "--again", "--json").stdout)
    study = load_study(project, PROFILE)
    predicted = {one["configuration"]: one["predicted"] for one in found["configurations"]}
    assert {name: (one["device_type"], one["lease_bytes"]) for name, one in predicted.items()} == {
        name: ("cuda", lease_for(study, one)) for name, one in study.plan.configurations.items()
    }
