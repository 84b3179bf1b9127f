"""Settings from the command line: ``--set recipes.digits.epochs=40`` in place of a value of ``params.yaml``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from collabench.config.yaml_file import Document, KeyPath, parse_value
from collabench.core.errors import ConfigError


def apply(document: Document, settings: Sequence[str], texts: tuple[KeyPath, ...] = ()) -> Document:
    """The document with other values: each setting is ``section.name.key=value``, the value in YAML.

    A setting changes an entry that the file has; a key that the entry does not have is added to it. A number chooses
    among a list (``profiles.small.tables.0.seeds=3``). The file stays as it is. texts: as of
    :func:`~collabench.config.yaml_file.read_yaml`.

    Raises ConfigError (one line), which names the setting, if it is not of this form, if nothing has its name, or if
    two settings change the same value.
    """
    if not settings:
        return document
    value = json.loads(json.dumps(document.value))  # no part is shared, as aliases share one
    changed: dict[KeyPath, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {setting}: must be section.name.key=value, such as recipes.digits.epochs=40")
        path = _key_path(value, key.strip(), setting)
        for other, earlier in changed.items():
            if path[: len(other)] == other or other[: len(path)] == path:
                raise ConfigError(f"--set {setting}: --set {earlier} changes the same value; keep one of them")
        parent = value
        for part in path[:-1]:
            if isinstance(parent, dict) and parent.get(part) is None:
                parent[part] = {}
            parent = parent[part]
        parent[path[-1]] = parse_value(text, path, f"--set {setting}", texts)
        changed[path] = setting
    return document.with_settings(value, changed)


def _key_path(value: Any, key: str, setting: str) -> KeyPath:
    """The path that ``section.name.key`` means. A name of the file may have dots: the longest that fits is meant."""
    path: tuple[str | int, ...] = ()
    rest: str | None = key
    while rest is not None:
        here = ".".join(map(str, path)) or "params.yaml"
        if isinstance(value, list):
            part, _, after = rest.partition(".")
            if not part.isdecimal() or int(part) >= len(value):
                raise ConfigError(f"--set {setting}: {here} is a list of {len(value)}: 0 is its first entry")
            path, value, rest = (*path, int(part)), value[int(part)], after or None
            continue
        if not (isinstance(value, dict) or (value is None and len(path) > 1)):
            raise ConfigError(f"--set {setting}: {here} is a single value and has no keys")
        known = list(value or {})
        fitting = [name for name in known if rest == name or rest.startswith(f"{name}.")]
        part = max(fitting, key=len) if fitting else rest.partition(".")[0]
        if not fitting and len(path) < 2:
            near = difflib.get_close_matches(part, known, n=3)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise ConfigError(f"--set {setting}: {here} has no {part!r}{hint}; it has {', '.join(known)}")
        path, value, rest = (*path, part), (value or {}).get(part), rest[len(part) + 1 :] or None
    if len(path) < 3:
        raise ConfigError(f"--set {setting}: must name a key of an entry: section.name.key=value")
    return path


def refuse_unused(document: Document, profile: str, used: Iterable[tuple[str, str]]) -> None:
    """Raise ConfigError if a setting changes an entry that the profile does not use. used: (section, name)."""
    allowed = {*used, ("profiles", profile)}
    for path, setting in document.settings.items():
        if path[:2] not in allowed:
            raise ConfigError(f"--set {setting}: changes nothing, since profile {profile} does not use "
                              f"{'.'.join(map(str, path[:2]))}")  # fmt: skip
