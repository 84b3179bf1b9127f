"""Opening what should be a file: a pipe or a device in its place would be waited for, or read, without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


def open_file(path: Path) -> BufferedReader:
    """A file, opened for reading. Raises OSError, also for anything that is no regular file."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 (handed out)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is no file", str(path))
    return file


def read_file(path: Path) -> bytes:
    """A file's content. Raises OSError, also for anything that is no regular file."""
    with naming(path), open_file(path) as file:
        return file.read()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in what the system says of it, such as of a sector that cannot be read: by itself it names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
