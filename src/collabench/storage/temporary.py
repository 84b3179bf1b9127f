"""Temporary folders outside of the project that a kill leaves behind only until the next start."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from collabench.storage.files import locked_folder, unwritable

_PREFIX = "collabench-of-"


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A new folder, readable by this user only, that goes when the block ends; before it is made, those go that killed
    processes of this user have left. It may hold what nobody else should read, such as the access to a remote."""
    remove_abandoned_temporaries()
    with ExitStack() as stack:
        try:
            held = locked_folder(lambda: tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-"))
            folder = stack.enter_context(held)
        except OSError as error:
            raise unwritable(Path(tempfile.gettempdir()), error) from None
        yield folder


def remove_abandoned_temporaries() -> list[Path]:
    """Remove the folders of :func:`temporary_folder` of this user whose processes have ended, and return them."""
    removed = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with suppress(OSError):  # gone meanwhile, or its owner holds the lock
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed
