"""Safe reading of archives and pickles from elsewhere.

Archives are read member by member in memory; nothing is extracted to disk. An archive is rejected if a member is a link
or a device, has an absolute path or a path with ``..``, or unpacks to more than is allowed. Pickles can only produce
plain data and numeric arrays.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NoReturn

import numpy as np

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


def is_archive(path: Path) -> bool:
    """Whether the file's name has the ending of a zip or tar archive."""
    return path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"))


def members(path: Path, largest: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """The regular files of a tar or zip archive, in order: name (without ``./``), size, and a function that reads it.

    The function must be called before the next member is requested. largest: maximum size of one member in bytes.
    Raises DataError, naming the archive, if it is missing, damaged or truncated, or contains a member that is not
    allowed.
    """
    with _naming_archive(path):
        open_file(path).close()  # of a pipe or a device the end would be waited for
        yield from _zip_members(path, largest) if zipfile.is_zipfile(path) else _tar_members(path, largest)


@contextmanager
def _naming_archive(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: is missing") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged or not an archive ({_one_line(error)})") from None


def _tar_members(path: Path, largest: int) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    with open_file(path) as file:
        head = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in _OPENERS if head.startswith(magic)), lambda plain: plain)
        unpacked = _Bounded(opener(file), path, largest)
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            count = 0
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined] # undocumented: tarfile would keep every header
                count += 1
                _check_name(path, member.name, count)
                if member.isdir():
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
        for count, member in enumerate(archive.infolist(), start=1):
            _check_name(path, member.filename, count)
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise DataError(f"{path}: {_clean(member.filename)} is a link or a device; refused")
            total += member.file_size
            if member.file_size > largest or total > MAX_UNPACKED_BYTES:
                raise DataError(f"{path}: {_clean(member.filename)} unpacks to more than {largest:,} bytes; refused")
            yield _plain(member.filename), member.file_size, partial(_read_zip, archive, member, path)


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


def _one_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


# ------------------------------------------------------------------------------------------------------ pickles


class _ArrayType:
    """Stands for ``numpy.ndarray`` in a pickle: an argument of ``_reconstruct`` that cannot be called."""


class _DataType:
    """Stands for ``numpy.dtype`` in a pickle: one of a few numeric types, without numpy's own constructor."""

    _ALLOWED = frozenset(kind + size for kind in "iu" for size in "1248") | {"f4", "f8", "b1"}

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        text = code.decode("ascii", "replace") if isinstance(code, bytes) else code
        if text not in self._ALLOWED:
            raise pickle.UnpicklingError(f"arrays of type {text!r} are not read")
        self.code = text
        self.order: Literal["=", "<", ">", "|"] = "="

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, element size, alignment, flags); plain types have no further
        # entries.
        if not isinstance(state, tuple) or len(state) < 8 or state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("an array type that is not plain")
        order = state[1].decode("ascii", "replace") if isinstance(state[1], bytes) else state[1]
        orders: dict[object, Literal["=", "<", ">", "|"]] = {"=": "=", "<": "<", ">": ">", "|": "|"}
        if not isinstance(order, str) or order not in orders:
            raise pickle.UnpicklingError("an array type of unknown byte order")
        self.order = orders[order]


class _Array:
    """An array that is being read. Python code checks its state and makes the ndarray, not numpy's unpickling code."""

    value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array without plain content")
        _, shape, kind, column_major, content = state
        if not isinstance(kind, _DataType) or not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array without plain content")
        array = np.frombuffer(content, dtype=np.dtype(kind.code).newbyteorder(kind.order))
        self.value = array.reshape(shape, order="F" if column_major else "C")


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _ArrayType or shape != (0,):
        raise pickle.UnpicklingError("an array of a kind that is not read")
    return _Array()


_KNOWN = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DataType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _RestrictedReader(pickle.Unpickler):
    """Reads plain Python data and numeric arrays. A pickle can call nothing outside this module."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no data set needs") from None


def read_pickle(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary, with text keys, in a pickle of plain data and numeric arrays (files of CIFAR and ImageNet32).

    Byte strings of Python 2 stay bytes. Raises DataError, naming the file (``name``), for a pickle that is damaged or
    asks for anything else. Nothing that the pickle names is imported or called.
    """
    try:
        value = _RestrictedReader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # an unpickler can be made to raise almost anything
        raise DataError(f"{name}: not a pickle of plain data and arrays ({_one_line(error)}); refused") from None
    if not isinstance(value, dict):
        raise DataError(f"{name}: holds a {type(value).__name__}, not a dictionary; refused")
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): (
            item.value if isinstance(item, _Array) else item
        )
        for key, item in value.items()
    }


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
        raise DataError(f"{name}: not in the official format ({_one_line(error)})") from None
