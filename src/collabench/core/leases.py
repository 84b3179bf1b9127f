"""Leases of GPUs: how the training processes of one host share its GPUs' memory.

Snakemake, Slurm and pools limit how many jobs run, but do not say which GPU a job uses. A process that is about to
train leases a part of one GPU's memory. Up to a number of processes (the slots) hold leases of one GPU at a time, and
their leases together are at most its memory. Each slot is a file lock in a folder that all processes of this host
share, so that the operating system ends a lease with its process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from collabench.core.gpu_probe import visible_variables

#: Environment variable with the folder of the leases; the default is one for all users of the host.
LEASES = "COLLABENCH_GPU_LEASES"

#: Bytes of a GPU whose memory is unknown: more than leases can sum up to.
_UNKNOWN = 1 << 62


@contextmanager
def lease_gpu(
    gpus: Sequence[str],
    slots: int = 1,
    folder: Path | None = None,
    poll_seconds: float = 0.2,
    *,
    memory: Sequence[int] = (),
    need: int | None = 0,
) -> Iterator[str]:
    """Hold a part of one GPU and make this GPU the only visible one; waits until a GPU has room.

    memory: bytes of each GPU; where they are unknown, the slots alone limit how many processes share a GPU. need: bytes
    to lease, at most a whole GPU; None is a whole GPU, which nobody else then shares. If 0, only slots are counted.

    Every GPU gets one process before any GPU gets a second one. Must be entered before torch initialises CUDA.
    """
    folder = folder or Path(os.environ.get(LEASES) or Path(tempfile.gettempdir()) / "collabench-gpu-leases")
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)  # several users of one host share its GPUs
    variables = visible_variables()
    before = {name: os.environ.get(name) for name in variables}
    rooms = [_Gpu(name, folder, slots, size) for name, size in zip(gpus, memory or [0] * len(gpus), strict=True)]
    gpu, lock = _take(rooms, slots, need, poll_seconds)
    os.environ.update(dict.fromkeys(variables, gpu))
    try:
        yield gpu
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        lock.release()


def _take(rooms: Sequence[_Gpu], slots: int, need: int | None, poll_seconds: float) -> tuple[str, FileLock]:
    while True:
        for held in range(slots):
            for room in rooms:
                lock = room.take(held, need)
                if lock is not None:
                    return room.name, lock
        time.sleep(poll_seconds)


class _Gpu:
    """The leases of one GPU. ``memory``: its bytes; 0 if they are unknown, and then more than any leases' sum."""

    def __init__(self, name: str, folder: Path, slots: int, memory: int) -> None:
        self.name, self._slots, self._whole = name, slots, memory or _UNKNOWN
        self._stem = folder / ("gpu-" + "".join(c if c.isalnum() or c == "-" else "_" for c in name))

    def take(self, held: int, need: int | None) -> FileLock | None:
        """A lease beside at most ``held`` others, if there is room for ``need`` bytes. One process at a time looks."""
        with FileLock(f"{self._stem}.lock", mode=0o666):
            free, others = None, []
            for slot in range(max(self._slots, self._known())):
                lock = FileLock(f"{self._stem}-slot-{slot}.lock", mode=0o666)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    others.append(self._read(slot))
                    continue
                if free is None and slot < self._slots:
                    free = slot, lock
                else:
                    lock.release()
            if free is None:
                return None
            slot, lock = free
            wanted = self._whole if need is None else max(1, min(need, self._whole))
            if len(others) > held or (others and sum(others) + wanted > self._whole):
                lock.release()
                return None
            self._write(slot, wanted)
            return lock

    def _known(self) -> int:
        """Number of slots that processes with other settings use on this GPU."""
        numbers = (path.stem.rpartition("-")[2] for path in self._stem.parent.glob(f"{self._stem.name}-slot-*.lock"))
        return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)

    def _read(self, slot: int) -> int:
        """The bytes that the holder of a slot has leased."""
        try:
            return int(self._bytes(slot).read_text("ascii"))
        except (OSError, ValueError):
            return self._whole

    def _write(self, slot: int, count: int) -> None:
        path = self._bytes(slot)
        if not path.exists():
            path.touch()
            path.chmod(0o666)
        # Without O_CREAT, which Linux refuses for another user's file in a folder such as /tmp.
        with open(os.open(path, os.O_WRONLY | os.O_TRUNC), "w", encoding="ascii") as file:
            file.write(str(count))

    def _bytes(self, slot: int) -> Path:
        return Path(f"{self._stem}-slot-{slot}.bytes")
