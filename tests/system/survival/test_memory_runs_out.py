"""A job on the CPU that finds no memory goes on alone, in a fresh process. No run is blamed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import PROFILE, environment, small_project, with_workflow

#: Training finds no memory so often in each run. Writes down every try: run, process, how many others train beside it.
SHORT = """
import os
from pathlib import Path
from collabench import training

train, folder = training.train_run, Path(os.environ["COLLABENCH_TEST_TRIES"])

def short(run, *given, **named):
    path = folder / run.id
    tried = path.read_text().splitlines() if path.exists() else []
    path.write_text("\\n".join([*tried, str(os.getpid())]))
    if len(tried) < int(os.environ["COLLABENCH_TEST_TIMES"]):
        raise MemoryError
    return train(run, *given, **named)

training.train_run = short
"""

#: A job of the study that trains until a file is there.
OTHER = """
import sys, time
from pathlib import Path
from pipeline.stages.train import _beside_others

with _beside_others(Path(sys.argv[1]), False):
    print("trains", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A study whose data and noise are there."""
    folder = tmp_path_factory.mktemp("prepared") / "project"
    with_workflow(small_project(folder, methods="individual hierarchical-4", epochs=2))
    subprocess.run(
        [sys.executable, "-m", "pipeline.snakemake", PROFILE, "noise"],
        cwd=folder, env=environment(folder), check=True, capture_output=True,
    )  # fmt: skip
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(
        "import sys\nif 'pipeline.stages.train' in sys.orig_argv or 'train' in sys.orig_argv:\n    import short\n"
    )
    (folder / "site" / "short.py").write_text(SHORT)
    (folder / "tries").mkdir()
    return folder


@pytest.fixture
def project(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "project")


def surroundings(project: Path, times: int, **further: str) -> dict[str, str]:
    found = environment(project)
    found["PYTHONPATH"] = f"{project / 'site'}:{found.get('PYTHONPATH', '')}"
    found |= {
        "COLLABENCH_CORES": "2", "COLLABENCH_GPUS": "none", "COLLABENCH_TEST_TIMES": str(times),
        "COLLABENCH_TEST_TRIES": str(project / "tries"),
    }  # fmt: skip
    return found | further


def first_job(project: Path) -> str:
    from collabench.study.study import load_study

    return next(iter(load_study(project, PROFILE).jobs)).id


def start(project: Path, times: int, **further: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.stages.train", PROFILE, first_job(project)],
        cwd=project, env=surroundings(project, times, **further), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def tries(project: Path) -> list[int]:
    return [len(path.read_text().splitlines()) for path in (project / "tries").iterdir()]


def failures(project: Path) -> list[Path]:
    return list((project / "artifacts" / PROFILE / "state" / "failures").glob("*"))


def test_a_job_that_found_no_memory_waits_until_no_other_trains_and_goes_on(project):
    end = project / "end"
    lock = project / "artifacts" / PROFILE / "state" / "locks" / "memory.lock"
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(lock), str(end)],
        cwd=project, env=environment(project), text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout.readline() == "trains\n"
    job = start(project, 1)
    assert "it resumes in another process, when no other job trains" in job.stdout.readline()
    time.sleep(4)
    assert job.poll() is None and tries(project) == [1], "it waits"
    end.touch()
    _, err = job.communicate(timeout=400)
    assert job.returncode == 0, err
    assert tries(project) == [2] and not failures(project) and other.wait(30) == 0


def test_a_job_that_finds_no_memory_alone_ends_with_one_line_and_blames_no_run(project):
    job = start(project, 9)
    _, err = job.communicate(timeout=400)
    assert job.returncode == 2 and tries(project) == [2] and not failures(project)
    assert err.count("collabench: error: short of memory while") == 1 and "Traceback" not in err
    assert "no other run was trained beside it; it needs a machine or a GPU with more memory" in err


def test_on_a_cluster_the_job_ends_and_is_submitted_again_with_more_memory(project):
    job = start(project, 1, COLLABENCH_SCHEDULER="slurm")
    _, err = job.communicate(timeout=400)
    assert job.returncode == 2 and tries(project) == [1] and not failures(project)
    assert err.startswith("collabench: error: short of memory while") and err.count("\n") == 1
    profile = (project / "profiles" / "slurm" / "config.yaml").read_text()
    assert "\nretries: 2" in profile


@pytest.mark.parametrize("served", [True, False])
def test_a_study_under_snakemake_ends_as_if_memory_had_not_been_short(project, served):
    further = {} if served else {"COLLABENCH_SERVER": str(project / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.snakemake", PROFILE, "train"],
        cwd=project, env=surroundings(project, 1, **further), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert tries(project) == [2, 2] and not failures(project)
    assert len(list((project / "artifacts" / PROFILE / "runs").rglob("result.json"))) == 2
