"""A pretended CUDA device for machines without a GPU: its memory and its kernels are the CPU's.

``pretend.cpp`` registers ``cuda:0`` with torch's dispatcher. Everything above the kernels then behaves as on CUDA:
device checks, generators, autograd, autocast, pinned copies. What is called is counted: operations, copies between host
and device, synchronisations. Numbers equal the CPU's apart from rounding. Speed means nothing. ``torch.compile`` makes
graphs, and a backend of the test's runs them. NCCL is gloo, which refuses two processes on one GPU. NVML, CUDA graphs,
generated kernels and cuDNN's choices are not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def why_not() -> str | None:
    """Why the device cannot be built here; None if it can."""
    return None if shutil.which("g++") and sys.platform == "linux" else "the pretended GPU needs Linux and g++"


def build(folder: Path) -> Path:
    """Compile the device against this interpreter's torch. Takes about 15 seconds."""
    import torch

    installed = Path(torch.__file__).parent
    library = folder / "libpretend.so"
    include = [f"-I{installed / part}" for part in ("include", "include/torch/csrc/api/include")]
    subprocess.run(
        ["g++", "-std=c++20", "-O0", "-w", "-fPIC", "-shared", str(HERE / "pretend.cpp"), *include,
         f"-L{installed / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{installed / 'lib'}", "-o", str(library)],
        check=True,
    )  # fmt: skip
    return library


def surroundings(library: Path, variables: dict[str, str]) -> dict[str, str]:
    """Environment variables with which every Python process sees the device (``site/sitecustomize.py``)."""
    hidden = {name: value for name, value in variables.items() if name != "CUDA_VISIBLE_DEVICES"}
    path = [str(HERE / "site"), *filter(None, [hidden.get("PYTHONPATH")]), str(ROOT)]
    return hidden | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(path)}


def run(library: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in a process that has the device."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env=os.environ | {"LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
