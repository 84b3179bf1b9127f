"""Errors that say that a machine or a GPU could not continue. No run is blamed for them."""

from __future__ import annotations

import errno
from pathlib import Path

_SHORT = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")

#: What the libraries of a GPU write at the beginning of their errors. After most of them every later call of the same
#: process fails, whatever it computes.
_BROKEN = (
    "cuda error", "cudnn error", "cublas_status", "cusolver", "cufft", "nccl error", "hip error", "miopen",
    "device-side assert",
)  # fmt: skip


def is_shortage_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the machine or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _says(error, _SHORT))


def kills_for_memory(proc: Path = Path("/proc")) -> int:
    """How many processes of this host Linux has killed because memory ran out; 0 where the system does not count them.

    Such a process ends without a word. A count that has grown tells its end from that of one that a person killed.
    """
    try:
        lines = (proc / "vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def shortage_of_memory(error: BaseException) -> str:
    """A line on a command that found no memory."""
    said = " ".join(str(error).split())[:200]
    return f"memory ran out{f' ({said})' if said else ''}; end other programs and start again, or use a larger machine"


def is_device_error(error: BaseException) -> bool:
    """Return whether an error comes from a GPU or its libraries, for another reason than a shortage of memory."""
    if is_shortage_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    return type(error).__name__ == "AcceleratorError" or _says(error, _BROKEN)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(word in said for word in words)
