"""Files of a profile that none of its tables needs: they are listed, set aside or removed.

Runs stay when ``params.yaml`` changes. DVC's record of a profile must not depend on earlier attempts, so the workflow
sets such files aside before it starts: it moves them out of the folders that DVC tracks. They stay on this machine, and
are linked again if a table needs them, until ``collabench gc`` removes them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from collabench.core.errors import StorageError
from collabench.storage.files import move
from collabench.storage.locks import is_held
from collabench.study.study import Study


def tracked(study: Study) -> list[Path]:
    """Entries of the folders that DVC tracks which no table needs: runs, their measurements and markers, data sets,
    noisy labels.

    Runs that a process is training are left out.
    """
    workspace = study.workspace
    wanted = {run.id for run in study.plan.runs}
    markers = {job.marker for job in study.jobs}
    found = [
        path
        for folder in (workspace.runs, workspace.measured)
        for path in sorted(folder.glob("*/seed-*"))
        if (run_id := _run_id(path)) not in wanted and not is_held(workspace.lock(run_id))
    ]
    found += [path for path in sorted(workspace.runs.glob("*/*.done")) if path not in markers]
    keys = set(study.inputs.dataset_keys())
    found += [path for path in sorted(workspace.datasets.glob("*")) if path.name not in keys]
    drawn = {study.inputs.noise_file(run) for runs in study.inputs.noise_files().values() for run in runs}
    needed = {path.parent for path in drawn}
    for folder in sorted(workspace.noise.glob("*")):
        unneeded = [path for path in sorted(folder.glob("seed-*")) if path not in drawn]
        found += unneeded if folder in needed else [folder]
    return found


def surplus(study: Study) -> list[Path]:
    """All entries that no table of the profile needs.

    These are the results of :func:`tracked`, the entries that were set aside before, and checkpoints, failures,
    progress and estimates of runs that are in no table.
    """
    workspace = study.workspace
    wanted = {run.id for run in study.plan.runs} | study.plan.configurations.keys()
    found = tracked(study)
    for name in ("checkpoints", "failures", "progress", "estimates"):
        found += [
            path
            for path in sorted((workspace.state / name).glob("*"))
            if path.stem not in wanted and not path.name.startswith(".") and not is_held(workspace.lock(path.stem))
        ]
    aside = workspace.aside
    for folder, pattern in ((aside.runs, "*/*"), (aside.measured, "*/*"), (aside.datasets, "*"), (aside.noise, "*/*")):
        found += sorted(folder.glob(pattern))
    return found


def set_aside(study: Study, log: Callable[[str], None] = print) -> list[Path]:
    """Move the entries found by :func:`tracked` to the profile's ``state/set-aside``. Returns their old paths.

    Raises StorageError if a file cannot be moved.
    """
    home, aside = study.workspace.home, study.workspace.aside.home
    moved = tracked(study)
    for path in moved:
        target = aside / path.relative_to(home)
        try:
            if path.suffix == ".done":
                path.unlink()
            else:
                _remove(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                move(path, target)
            _remove_if_empty(path.parent, home)
        except OSError as error:
            raise StorageError(f"{path}: cannot be set aside ({error.strerror})") from None
    runs = sum(path.is_relative_to(study.workspace.runs) and path.suffix != ".done" for path in moved)
    if moved:
        log(f"set aside in {aside}: {len(moved)} entries ({runs} runs) that no table of {study.workspace.profile} "
            "needs; "
             f"`collabench gc -p {study.workspace.profile}` removes them")  # fmt: skip
    return moved


def remove(study: Study, paths: list[Path]) -> None:
    """Remove entries found by :func:`surplus`, and folders that are then empty. Raises StorageError."""
    for path in paths:
        try:
            _remove(path)
            _remove_if_empty(path.parent, study.workspace.home)
        except OSError as error:
            raise StorageError(f"{path}: cannot be removed ({error.strerror})") from None


def size_of(paths: list[Path]) -> int:
    """Bytes that removing ``paths`` frees. Files that another profile has linked do not count."""
    return sum(file.stat().st_size for path in paths for file in _files(path) if file.stat().st_nlink == 1)


def _files(path: Path) -> Iterator[Path]:
    yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _run_id(path: Path) -> str:
    return f"{path.parent.name}-s{path.name.removesuffix('.json').removeprefix('seed-')}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path, home: Path) -> None:
    """Remove an empty folder of a configuration or a kind of noise: one at least two levels below ``home``."""
    while len(folder.relative_to(home).parts) > 1 and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
