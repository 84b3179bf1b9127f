"""Report folders: what their main files are called, and replacing one as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.workspace import Workspace

CONTENT = "report.json"
OVERVIEW = "README.md"
COSTS = "costs"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        new.chmod(0o755)
        yield new
        old = new.with_suffix(".old")
        if target.exists():
            os.replace(target, old)
        os.replace(new, target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def report_folder(workspace: Workspace, *, partial: bool = False) -> Path:
    """A partial report has a place of its own, so that it is never taken for the whole."""
    return workspace.home / "partial-report" if partial else workspace.report
