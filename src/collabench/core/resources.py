"""The cores and GPUs of this machine, and how processes share them."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from collabench.core.errors import CollabenchError, UnusableGpu
from collabench.core.gpu_probe import Probe, probe, shares_by_mps
from collabench.core.leases import lease_gpu
from collabench.core.text import counted

#: Environment variables by which a process passes its choice to its children.
CORES, GPUS, SLOTS, MEMORY = "COLLABENCH_CORES", "COLLABENCH_GPUS", "COLLABENCH_GPU_SLOTS", "COLLABENCH_GPU_MEMORY"

#: :func:`without_gpu` where the machine has none.
NO_GPU = "no GPU"
#: Most processes that share a GPU where $COLLABENCH_GPU_SLOTS does not say it.
MOST_SLOTS = 4

#: Names the executor plugin of Snakemake's (``slurm``, ``kubernetes`` …) by which a cluster schedules the jobs and
#: gives each its cores and its GPU. Unset: this machine schedules them.
SCHEDULER = "COLLABENCH_SCHEDULER"
#: Used instead of a GPU's name: the only GPU that the cluster's scheduler has made visible.
ALLOCATED = "allocated"


@dataclass(frozen=True)
class Resources:
    """What a study may use.

    gpus: names as in CUDA_VISIBLE_DEVICES; if there are none, training runs on the CPU. slots_per_gpu: the most
    processes that share a GPU; its memory allows fewer of them if they are large (:mod:`collabench.core.leases`).
    gpu_memory: bytes of each GPU; empty if unknown. exclusive: a GPU serves one process at a time.
    """

    cores: int
    gpus: tuple[str, ...]
    slots_per_gpu: int
    reason: str
    gpu_memory: tuple[int, ...] = field(default=(), compare=False)
    exclusive: bool = field(default=False, compare=False)

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def workers(self) -> int:
        """Number of training processes that run side by side, at most."""
        return len(self.gpus) * self.slots_per_gpu if self.gpus else self.cores

    def side_by_side(self, need: int) -> int:
        """Number of processes that run side by side if each leases ``need`` bytes of a GPU, at most."""
        if not need or not self.gpu_memory:
            return self.workers
        return sum(min(self.slots_per_gpu, max(1, size // need)) for size in self.gpu_memory)

    def lease(self, need: int | None) -> AbstractContextManager[str]:
        """A lease of ``need`` bytes of one of the GPUs, or of a whole one (None); see
        :func:`collabench.core.leases.lease_gpu`."""
        return lease_gpu(self.gpus, self.slots_per_gpu, memory=self.gpu_memory, need=need)

    def with_last(self, gpu: str | None) -> Resources:
        """These resources with one GPU behind the others, which are then chosen before it."""
        if gpu not in self.gpus:
            return self
        order = sorted(range(len(self.gpus)), key=lambda index: self.gpus[index] == gpu)
        memory = tuple(self.gpu_memory[index] for index in order) if self.gpu_memory else ()
        return replace(self, gpus=tuple(self.gpus[index] for index in order), gpu_memory=memory)

    def describe(self) -> str:
        """One line that says what was chosen, and why."""
        most = f"{self.slots_per_gpu} a GPU{', in exclusive compute mode' if self.exclusive else ''}"
        if self.slots_per_gpu > 1:
            turns = "at once by MPS" if shares_by_mps() else "in turns, as MPS is not running"
            most = f"up to {self.slots_per_gpu} a GPU, as its memory allows, {turns}"
        gpus = f"GPU {', '.join(self.gpus)} ({most})" if self.gpus else without_gpu()
        processes = counted(self.workers, "training process", "training processes")
        return f"{processes}: {counted(self.cores, 'core')}, {gpus}; {self.reason}; {torch_build()}"

    def environment(self) -> dict[str, str]:
        """Environment variables that make :func:`choose` in a child process choose the same."""
        return {
            CORES: str(self.cores),
            GPUS: ",".join(self.gpus) or "none",
            SLOTS: str(self.slots_per_gpu),
            MEMORY: ",".join(map(str, self.gpu_memory)),
        }

    @classmethod
    def from_environment(cls) -> Resources:
        """The parent process's choice. Does not import torch: a GPU must be leased before CUDA is initialised."""
        gpus = os.environ.get(GPUS, "none")
        names = () if gpus == "none" else tuple(gpus.split(","))
        memory = tuple(int(size) for size in os.environ.get(MEMORY, "").split(",") if size)
        slots = int(os.environ.get(SLOTS, "1"))
        return cls(int(os.environ.get(CORES, "1")), names, slots, "as the parent chose", memory)


def choose(
    device: str = "auto", *, cores: str | None = None, gpus: str | None = None, own: int | None = None
) -> Resources:
    """Choose the cores and GPUs of a study.

    Args:
        device: the profile's ``auto``, ``cpu`` or ``cuda``.
        cores: their number; None means $COLLABENCH_CORES, or what CPU affinity and cgroup allow.
        gpus: ``0,1`` or ``none``; None means $COLLABENCH_GPUS, or all visible ones.
        own: the place of the only GPU on which this process computes, where others of its host choose at the same
            time: a GPU in exclusive compute mode serves one process. The others are taken to have its memory.

    Raises CollabenchError if a number is wrong, and UnusableGpu if torch cannot compute on a chosen GPU.
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
            raise CollabenchError(f"GPUS={gpus}: {seen()}; leave GPUS out to train on the CPU")
        unknown = [name for name in chosen if name not in visible and not name.startswith(("GPU-", "MIG-"))]
        if unknown or not chosen:
            raise CollabenchError(f"GPUS={gpus}: must name GPUs that are visible ({', '.join(visible)}), or say none")
    else:
        chosen = visible
    if device == "cuda" and not chosen:
        raise CollabenchError(f"the profile says device: cuda, but {seen()}; write device: auto")
    memory: tuple[int, ...] = ()
    found = Probe(None)
    if asked := chosen if own is None else chosen[own : own + 1]:
        found = probe(asked)
        if found.problem:
            raise UnusableGpu(found.problem)
        memory = found.memory if own is None else found.memory * len(chosen)
    usual = min(MOST_SLOTS, max(1, available // len(chosen))) if memory and not found.exclusive else 1
    slots = _positive(os.environ.get(SLOTS) or str(usual), SLOTS)
    if found.exclusive and slots > 1:
        raise CollabenchError(
            f"{SLOTS}={slots}: a GPU in exclusive compute mode serves one process; leave {SLOTS} out, or let processes "
            "share the GPU (nvidia-smi -c 0)"
        )
    return Resources(available, chosen, slots, reason, memory, found.exclusive)


def on_cluster() -> bool:
    """Whether a cluster schedules the jobs. Raises CollabenchError for what cannot name an executor of Snakemake's."""
    scheduler = os.environ.get(SCHEDULER, "")
    if scheduler in ("local", "dryrun", "touch"):
        raise CollabenchError(f"{SCHEDULER}={scheduler}: is no cluster; leave it out to schedule on this machine")
    if scheduler and not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", scheduler):
        raise CollabenchError(
            f"{SCHEDULER}={scheduler}: must be the name of an executor plugin of Snakemake's, such as slurm or "
            "cluster-generic, or unset to schedule on this machine"
        )
    return bool(scheduler)


def executor_profile(root: Path) -> Path:
    """The folder of Snakemake's settings for the executor that $COLLABENCH_SCHEDULER names: ``profiles/<name>``.

    Raises CollabenchError (one line) if the folder has no ``config.yaml``, or if the executor's package is missing.
    """
    name = os.environ[SCHEDULER]
    package = f"snakemake-executor-plugin-{name}"
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        raise CollabenchError(f"--executor {name}: the package {package} is missing: pip install {package}")
    folder = root / "profiles" / name
    if not (folder / "config.yaml").is_file():
        raise CollabenchError(
            f"{folder / 'config.yaml'}: does not exist; it holds what the executor {name} needs "
            "(docs/how-to/cluster.md#other-clusters)"
        )
    return folder


def allocated(device: str) -> Resources:
    """The resources of one job of a cluster: one core, and one GPU if the profile's ``device`` asks for it.

    ``cuda`` asks for a GPU; ``auto`` does if $COLLABENCH_GPUS names GPUs. The host that submits jobs need not have one.
    """
    asked = os.environ.get(GPUS) or "none"
    gpu = device == "cuda" or (device == "auto" and asked != "none")
    return Resources(1, (ALLOCATED,) if gpu else (), 1, f"scheduled by {os.environ.get(SCHEDULER) or 'a cluster'}")


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
        lines = (proc / "self" / "cgroup").read_text("utf-8").splitlines()
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
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text("ascii"))
    except (OSError, ValueError):
        return None


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that torch can use, named as in CUDA_VISIBLE_DEVICES. A ROCm build names AMD's GPUs the same."""
    import torch

    count = torch.cuda.device_count() if torch.version.cuda or torch.version.hip else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("HIP_VISIBLE_DEVICES"))
    names = [name.strip() for name in named.split(",")] if named is not None else [str(index) for index in range(count)]
    return tuple(names[:count])


def torch_build() -> str:
    """``torch 2.13.0 (CPU build)``."""
    import torch

    build = "CPU build"
    if torch.version.cuda:
        build = f"CUDA {torch.version.cuda}"
    elif torch.version.hip:
        build = f"ROCm {torch.version.hip}"
    return f"torch {torch.__version__.partition('+')[0]} ({build})"


def without_gpu() -> str:
    """What to say where no GPU is used: ``no GPU``, or that Apple's is not supported."""
    import torch

    if torch.backends.mps.is_available():
        return "Apple's GPU is not supported (MPS: not tested for the same bytes, no float64), so no GPU is used"
    return NO_GPU


def seen() -> str:
    """Why torch has no GPU to compute on."""
    found = without_gpu()
    return f"{torch_build()} sees no GPU" if found == NO_GPU else found
