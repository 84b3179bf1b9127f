"""The child that computes on each GPU, with a torch of the tests' own in its place."""

from __future__ import annotations

import sys

import pytest

from collabench.core import gpu_probe
from collabench.core.gpu_probe import driver_version, probe

#: A torch that sees two GPUs and computes as asked.
TORCH = """
import os
class cuda:
    device_count = staticmethod(lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    class get_device_properties:
        def __init__(self, number): self.total_memory, self.uuid = 80 + number, f"ab-{number}"
class Matrix:
    def __init__(self, value): self.value = value
    def __matmul__(self, other): return Matrix(64 * self.value * other.value)
    def cpu(self): return self
def ones(rows, columns, device):
    {ones}
    return Matrix(1.0)
def full(size, value): return Matrix(value)
def equal(a, b): return a.value == b.value
"""

TOO_OLD = 'raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\\nPlease update it")'


@pytest.fixture
def child_has(tmp_path, monkeypatch):
    def put(ones: str) -> None:
        (tmp_path / "torch.py").write_text(TORCH.replace("{ones}", ones))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_gpus_that_compute_are_usable(child_has):
    child_has("assert device in ('cuda:0', 'cuda:1')")
    assert probe(["3", "GPU-8f1c"]) == gpu_probe.Probe(None, (80, 81))


def test_an_old_driver_is_named_with_the_build_and_the_remedy(child_has, tmp_path):
    child_has(TOO_OLD)
    (tmp_path / "driver/nvidia").mkdir(parents=True)
    (tmp_path / "driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
    )
    said = probe(["0"], tmp_path).problem
    assert said is not None and "\n" not in said
    assert said.startswith("torch cannot compute on GPU 0: RuntimeError: The NVIDIA driver on your system is too old")
    assert (
        "driver 535.104.05, torch 2" in said
        and "update the driver" in said
        and "TORCH=cu126" in said
        and "GPUS=none" in said
    )
    assert driver_version(tmp_path / "none") is None


def test_a_gpu_that_multiplies_wrongly_or_is_missing_is_not_used(child_has, tmp_path):
    child_has("if device == 'cuda:1': return Matrix(2.0)")
    assert "GPU 1 multiplies wrongly" in probe(["0", "1"]).problem
    child_has("")
    assert probe(["0", "1"]).problem is None
    (tmp_path / "torch.py").write_text(TORCH.replace('len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))', "1"))
    assert "torch can use 1 of 2" in probe(["0", "1"]).problem


def test_a_child_that_dies_or_hangs_says_so(child_has, monkeypatch):
    child_has("os._exit(9)")
    assert "exit code 9" in probe(["0"]).problem
    monkeypatch.setattr(gpu_probe, "PATIENCE", 0.5)
    child_has("import time; time.sleep(60)")
    assert "no answer within 0.5 seconds" in probe(["0"]).problem


def test_a_gpu_that_serves_another_process_alone_is_not_blamed_on_the_driver(child_has):
    """Exclusive compute mode."""
    child_has("raise RuntimeError('CUDA error: CUDA-capable device(s) is/are busy or unavailable\\nFor debugging')")
    said = probe(["0"]).problem
    assert said is not None and "\n" not in said and "busy or unavailable" in said
    assert "exclusive compute mode" in said and "nvidia-smi -c 0" in said and "GPUS=none" in said
    assert "driver, or" not in said and "TORCH=" not in said


@pytest.fixture
def nvidia_smi_says(tmp_path, monkeypatch):
    """A program in nvidia-smi's place, which answers for the GPUs that it is asked for, and knows no others."""

    def put(**modes: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        known = {f"GPU-ab-{name[-1]}": mode for name, mode in modes.items()}
        program.write_text(
            f"#!{sys.executable}\nimport sys\nasked = sys.argv[sys.argv.index('-i') + 1].split(',')\n"
            f"known = {known}\nprint(*[known.get(one, 'No devices were found') for one in asked], sep='\\n')\n"
            "sys.exit(0 if all(one in known for one in asked) else 6)\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "mps"))

    return put


def test_one_gpu_in_exclusive_compute_mode_is_told_unless_mps_shares_it(child_has, nvidia_smi_says, tmp_path):
    child_has("")
    nvidia_smi_says(gpu0="Default", gpu1="Exclusive_Process")
    assert probe(["0", "1"]).exclusive and not probe(["0"]).exclusive
    nvidia_smi_says(gpu0="Default")
    assert not probe(["0", "1"]).exclusive, "nvidia-smi does not know the second"
    nvidia_smi_says(gpu0="Exclusive_Process")
    assert probe(["0"]).exclusive
    (tmp_path / "mps").mkdir()
    (tmp_path / "mps" / "control").touch()
    assert not probe(["0"]).exclusive
