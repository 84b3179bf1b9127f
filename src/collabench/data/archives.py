"""Safe reading of archives from elsewhere.

Archives are read member by member in memory; nothing is extracted to disk. An archive is rejected if a member is a link
or a device, has an absolute path or a path with ``..``, or unpacks to more than is allowed. The first bytes of a file
say what it is: its end may belong to a member, such as a zip within a tar.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from collabench.core.errors import DataError
from collabench.core.regular import open_file

#: Limit of the unpacked size in bytes. No archive of a known data set unpacks to more (STL-10: 3 GB).
MAX_UNPACKED_BYTES = 400 * 10**9
MAX_MEMBERS = 20_000_000

_OPENERS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
)

#: First bytes of a zip: of its first member, of one without members.
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

#: First bytes of what is no archive of data here → its name.
_OTHER_KINDS = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x9d": "compress (.Z)",
    b"PK\x07\x08": "split zip",
}

#: Numbers of systems in a zip's members whose programs separate folders by a backslash, against the format's rule:
#: MS-DOS (also written by .NET and so by PowerShell), OS/2, Windows.
_BACKSLASH_SYSTEMS = (0, 6, 10, 11, 14)

#: A zip's extra field with a member's name in UTF-8, and its flag of a name that is in UTF-8.
_UNICODE_PATH, _IS_UTF8 = 0x7075, 0x800

#: Exceptions that damaged compressed data raises.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
           NotImplementedError, RuntimeError)  # fmt: skip


class _Bounded(io.RawIOBase):
    """An unpacked stream that refuses to return more than is allowed."""

    def __init__(self, file: IO[bytes], path: Path, largest: int) -> None:
        self._file, self._path, self._largest = file, path, largest

    def _refuse(self) -> NoReturn:
        raise DataError(f"{self._path}: a member unpacks to more than {self._largest:,} bytes; refused")

    def read(self, size: int = -1) -> bytes:
        # tarfile reads long names and extended headers in one piece, whatever size they declare.
        if size < 0 or size > self._largest:
            self._refuse()
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > MAX_UNPACKED_BYTES:
            raise DataError(f"{self._path}: unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; refused")
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def members(path: Path, largest: int, *, folders: bool = False) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """The regular files of a tar or zip archive, in order: name (without ``./``), size, and a function that reads it.

    The function must be called before the next member is requested. largest: maximum size of one member in bytes.
    folders: also the members that are folders, whose names end with a slash.
    Raises DataError, naming the archive, if it is missing, damaged or truncated, of another kind than tar and zip, or
    contains a member that is not allowed.
    """
    with _naming_archive(path):
        found = _zip_members(path, largest) if _is_zip(path) else _tar_members(path, largest)
        for name, size, content in found:
            if folders or not name.endswith("/"):
                yield name, size, content


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip, by its first bytes; else it is a tar. Raises DataError if it is neither."""
    with open_file(path) as file:  # of a pipe or a device the end would be waited for
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(_ZIP):
        return True
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise DataError(
                f"{path}: a {kind} archive, which is not read; pack the files as .tar.xz or .zip, or unpack them and "
                "give the folder"
            )
    if not head.startswith(tuple(magic for magic, _ in _OPENERS)):
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # raises an error of tarfile's, unless it is a header
    return False


@contextmanager
def _naming_archive(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: is missing") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or not an archive of the kind tar or zip ({one_line(error)})") from None


def _tar_members(path: Path, largest: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    with open_file(path) as file:
        head = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in _OPENERS if head.startswith(magic)), lambda plain: plain)
        unpacked = _Bounded(opener(file), path, largest)
        # UTF-8 in every locale
        with tarfile.open(fileobj=unpacked, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            count = 0
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # undocumented: tarfile would keep every header
                count += 1
                _check_name(path, member.name, count)
                if member.isdir():
                    yield f"{_plain(member.name)}/", 0, bytes
                    continue
                if not member.isreg() or member.issparse() or member.size < 0:
                    raise DataError(f"{path}: {_clean(member.name)} is a link or a device, or has holes; refused")
                if member.size > largest:
                    unpacked._refuse()
                yield _plain(member.name), member.size, partial(_read_exactly, archive, member, path)


def _read_exactly(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    with _naming_archive(path):
        file = archive.extractfile(member)
        assert file is not None, "only regular files are handed out"
        content = file.read(member.size)
    if len(content) != member.size:
        raise DataError(f"{path}: truncated within {_clean(member.name)}")
    return content


def _zip_members(path: Path, largest: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    with zipfile.ZipFile(path) as archive:
        total = 0
        if min((member.header_offset for member in archive.infolist()), default=0) > 0:
            raise DataError(f"{path}: holds other bytes before its first member, such as another zip; refused")
        for count, member in enumerate(archive.infolist(), start=1):
            name = _zip_name(path, member)
            _check_name(path, name, count)
            if name.endswith("/"):
                yield f"{_plain(name)}/", 0, bytes
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise DataError(f"{path}: {_clean(name)} is a link or a device; refused")
            total += member.file_size
            if member.file_size > largest or total > MAX_UNPACKED_BYTES:
                raise DataError(f"{path}: {_clean(name)} unpacks to more than {largest:,} bytes; refused")
            yield _plain(name), member.file_size, partial(_read_zip, archive, member, path)


def _zip_name(path: Path, member: zipfile.ZipInfo) -> str:
    """The name of a member, with slashes. Raises DataError if it is written in a code page, of which a zip does not say
    which one."""
    name = member.orig_filename
    if not member.flag_bits & _IS_UTF8 and not name.isascii():
        written = name.encode("cp437")  # as zipfile has decoded it
        try:
            name = _unicode_path(member.extra, written) or written.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{path}: the name of the member {_clean(name)} is not written in UTF-8, so that it cannot be known; "
                "unpack the archive and give the folder, or pack it again as .tar, or as .zip with names in UTF-8"
            ) from None
    return name.replace("\\", "/") if member.create_system in _BACKSLASH_SYSTEMS else name


def _unicode_path(extra: bytes, written: bytes) -> str | None:
    """The name of Info-ZIP's Unicode path field, if there is one that belongs to the name as it is written."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and field[:1] == b"\x01" and field[1:5] == zlib.crc32(written).to_bytes(4, "little"):
            return field[5:].decode("utf-8")
    return None


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    with _naming_archive(path), archive.open(member) as file:
        # zipfile stops at the declared size and checks the CRC there.
        content = file.read(member.file_size)
        if len(content) != member.file_size or file.read(1):
            raise DataError(f"{path}: {_clean(member.filename)} has not the size that the archive declares")
    return content


def _check_name(path: Path, name: str, count: int) -> None:
    if count > MAX_MEMBERS:
        raise DataError(f"{path}: more than {MAX_MEMBERS:,} members; refused")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        raise DataError(f"{path}: the member {_clean(name)} has a path that leads out of the archive; refused")


def _plain(name: str) -> str:
    return str(PurePosixPath(name))


def _clean(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:117] + "…")


def one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Convert errors that wrong content causes into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from None
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(f"{name}: not in the official format ({one_line(error)})") from None
