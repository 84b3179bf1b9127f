"""DVC as ``collabench`` runs it: ``python -m pipeline.dvc <arguments of dvc>``, in the project's root.

DVC writes ``dvc.lock``, and ``.dvc/tmp/rwlock`` with who works on what, in place: a kill at that moment leaves them
half-written. The next DVC then refuses the one, or takes an empty ``dvc.lock`` for a project that has run nothing. Here
both are replaced in one step, and a record that an earlier DVC has left half-written is removed: it protects nobody.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvc.cli import main as run
from dvc.fs import LocalFileSystem
from dvc.lock import make_lock

from collabench.core.processes import end_with_parent
from collabench.storage.files import folder_beside, remove_abandoned

ROOT = Path(__file__).resolve().parent.parent
TEMPORARY = ROOT / ".dvc" / "tmp"
RWLOCK = TEMPORARY / "rwlock"

_open = LocalFileSystem.open


def open_whole(system: LocalFileSystem, path: str, mode: str = "r", **options: Any) -> Any:
    """As ``LocalFileSystem.open``; what is written of DVC's two files takes its place when it is complete."""
    place = Path(path)
    if "w" in mode and place in (ROOT / "dvc.lock", RWLOCK):
        return _replacing(place, mode, **options)
    return _open(system, path, mode, **options)


@contextmanager
def _replacing(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    with folder_beside(TEMPORARY / path.name) as folder:
        with open(folder / path.name, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)


def mend() -> None:
    """Remove what a killed DVC has left in its folder of temporary files."""
    if not TEMPORARY.is_dir():
        return
    remove_abandoned(TEMPORARY)
    with make_lock(str(RWLOCK.with_name("rwlock.lock")), tmp_dir=str(TEMPORARY)):  # DVC holds it while it writes
        try:
            whole = isinstance(json.loads(RWLOCK.read_bytes()), dict)
        except FileNotFoundError:
            return
        except ValueError:
            whole = False
        if not whole:
            print(f"{RWLOCK}: half-written by a DVC that was killed; removed", flush=True)
            RWLOCK.unlink()


if __name__ == "__main__":
    end_with_parent()
    mend()
    LocalFileSystem.open = open_whole
    sys.exit(run(sys.argv[1:]))
