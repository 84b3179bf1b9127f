"""A short way through ``reproduce``: if nothing has changed since a study was finished, its last output is shown again.

This takes a fraction of a second, where DVC takes seconds to start. Every file is read: none is trusted by its size or
modification time. What DVC records is compared as DVC would compare it (:mod:`collabench.study.dvc_state`); of all
else (the library's code, methods of the user's own, reports, measurements, what failed or was interrupted) the SHA-256
must be the recorded one. Whatever differs, is missing or is new, the whole command runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from collabench.core import arithmetic
from collabench.core.regular import open_file, read_file
from collabench.storage.locks import is_held
from collabench.storage.workspace import Workspace
from collabench.study import dvc_state
from collabench.study.memo import OWN, PACKAGE

#: What lies in a profile's ``state/`` and says nothing about results.
_PASSING = ("logs", "locks", "progress", "estimates", "curves", "set-aside", "memo.json", "finished.json")
_SCHEDULING = ("Snakefile", "dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/config.local", "pipeline", "profiles")


def said_before(workspace: Workspace) -> str | None:
    """Return what :func:`remember` recorded if nothing has changed since and nobody works on the study; else None."""
    try:
        record = json.loads(read_file(workspace.finished))
        said, others = record["said"], [Path(path) for path in record["others"]]
        if is_held(workspace.reproduce_lock) or _is_in_use(workspace.root):
            return None
        return said if record["digest"] == _digest(workspace, said, others) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(workspace: Workspace, said: str, others: Iterable[Path], settings: str) -> None:
    """Record what the command said at the end of a study that is whole.

    others: files outside the library that the runs' code consists of. settings: :func:`settings_of` when the command
    began. Records nothing, so that the whole command runs again, if DVC would find something to do or the settings have
    changed since. Raises StorageError if it cannot be written.
    """
    from collabench.storage.files import write_atomically

    paths = sorted({str(path) for path in others})
    try:
        digest = _digest(workspace, said, [Path(path) for path in paths])
    except OSError:
        digest = None
    if digest is None or settings != settings_of(workspace):
        workspace.finished.unlink(missing_ok=True)
        return
    record = json.dumps({"said": said, "others": paths, "digest": digest})
    write_atomically(workspace.finished, record.encode(), durable=False)


def settings_of(workspace: Workspace) -> str:
    """Return a digest of ``params.yaml``, the papers and the library's code."""
    found = hashlib.sha256()
    for path in (workspace.params, *_files(workspace.papers), *_source(PACKAGE)):
        _add(found, path)
    return found.hexdigest()


def _is_in_use(root: Path) -> bool:
    """Whether a DVC works in the project, or one that was killed has left its record of that."""
    try:
        record = json.loads(read_file(root / ".dvc" / "tmp" / "rwlock"))
    except FileNotFoundError:
        return False
    return any(record.values()) if isinstance(record, dict) else True


def _digest(workspace: Workspace, said: str, others: Iterable[Path]) -> str | None:
    """Return a digest of ``said`` and of everything that it depends on; None if DVC would find something to do.

    Raises OSError if something cannot be read, or is neither a file nor a folder.
    """
    entries: Any = dvc_state.entries_if_unchanged(workspace.root, workspace.profile)
    if entries is None:
        return None
    about = json.dumps([str(workspace.root), arithmetic.chosen(), said, entries], sort_keys=True)
    found = hashlib.sha256(about.encode())
    for path in _others(workspace, others):
        _add(found, path)
    return found.hexdigest()


def _others(workspace: Workspace, others: Iterable[Path]) -> Iterator[Path]:
    """Yield what DVC does not compare, in a fixed order."""
    root = workspace.root
    yield from (*others, root / "README.md", root / "artifacts" / "index.html")
    if (root / "src" / "collabench").resolve() != PACKAGE:
        yield from _source(PACKAGE)
    for name in (*_SCHEDULING, OWN, "reports"):
        yield from _files(root / name)
    for folder in (workspace.measured, workspace.costs, workspace.home / "packed"):
        yield from _files(folder)
    for entry in sorted(workspace.state.iterdir()):
        if entry.name not in _PASSING:
            yield from _files(entry)
    # the page of all profiles shows what was built here
    for home in sorted((root / "artifacts").iterdir()):
        if home != workspace.home and not home.name.startswith("."):
            yield from (*_files(home / "report"), *_files(home / "costs"))
    # DVC does not see what a killed process was writing
    yield from sorted(path for path in workspace.home.rglob("*.tmp") if "set-aside" not in path.parts)


def _source(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or all below a folder, in a fixed order; nothing if nothing is there."""
    if not path.is_dir():
        if path.exists():
            yield path
        return
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name != "__pycache__":
            yield from _files(Path(entry.path))


def _add(found: Any, path: Path) -> None:
    """Add a file's path and content to a digest; of a folder or of what is missing that it is so."""
    if not path.is_file():
        found.update(f"{path}\0{'folder' if path.is_dir() else 'missing'}\n".encode())
        return
    with open_file(path) as file:
        found.update(f"{path}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
