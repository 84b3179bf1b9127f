"""Reading the results of a study from a DVC remote.

Two outputs are read from the other copy's ``dvc.lock``, and names and MD5 from the remote's listing of archives
(:mod:`.dvc_lock`). DVC itself runs in a temporary project, which names these files one by one. Therefore neither the
lock nor the remote can choose a path that is written to.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collabench.core.errors import CollabenchError
from collabench.core.git import GitError, git
from collabench.core.git import environment as git_environment
from collabench.core.regular import read_file
from collabench.sharing.dvc_lock import Lock, read_listing
from collabench.sharing.records import profiles_with_records
from collabench.storage import archives
from collabench.storage.temporary import temporary_folder
from collabench.storage.workspace import Workspace

#: How long a server may take to say that it is there.
TIMEOUT_SECONDS = 20

#: Names that a listing of archives may contain: archives directly in the folder.
_ARCHIVE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,200}\.tar")


@contextmanager
def fetched(root: Path, profile: str, remote: str, lock: Path) -> Iterator[Path]:
    """Download the runs and measurements that ``lock`` (a ``dvc.lock``) names from a DVC remote to a temporary folder.

    remote: a name of this project's DVC configuration, or an address. The folder is removed when the block ends. Raises
    CollabenchError if DVC cannot download them.
    """
    address = address_of(root, remote)
    if address is None and "://" not in remote and not Path(remote).is_dir():
        raise CollabenchError(f"{remote}: is neither the folder of a copy of this project nor a DVC remote")
    if not lock.exists():
        raise CollabenchError(f"{lock}: is missing; --lock names the dvc.lock of the copy that pushed")
    theirs = Lock(lock)
    if not theirs.has(f"train@{profile}"):
        raise CollabenchError(f"{lock}: does not contain train@{profile}; take the dvc.lock of the copy that pushed it")
    runs, measured = f"artifacts/{profile}/packed/runs", f"artifacts/{profile}/packed/measured.tar"
    folder_of_runs = theirs.output(f"train@{profile}", runs)
    if not folder_of_runs.is_folder:
        raise CollabenchError(f"{lock}: stages.train@{profile}.outs: {runs}: must be a folder; refused")
    files = {}
    if theirs.has(f"measured@{profile}"):
        files[measured] = theirs.output(f"measured@{profile}", measured).md5
        if files[measured].endswith(".dir"):
            raise CollabenchError(f"{lock}: stages.measured@{profile}.outs: {measured}: must be a file; refused")
    with temporary_folder("import") as folder:
        wanted, remote = remote, _project_with_remotes(root, folder, remote, address)
        listing = _fetched_listing(folder, remote, folder_of_runs.md5, wanted)
        files |= {f"{runs}/{name}": md5 for name, md5 in listing.items()}
        stage = {"cmd": "true", "outs": [{path: {"persist": True}} for path in files]}
        (folder / "dvc.yaml").write_bytes(json.dumps({"stages": {"results": stage}}).encode())
        outputs = [{"path": path, "hash": "md5", "md5": md5} for path, md5 in files.items()]
        lock_of_it = {"schema": "2.0", "stages": {"results": {"cmd": "true", "outs": outputs}}}
        (folder / "dvc.lock").write_bytes(json.dumps(lock_of_it).encode())
        dvc(folder, "pull", "-r", remote, "results")
        (Workspace(folder, profile).runs).mkdir(parents=True, exist_ok=True)
        archives.unpack(folder)
        yield folder


def check_source(root: Path, source: str, profile: str) -> None:
    """Raise CollabenchError if a source of an import is a folder that is no DVC remote, with what it holds."""
    folder = Path(source)
    if "://" in source or not folder.is_dir() or (folder / "files" / "md5").is_dir():
        return
    if address_of(root, source) is not None:
        return
    if found := profiles_with_records(folder):
        raise CollabenchError(f"{source}: holds no records of the profile {profile}; there are {', '.join(found)}")
    raise CollabenchError(f"{source}: holds no results: neither artifacts/ of a copy of this project, nor records, nor "
                          "files/md5/ of a DVC remote")  # fmt: skip


def _project_with_remotes(root: Path, folder: Path, remote: str, address: str | None) -> str:
    """Make a DVC project in ``folder`` with the remotes of the one in ``root``. Returns the wanted remote's name."""
    try:
        git(folder, "init", "-q", "--template=", ".")  # without git, DVC would need another configuration
    except GitError as error:
        raise CollabenchError(f"git init: {error}") from None
    dvc(folder, "init", "-q")
    for file in ("config", "config.local"):  # the remotes that this project knows, and how they are reached
        if (root / ".dvc" / file).exists():
            shutil.copy(root / ".dvc" / file, folder / ".dvc" / file)
    if address is None:  # ``remote`` is not a name but an address
        address, remote = remote if "://" in remote else str(Path(remote).resolve()), "imported"
        dvc(folder, "remote", "add", "-q", remote, address)
    elif "://" not in address:
        dvc(folder, "remote", "modify", "-q", "--local", remote, "url", address)
    # The temporary project has its own cache, wherever this project's is. With ``verify`` DVC hashes what it downloads.
    dvc(folder, "config", "-q", "--local", "cache.dir", str(folder / ".dvc" / "cache"))
    dvc(folder, "remote", "modify", "-q", "--local", remote, "verify", "true")
    return remote


def _fetched_listing(folder: Path, remote: str, md5: str, shown: str) -> dict[str, str]:
    """Return the archives, name → MD5, in the remote's listing with this MD5. shown: the remote, as it was
    named."""
    import hashlib

    place = folder / "listing"
    try:
        dvc(folder, "get-url", f"remote://{remote}/files/md5/{md5[:2]}/{md5[2:]}", str(place))
    except CollabenchError as error:
        if why := silence_of(address_of(folder, remote) or ""):
            raise CollabenchError(f"{shown}: does not answer ({why}); try again later") from None
        raise CollabenchError(f"{shown}: does not hold the list of archives that the lock names ({error})") from None
    try:
        content = read_file(place)
    except OSError as error:
        raise CollabenchError(f"{shown}: {md5} is not a listing of a folder ({error.strerror}); refused") from None
    where = f"{shown}: {md5}"
    listing = read_listing(content, where, _ARCHIVE)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
        raise CollabenchError(f"{where}: is damaged: its content is not that of its name; refused")
    return listing


def silence_of(address: str) -> str | None:
    """Return why a server does not answer; None if it does, or if the address is not one of HTTP.

    DVC says of a file on a server that it cannot reach that the file does not exist.
    """
    import urllib.error
    import urllib.request

    if not address.startswith(("http://", "https://")):
        return None
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None


def address_of(root: Path, name: str) -> str | None:
    """Return the address of this project's remote of that name; None if there is none.

    The path of a local folder is made absolute.
    """
    try:
        return dvc(root, "config", f"remote.{name}.url").strip() or None
    except CollabenchError:
        return None


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder and return its output. Raises CollabenchError, with DVC's message, if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=git_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()).partition(" Having any troubles?")[0]
        raise CollabenchError(f"dvc {' '.join(arguments)}: {said[-400:]}")
    return done.stdout
