"""The cores and GPUs of this machine, and how processes share them."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from collabench.core.errors import CollabenchError
from collabench.core.gpu_probe import why_unusable

#: Environment variables by which a process passes its choice to its children.
CORES, GPUS, SLOTS, LEASES = "COLLABENCH_CORES", "COLLABENCH_GPUS", "COLLABENCH_GPU_SLOTS", "COLLABENCH_GPU_LEASES"

#: With ``slurm``, a cluster schedules the jobs and gives each its cores and its GPU.
SCHEDULER = "COLLABENCH_SCHEDULER"
#: Used instead of a GPU's name: the only GPU that the cluster's scheduler has made visible.
ALLOCATED = "allocated"


@dataclass(frozen=True)
class Resources:
    """What a study may use. ``gpus``: names as in CUDA_VISIBLE_DEVICES; if there are none, training runs on the CPU."""

    cores: int
    gpus: tuple[str, ...]
    slots_per_gpu: int
    reason: str

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def workers(self) -> int:
        """Number of training processes that run side by side."""
        return len(self.gpus) * self.slots_per_gpu if self.gpus else self.cores

    def describe(self) -> str:
        """One line that says what was chosen, and why."""
        gpus = f"GPU {', '.join(self.gpus)} ({self.slots_per_gpu} a GPU)" if self.gpus else "no GPU"
        return f"{self.workers} training processes: {self.cores} cores, {gpus}; {self.reason}; {torch_build()}"

    def environment(self) -> dict[str, str]:
        """Environment variables that make :func:`choose` in a child process choose the same."""
        return {CORES: str(self.cores), GPUS: ",".join(self.gpus) or "none", SLOTS: str(self.slots_per_gpu)}

    @classmethod
    def from_environment(cls) -> Resources:
        """The parent process's choice. Does not import torch: a GPU must be leased before CUDA is initialised."""
        gpus = os.environ.get(GPUS, "none")
        names = () if gpus == "none" else tuple(gpus.split(","))
        return cls(int(os.environ.get(CORES, "1")), names, int(os.environ.get(SLOTS, "1")), "as the parent chose")


def choose(device: str = "auto", *, cores: str | None = None, gpus: str | None = None) -> Resources:
    """Choose the cores and GPUs of a study.

    Args:
        device: the profile's ``auto``, ``cpu`` or ``cuda``.
        cores: their number; None means $COLLABENCH_CORES, or what CPU affinity and cgroup allow.
        gpus: ``0,1`` or ``none``; None means $COLLABENCH_GPUS, or all visible ones.

    Raises CollabenchError if a number is wrong, or if torch cannot compute on a chosen GPU.
    """
    cores = cores or os.environ.get(CORES) or None
    gpus = gpus or os.environ.get(GPUS) or None
    available, reason = available_cores()
    if cores is not None:
        available, reason = _positive(cores, "CORES"), f"cores as asked for ({available} available)"
    visible = visible_gpus() if device != "cpu" else ()
    if device == "cpu" or gpus == "none":
        chosen: tuple[str, ...] = ()
    elif gpus is not None:
        chosen = tuple(dict.fromkeys(name.strip() for name in gpus.split(",") if name.strip()))
        if not visible:
            raise CollabenchError(f"GPUS={gpus}: {torch_build()} sees no GPU; leave GPUS out to train on the CPU")
        unknown = [name for name in chosen if name not in visible and not name.startswith(("GPU-", "MIG-"))]
        if unknown or not chosen:
            raise CollabenchError(f"GPUS={gpus}: must name GPUs that are visible ({', '.join(visible)}), or say none")
    else:
        chosen = visible
    if device == "cuda" and not chosen:
        raise CollabenchError(f"the profile says device: cuda, but {torch_build()} sees no GPU; write device: auto")
    if chosen and (problem := why_unusable(chosen)):
        raise CollabenchError(problem)
    return Resources(available, chosen, _positive(os.environ.get(SLOTS, "1"), SLOTS), reason)


def is_shortage_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the machine or on a GPU. No run is blamed for that."""
    said = str(error).lower()
    words = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in said for word in words))


def on_cluster() -> bool:
    """Whether a cluster schedules the jobs. Raises CollabenchError for an unknown scheduler."""
    scheduler = os.environ.get(SCHEDULER, "")
    if scheduler not in ("", "slurm"):
        raise CollabenchError(f"{SCHEDULER}={scheduler}: must be slurm, or unset to schedule on this machine")
    return bool(scheduler)


def allocated(device: str) -> Resources:
    """The resources of one job of a cluster: one core, and one GPU if the profile's ``device`` asks for it.

    ``cuda`` asks for a GPU; ``auto`` does if $COLLABENCH_GPUS names GPUs. The host that submits jobs need not have one.
    """
    asked = os.environ.get(GPUS) or "none"
    gpu = device == "cuda" or (device == "auto" and asked != "none")
    return Resources(1, (ALLOCATED,) if gpu else (), 1, "scheduled by Slurm")


def _positive(text: str, name: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise CollabenchError(f"{name}={text}: must be a whole number, at least 1")
    return int(text)


def available_cores(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> tuple[int, str]:
    """The number of cores that this process may use, and the limit that decided: CPU affinity or a cgroup quota (v1 or
    v2)."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(proc, cgroups)
    if quota is not None and quota < affinity:
        return max(1, math.floor(quota)), f"cgroup allows {quota:g} of {affinity} cores"
    return affinity, "CPU affinity"


def cgroup_quota(proc: Path, cgroups: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroup and its ancestors; None without a quota."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots, read = [cgroups, cgroups / "unified"], _quota_v2
        elif "cpu" in controllers.split(","):
            roots, read = [cgroups / controllers, cgroups / "cpu"], _quota_v1
        else:
            continue
        for root in roots:
            folder = root / path.strip("/")
            # Inside a container the path may be the host's. The container's own limit is then at the root.
            for candidate in {folder, *(f for f in folder.parents if f.is_relative_to(root)), root}:
                quota = read(candidate)
                if quota is not None:
                    quotas.append(quota)
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that torch can use, named as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count() if torch.version.cuda else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in named.split(",")] if named is not None else [str(index) for index in range(count)]
    return tuple(names[:count])


def torch_build() -> str:
    """``torch 2.13.0 (CPU build)``."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f"torch {torch.__version__.partition('+')[0]} ({build})"


@contextmanager
def lease_gpu(
    gpus: Sequence[str], slots: int = 1, folder: Path | None = None, poll_seconds: float = 0.2
) -> Iterator[str]:
    """Hold one slot of one GPU and make this GPU the only visible one; waits until a slot is free.

    Snakemake and Slurm limit how many jobs run, but do not say which GPU a job uses. Each slot is a file lock in a
    folder that all processes of this host share. The operating system releases the lock when the process ends. Every
    GPU gets one job before any GPU gets a second one. Must be entered before torch initialises CUDA.
    """
    folder = folder or Path(os.environ.get(LEASES) or Path(tempfile.gettempdir()) / "collabench-gpu-leases")
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # several users of one host share its GPUs
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu, lock = _take_slot(gpus, slots, folder, poll_seconds)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield gpu
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        lock.release()


def _take_slot(gpus: Sequence[str], slots: int, folder: Path, poll_seconds: float) -> tuple[str, FileLock]:
    while True:
        for slot in range(slots):
            for gpu in gpus:
                name = "".join(c if c.isalnum() or c == "-" else "_" for c in gpu)
                lock = FileLock(folder / f"gpu-{name}-slot-{slot}.lock", mode=0o666)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                return gpu, lock
        time.sleep(poll_seconds)
