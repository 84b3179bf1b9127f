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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil
import yaml
from dvc.cli import main as run
from dvc.fs import LocalFileSystem
from dvc.lock import make_lock

from collabench.core.processes import end_with_parent
from collabench.storage.files import folder_beside, remove_abandoned, write_atomically

ROOT = Path(__file__).resolve().parent.parent
TEMPORARY = ROOT / ".dvc" / "tmp"
RWLOCK = TEMPORARY / "rwlock"
LOCK = ROOT / "dvc.lock"

#: A copy of dvc.lock as this program's DVC wrote it last.
KEPT = TEMPORARY / "dvc.lock.kept"

_open = LocalFileSystem.open


def open_whole(system: LocalFileSystem, path: str, mode: str = "r", **options: Any) -> Any:
    """As ``LocalFileSystem.open``; what is written of DVC's two files takes its place when it is complete."""
    place = Path(path)
    if "w" in mode and place in (LOCK, RWLOCK):
        return _replacing(place, mode, **options)
    return _open(system, path, mode, **options)


@contextmanager
def _replacing(path: Path, mode: str, **options: Any) -> Iterator[IO[Any]]:
    beside = TEMPORARY / path.name
    if TEMPORARY.stat().st_dev != path.parent.stat().st_dev:
        beside = path
    with folder_beside(beside) as folder:
        with open(folder / path.name, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)
    if path == LOCK:
        with suppress(OSError):
            keep()


def mend() -> None:
    """Remove what a killed DVC has left in its folder of temporary files."""
    if not TEMPORARY.is_dir():
        return
    remove_abandoned(TEMPORARY)
    remove_abandoned(ROOT, f".{LOCK.name}.*.tmp")
    restore()
    with make_lock(str(RWLOCK.with_name("rwlock.lock")), tmp_dir=str(TEMPORARY)):  # DVC holds it while it writes
        try:
            whole = isinstance(json.loads(RWLOCK.read_bytes()), dict)
        except FileNotFoundError:
            return
        except ValueError:
            whole = False
        if whole and _drop_the_dead():
            print(f"{RWLOCK}: held by a DVC that was killed; cleared", flush=True)
        if not whole:
            print(f"{RWLOCK}: half-written by a DVC that was killed; removed", flush=True)
            RWLOCK.unlink()


def _drop_the_dead() -> bool:
    """Remove what is recorded of processes that have ended, also where their numbers belong to other programs by now,
    as they soon do in a container; whether there was any."""
    record, written = json.loads(RWLOCK.read_bytes()), RWLOCK.stat().st_mtime
    alive: dict[str, dict[str, Any]] = {"write": {}, "read": {}}
    for path, one in dict(record.get("write") or {}).items():
        if _is_that_dvc(one, written):
            alive["write"][path] = one
    for path, several in dict(record.get("read") or {}).items():
        if left := [one for one in several if _is_that_dvc(one, written)]:
            alive["read"][path] = left
    if alive == {"write": record.get("write") or {}, "read": record.get("read") or {}}:
        return False
    write_atomically(RWLOCK, json.dumps(alive).encode(), durable=False)
    return True


def _is_that_dvc(one: Any, written: float) -> bool:
    try:
        process = psutil.Process(int(one["pid"]))
        return process.create_time() <= written + 1 and any(
            Path(word).name in ("dvc", "pipeline.dvc") for word in process.cmdline()
        )
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return False
    except psutil.Error:  # not ours to look at
        return True


def keep() -> None:
    """Keep a copy of dvc.lock, which a DVC that isn't run by this program writes in place."""
    write_atomically(KEPT, LOCK.read_bytes(), durable=False)


def restore() -> None:
    """Bring dvc.lock back where a DVC was killed within its writing: what is left may be valid YAML, without the
    records of the stages that would have followed, which the next DVC would then forget."""
    try:
        now, before = (_stages(path) for path in (LOCK, KEPT))
    except (OSError, ValueError, yaml.YAMLError):
        return  # DVC says of a lock that is no YAML what is wrong
    names = list(now)
    other = [name for name in names if now[name] != before.get(name)]
    lost = len(names) < len(before) and not other
    broken = other == names[-1:] != [] and not (_is_whole(now[names[-1]]) and LOCK.read_bytes().endswith(b"\n"))
    if names == list(before)[: len(names)] and (lost or broken):
        write_atomically(LOCK, KEPT.read_bytes())
        print(f"{LOCK}: cut short by a DVC that was killed; brought back as it was before", flush=True)


def _stages(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_bytes())
    stages = content.get("stages") if isinstance(content, dict) else {}
    return stages if isinstance(stages, dict) else {}


def _is_whole(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and bool(stage.get("outs"))
        and all(isinstance(one, dict) and one.get("md5") and ("size" in one) for one in stage["outs"])
    )


if __name__ == "__main__":
    end_with_parent()
    mend()
    LocalFileSystem.open = open_whole
    sys.exit(run(sys.argv[1:]))
