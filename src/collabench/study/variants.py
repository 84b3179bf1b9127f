"""Variants of a profile: the profile with settings of the command line (``--set``) in place of ``params.yaml``'s.

A variant is a profile of its own, ``<profile>~<digest of its settings>``, with a folder of its own. Its runs have the
ids that its settings give them. No table, claim or accepted report of the profile sees them. No name of ``params.yaml``
has a ``~``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collabench.config.configuration import digest
from collabench.core.errors import CollabenchError, ConfigError
from collabench.core.record import Record
from collabench.storage.files import read_json, write_json
from collabench.storage.workspace import Workspace

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]{0,63})~([0-9a-f]{8})")


class Settings(Record):
    """The settings of a variant, as they were given: ``recipes.digits.epochs=40``."""

    settings: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """A profile of ``params.yaml`` and settings that differ from the file; without settings the profile itself."""

    profile: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name under which it is stored, which ``--profile`` takes."""
        return f"{self.profile}~{digest(list(self.settings))[:8]}" if self.settings else self.profile

    @property
    def described(self) -> str:
        """``with recipes.digits.epochs=40``."""
        return f"with {', '.join(self.settings)}"


def find(root: Path, profile: str, settings: Sequence[str] = ()) -> Variant:
    """The variant that a name, or a profile and settings, mean. The order of settings does not matter.

    Raises ConfigError if the name is that of a variant whose settings are not known here.
    """
    named = _NAME.fullmatch(profile)
    if named is None:
        return Variant(profile, tuple(sorted(settings)))
    if settings:
        raise ConfigError(f"--profile {profile}: has settings of its own; use --profile {named[1]} with all of them")
    path = Workspace(root, profile).settings
    if not path.exists():
        raise ConfigError(f"--profile {profile}: nothing was run under this name here; `collabench run -p {named[1]} "
                          "--set …` prints the name of what it runs")  # fmt: skip
    kept = read_json(path, Settings, ConfigError, "run it again with its settings: --set …").settings
    if (found := Variant(named[1], kept)).name != profile:
        raise ConfigError(f"{path}: holds the settings of {found.name}; run it again with its settings: --set …")
    return found


def keep(workspace: Workspace, variant: Variant) -> None:
    """Store a variant's settings, so that its name is enough from now on."""
    write_json(workspace.settings, Settings(settings=variant.settings))


def is_variant(profile: str) -> bool:
    """Whether this is the name of a variant."""
    return _NAME.fullmatch(profile) is not None


def refuse(profile: str, what: str) -> None:
    """Raise CollabenchError if ``profile`` is a variant. what: the command or option that is for profiles only."""
    if is_variant(profile):
        raise CollabenchError(
            f"{what} is for profiles of params.yaml; {profile} has settings of the command line, which no file holds: "
            "write them into params.yaml as entries of their own"
        )
