"""Locks of open files (flock), which the operating system releases when their process ends. Windows has none."""

from __future__ import annotations

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    AVAILABLE = False
else:
    AVAILABLE = True


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock an open file or folder until its handle is closed; does nothing where the system has no such locks.

    Raises BlockingIOError if another process holds the lock and ``wait`` is False, and OSError if the file system has
    no locks.
    """
    if AVAILABLE:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
