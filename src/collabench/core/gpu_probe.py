"""Whether GPUs can compute, and how much memory they have, found out by a child process that computes on each.

The number of GPUs comes from the driver's own library. That a GPU is counted there does not mean that this build of
torch can use it: the driver may be too old for the build, or the GPU too old or too new. A failed attempt spoils CUDA
for the process that makes it, so a child makes it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds that the child may take. Loading CUDA's libraries from a slow disk takes a minute.
PATIENCE = 300

#: Allocates, multiplies, and compares with the known product, on each visible GPU.
_PROGRAM = """
import torch
count = torch.cuda.device_count()
assert count == EXPECTED, f"torch can use {count} of EXPECTED"
for number in range(count):
    ones = torch.ones(64, 64, device=f"cuda:{number}")
    assert torch.equal((ones @ ones).cpu(), torch.full((64, 64), 64.0)), f"GPU {number} multiplies wrongly"
    found = torch.cuda.get_device_properties(number)
    print("GPU", found.total_memory, getattr(found, "uuid", "unknown"))
"""


@dataclass(frozen=True)
class Probe:
    """What was found out of some GPUs.

    problem: one line that says why torch cannot compute on them, and what to do; None if it can. memory: bytes of each.
    exclusive: whether one of them serves one process at a time (exclusive compute mode, without MPS).
    """

    problem: str | None
    memory: tuple[int, ...] = ()
    exclusive: bool = False


def probe(gpus: Sequence[str], proc: Path = Path("/proc")) -> Probe:
    """Compute on each of these GPUs, named as in CUDA_VISIBLE_DEVICES, in a child process."""
    program = _PROGRAM.replace("EXPECTED", str(len(gpus)))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | dict.fromkeys(visible_variables(), ",".join(gpus)),
            stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        said = f"no answer within {PATIENCE} seconds"
    else:
        if done.returncode == 0:
            found = re.findall(r"^GPU (\d+) (\S+)$", done.stdout, re.MULTILINE)
            modes = None if shares_by_mps() else nvidia_smi([uuid for _, uuid in found], "compute_mode")
            exclusive = any("Exclusive" in mode for (mode,) in modes or [])
            return Probe(None, tuple(int(size) for size, _ in found), exclusive)
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # The exception's own line comes after the traceback, and CUDA's advice after that.
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        said = (errors or lines or [f"exit code {done.returncode}"])[-1 if not errors else 0]
    return Probe(
        f"torch cannot compute on GPU {', '.join(gpus)}: {said[:300]}; {_versions(proc)}: {_remedy(said)}, or "
        "train on the CPU (GPUS=none)"
    )


def _remedy(said: str) -> str:
    """What to do about an error of CUDA's. A GPU in exclusive compute mode is not at fault while it serves another."""
    if "busy or unavailable" in said:
        return (
            "another process may compute there while the GPU serves one at a time (exclusive compute mode): wait for "
            "its end, name other GPUs (GPUS=1), or let processes share it (nvidia-smi -c 0)"
        )
    return (
        "update the driver, or install a build of torch that this driver and this GPU support (make clean-env "
        "reproduce TORCH=cu126)"
    )


def visible_variables() -> tuple[str, ...]:
    """The environment variables that say which GPUs a process sees. ROCm has one of its own beside CUDA's."""
    return ("CUDA_VISIBLE_DEVICES", *(("HIP_VISIBLE_DEVICES",) if "HIP_VISIBLE_DEVICES" in os.environ else ()))


def shares_by_mps() -> bool:
    """Whether NVIDIA's Multi-Process Service runs on this host, by which several processes compute on a GPU at once.

    Without it they take turns.
    """
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps") / "control").exists()


def nvidia_smi(uuids: Sequence[str], *fields: str) -> list[list[str]] | None:
    """What nvidia-smi says of GPUs, named as torch names them: these fields of each; None if it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    chosen = ",".join(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}" for uuid in uuids)
    command = [program, "-i", chosen, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    whole = done.returncode == 0 and len(said) == len(uuids) and all(len(line) == len(fields) for line in said)
    return said if whole else None


def driver_version(proc: Path = Path("/proc")) -> str | None:
    """The NVIDIA driver's version; None where there is none."""
    try:
        text = (proc / "driver/nvidia/version").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else None


def _versions(proc: Path) -> str:
    import torch

    built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"driver {driver_version(proc) or 'unknown'}, torch {torch.__version__} for {built}"
