"""What a user with one GPU types, on the pretended GPU: the commands themselves, and the processes that they start."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from collabench.storage.files import read_json
from collabench.storage.results import Result
from collabench.study.needs import lease_for
from collabench.study.study import load_study
from tests.support import pretended_gpu
from tests.support.running import COLLABENCH, PROFILE, TORCHRUN, environment, home, small_project, with_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(pretended_gpu.why_not() is not None, reason=str(pretended_gpu.why_not())),
]

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return small_project(tmp_path_factory.mktemp("first") / "project", methods="individual kd")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return pretended_gpu.build(tmp_path_factory.mktemp("pretended"))


@pytest.fixture(scope="module")
def typed(project, library) -> Typed:
    """Run ``collabench`` in the project, on a machine with the pretended GPU."""
    given = environment(project) | {"COLLABENCH_GPU_LEASES": str(project.parent / "leases")}
    seen = pretended_gpu.surroundings(library, given)

    def run(*arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COLLABENCH, *arguments], cwd=project, env=seen | variables, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture(scope="module")
def shared(tmp_path_factory, library) -> Callable[..., list[list[float]]]:
    """Train runs that two processes share, on a machine with some pretended GPUs: the losses of each."""
    folder = tmp_path_factory.mktemp("shared")

    def train(gpus: int, said: str) -> list[list[float]]:
        project = small_project(folder / f"{gpus}" / "project", epochs=2, methods="individual kd")
        path = project / "params.yaml"
        path.write_text(path.read_text().replace("short: {", "short: {processes: 2, "))
        given = environment(project) | {"COLLABENCH_GPU_LEASES": str(project.parent / "leases")}
        done = subprocess.run(
            [*TORCHRUN, "run", "-p", PROFILE], cwd=project, capture_output=True, text=True, timeout=500,
            env=pretended_gpu.surroundings(library, given) | {"PRETENDED_GPUS": str(gpus)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert f"2 processes share every run: {said}" in done.stdout
        leased = sorted(path.name for path in (project.parent / "leases").glob("*.bytes"))
        assert leased == [f"gpu-{number}-slot-0.bytes" for number in range(gpus)]
        found = [read_json(path, Result) for path in sorted(home(project).rglob("result.json"))]
        assert len(found) == 2
        return [losses for one in found for losses in one.curves.losses.values()]

    return train


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


def test_a_build_for_rocm_trains_on_its_gpus_and_says_so(project, typed):
    rocm = {"PRETENDED_ROCM": "7.1"}
    said = typed("doctor", **rocm).stdout
    assert "ok       GPU: 1 on which torch computes" in said and "(ROCm 7.1)" in said
    run = typed("run", "-p", PROFILE, "--set", "recipes.short.epochs=4", **rocm)
    assert "GPU 0 (up to" in run.stdout and "(ROCm 7.1)" in run.stdout
    assert "2 trained, 0 linked, 0 already there, 0 failed" in run.stdout


def test_processes_that_share_runs_have_a_gpu_each_and_without_gpus_the_same_build_uses_the_cpu(shared):
    """The pretended NCCL refuses processes that see the same GPU, or more than one."""
    there = shared(2, "a GPU each of 0, 1")
    here = shared(0, "on the CPU, one thread each")
    assert len(there) == len(here) == 3
    for of_gpus, of_cpu in zip(there, here, strict=True):
        assert of_gpus == pytest.approx(of_cpu, abs=1e-2)


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
