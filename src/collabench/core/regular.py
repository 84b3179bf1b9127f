"""Opening of regular files only. Reading a pipe or a device instead could block, or never end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading. Raises OSError if it cannot be opened or is not a regular file."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115 (handed out)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def read_file(path: Path) -> bytes:
    """Return a file's content. Raises OSError, naming the file, if it cannot be read or is not a regular file."""
    with naming(path), open_file(path) as file:
        return file.read()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the block, add the file's path to an OSError that names none, such as for an unreadable sector."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
