"""Recorded outputs of ``plan`` for a finished study. The command shows one again if nothing has changed since.

This is fast, because torch need not be imported. The record (memo) is valid for one state of all files that the output
depends on: the configuration, the papers, the code, and the study's results, data, noise and reports. A change is
recognised by a file's size and modification time. ``plan`` does not read results either; what does, reads every file
(:mod:`collabench.study.finished`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from collabench.core import arithmetic
from collabench.storage.workspace import Workspace

PACKAGE = Path(__file__).resolve().parent.parent

#: The folder of a project's own methods (``collabench.methods.OWN``, which would import torch).
OWN = "collabench_methods"


def recall(workspace: Workspace, name: str) -> str | None:
    """Return the recorded output of the command ``name`` if nothing has changed since, else None."""
    try:
        memo = json.loads(workspace.memo.read_bytes())
        said = memo["said"][name]
        same = memo["key"] == _key(workspace, memo["others"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return said if same and isinstance(said, str) else None


def remember(workspace: Workspace, others: Iterable[Path] = (), **said: str) -> None:
    """Record outputs of commands for the study's present state: command → output. Records of other states are removed.

    others: files outside the library that the runs' code consists of. Raises StorageError if the memo cannot be
    written.
    """
    from collabench.storage.files import write_atomically

    paths = sorted({str(path) for path in others})
    key = _key(workspace, paths)
    before: dict[str, Any] = {}
    try:
        memo = json.loads(workspace.memo.read_bytes())
        if memo["key"] == key:
            before = memo["said"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    text = json.dumps({"key": key, "others": paths, "said": before | said})
    write_atomically(workspace.memo, text.encode(), durable=False)


def _key(workspace: Workspace, others: Iterable[str]) -> str:
    """Return a digest of the names, sizes and modification times of all files that the output depends on."""
    found = hashlib.sha256(f"{workspace.root} {arithmetic.chosen()}".encode())
    source = sorted(path for path in PACKAGE.rglob("*.py"))
    reports = (workspace.accepted_report, workspace.report, workspace.costs)
    settings = (workspace.params, workspace.accepted_code, workspace.page)
    for path in (
        *settings,
        *_files(workspace.papers),
        *source,
        *map(Path, others),
        *_files(workspace.root / OWN),
        *_study_files(workspace),
        *(p for f in reports for p in _files(f)),
    ):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        found.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _study_files(workspace: Workspace) -> Iterator[Path]:
    for folder in (workspace.runs, workspace.datasets, workspace.noise):
        yield from _files(folder)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder, in a fixed order."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
            yield from _files(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
