"""Temporary folders outside the project. Those that a killed process leaves behind are removed at the next start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from collabench.core import flock
from collabench.storage.files import locked_folder, unwritable

_PREFIX = "collabench-of-"


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """Create a temporary folder, which is removed when the block ends.

    Only this user can read it, because it may contain secrets, such as the credentials of a remote. Folders that
    killed processes of this user left behind are removed first. Raises StorageError if it cannot be created.
    """
    remove_abandoned_temporaries()
    with ExitStack() as stack:
        try:
            held = locked_folder(lambda: tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
            folder = stack.enter_context(held)
        except OSError as error:
            raise unwritable(Path(tempfile.gettempdir()), error) from None
        yield folder


def remove_abandoned_temporaries() -> list[Path]:
    """Remove this user's folders of :func:`temporary_folder` whose processes have ended. Returns these folders.

    Does nothing where the system has no locks of folders (Windows), which tell whether a process has ended.
    """
    removed: list[Path] = []
    if not flock.AVAILABLE:
        return removed
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with suppress(OSError):  # removed meanwhile, or its owner holds the lock
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                flock.lock(handle, wait=False)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed
