"""Validation of a part of a YAML file against its type, with errors of one line: file, line, key and a remedy."""

from __future__ import annotations

import json
import math
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from collabench.config.wording import alternatives, entries, found, near_key, unknown
from collabench.config.yaml_file import Document, KeyPath, shorten
from collabench.core.errors import ConfigError
from collabench.core.record import Record


def validate(document: Document, kind: Any, value: Any, key_path: KeyPath = ()) -> Any:
    """Check ``value``, the part of ``document`` at ``key_path``, against a type. Raises ConfigError (one line)."""
    bad = _not_finite(value, key_path)
    if bad is not None:
        raise document.error(bad, "is not a finite number")
    try:
        # JSON mode is strict about types and accepts a list where a tuple is declared.
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise _explain(document, error, kind, key_path) from None


def _not_finite(value: Any, key_path: KeyPath) -> KeyPath | None:
    if isinstance(value, float) and not math.isfinite(value):
        return key_path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((bad for key, child in children if (bad := _not_finite(child, (*key_path, key)))), None)


def _explain(document: Document, error: ValidationError, kind: Any, key_path: KeyPath) -> ConfigError:
    """One validation error on one line. Unknown keys come first, because they often explain the other errors."""
    errors = error.errors(include_url=False)
    places = [_location(document.value, key_path, e) for e in errors]
    # A value that fits none of several types has one error for each type. An error inside the value says most.
    inside = [i for i, place in enumerate(places) if place[: len(places[0])] == places[0]]
    strange = [i for i, e in enumerate(errors) if e["type"] == "extra_forbidden"]
    chosen = strange[0] if strange else max(inside, key=lambda i: len(places[i]))
    first, location = errors[chosen], places[chosen]
    same = [e for e, place in zip(errors, places, strict=True) if place == location and e["type"] != "extra_forbidden"]
    elsewhere = {place for place in places if place != location[: len(place)]}
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, first["loc"])
        message = unknown(location[-1], known)
        elsewhere.discard((*location[:-1], near_key(location[-1], known) or ""))  # it is missing where it is misspelt
    elif first["type"] == "missing" and isinstance(location[-1], int):  # of a list with a fixed number of entries
        message = f"must have at least {entries(location[-1] + 1)}"
        location = location[:-1]
    elif first["type"] in ("missing", "union_tag_not_found"):
        message = f"the key {location[-1]!r} is missing"
    elif first["type"] == "union_tag_invalid":
        says = shorten(first["input"][location[-1]])
        message = f"must be {' or '.join(first['ctx']['expected_tags'].rsplit(', ', 1))} (it says {says})"
    else:
        message = alternatives(same) + found(first)
    if elsewhere:
        message += f" (and {len(elsewhere)} more {'mistakes' if len(elsewhere) > 1 else 'mistake'})"
    return document.error(location, message)


#: Keys that select one of several kinds of entry.
_CHOOSING = ("family", "method", "kind")


def _location(value: Any, key_path: KeyPath, error: Any) -> KeyPath:
    """The key path of a pydantic error.

    pydantic's own location also contains the members of unions, and ends in ``[key]`` for a wrong key. A wrong
    selection among several kinds of entry is located at the selecting key.
    """
    kind, kept, member_of = error["type"], list[str | int](), None
    location = [*key_path, *error["loc"]]
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(value, dict) and member_of is not value and part in (value.get(key) for key in _CHOOSING):
            member_of = value  # the kind that the entry selects, which may also be the name of one of its keys
        elif (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            value, kept = value[part], [*kept, part]
        elif last and kind in ("missing", "extra_forbidden"):
            kept.append(part)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kept.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(kept)


def _keys_at(kind: Any, location: KeyPath) -> list[str]:
    """The valid keys beside the last part of a pydantic error location; what every entry of a section may have comes
    last."""
    for part in location[:-1]:
        kind = _child_type(kind, part)
    kind = _bare(kind)
    if not (isinstance(kind, type) and issubclass(kind, Record)):
        return []
    own = [name for name in kind.model_fields if name in kind.__annotations__]
    return own + [name for name in kind.model_fields if name not in own]


def _bare(kind: Any) -> Any:
    """``kind`` without ``Annotated`` and without ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else kind
    return kind


def _child_type(kind: Any, part: str | int) -> Any:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Record):
        # otherwise the only member of a union
        return kind.model_fields[part].annotation if part in kind.model_fields else kind
    arguments = get_args(kind)
    if get_origin(kind) in (Union, UnionType):  # a discriminated union: the part is the member's tag
        return next(
            (m for m in arguments if any(part in get_args(f.annotation) for f in m.model_fields.values())), None
        )
    return arguments[-1 if get_origin(kind) is dict else 0] if arguments else None
