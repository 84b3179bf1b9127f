"""Report folders: what their main files are called, and replacing one as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.storage.files import exchange, folder_beside, remove_abandoned, unwritable
from collabench.storage.workspace import Workspace

CONTENT = "report.json"
OVERVIEW = "README.md"
COSTS = "costs"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``target`` when the block ends without an error. The old one is there until
    then.

    Raises StorageError where it cannot be written.
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
    """A partial report has a place of its own, so that it is never taken for the whole."""
    return workspace.home / "partial-report" if partial else workspace.report
