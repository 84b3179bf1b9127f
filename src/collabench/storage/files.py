"""Atomic writing of files, and JSON records with a checksum over their content."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from collabench.core import flock
from collabench.core.errors import CollabenchError, ResultError, StorageError
from collabench.core.record import Record
from collabench.core.regular import naming, open_file

T = TypeVar("T", bound=Record)

#: Why files cannot be written → what to do about it.
UNWRITABLE = {
    errno.ENOSPC: "free some space and start again to resume",
    errno.EDQUOT: "free some space and start again to resume",
    errno.EROFS: "the folder must be writable",
    errno.EACCES: "the folder must be writable",
    errno.EPERM: "the folder must be writable",
}

#: A flag of renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def sha256_of(path: Path) -> str:
    with naming(path), open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path that replaces ``path`` when the block ends without an error.

    A reader sees the old content or the new content and nothing in between. This also holds after a power failure,
    unless ``durable`` is False. Raises StorageError if the file cannot be written; the old content then stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(path) as folder:
            temporary = folder / path.name
            yield temporary
            if durable:
                _sync(temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
            if durable:
                _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` for incomplete files. It is removed when the block ends.

    The folder is locked meanwhile, so that :func:`remove_abandoned` can recognise what a killed process left behind. It
    is a folder rather than a file because some libraries write to a temporary name of their own before they rename it.
    """
    with locked_folder(lambda: tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")) as folder:
        yield folder


@contextmanager
def locked_folder(make: Callable[[], str]) -> Iterator[Path]:
    """Create a folder with ``make`` and lock it. It is removed when the block ends.

    A folder that nobody has locked was left behind by a killed process, and may be removed. Raises OSError.
    """
    while True:
        folder = Path(make())
        if not flock.AVAILABLE:
            handle = None
            break
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # removed as left behind, before it was locked
            continue
        with suppress(OSError):  # a file system without locks: nothing there is considered left behind
            flock.lock(handle)
        if folder.exists():
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_abandoned(folder: Path, pattern: str = "**/.*.tmp") -> list[Path]:
    """Remove the folders of :func:`folder_beside` below ``folder`` whose owners have ended. Returns the removed
    folders.

    A folder that lies directly in ``folder`` may be a link to another disk; ``**`` alone follows no links. Does nothing
    where the system has no locks of folders (Windows), which tell whether an owner has ended.
    """
    removed: list[Path] = []
    if not flock.AVAILABLE:
        return removed
    linked = [path for path in folder.iterdir() if path.is_symlink() and path.is_dir()] if folder.is_dir() else []
    for path in sorted(path for place in (folder, *linked) for path in place.glob(pattern)):
        with suppress(OSError):  # removed meanwhile, or its owner holds the lock
            handle = os.open(path, os.O_RDONLY)
            try:
                flock.lock(handle, wait=False)
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(handle)
    return removed


def exchange(one: Path, other: Path) -> None:
    """Exchange two files or folders of one file system; in one step if the system supports that, as Linux does."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None, use_errno=True), "renameat2"):
        if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(one), None, str(other))
    aside = one.with_name(f"{one.name}.aside")
    os.replace(one, aside)
    os.replace(other, one)
    os.replace(aside, other)


def move(source: Path, target: Path) -> None:
    """Move a file or folder to another path, in one step if both are on the same file system.

    Otherwise it gets its final name only when it has been copied completely.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with folder_beside(target) as folder:
            copy = folder / target.name
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copyfile(source, copy)
            os.replace(copy, target)
        shutil.rmtree(source) if source.is_dir() else source.unlink()


def unwritable(path: Path, error: OSError) -> StorageError:
    """The error for a file that cannot be written."""
    remedy = UNWRITABLE.get(error.errno or 0)
    return StorageError(f"{path}: cannot be written ({error.strerror or error}){f'; {remedy}' if remedy else ''}")


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file with :func:`replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, record: Record, *, durable: bool = True) -> None:
    """Write a record as canonical JSON with a checksum over its content, atomically."""
    body = json.loads(record.model_dump_json())
    body["checksum"] = checksum_of_body(body)
    text = json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, text.encode(), durable=durable)


def read_json(
    path: Path,
    kind: type[T],
    error_type: type[CollabenchError] = ResultError,
    remedy: str = "delete it to have it made again",
) -> T:
    """Read a record written by :func:`write_json`. Raises ``error_type``, with the file's name, for anything that is
    wrong.

    remedy: what a person can do about a damaged file.
    """
    try:
        with open_file(path) as file:
            body = json.loads(file.read())
        checksum = body.pop("checksum")
    except OSError as error:
        raise error_type(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise error_type(f"{path}: damaged (not a record with a checksum); {remedy}") from None
    if checksum != checksum_of_body(body):
        raise error_type(f"{path}: damaged (checksum differs); {remedy}")
    try:
        return kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise error_type(f"{path}: {where}: {first['msg']} (written by another version?)") from None


def checksum_of_body(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
