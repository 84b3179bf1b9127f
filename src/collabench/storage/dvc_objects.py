"""DVC's names of content: the MD5 of a file, and of a folder the MD5 of a listing of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from collabench.core.regular import open_file


def md5_of(path: Path) -> str | None:
    """Return the name of a file's content; None if it cannot be read or is not a regular file."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return None


def listing_of(files: Mapping[str, str | None]) -> bytes:
    """Return DVC's listing of a folder: ``files`` is path within the folder → name of the content."""
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return json.dumps(entries, sort_keys=True).encode()


def name_of_listing(listing: bytes) -> str:
    """Return the name of a folder with this listing: 32 hexadecimal digits and ``.dir``."""
    return f"{hashlib.md5(listing, usedforsecurity=False).hexdigest()}.dir"


def place_of(objects: Path, name: str) -> Path:
    """Return the path of the object with this name. objects: a folder ``files/md5`` of a cache or remote."""
    return objects / name[:2] / name[2:]
