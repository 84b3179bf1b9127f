"""Shortage of memory and damaged machine code are no run's failure; a stage whose DVC is gone doesn't begin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from collabench.core.errors import StorageError
from collabench.models.convolution import compiled
from collabench.study.runner import Runner
from tests.support.running import PROFILE, environment, small_project, with_workflow
from tests.support.tiny import tiny_study


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_a_run_that_finds_no_memory_is_not_recorded_as_failed(tmp_path, error):
    study = tiny_study(tmp_path, seeds=1)
    study.inputs.prepare_for(study.plan.runs, lambda line: None)

    def short(*_: object, **__: object) -> None:
        raise error

    with pytest.raises(StorageError, match=f"short of memory while {study.plan.runs[0].id}"):
        Runner(study, short).train(study.plan.runs, device="cpu", log=lambda line: None)
    assert [status.state for status in study.statuses()] == ["todo"]


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
