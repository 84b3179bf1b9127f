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
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Protocol

from collabench.core.errors import ResultError, one_line
from collabench.core.regular import open_file, read_file
from collabench.storage.files import UNWRITABLE, folder_beside, move, replacing, sha256_of, unwritable, write_atomically
from collabench.storage.locks import holding
from collabench.storage.results import LOGITS, RECORD, RESULT, WEIGHTS
from collabench.storage.workspace import Workspace


class SupportsWrite(Protocol):
    """A stream that an archive is written to."""

    def write(self, content: bytes, /) -> int: ...


#: Exceptions that a damaged or malicious archive raises: tarfile does not check the numbers in extended headers.
_DAMAGE = (tarfile.TarError, ResultError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, EOFError,
           RecursionError, MemoryError)  # fmt: skip

_SEED = r"seed-(?:0|[1-9][0-9]{0,9})"
_CONFIGURATION = r"[A-Za-z0-9][A-Za-z0-9-]{0,200}"

#: The only files that an archive holds: of a configuration (the archive's name) its runs and markers, of the archive
#: of measurements one record for each run.
_OF_RUNS = re.compile(
    rf"(?P<run>{_SEED})/(?:{'|'.join(map(re.escape, (RESULT, RECORD, LOGITS, WEIGHTS)))})|seeds-[0-9a-f-]{{1,60}}\.done"
)
_OF_MEASUREMENTS = re.compile(rf"(?P<configuration>{_CONFIGURATION})/(?P<run>{_SEED})\.json")
_NAMED = re.compile(rf"{_CONFIGURATION}\.tar")

#: The entry of an archive's header that holds the digest of its content.
_DIGEST = "COLLABENCH.sha256"

_REMEDY = (
    "what it holds counts as missing: `dvc pull --force` brings it again unless the copy there is damaged too "
    "(docs/how-to/sharing.md), `dvc repro` writes it again where its runs are"
)


def tell_aside(line: str) -> None:
    """Print a line to the error stream, because a program may read the command's standard output."""
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
            names = _names(folder, _OF_RUNS)
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
        _write(workspace.packed_measured, workspace.measured, _names(workspace.measured, _OF_MEASUREMENTS))
        _remember(workspace, [workspace.packed_measured])


def _names(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if pattern.fullmatch(name))


def _write(path: Path, folder: Path, names: list[str]) -> None:
    digest = _digest((name, sha256_of(folder / name)) for name in names)
    try:
        with _opened(path) as (archive, _):
            if archive.pax_headers[_DIGEST] == digest:
                return
    except FileNotFoundError:
        pass
    except (OSError, *_DAMAGE) as error:
        tell_aside(one_line(f"{path}: damaged ({error}); written again"))
    with replacing(path) as temporary, temporary.open("wb") as file:
        _pack(file, digest, ((name, (folder / name).stat().st_size, (folder / name).open("rb")) for name in names))


def _pack(target: SupportsWrite, digest: str, files: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """Write an archive of files, each with its name, its size in bytes and its content."""
    headers = {_DIGEST: digest}
    # The stream need only be writable; tarfile's type annotations ask for one that can also be read.
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
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    """Open an archive, check it, and yield the archive and its members.

    The members must match the digest in the archive's header, and packing them again must give the same bytes. Raises
    one of :data:`_DAMAGE` for a damaged archive, OSError if it cannot be read.
    """
    with open_file(path) as file, open_file(path) as again, tarfile.open(fileobj=_Bounded(again), mode="r:") as archive:  # type: ignore[call-overload]
        members = _members(archive, path)
        digest = _digest((member.name, hashlib.sha256(_content(archive, member)).hexdigest()) for member in members)
        if digest != archive.pax_headers.get(_DIGEST):
            raise ResultError("checksum differs")
        _pack(_Same(file), digest, ((one.name, one.size, io.BytesIO(_content(archive, one))) for one in members))
        if file.read(1):
            raise ResultError("it has content after its end")
        _check_origin(archive, members, path)
        yield archive, members


class _Bounded:
    """A file whose reads are limited to its size: tarfile would allocate as many bytes as a header claims, at once."""

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        return self._file.read(self._size if size < 0 else min(size, self._size))


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    """Return the members of an archive.

    Raises ResultError if a member's name does not belong into this kind of archive or occurs twice, or if its size does
    not fit into the file. Members are read one by one, because tarfile would loop forever on a negative size.
    """
    names, largest = _pattern_of(path), path.stat().st_size
    found: dict[str, tarfile.TarInfo] = {}
    while (member := archive.next()) is not None:
        if not member.isreg() or member.issparse() or not names.fullmatch(member.name):
            raise ResultError(f"it holds {member.name[:300]!r}, which is not a file of a result")
        if member.name in found:
            raise ResultError(f"it holds {member.name} twice")
        if not 0 <= member.size <= largest:
            raise ResultError(f"{member.name} has {member.size} bytes, the whole archive {largest}")
        found[member.name] = member
    return list(found.values())


def _pattern_of(path: Path) -> re.Pattern[str]:
    return _OF_RUNS if path.parent.name == "runs" else _OF_MEASUREMENTS


def _check_origin(archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], path: Path) -> None:
    """Raise ResultError if a record belongs to another run than the names of the archive and the member say.

    An unreadable record is not reported here, but by the code that reads records.
    """
    pattern = _pattern_of(path)
    for member in members:
        match = pattern.fullmatch(member.name)
        if match is None or not match["run"] or not member.name.endswith(".json"):
            continue
        try:
            named = json.loads(_content(archive, member))["run_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        configuration = match["configuration"] if pattern is _OF_MEASUREMENTS else path.stem
        expected = f"{configuration}-{match['run'].replace('seed-', 's')}"
        if named != expected:
            raise ResultError(f"its {member.name} holds run {str(named)[:300]}, expected {expected}")


class _Same:
    """A stream that accepts only the bytes that an open file holds. Raises ResultError for anything else."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        if self._file.read(len(content)) != content:
            raise ResultError("its headers or its padding differ")
        return len(content)


def damaged(workspace: Workspace) -> list[str]:
    """Return one line for each damaged archive of the profile."""
    lines = []
    for path in _archives(workspace):
        try:
            with _opened(path):
                pass
        except (OSError, *_DAMAGE) as error:
            lines.append(one_line(f"{path}: damaged ({error}); {_REMEDY}"))
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
                whole = [
                    path
                    for target, paths in _by_target(workspace, _new(workspace)).items()
                    for path in _unpack_all(target, paths, log)
                ]
                if whole:
                    _remember(workspace, whole)


def _by_target(workspace: Workspace, paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Group archives by the folder that they are unpacked to. The folders may be on different file systems."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        found.setdefault(workspace.measured if path == workspace.packed_measured else workspace.runs, []).append(path)
    return found


def _unpack_all(target: Path, paths: Iterable[Path], log: Callable[[str], None]) -> list[Path]:
    """Unpack archives into a folder. Returns those that were undamaged."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with folder_beside(target / "unpacking") as temporary:
            return [path for path in paths if _unpack_or_tell(target, path, temporary, log)]
    except OSError as error:
        raise unwritable(target, error) from None


def _new(workspace: Workspace) -> list[Path]:
    known = _known(workspace)
    return [path for path in _archives(workspace) if known.get(path.name) != _stamp(path)]


def _archives(workspace: Workspace) -> list[Path]:
    paths = [*sorted(workspace.packed_runs.glob("*.tar")), workspace.packed_measured]
    return [path for path in paths if path.exists()]


def _unpack_or_tell(target: Path, path: Path, temporary: Path, log: Callable[[str], None]) -> bool:
    """Unpack an archive, or log what is wrong with it. Returns whether it was undamaged.

    No error of one archive keeps the others from being unpacked.
    """
    folder = target / path.stem if _pattern_of(path) is _OF_RUNS else target
    try:
        if not _NAMED.fullmatch(path.name):
            raise ResultError("its name is not that of an archive of results")
        _unpack(path, folder, temporary / path.stem, log)
    except _DAMAGE as error:
        log(one_line(f"{path}: damaged ({error}); {_REMEDY}"))
        return False
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise unwritable(folder, error) from None
        log(one_line(f"{path}: cannot be unpacked ({error.strerror or error}); {_REMEDY}"))
        return False
    return True


def _unpack(path: Path, folder: Path, temporary: Path, log: Callable[[str], None]) -> None:
    with _readable(path) as (archive, every):
        temporary.mkdir()
        folder.mkdir(parents=True, exist_ok=True)
        groups: dict[str, list[tarfile.TarInfo]] = {}
        for member in every:
            groups.setdefault(member.name.rpartition("/")[0], []).append(member)
        for parent, members in groups.items():
            # Written last, because its existence means that the run is finished.
            members.sort(key=lambda member: member.name.rpartition("/")[2] == RESULT)
            result = folder / members[-1].name
            if result.name == RESULT and result.exists() and read_file(result) != _content(archive, members[-1]):
                log(f"{result}: another result than in {path}; this one stays")
                continue
            (temporary / parent).mkdir(exist_ok=True)
            missing = [member for member in members if not (folder / member.name).exists()]
            for member in missing:
                (temporary / member.name).write_bytes(_content(archive, member))
            if parent and not (folder / parent).exists():
                move(temporary / parent, folder / parent)
            else:
                for member in missing:
                    move(temporary / member.name, folder / member.name)


@contextmanager
def _readable(path: Path) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    """As :func:`_opened`; an archive that cannot be read is damaged."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(_opened(path))
        except OSError as error:
            raise ResultError(f"cannot be read: {error.strerror or error}") from None
        yield opened


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    content = file.read() if file is not None else b""
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
