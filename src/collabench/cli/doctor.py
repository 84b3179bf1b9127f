"""The checks of ``collabench doctor``: what this machine lacks, one line each, with a remedy."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from collabench.core import arithmetic, resources
from collabench.core.gpu_probe import probe

#: Free bytes that the default profile and its environment need.
NEEDED_DISK = 5e9
OLDEST_TORCH = (2, 11)
MEND_PACKAGES = "pip install -r requirements.lock (or: make clean-env reproduce)"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    ``needed``: the study cannot run without it. text: what was found, with a remedy if it is not good.
    """

    name: str
    good: bool
    text: str
    needed: bool = True

    def line(self) -> str:
        """The finding with its verdict: ``ok``, ``MISSING`` or ``note``."""
        mark = "ok     " if self.good else "MISSING" if self.needed else "note   "
        return f"{mark}  {self.name}: {' '.join(self.text.split())}"


def examine(root: Path) -> list[Finding]:
    """Check everything that a study below ``root`` needs. Trains, downloads and writes nothing."""
    return [
        _python(),
        _venv(),
        _project(root),
        _disk(root),
        _cores(),
        *_foreign_packages(),
        _torch(),
        _gpu(),
        _processor(),
        *(_package(name) for name in ("snakemake", "dvc")),
        *(_program(name) for name in ("git", "make")),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = (
        f"{version} is not supported: install Python 3.11, 3.12 or 3.13, "
        "then make PYTHON=python3.13 clean-env reproduce"
    )
    return Finding("python", good, version if good else mend)


def _venv() -> Finding:
    good = all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip"))
    return Finding("venv", good, "there" if good else "Python lacks it: apt-get install python3-venv", needed=False)


def _project(root: Path) -> Finding:
    if not (root / "params.yaml").is_file():
        text = f"no params.yaml in {root}: call collabench in the project's folder, or name it with --root"
        return Finding("project", False, text)
    if not (root / ".git").exists():
        return Finding(
            "project", False, f"{root} is not a git repository, which DVC needs: git init {root}", needed=False
        )
    return Finding("project", True, str(root))


def _disk(root: Path) -> Finding:
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free, writable = shutil.disk_usage(place).free, os.access(place, os.W_OK)
    text = f"{free / 1e9:.1f} GB free, {place} is {'' if writable else 'not '}writable"
    good = free >= NEEDED_DISK and writable
    mend = f": make at least {NEEDED_DISK / 1e9:.0f} GB free in a folder that you can write to"
    return Finding("disk", good, text + ("" if good else mend))


def _cores() -> Finding:
    count, reason = resources.available_cores()
    return Finding("cores", True, f"{count} ({reason})")


def _foreign_packages() -> list[Finding]:
    """A line where $PYTHONPATH puts packages before those of this environment."""
    foreign = {}
    folders = [Path(name).resolve() for name in os.environ.get("PYTHONPATH", "").split(os.pathsep) if name]
    for name in (
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "scipy",
        "matplotlib",
        "pydantic",
        "snakemake",
        "dvc",
        "yaml",
    ):
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is not None and any(origin.is_relative_to(folder) for folder in folders):
            foreign[name] = origin.parent
    if not foreign:
        return []
    text = ", ".join(f"{name} from {place}" for name, place in foreign.items())
    return [Finding("PYTHONPATH", False, f"hides packages of this environment: {text}; unset PYTHONPATH", needed=False)]


def _torch() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", False, f"not installed: {MEND_PACKAGES}")
    try:
        import torch

        build, version = resources.torch_build(), torch.__version__
    except (ImportError, OSError) as error:
        return Finding("torch", False, f"cannot be imported ({error}): {MEND_PACKAGES}")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        return Finding("torch", False, f"{build} is older than {oldest}: {MEND_PACKAGES}")
    return Finding("torch", True, build)


def _gpu(devices: Path = Path("/dev"), proc: Path = Path("/proc")) -> Finding:
    """Whether torch can use the machine's NVIDIA GPUs. A CPU build of torch or an old driver would leave them
    unused."""
    present = len(list(devices.glob("nvidia[0-9]*"))) or len(list((proc / "driver/nvidia/gpus").glob("*")))
    try:
        import torch

        visible, build = len(resources.visible_gpus()), torch.version.cuda or torch.version.hip
    except (ImportError, OSError):
        return Finding("GPU", False, f"{present} on this machine, torch cannot be asked", needed=False)
    if visible:
        problem = probe(resources.visible_gpus()).problem
        return Finding("GPU", problem is None, problem or f"{visible} on which torch computes", needed=False)
    if not present:
        found = resources.without_gpu()
        return Finding("GPU", True, f"{'none' if found == resources.NO_GPU else found}: training runs on the CPU")
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return Finding("GPU", False, "hidden by CUDA_VISIBLE_DEVICES: unset it to use it", needed=False)
    if build is None:
        mend = "torch is a CPU build: make clean-env reproduce, without TORCH=cpu"
    else:
        mend = f"{resources.torch_build()} sees none: the driver is too old or not loaded; nvidia-smi says more"
    return Finding("GPU", False, f"{present} on this machine, but {mend}", needed=False)


def _processor() -> Finding:
    """Whether the processor can do what CPU profiles ask for, which is portable arithmetic."""
    if arithmetic.chosen() == "native":
        return Finding("processor", True, "computes with native arithmetic, as asked for", needed=False)
    try:
        problem = arithmetic.refusal()
    except (ImportError, OSError):
        return Finding("processor", False, "torch and llvmlite cannot be asked", needed=False)
    return Finding("processor", problem is None, problem or "computes with portable arithmetic", needed=False)


def _package(name: str) -> Finding:
    """``make reproduce`` needs it; ``collabench run`` and ``collabench report`` do not."""
    try:
        return Finding(name, True, importlib.metadata.version(name), needed=False)
    except importlib.metadata.PackageNotFoundError:
        text = f"not installed, so that only collabench run and report work: {MEND_PACKAGES}"
        return Finding(name, False, text, needed=False)


def _program(name: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path is not None, path or f"not found: apt-get install {name}", needed=False)
