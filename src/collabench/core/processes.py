"""Child processes that end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

#: Environment variable with the name (:func:`this_process`) of the command that started the study.
ANCESTOR = "COLLABENCH_ANCESTOR"

#: prctl(2): the signal that the kernel sends to this process when the thread that started it ends.
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None = None, poll_seconds: float = 0.5) -> None:
    """Let this process end when its parent, or the command that started the study, has ended.

    Without this, a child of a killed process would continue beside the restarted study. It is safe to end at any time:
    locks are released by the operating system, and files are replaced atomically. On Linux the kernel ends the process
    together with its parent. On macOS its parent becomes another one; on Windows it stays the same number, so that the
    parent's start time is looked at, too. If a program in between (such as a shell) does not pass a kill on,
    $COLLABENCH_ANCESTOR names the process to watch.

    parent: the parent's process id, if the caller knows it. A parent that ended before this call is then noticed.
    poll_seconds: how often the watched process is looked for.
    """
    ancestor = os.environ.get(ANCESTOR)
    expected = parent or os.getppid()
    kill_with_parent()

    def watch() -> None:
        watched = [name for name in (name_of(expected), ancestor) if name is not None]
        while os.getppid() == expected and all(map(_is_alive, watched)):
            time.sleep(poll_seconds)
        os._exit(143)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def kill_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent ends. This works on Linux only.

    parent: the parent's process id, if the caller knows it. If the parent has already ended, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(143)


def ending_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for :class:`subprocess.Popen` that ends the program together with this process.

    Returns None if the operating system does not support that.
    """
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(143)

    return bind


def this_process() -> str:
    """Return a name of this process for $COLLABENCH_ANCESTOR: its id and its start time, because ids are reused."""
    name = name_of(os.getpid())
    assert name is not None, "this process lives"
    return name


def name_of(pid: int) -> str | None:
    """Return a process's id and start time; None if it has ended, or is outside of this container."""
    import psutil

    try:
        return f"{pid}:{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def _is_alive(name: str) -> bool:
    import psutil

    pid = int(name.partition(":")[0])
    try:
        return name_of(pid) == name and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
