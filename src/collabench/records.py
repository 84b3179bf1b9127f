"""Files that are whole or absent: atomic writing, and JSON records with a checksum over their content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from collabench.errors import CollabenchError, ResultError
from collabench.strict import Strict

T = TypeVar("T", bound=Strict)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    A reader, or a power cut, sees the old content or the new and nothing between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new and nothing between."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, record: Strict) -> None:
    """Write a record as canonical JSON with a checksum over its content, atomically."""
    body = json.loads(record.model_dump_json())
    body["checksum"] = _checksum(body)
    write_atomically(path, (json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: type[T], error_type: type[CollabenchError] = ResultError) -> T:
    """Read a record written by :func:`write_json`. Raises ``error_type`` naming the file for anything that is wrong."""
    try:
        body = json.loads(path.read_bytes())
        checksum = body.pop("checksum")
    except OSError as error:
        raise error_type(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise error_type(f"{path}: damaged (not a record with a checksum); delete it to have it made again") from None
    if checksum != _checksum(body):
        raise error_type(f"{path}: damaged (checksum differs); delete it to have it made again")
    try:
        return kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise error_type(f"{path}: {where}: {first['msg']} (written by another version?)") from None


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
