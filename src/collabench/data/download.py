"""Download of official files: from a local copy, else the official address, else the user's mirrors.

A download is stored as ``<name>.part`` and renamed when its checksum is right. An interrupted download is continued
(HTTP Range).
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collabench.core.errors import DataError, Log
from collabench.core.regular import open_file
from collabench.storage.locks import holding

TIMEOUT_SECONDS = 30.0
ATTEMPTS = 5
WAIT_SECONDS = 1.0
#: Limit of a download in bytes. No known official archive is larger (STL-10: 2.6 GB).
MAX_BYTES = 10 * 10**9
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Official:
    """An official file: its address and its checksum, ``md5:…`` or ``sha256:…``.

    folder, files: where its files lie once it is unpacked, and the checksum of each that is read.
    """

    url: str
    checksum: str
    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def checksum_of(path: Path, like: str) -> str:
    """The file's checksum with the algorithm of ``like`` (``md5:…`` or ``sha256:…``), in the same form."""
    algorithm = like.partition(":")[0]
    with open_file(path) as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def obtain(official: Official, downloads: Path, local: Path | None, mirrors: Sequence[str], log: Log) -> Path:
    """The path of an official file with the right checksum.

    local: a folder that may contain the file, or the file itself. It is tried first, then ``downloads``, then the
    network. mirrors: addresses of the file or of its folder. Raises DataError (one line) with what was wrong at each
    place.
    """
    problems: list[str] = []
    if local is not None:
        if not local.exists():
            raise DataError(f"path: {local} does not exist")
        candidate = local / official.name if local.is_dir() else local
        if candidate.exists():
            actual = checksum_of(candidate, official.checksum)
            if actual == official.checksum:
                return candidate
            problems.append(f"{candidate}: damaged or another file ({actual}, expected {official.checksum})")
            log(f"{problems[-1]}; not used")
    target = downloads / official.name
    with holding(downloads / f".{official.name}.lock", official.name, log):
        if target.exists():
            actual = checksum_of(target, official.checksum)
            if actual == official.checksum:
                return target
            problems.append(f"{target}: damaged or another file ({actual}, expected {official.checksum})")
            log(f"{problems[-1]}; fetching it again")
        for url in (official.url, *(_address(mirror, official.name) for mirror in mirrors)):
            try:
                _fetch(url, target, official.checksum, log)
                return target
            except _Failed as failed:
                problems.append(f"{url}: {failed}")
                log(problems[-1])
    raise DataError(
        f"{official.name} cannot be had: {'; '.join(problems)}. Place the file in {downloads}, or name the folder that "
        "holds it as the data set's path"
    )


def _address(mirror: str, name: str) -> str:
    return mirror if mirror.endswith(f"/{name}") else f"{mirror.rstrip('/')}/{name}"


class _Failed(Exception):
    """This address did not provide the file. ``final``: another attempt would fail, too."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def _fetch(url: str, target: Path, checksum: str, log: Log) -> None:
    """Download to ``target``. Raises _Failed. The count of attempts restarts whenever an attempt received data."""
    part = target.with_name(f"{target.name}.part")
    attempt, resumed = 0, part.exists()
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, log)
            break
        except _Failed as failed:
            size = part.stat().st_size if part.exists() else 0
            attempt = 1 if size > before else attempt + 1
            resumed = resumed or size > 0
            if failed.final or attempt >= ATTEMPTS:
                raise
            log(f"{url}: {failed}; trying again")
            time.sleep(WAIT_SECONDS * 2 ** (attempt - 1))
    actual = checksum_of(part, checksum)
    if actual == checksum:
        part.replace(target)
        return
    part.unlink()
    if resumed:  # the part may belong to another file: start once from the beginning
        log(f"{url}: wrong content after resuming; fetching it from the beginning")
        return _fetch(url, target, checksum, log)
    raise _Failed(f"wrong content ({actual}, expected {checksum})", final=True)


def _receive(url: str, part: Path, log: Log) -> None:
    """Append the missing bytes to ``part``. Raises _Failed and keeps what was received."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "collabench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            have, total = _extent(response, have)
            if total is not None and total > MAX_BYTES:
                raise _Failed(f"{total:,} bytes are more than any official file has", final=True)
            with part.open("ab" if have else "wb") as file:
                have = _copy(response, file, have, total, part.name.removesuffix(".part"), log)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is at least as long as the file; the checksum decides
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise _Failed("the part on disk does not fit the file") from None
        raise _Failed(f"HTTP {error.code} {error.reason}", final=400 <= error.code < 500) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise _Failed(f"not an address ({error})", final=True) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Failed(f"{type(error).__name__}: {reason}".splitlines()[0]) from None
    if total is not None and have < total:
        raise _Failed(f"the connection dropped after {have:,} of {total:,} bytes")


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """The number of existing bytes that the answer continues, and the size of the whole file (None if unknown)."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise _Failed("the server answered another range than was asked for", final=True)
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _copy(response: http.client.HTTPResponse, file, have: int, total: int | None, name: str, log: Log) -> int:
    told = time.monotonic()
    # read1 returns what was received; read would lose it if the connection breaks
    while chunk := response.read1(_CHUNK):
        file.write(chunk)
        have += len(chunk)
        if have > (total if total is not None else MAX_BYTES):
            raise _Failed("the server sends more than it announced", final=True)
        if time.monotonic() - told >= 2:
            told = time.monotonic()
            share = f" of {total / 1e6:.0f} MB ({100 * have // total} %)" if total else " MB"
            log(f"{name}: {have / 1e6:.0f}{share}")
    return have
