"""Shortage of memory and damaged machine code are no run's failure; a stage whose DVC is gone doesn't begin."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import time

import pytest
import torch

from collabench.core.device_errors import kills_for_memory
from collabench.core.errors import DeviceError
from collabench.models.convolution import compiled
from collabench.study.runner import Runner
from collabench.study.study import Study
from collabench.training import device as training_device
from pipeline.stages import run_stage
from tests.support.running import PROFILE, environment, small_project, with_workflow
from tests.support.tiny import tiny_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Whose runs can begin, and none of which ever ends here: a machine's failure leaves nothing in its folder."""
    made = tiny_study(tmp_path_factory.mktemp("study"), seeds=2)
    made.inputs.prepare_for(made.plan.runs, lambda line: None)
    return made


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "short of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "short of memory"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
            ),
            "short of memory",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "short of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "short of memory"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors", 700),
         "the GPU failed"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), "the GPU failed"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "the GPU failed"),
        (RuntimeError("HIP error: unspecified launch failure"), "the GPU failed"),
        (RuntimeError("NCCL Error 1: unhandled cuda error"), "the GPU failed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_run_is_blamed_for_a_machine_that_cannot_go_on(study, monkeypatch, error, said, device):
    monkeypatch.setattr(training_device, "choose_device", lambda wanted: torch.device("cpu"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    tried = []

    def broken(run, *_: object, **__: object) -> None:
        tried.append(run)
        raise error

    with pytest.raises(DeviceError, match=f"^{said} while {study.plan.runs[0].id} was trained") as caught:
        Runner(study, broken).train(study.plan.runs, device=device, log=lambda line: None)
    assert len(tried) == 1, "the process takes no further run"
    assert {status.state for status in study.statuses()} == {"todo"} and "\n" not in str(caught.value)
    assert (caught.value.gpu == "3") == ("on GPU 3" in str(caught.value)) == (device == "cuda")
    again = pickle.loads(pickle.dumps(caught.value))  # as between processes
    assert (str(again), again.shortage, again.gpu) == (
        str(caught.value), said == "short of memory", caught.value.gpu
    )  # fmt: skip


def test_what_linux_killed_for_memory_is_counted(tmp_path):
    assert kills_for_memory(tmp_path) == 0, "a system that does not count"
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\noom_kill_else 9\n")
    assert kills_for_memory(tmp_path) == 3


def test_a_command_that_finds_no_memory_ends_with_one_line(collabench, tmp_path, monkeypatch):
    for error in (
        MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), OSError(errno.ENOMEM, "no memory")
    ):  # fmt: skip

        def broken(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("collabench.cli.study.open_study", broken)
        called = collabench("plan", "--root", tmp_path)
        assert called.code == 2 and called.out == "" and called.err.count("\n") == 1
        assert called.err.startswith("collabench: error: memory ran out")
        assert run_stage(broken, ["small"]) == 2


def test_an_error_of_the_program_is_still_the_runs_own(tmp_path):
    study = tiny_study(tmp_path, seeds=1)
    study.inputs.prepare_for(study.plan.runs, lambda line: None)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)")

    outcome = Runner(study, broken).train(study.plan.runs, device="cpu", log=lambda line: None)
    assert len(outcome.failed) == 1 and [status.state for status in study.statuses()] == ["failed"]


@pytest.mark.parametrize(
    "damage", [lambda code: code[: len(code) // 2], lambda code: b"", lambda code: code[:9] + b"\0" + code[10:]]
)
def test_machine_code_that_was_damaged_on_disk_is_not_used(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(compiled, "_folder", lambda: tmp_path)
    compiled._keep("name", b"code" * 100)
    path = tmp_path / "name.loops"
    assert compiled._kept("name") == b"code" * 100
    path.write_bytes(damage(path.read_bytes()))
    assert compiled._kept("name") is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found by their session")
def test_a_stage_whose_dvc_was_killed_before_it_could_ask_does_not_begin(tmp_path):
    folder = with_workflow(small_project(tmp_path / "project"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    record = folder / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir()
    written = {str(folder / "artifacts" / PROFILE / "datasets"): {"pid": dead.pid, "cmd": "dvc repro"}}
    record.write_text(json.dumps({"write": written, "read": {}}))
    (folder / "log").touch()
    line = f"(sleep 0.2; exec {sys.executable} -m pipeline.snakemake {PROFILE} datasets) > log 2>&1 &"
    subprocess.Popen(["sh", "-c", line], cwd=folder, env=environment(folder), start_new_session=True).wait()
    deadline = time.monotonic() + 60
    while "has ended" not in (folder / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "the DVC that started this stage has ended" in (folder / "log").read_text()
    assert not (folder / "artifacts").exists()
    os.utime(record, (1, 1))  # an old record says nothing: the same command, started by hand, works
    command = [sys.executable, "-m", "pipeline.snakemake", PROFILE, "datasets"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, capture_output=True)
    assert list((folder / "artifacts" / PROFILE / "datasets").iterdir())
