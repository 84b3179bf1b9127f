"""What is missing on this machine, a line each, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from collabench import resources


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. ``needed``: without it the study cannot run."""

    name: str
    good: bool
    text: str
    needed: bool = True


def examine(root: Path) -> list[Finding]:
    """Look at everything that a study needs."""
    findings = [_python(), _venv(), _disk(root), _cores()]
    findings += [_module(name, needed) for name, needed in (("torch", True), ("snakemake", False), ("dvc", False))]
    findings += [_torch(), _processor()]
    findings += [
        Finding(
            name, path is not None, path or f"not found: install {name} (for instance: apt-get install {name})", needed
        )
        for name, needed in (("git", False), ("make", False))
        for path in [shutil.which(name)]
    ]
    return findings


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", good, version if good else f"{version}: install Python 3.11, 3.12 or 3.13")


def _venv() -> Finding:
    good = importlib.util.find_spec("venv") is not None and importlib.util.find_spec("ensurepip") is not None
    return Finding("venv", good, "there" if good else "Python lacks it: apt-get install python3-venv")


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    good = free > 5e9 and os.access(root, os.W_OK)
    return Finding("disk", good, f"{free / 1e9:.0f} GB free, {root} is {'' if os.access(root, os.W_OK) else 'not '}"
                   f"writable{'' if good else ': make at least 5 GB free in a folder that you can write to'}")  # fmt: skip


def _cores() -> Finding:
    count, reason = resources.available_cores()
    return Finding("cores", True, f"{count} ({reason})")


def _module(name: str, needed: bool) -> Finding:
    good = importlib.util.find_spec(name) is not None
    return Finding(name, good, "installed" if good else "missing: pip install -r requirements.lock", needed)


def _torch() -> Finding:
    try:
        build, gpus = resources.torch_build(), resources.visible_gpus()
    except ImportError as error:
        return Finding("torch build", False, f"cannot be imported ({error}): pip install -r requirements.lock")
    return Finding("torch build", True, f"{build}, {len(gpus)} GPU(s) visible")


def _processor() -> Finding:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return Finding("processor", True, "features unknown on this system", needed=False)
    good = "avx2" in flags
    return Finding(
        "processor", good, "has AVX2" if good else "has no AVX2: training works, several times slower", False
    )
