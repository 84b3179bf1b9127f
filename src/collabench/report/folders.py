"""Report folders: names of their main files, and replacement of a folder as a whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.storage.files import exchange, folder_beside, remove_abandoned, unwritable
from collabench.storage.workspace import Workspace

CONTENT = "report.json"
OVERVIEW = "README.md"
COSTS = "costs"
RUNS = "runs.csv"
CLAIMS = "claims.json"

#: Files whose digests tell two reports apart.
DIGESTED = (CONTENT, CLAIMS, RUNS)


def digests_of(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of those files that tell a report apart from others and that this folder has."""
    there = ((name, folder / name) for name in DIGESTED)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there if path.is_file()}


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder that replaces ``target`` when the block ends without an error. The old one exists until then.

    Raises StorageError if it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        with folder_beside(target) as place:
            new = place / target.name
            new.mkdir()
            yield new
            if target.exists():
                exchange(new, target)
            else:
                os.replace(new, target)
    except OSError as error:
        raise unwritable(target, error) from None


def report_folder(workspace: Workspace, *, partial: bool = False) -> Path:
    """The folder of a report. A partial report has its own folder, so that it is never mistaken for a complete one."""
    return workspace.home / "partial-report" if partial else workspace.report
