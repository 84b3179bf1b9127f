"""Whether DVC would find that a profile's stages need not run. DVC, which takes seconds to start, is not asked.

The answer "no" may be wrong, and DVC then finds that there is nothing to do. The answer "yes" is as right as DVC's:
every file is read, where DVC trusts a size and a time that it remembers.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabench.config.yaml_file import read_yaml
from collabench.core.errors import ConfigError
from collabench.storage.dvc_objects import listing_of, md5_of, name_of_listing, place_of

#: The stages of ``dvc.yaml`` that ``dvc repro report@PROFILE`` looks at.
STAGES = ("datasets", "noise", "train", "report")

_KNOWN = {"cmd", "deps", "outs"}
_ALWAYS_IGNORED = (".hg/", ".git/", ".git", ".dvc/")


class _CannotTell(Exception):
    """A file of DVC's has a form that is not read here, or the disk differs from ``dvc.lock``."""


@dataclass(frozen=True)
class _Output:
    path: str
    cached: bool


def entries_if_unchanged(root: Path, profile: str) -> dict[str, Any] | None:
    """Return what ``dvc.lock`` records of the profile's stages, if DVC would run none of them; else None.

    They are compared as ``dvc status`` compares them: commands, the lists of dependencies and outputs, the content of
    each of these on disk, and that DVC's cache holds the outputs. Where the content of one differs, its files get a new
    modification time: DVC then reads them, and does not trust that a file of the same size and time is the same.
    """
    try:
        locked = _mapping(read_yaml(root / "dvc.lock").value, "stages")
        defined = _mapping(read_yaml(root / "dvc.yaml").value, "stages")
        found = {f"{stage}@{profile}": locked[f"{stage}@{profile}"] for stage in STAGES}
        disk = _Disk(root)
        for stage in STAGES:
            _compare(_mapping(defined[stage], "do"), found[f"{stage}@{profile}"], profile, disk)
    except (_CannotTell, ConfigError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return found


def _mapping(value: Any, key: str) -> dict[str, Any]:
    inner = value[key]
    if not isinstance(inner, dict):
        raise _CannotTell
    return inner


def _compare(defined: dict[str, Any], locked: dict[str, Any], profile: str, disk: _Disk) -> None:
    """Raise _CannotTell unless a stage is as it was when it last ran."""
    if not defined.keys() <= _KNOWN or locked.keys() != _KNOWN:
        raise _CannotTell
    outputs = {one.path: one for one in _outputs(defined["outs"], profile)}
    names = {"deps": {_of(profile, path) for path in defined["deps"]}, "outs": outputs.keys()}
    if locked["cmd"] != _of(profile, defined["cmd"]):
        raise _CannotTell
    for kind, wanted in names.items():
        if sorted(one["path"] for one in locked[kind]) != sorted(wanted):
            raise _CannotTell
        for one in locked[kind]:
            if one["hash"] != "md5" or disk.name(one["path"]) != one["md5"]:
                disk.distrust(one["path"])
                raise _CannotTell
    for path, output in outputs.items():
        if output.cached and not disk.is_cached(path):
            raise _CannotTell


def _of(profile: str, text: str) -> str:
    """Return a text of ``dvc.yaml`` for one profile."""
    text = text.replace("${key}", profile)
    if "${" in text:
        raise _CannotTell
    return text


def _outputs(listed: list[Any], profile: str) -> Iterator[_Output]:
    for one in listed:
        ((path, options),) = one.items() if isinstance(one, dict) else ((one, {}),)
        if not options.keys() <= {"persist", "cache"}:
            raise _CannotTell
        yield _Output(_of(profile, path), options.get("cache", True))


class _Disk:
    """What DVC calls the files of the project now. Each is read once."""

    def __init__(self, root: Path) -> None:
        self._root, self._names = root, dict[str, str]()
        self._within: dict[str, dict[str, str | None]] = {}
        self._objects = root / ".dvc" / "cache" / "files" / "md5"
        self._ignored = [*_ALWAYS_IGNORED, *_patterns(root / ".dvcignore")]

    def name(self, path: str) -> str:
        """Return the name of a file's or folder's content."""
        if path not in self._names:
            place = self._root / path
            if any(
                (folder / ".dvcignore").exists()
                for folder in place.parents
                if folder.is_relative_to(self._root / ".") and folder != self._root
            ):
                raise _CannotTell
            if place.is_dir():
                self._within[path] = {name: md5_of(place / name) for name in self._files(place)}
                self._names[path] = name_of_listing(listing_of(self._within[path]))
            else:
                self._names[path] = md5_of(place) or ""
        return self._names[path]

    def distrust(self, path: str) -> None:
        """Give the files of a path the present time as that of their modification, where that is permitted."""
        place = self._root / path
        for file in self._within.get(path, {"": None}):
            with suppress(OSError):
                os.utime(place / file if file else place)

    def is_cached(self, path: str) -> bool:
        """Return whether DVC's cache, in its usual place, has the content of a path."""
        names = [self.name(path), *self._within.get(path, {}).values()]
        return all(name and place_of(self._objects, name).is_file() for name in names)

    def _files(self, folder: Path, before: str = "") -> Iterator[str]:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                if not self._is_ignored(entry.name, folder=True):
                    yield from self._files(Path(entry.path), f"{before}{entry.name}/")
            elif not self._is_ignored(entry.name, folder=False):
                if entry.name == ".dvcignore" or not entry.is_file():
                    raise _CannotTell
                yield f"{before}{entry.name}"

    def _is_ignored(self, name: str, *, folder: bool) -> bool:
        return any(
            fnmatch.fnmatchcase(name, pattern.removesuffix("/")) and (folder or not pattern.endswith("/"))
            for pattern in self._ignored
        )


def _patterns(path: Path) -> list[str]:
    """Return the patterns of a ``.dvcignore`` that names files and folders by their own names, wherever they lie."""
    if not path.exists():
        return []
    lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if any("/" in line[:-1] or line[0] in "!\\" or "[" in line for line in found):
        raise _CannotTell
    return found
