"""Reading the results of a study from a DVC remote."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.core.errors import CollabenchError
from collabench.storage import archives

# ------------------------------------------------------------------------------------------------- a DVC remote


@contextmanager
def fetched(root: Path, profile: str, remote: str, lock: Path) -> Iterator[Path]:
    """A folder with the runs and measurements that ``lock``, a ``dvc.lock``, names and that lie on a DVC remote.

    remote: a name of this project's DVC configuration, or an address. The folder goes when the block ends.
    Raises CollabenchError where DVC cannot fetch them.
    """
    address = _address(root, remote)
    if address is None and "://" not in remote and not Path(remote).is_dir():
        raise CollabenchError(f"{remote}: is neither the folder of a copy of this project nor a DVC remote")
    if not lock.is_file():
        raise CollabenchError(f"{lock}: is missing; --lock names the dvc.lock of the copy that pushed")
    try:
        text = lock.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CollabenchError(f"{lock}: cannot be read ({error})") from None
    stages = [stage for stage in (f"train@{profile}", f"measured@{profile}") if f"{stage}:" in text]
    if f"train@{profile}" not in stages:
        raise CollabenchError(f"{lock}: says nothing of train@{profile}; take the dvc.lock of the copy that pushed it")
    with tempfile.TemporaryDirectory(prefix="collabench-import-") as name:
        folder = Path(name)
        subprocess.run(["git", "init", "-q", name], check=True)  # or DVC's configuration would have to differ
        _dvc(folder, "init", "-q")
        for file in ("config", "config.local"):  # the remotes that this project knows, and how they are reached
            if (root / ".dvc" / file).exists():
                shutil.copy(root / ".dvc" / file, folder / ".dvc" / file)
        if address is None:  # no name: an address itself
            address, remote = remote if "://" in remote else str(Path(remote).resolve()), "imported"
            _dvc(folder, "remote", "add", "-q", remote, address)
        elif "://" not in address:
            _dvc(folder, "remote", "modify", "-q", "--local", remote, "url", address)
        for file in ("dvc.yaml", "params.yaml"):
            shutil.copy(root / file, folder / file)
        shutil.copy(lock, folder / "dvc.lock")
        cache = folder / ".dvc" / "cache"  # its own, wherever this project's is
        _dvc(folder, "config", "-q", "--local", "cache.dir", str(cache))
        _dvc(folder, "fetch", "-r", remote, *stages)
        _refuse_other_places(cache, remote)
        _dvc(folder, "pull", "-r", remote, *stages)  # says clearly what the remote lacks
        archives.unpack(folder)
        yield folder


def _refuse_other_places(cache: Path, remote: str) -> None:
    """Raise CollabenchError unless the listings of folders that DVC has fetched hold plain names: it would write
    wherever they say."""
    for path in sorted(cache.rglob("*.dir")):
        try:
            names = [str(entry["relpath"]) for entry in json.loads(path.read_bytes())]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise CollabenchError(
                f"{remote}: {path.parent.name}{path.name} is no listing of a folder; refused"
            ) from None
        for name in names:
            if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
                raise CollabenchError(f"{remote}: it holds {name!r}, which leads out of its folder; refused")


def _address(root: Path, name: str) -> str | None:
    """The address of this project's remote of that name, a folder's as an absolute path; None if there is none."""
    try:
        return _dvc(root, "config", f"remote.{name}.url").strip() or None
    except CollabenchError:
        return None


def _dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise CollabenchError(f"dvc {' '.join(arguments)}: {said[-400:]}")
    return done.stdout
