"""A job whose GPU fails goes on in a fresh process: on another GPU, or with a larger lease. Torch is the CPU's here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.running import PROFILE, environment, small_project, with_workflow

#: In the place of torch's GPU: fails as often as the test asks, and says what the process had leased.
BROKEN = """
import os
from pathlib import Path
import torch
from collabench import training
from collabench.study import needs
from collabench.training import device

device.choose_device = lambda wanted: torch.device("cpu")
train, place = training.train_run, Path(os.environ["COLLABENCH_TEST_GPU"])

def broken(run, *given, **named):
    tried = place.read_text().splitlines() if place.exists() else []
    lease = next(Path(os.environ["COLLABENCH_GPU_LEASES"]).glob("*.bytes")).read_text()
    place.write_text("\\n".join([*tried, f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {lease}"]))
    if len(tried) < int(os.environ["COLLABENCH_TEST_TIMES"]):
        raise RuntimeError(os.environ["COLLABENCH_TEST_ERROR"])
    return train(run, *given, **named)

training.train_run = broken
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = with_workflow(small_project(tmp_path_factory.mktemp("gpu") / "project"))
    subprocess.run(
        [sys.executable, "-m", "pipeline.snakemake", PROFILE, "noise"],
        cwd=folder, env=environment(folder), check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def job(project, tmp_path):
    """Run the first job with GPUs 0 and 1, where training fails so often; the process and what it did in each try."""
    from collabench.study.study import load_study

    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\nif 'pipeline.stages.train' in sys.orig_argv:\n    import broken_gpu\n"
    )
    (site / "broken_gpu.py").write_text(BROKEN)
    first = next(iter(load_study(project, PROFILE).jobs))

    def run(times: int, error: str):
        surroundings = environment(project)
        surroundings["PYTHONPATH"] = f"{site}:{surroundings.get('PYTHONPATH', '')}"
        surroundings |= {
            "COLLABENCH_GPUS": "0,1", "COLLABENCH_GPU_MEMORY": "80000000000,80000000000", "COLLABENCH_GPU_SLOTS": "1",
            "COLLABENCH_GPU_LEASES": str(tmp_path / "leases"), "COLLABENCH_TEST_GPU": str(tmp_path / "tries"),
            "COLLABENCH_TEST_TIMES": str(times), "COLLABENCH_TEST_ERROR": error,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.stages.train", PROFILE, first.id],
            cwd=project, env=surroundings, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return done, [line.split() for line in (tmp_path / "tries").read_text().splitlines()]

    return run


def failures(project) -> list:
    return list((project / "artifacts" / PROFILE / "state" / "failures").glob("*"))


def test_a_gpu_that_always_fails_ends_the_job_with_one_line_and_blames_no_run(project, job):
    done, tries = job(9, "CUDA error: an illegal memory access was encountered")
    assert done.returncode == 2 and len(tries) == 3 and not failures(project)
    assert [gpu for _, gpu, _ in tries] == ["0", "1", "0"], "the GPU that failed comes last"
    assert done.stderr.count("collabench: error: the GPU failed while") == 1 and "Traceback" not in done.stderr


def test_a_job_that_was_short_of_memory_goes_on_with_a_larger_lease(project, job):
    done, tries = job(2, "CUDA out of memory. Tried to allocate 2.00 GiB")
    assert done.returncode == 0, done.stderr
    assert len({process for process, _, _ in tries}) == 1, "the process is replaced, as its parent waits for it"
    leases = [int(lease) for _, _, lease in tries[:3]]
    assert leases[1] == 2 * leases[0] and leases[2] == 4 * leases[0] and not failures(project)
    assert done.stdout.count("it resumes in another process") == 2
