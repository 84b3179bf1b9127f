"""The doctor: one line a check; what is missing, on a machine that lacks it, with its remedy."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections import namedtuple

import pytest

from collabench.cli import doctor
from collabench.core import arithmetic
from collabench.core.gpu_probe import Probe
from tests.support.studies import write_params

VERSION = namedtuple("VERSION", "major minor micro releaselevel serial")
USAGE = namedtuple("USAGE", "total used free")


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    write_params(root)
    (root / ".git").mkdir()
    return root


def finding(root, name: str) -> doctor.Finding:
    (found,) = [one for one in doctor.examine(root) if one.name == name]
    return found


def test_a_line_for_each_check_and_exit_code_0_where_nothing_is_missing(project, collabench):
    called = collabench("doctor", "--root", project)
    lines = called.out.splitlines()
    names = [line[9:].partition(":")[0] for line in lines]
    expected = [
        "python",
        "venv",
        "project",
        "disk",
        "cores",
        "torch",
        "GPU",
        "processor",
        "snakemake",
        "dvc",
        "git",
        "make",
    ]
    assert names == expected and called.code == 0
    assert all(line.startswith(("ok       ", "note     ")) for line in lines)


def test_exit_code_1_where_something_needed_is_missing(project, collabench, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: USAGE(10, 9, 1))
    called = collabench("doctor", "--root", project)
    assert called.code == 1
    (line,) = [line for line in called.out.splitlines() if line.startswith("MISSING")]
    assert (
        line
        == f"MISSING  disk: 0.0 GB free, {project} is writable: make at least 5 GB free in a folder that you can write "
        "to"
    )


def test_a_folder_that_must_not_be_written(project, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = finding(project, "disk")
    assert not found.good and found.needed and "not writable: make at least" in found.text


@pytest.mark.parametrize(
    ("version", "good"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_python_of_another_version(project, monkeypatch, version, good):
    monkeypatch.setattr("sys.version_info", VERSION(*version, "final", 0))
    found = doctor._python()
    assert found.good is good and found.needed
    assert good or "install Python 3.11, 3.12 or 3.13" in found.text


def test_without_the_venv_module(project, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else real(name))
    assert finding(project, "venv").line() == "note     venv: Python lacks it: apt-get install python3-venv"


def test_another_folder_than_the_projects(tmp_path):
    found = finding(tmp_path / "nowhere", "project")
    assert not found.good and found.needed and "--root" in found.text and str(tmp_path / "nowhere") in found.text


def test_a_folder_that_is_no_git_repository(project):
    (project / ".git").rmdir()
    assert f"git init {project}" in finding(project, "project").text


def test_torch_that_is_missing(project, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    found = finding(project, "torch")
    assert found.needed and "not installed: pip install -r requirements.lock" in found.text


def test_torch_that_cannot_be_loaded(project, monkeypatch):
    def fails() -> str:
        raise OSError("libcudart.so.13: cannot open shared object file:\nNo such file")

    monkeypatch.setattr("collabench.core.resources.torch_build", fails)
    line = finding(project, "torch").line()
    assert line.startswith("MISSING  torch: cannot be imported (libcudart.so.13") and "\n" not in line


@pytest.mark.parametrize(("version", "good"), [("2.10.1", False), ("2.11.0+cpu", True), ("3.0.0a0", True)])
def test_torch_of_another_version(project, monkeypatch, version, good):
    monkeypatch.setattr("torch.__version__", version)
    found = doctor._torch()
    assert found.good is good and (good or "older than 2.11: pip install" in found.text)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with so many NVIDIA GPUs of which torch, of this build, sees some."""

    def make(
        present: int, seen: int, build: str | None, hidden: str | None = None, problem: str | None = None
    ) -> doctor.Finding:
        monkeypatch.setattr(doctor, "probe", lambda gpus: Probe(problem))
        (tmp_path / "dev").mkdir()
        for name in ["nvidiactl", *(f"nvidia{number}" for number in range(present))]:
            (tmp_path / "dev" / name).touch()
        monkeypatch.setattr("torch.cuda.device_count", lambda: seen)
        monkeypatch.setattr("torch.version.cuda", build)
        if hidden is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        return doctor._gpu(tmp_path / "dev", tmp_path / "proc")

    return make


def test_a_machine_without_a_gpu_lacks_nothing(machine):
    assert machine(0, 0, None).line() == "ok       GPU: none: training runs on the CPU"


def test_apples_gpu_is_named_and_not_called_none(machine, monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    line = machine(0, 0, None).line()
    assert "Apple's GPU is not supported" in line and "training runs on the CPU" in line and "none" not in line


def test_gpus_that_a_rocm_build_sees(machine, monkeypatch):
    monkeypatch.setattr("torch.version.hip", "7.1")
    assert machine(0, 1, None).line() == "ok       GPU: 1 on which torch computes"


def test_gpus_that_torch_uses(machine):
    assert machine(2, 2, "13.0").line() == "ok       GPU: 2 on which torch computes"


def test_gpus_that_the_driver_counts_and_torch_cannot_use(machine):
    found = machine(2, 2, "13.0", problem="torch cannot compute on GPU 0, 1: the driver is too old")
    assert not found.good and "the driver is too old" in found.text


def test_a_cpu_build_on_a_machine_with_gpus(machine):
    found = machine(2, 0, None)
    assert not found.good and not found.needed
    assert found.text == "2 on this machine, but torch is a CPU build: make clean-env reproduce, without TORCH=cpu"


def test_a_driver_that_is_too_old(machine):
    found = machine(1, 0, "13.0")
    assert not found.good and "the driver is too old or not loaded; nvidia-smi says more" in found.text


def test_gpus_that_a_variable_hides(machine):
    assert machine(1, 0, "13.0", hidden="").text == "hidden by CUDA_VISIBLE_DEVICES: unset it to use it"


def test_the_processor_must_compute_with_portable_arithmetic(monkeypatch):
    monkeypatch.setattr(arithmetic, "refusal", lambda: None)
    assert doctor._processor().line() == "ok       processor: computes with portable arithmetic"
    monkeypatch.setattr(arithmetic, "refusal", lambda: "portable arithmetic needs AVX2: use --arithmetic native")
    found = doctor._processor()
    assert not found.good and not found.needed and "--arithmetic native" in found.text
    monkeypatch.setenv(arithmetic.CHOICE, "native")
    assert doctor._processor().good


@pytest.mark.parametrize("name", ["snakemake", "dvc"])
def test_a_scheduler_that_is_missing_is_a_note_since_run_works_without(project, monkeypatch, name):
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package == name:
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = finding(project, name)
    assert not found.good and not found.needed and "only collabench run and report work: pip install" in found.text


@pytest.mark.parametrize("name", ["git", "make"])
def test_a_program_that_is_missing(project, monkeypatch, name):
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda program: None if program == name else real(program))
    assert finding(project, name).line() == f"note     {name}: not found: apt-get install {name}"
