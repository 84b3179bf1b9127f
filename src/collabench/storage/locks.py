"""Locks that the operating system releases when their process ends, with a record of who holds them.

The lock itself is ``flock``. The record beside it only tells waiting processes who the holder is. A lock file that a
killed process left behind is free.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from collabench.core import flock
from collabench.core.errors import CollabenchError, ResultError, StorageError
from collabench.core.record import Record
from collabench.storage.files import read_json, unwritable, write_json

_SHOWN = 120
"""Maximum length of a command line in a message, in characters."""

_GLANCE_SECONDS = 0.3
"""Seconds to wait before a message. :func:`is_held` holds a lock for less, which need not be reported."""


class Holder(Record):
    """The process that holds a lock. since: when it took the lock."""

    pid: int
    host: str
    command: str
    since: str

    def describe(self) -> str:
        """Return, for example, ``process 4711 (collabench run), since 2026-01-01 12:00:00 UTC``."""
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"process {self.pid}{where} ({self.command}), since {self.since}"


@contextmanager
def holding(path: Path, what: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock at ``path`` within the block. If another living process holds it, log that and wait.

    what: what the lock protects, for the message. Raises StorageError if the lock file cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_GLANCE_SECONDS)
        except Timeout:
            log(f"{what}: held by {holder(path)}; waiting for it to end")
            lock.acquire()
    except OSError as error:
        raise unwritable(path, error) from None
    record = _record(path)
    try:
        with suppress(StorageError):  # the lock works without this record; other writers report a full disk
            write_json(record, _this_process(), durable=False)
        yield
    finally:
        with suppress(OSError):
            record.unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether a living process holds the lock. Writes nothing."""
    try:
        with path.open("rb") as file:
            flock.lock(file.fileno(), shared=True, wait=False)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return not flock.AVAILABLE and not _is_free(path)


def _is_free(path: Path) -> bool:
    """Whether a lock of another system's kind can be taken."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def holder(path: Path) -> str:
    """Return a description of the process that holds a lock of :func:`holding`."""
    with suppress(CollabenchError):
        found = read_json(_record(path), Holder, ResultError)
        if found.host != socket.gethostname() or Path(f"/proc/{found.pid}").exists() or not Path("/proc").exists():
            return found.describe()
    return "another process"


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _this_process() -> Holder:
    # For a worker of a process pool, the parent's command line is recorded: the user typed that one.
    pool = multiprocessing.parent_process()
    command = shlex.join(arguments_of(os.getpid() if pool is None or pool.pid is None else pool.pid) or sys.argv)
    return Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        command=shorten(command),
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process of this host; empty if it has ended or belongs to another user."""
    import psutil

    with suppress(psutil.Error):
        return psutil.Process(pid).cmdline()
    return []


def shorten(command: str) -> str:
    """Return a command line on one line, cut to a length that fits a message."""
    command = " ".join(command.split())
    return command if len(command) <= _SHOWN else f"{command[:_SHOWN]}…"
