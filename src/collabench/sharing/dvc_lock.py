"""Strict reading of another copy's ``dvc.lock`` and of DVC's folder listings.

Somebody else wrote these files. Only a few fields in a known form are accepted, and anything else is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabench.config.yaml_file import read_yaml
from collabench.core.errors import CollabenchError

#: DVC identifies a file by its MD5, and a folder by the MD5 of its listing with the ending ``.dir``.
_MD5 = re.compile(r"[0-9a-f]{32}")
_FOLDER = re.compile(r"[0-9a-f]{32}\.dir")

#: The fields that DVC writes for an output in its cache.
_FIELDS = {"path", "hash", "md5", "size", "nfiles", "isexec"}

#: Largest number of files in a listing, and largest size of a listing in bytes. No study reaches them.
_MOST_FILES = 1_000_000
_LONGEST_LISTING = 200_000_000


@dataclass(frozen=True)
class Output:
    """An output of a stage: its path below the project's root, and DVC's identifier of its content."""

    path: str
    md5: str

    @property
    def is_folder(self) -> bool:
        return self.md5.endswith(".dir")


class Lock:
    """A ``dvc.lock``. Raises CollabenchError (one line) if the file is not one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        value = read_yaml(path).value
        stages = value.get("stages") if isinstance(value, dict) else None
        if not isinstance(stages, dict):
            raise CollabenchError(f"{path}: is not a dvc.lock: it has no stages")
        self._stages: dict[str, Any] = stages

    def has(self, stage: str) -> bool:
        return stage in self._stages

    def output(self, stage: str, path: str) -> Output:
        """Return the output of a stage with this path.

        Raises CollabenchError if there is none, or if it has a field that DVC does not write for an output in its
        cache, such as a list of files with paths of their own.
        """
        found = self._stages.get(stage)
        listed = found.get("outs") if isinstance(found, dict) else None
        matching = [one for one in listed or () if isinstance(one, dict) and one.get("path") == path]
        where = f"{self._path}: stages.{stage}.outs: {path}"
        if len(matching) != 1:
            raise CollabenchError(f"{where}: occurs {len(matching)} times, must occur once")
        (entry,) = matching
        if unknown := sorted(entry.keys() - _FIELDS):
            raise CollabenchError(f"{where}: has {unknown[0]!r}, which another copy's lock must not have; refused")
        md5 = entry.get("md5")
        if (
            entry.get("hash") != "md5"
            or not isinstance(md5, str)
            or not (_MD5.fullmatch(md5) or _FOLDER.fullmatch(md5))
        ):
            raise CollabenchError(f"{where}: must have hash: md5 and, as md5, 32 hexadecimal digits; refused")
        return Output(path, md5)


def read_listing(content: bytes, where: str, names: re.Pattern[str]) -> dict[str, str]:
    """Return the files of a folder, name → MD5, from DVC's listing of it.

    Raises CollabenchError if a name does not match ``names``, if an MD5 is malformed, or if a file is listed twice. DVC
    would write to any path that a listing names.
    """
    try:
        if len(content) > _LONGEST_LISTING:
            raise ValueError
        entries = json.loads(content)
        found = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CollabenchError(f"{where}: is not a listing of a folder; refused") from None
    if len(found) != len(entries) or len(found) > _MOST_FILES:
        raise CollabenchError(f"{where}: lists a file twice; refused")
    for name, md5 in found.items():
        if not isinstance(name, str) or not names.fullmatch(name):
            raise CollabenchError(
                f"{where}: holds {name!r}, which leads out of its folder or has no place there; refused"
            )
        if not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise CollabenchError(f"{where}: {name}: its md5 must be 32 hexadecimal digits; refused")
    return found
