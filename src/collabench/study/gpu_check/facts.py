"""What the driver, torch and the host say of a GPU, and whether they fit each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from collabench.core.gpu_probe import driver_version, nvidia_smi, shares_by_mps
from collabench.core.resources import Resources, torch_build
from collabench.core.text import counted
from collabench.study.gpu_check.record import Check, judged

PART = "facts"
#: Major version of CUDA → the oldest major version of the driver that runs what is built for it.
#: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
#: Bytes that must be free: the largest configuration of the papers' profiles that fits any card needs about this.
LEAST_FREE = 4e9


def facts(resources: Resources) -> Iterator[Check]:
    """The facts of the GPU that this process has leased."""
    yield judged(PART, "GPU", True, f"{torch.cuda.get_device_name()}, {torch_build()}")
    yield driver(driver_version(), torch.version.cuda)
    yield capability(torch.cuda.get_device_capability(), torch.cuda.get_arch_list(), torch.version.hip)
    yield judged(PART, "cuDNN", torch.backends.cudnn.is_available(), f"version {torch.backends.cudnn.version()}")
    free, whole = torch.cuda.mem_get_info()
    yield judged(
        PART, "memory", free >= min(LEAST_FREE, 0.9 * whole),
        f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB are free" + ("" if free >= 0.9 * whole else "; others use it"),
    )  # fmt: skip
    said = nvidia_smi([str(torch.cuda.get_device_properties(0).uuid)], "compute_mode", "mig.mode.current")
    yield from modes(said[0] if said else None, resources.slots_per_gpu, shares_by_mps())
    yield cores(resources)


def unusable(problem: str) -> Iterator[Check]:
    """What is known of a GPU on which torch cannot compute, without a call of CUDA. problem: what the attempt said."""
    yield judged(PART, "GPU", False, problem)
    yield driver(driver_version(), torch.version.cuda)


def driver(version: str | None, cuda: str | None) -> Check:
    """The NVIDIA driver against the oldest that torch's build for CUDA runs on. version: ``580.65.06``."""
    if cuda is None or version is None:
        return Check(part=PART, name="driver", verdict="skipped", text="no NVIDIA driver's version is known here")
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is None:
        return Check(part=PART, name="driver", verdict="note", text=f"{version}; what CUDA {cuda} needs is not known")
    good = int(version.split(".")[0]) >= oldest
    mend = "" if good else ": update it, or install a build for an older CUDA (make clean-env reproduce TORCH=cu126)"
    return judged(PART, "driver", good, f"{version}; a build for CUDA {cuda} needs {oldest} or later{mend}")


def capability(found: tuple[int, int], built: list[str], hip: str | None) -> Check:
    """The GPU's compute capability against the kernels in torch's build: ``sm_90``, or ``compute_90`` that is compiled
    when it is first used."""
    if hip is not None:
        return Check(part=PART, name="capability", verdict="skipped", text=f"ROCm {hip}: {', '.join(built)}")
    major, minor = found
    kernels = [tuple(map(int, re.fullmatch(r"sm_(\d+)(\d)[af]?", one).groups())) for one in built if one[:3] == "sm_"]  # type: ignore[union-attr] # torch's names
    compiled = [tuple(map(int, re.findall(r"(\d+)(\d)", one)[0])) for one in built if one.startswith("compute_")]
    good = any(k[0] == major and k[1] <= minor for k in kernels) or any(c <= found for c in compiled)
    mend = (
        ""
        if good
        else (
            ": install a build of torch that has kernels for it (make clean-env reproduce TORCH=cu126 for 5.0 to 9.0, "
            "without TORCH for 7.5 to 12.0)"
        )
    )
    return judged(PART, "capability", good, f"{major}.{minor}; torch has {', '.join(built)}{mend}")


def modes(said: list[str] | None, slots: int, mps: bool) -> Iterator[Check]:
    """Compute mode, MIG and MPS. said: nvidia-smi's answers to the first two; None without it."""
    mode, mig = said or ("", "")
    if said is None:
        for name in ("compute mode", "MIG"):
            yield Check(part=PART, name=name, verdict="skipped", text="nvidia-smi does not answer")
    else:
        alone = slots == 1 or mps or "Exclusive" not in mode
        mend = "" if alone else f", but {slots} processes are to share it: nvidia-smi -c 0, or COLLABENCH_GPU_SLOTS=1"
        yield judged(PART, "compute mode", "Prohibited" not in mode and alone, f"{mode}{mend}")
        yield Check(part=PART, name="MIG", verdict="note", text=mig)
    text = "runs: processes compute at once" if mps else "is not running: processes that share a GPU take turns"
    yield Check(part=PART, name="MPS", verdict="note", text=text)


def cores(resources: Resources) -> Check:
    """Each training process needs a core."""
    wanted = len(resources.gpus) * resources.slots_per_gpu
    mend = "" if resources.cores >= wanted else "; fewer processes: COLLABENCH_GPU_SLOTS=1"
    processes, gpus = counted(wanted, "process", "processes"), counted(len(resources.gpus), "GPU")
    text = f"{resources.cores} for {processes} on {gpus}{mend}"
    return judged(PART, "cores", resources.cores >= wanted, text)
