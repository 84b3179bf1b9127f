"""Whether GPUs can compute, found out by a child process that computes on each.

The number of GPUs comes from the driver's own library. That a GPU is counted there does not mean that this build of
torch can use it: the driver may be too old for the build, or the GPU too old or too new. A failed attempt spoils CUDA
for the process that makes it, so a child makes it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
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
"""


def why_unusable(gpus: Sequence[str], proc: Path = Path("/proc")) -> str | None:
    """One line that says why torch cannot compute on these GPUs, and what to do; None if it can.

    gpus: names as in CUDA_VISIBLE_DEVICES.
    """
    program = _PROGRAM.replace("EXPECTED", str(len(gpus)))
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        said = f"no answer within {PATIENCE} seconds"
    else:
        if done.returncode == 0:
            return None
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # The exception's own line comes after the traceback, and CUDA's advice after that.
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        said = (errors or lines or [f"exit code {done.returncode}"])[-1 if not errors else 0]
    return (
        f"torch cannot compute on GPU {', '.join(gpus)}: {said[:300]}; {_versions(proc)}: update the NVIDIA driver, or "
        "install a build of torch that this driver and this GPU support, or train on the CPU (GPUS=none)"
    )


def driver_version(proc: Path = Path("/proc")) -> str | None:
    """The NVIDIA driver's version; None where there is none."""
    try:
        text = (proc / "driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else None


def _versions(proc: Path) -> str:
    import torch

    return f"driver {driver_version(proc) or 'unknown'}, torch {torch.__version__} for CUDA {torch.version.cuda}"
