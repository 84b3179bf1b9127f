"""Packed results: one archive for each configuration, and one for all measurements of a profile.

A run consists of several small files, and a remote spends time on every file. Therefore plain tar archives (readable
with ``tar xf``) are pushed and pulled, and the runs' files stay where every other part of the library reads them. The
same files give the same bytes. When a study is loaded, files that an archive contains and the profile lacks are
unpacked, once per archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from collabench.core.errors import ResultError
from collabench.storage.files import folder_beside, replacing, sha256_of, unwritable, write_atomically
from collabench.storage.locks import holding
from collabench.storage.results import RESULT
from collabench.storage.workspace import Workspace


class SupportsWrite(Protocol):
    """A stream that an archive is written to."""

    def write(self, content: bytes, /) -> int: ...


#: Exceptions that a damaged or malicious archive raises: tarfile does not check the numbers in extended headers.
_DAMAGE = (tarfile.TarError, ResultError, ValueError)

#: The entry of an archive's header that holds the digest of its content.
_DIGEST = "COLLABENCH.sha256"

_REMEDY = (
    "what it holds counts as missing: `dvc pull --force` brings it again unless the copy there is damaged too "
    "(docs/how-to/sharing.md), `dvc repro` writes it again where its runs are"
)


def tell_aside(line: str) -> None:
    """Print to the error stream: a command's output may be read by a program."""
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------
# packing


def pack_runs(workspace: Workspace) -> None:
    """Make the profile's archives contain exactly the files of its folder of runs. Archives that are up to date stay
    unchanged.

    Raises StorageError if an archive cannot be written.
    """
    target = workspace.packed_runs
    with holding(workspace.lock("packs"), "packing results", tell_aside):
        target.mkdir(parents=True, exist_ok=True)
        wanted = {}
        for folder in sorted(path for path in workspace.runs.glob("*") if path.is_dir()):
            names = _names(folder)
            if names:
                wanted[target / f"{folder.name}.tar"] = (folder, names)
        for path in set(target.glob("*.tar")) - wanted.keys():
            path.unlink()
        for path, (folder, names) in wanted.items():
            _write(path, folder, names)
        _remember(workspace, wanted)


def pack_measured(workspace: Workspace) -> None:
    """Make the profile's archive of measurements contain exactly the files of its folder.

    Raises ResultError if nothing was measured, StorageError if the archive cannot be written.
    """
    if not any(workspace.measured.glob("*/*.json")):
        raise ResultError(f"{workspace.measured}: no run was measured here; train first")
    with holding(workspace.lock("packs"), "packing results", tell_aside):
        _write(workspace.packed_measured, workspace.measured, _names(workspace.measured))
        _remember(workspace, [workspace.packed_measured])


def _names(folder: Path) -> list[str]:
    named = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    files = (path for path in named if path.is_file())  # files that are being written are in a hidden folder
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _write(path: Path, folder: Path, names: list[str]) -> None:
    digest = _digest((name, sha256_of(folder / name)) for name in names)
    try:
        with _opened(path) as archive:
            if archive.pax_headers[_DIGEST] == digest:
                return
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        tell_aside(f"{path}: damaged ({error}); written again")
    with replacing(path) as temporary, temporary.open("wb") as file:
        _pack(file, digest, ((name, (folder / name).stat().st_size, (folder / name).open("rb")) for name in names))


def _pack(target: SupportsWrite, digest: str, files: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """Write an archive of files, each with its name, its size in bytes and its content."""
    headers = {_DIGEST: digest}
    # The stream is only written to, while the types ask for a file that can also be read.
    opened = tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, pax_headers=headers)  # type: ignore[call-overload] # noqa: SIM115
    with opened as archive:
        for name, size, content in files:
            info = tarfile.TarInfo(name)  # without owner and time, so that the same files give the same bytes
            info.size = size
            with content:
                archive.addfile(info, content)


def _digest(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over names and SHA-256 of contents."""
    return hashlib.sha256("".join(f"{name} {content}\n" for name, content in files).encode()).hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive and check it: its members match the digest in its header, and packing them again gives the same
    bytes.

    Raises one of :data:`_DAMAGE` for a damaged archive, OSError if it cannot be read.
    """
    with path.open("rb") as file, tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
        digest = _digest((member.name, hashlib.sha256(_content(archive, member)).hexdigest()) for member in members)
        if digest != archive.pax_headers.get(_DIGEST):
            raise ResultError("checksum differs")
        _pack(_Same(file), digest, ((one.name, one.size, io.BytesIO(_content(archive, one))) for one in members))
        if file.read(1):
            raise ResultError("it goes on after its end")
        yield archive


class _Same:
    """A stream that accepts only the bytes that an open file holds. Raises ResultError for anything else."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        if self._file.read(len(content)) != content:
            raise ResultError("its headers or its padding differ")
        return len(content)


def damaged(workspace: Workspace) -> list[str]:
    """One line for each damaged archive of the profile."""
    lines = []
    for path in _archives(workspace):
        try:
            with _opened(path):
                pass
        except (OSError, *_DAMAGE) as error:
            lines.append(f"{path}: damaged ({error}); {_REMEDY}")
    return lines


# -------------------------------------------------------------------------------------------------------------
# unpacking


def unpack(root: Path, log: Callable[[str], None] = tell_aside) -> None:
    """Unpack the new archives of every profile below ``root``.

    A result that exists is never replaced: if the archive contains another one, ``log`` receives a line. A damaged
    archive is reported, and what it contains counts as missing. Raises StorageError if files cannot be written.
    """
    for home in sorted((root / "artifacts").glob("*/packed")):
        workspace = Workspace(root, home.parent.name)
        if _new(workspace):
            with holding(workspace.lock("packs"), "unpacking results", log):
                # Checked again, because another process may have unpacked it meanwhile. One temporary folder is used
                # for all archives.
                with folder_beside(workspace.home / "packed") as temporary:
                    whole = [path for path in _new(workspace) if _unpack_or_tell(workspace, path, temporary, log)]
                if whole:
                    _remember(workspace, whole)


def _new(workspace: Workspace) -> list[Path]:
    known = _known(workspace)
    return [path for path in _archives(workspace) if known.get(path.name) != _stamp(path)]


def _archives(workspace: Workspace) -> list[Path]:
    paths = [*sorted(workspace.packed_runs.glob("*.tar")), workspace.packed_measured]
    return [path for path in paths if path.exists()]


def _unpack_or_tell(workspace: Workspace, path: Path, temporary: Path, log: Callable[[str], None]) -> bool:
    """Whether the archive was whole."""
    folder = workspace.measured if path == workspace.packed_measured else workspace.runs / path.stem
    try:
        _unpack(path, folder, temporary / path.stem, log)
    except _DAMAGE as error:
        log(f"{path}: damaged ({error}); {_REMEDY}")
        return False
    except OSError as error:
        raise unwritable(folder, error) from None
    return True


def _unpack(path: Path, folder: Path, temporary: Path, log: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    with _opened(path) as archive:
        groups: dict[str, list[tarfile.TarInfo]] = {}
        for member in archive.getmembers():
            parts = PurePosixPath(member.name).parts
            if not 1 <= len(parts) <= 2 or ".." in parts or parts[0] == "/":
                raise ResultError(f"it holds {member.name!r}, which is no file of a result")
            groups.setdefault(str(PurePosixPath(member.name).parent), []).append(member)
        for parent, members in groups.items():
            # Written last, because its existence means that the run is finished.
            members.sort(key=lambda member: PurePosixPath(member.name).name == RESULT)
            result = folder / members[-1].name
            if result.name == RESULT and result.exists() and result.read_bytes() != _content(archive, members[-1]):
                log(f"{result}: another result than in {path}; this one stays")
                continue
            (temporary / parent).mkdir(exist_ok=True)
            missing = [member for member in members if not (folder / member.name).exists()]
            for member in missing:
                (temporary / member.name).write_bytes(_content(archive, member))
            if parent != "." and not (folder / parent).exists():
                os.rename(temporary / parent, folder / parent)
            else:
                for member in missing:
                    os.replace(temporary / member.name, folder / member.name)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        raise ResultError(f"it holds {member.name!r}, which is no file of a result")
    content = file.read()
    if len(content) != member.size:
        raise ResultError("it is truncated")
    return content


# ---------------------------------------------------------------------------------------- which archives were unpacked


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _known(workspace: Workspace) -> dict[str, list[int]]:
    try:
        known = json.loads(workspace.unpacked.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(workspace: Workspace, paths: Iterable[Path]) -> None:
    stamps = _known(workspace) | {path.name: _stamp(path) for path in paths}
    write_atomically(workspace.unpacked, json.dumps(stamps, sort_keys=True).encode(), durable=False)
