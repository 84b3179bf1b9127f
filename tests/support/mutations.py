"""Mistakes generated from the typed schema: every field with every kind of error that its type can have.

:func:`faults` walks a schema beside a good value of it. Nothing in it knows a field by name, so a new field, method or
model family is covered as soon as it exists (:func:`fields_of` says which fields there are).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import PlainValidator
from pydantic.fields import FieldInfo

from collabench.config.fields import AS_WRITTEN
from collabench.core.record import Record

KeyPath = tuple[str | int, ...]
Whole = TypeVar("Whole")

#: A field that the good value leaves at its default, and the value of a key that a fault removes.
ABSENT = object()

#: A name that no section defines.
NO_NAME = "no-such-name"


@dataclass(frozen=True)
class Written:
    """A scalar by the characters that stand in the file: ``.nan``, ``1e999``."""

    text: str


@dataclass(frozen=True)
class Fault:
    """One mistake.

    what: its kind. at: the key whose value is replaced by ``value``. key: the key that the message must name.
    refused: the schema alone refuses it, at exactly ``key``; otherwise rules between fields decide, and may accept it.
    field: (class, field) that it is about.
    """

    what: str
    at: KeyPath
    value: Any
    key: KeyPath
    refused: bool
    field: tuple[type[Record], str] | None

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.key))}: {self.what}"


# ---------------------------------------------------------------------------------------------------- the schema

CONSTRAINTS = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")


@dataclass(frozen=True)
class Member:
    """One type that a field can have, with its constraints. plain: a function of the project's own reads the value.
    as_written: every scalar is text."""

    kind: Any
    constraints: dict[str, Any]
    plain: bool = False
    as_written: bool = False

    @property
    def accepts(self) -> set[str]:
        """The YAML types that it takes at all."""
        origin = get_origin(self.kind) or self.kind
        if self.as_written:
            return {"text", "whole number", "fraction", "bool", "null"}
        if self.plain or origin is Any:
            return {"text", "whole number", "fraction"}
        if origin is Literal:
            return {kind_of(choice) for choice in get_args(self.kind)}
        simple = {bool: {"bool"}, int: {"whole number"}, float: {"whole number", "fraction"}, str: {"text"},
                  NoneType: {"null"}, tuple: {"list"}, list: {"list"}, dict: {"mapping"}}  # fmt: skip
        return simple.get(origin, {"mapping"})


def kind_of(value: Any) -> str:
    names = {bool: "bool", int: "whole number", float: "fraction", str: "text", NoneType: "null", list: "list",
             tuple: "list", dict: "mapping"}  # fmt: skip
    return names[type(value)]


def members(kind: Any, metadata: tuple[Any, ...] = ()) -> list[Member]:
    """The alternatives of a field's annotation."""
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = (*more, *metadata)
    if get_origin(kind) in (Union, UnionType) and not any(isinstance(item, PlainValidator) for item in metadata):
        return [member for part in get_args(kind) for member in members(part, metadata)]
    constraints: dict[str, Any] = {}
    for item in metadata:
        for inner in item.metadata if isinstance(item, FieldInfo) else [item]:
            for name in CONSTRAINTS:
                if getattr(inner, name, None) is not None:
                    constraints[name] = getattr(inner, name)
    plain = any(isinstance(item, PlainValidator) for item in metadata)
    return [Member(kind, constraints, plain, any(item is AS_WRITTEN for item in metadata))]


def is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record)


def name_in_file(record: type[Record], field: str) -> str:
    return record.model_fields[field].alias or field


def fields_of(kind: Any, found: set[tuple[type[Record], str]] | None = None) -> set[tuple[type[Record], str]]:
    """Every (class, field) that a schema reaches."""
    found = set() if found is None else found
    for member in members(kind):
        if is_record(member.kind):
            for name, info in member.kind.model_fields.items():
                if (member.kind, name) not in found:
                    found.add((member.kind, name))
                    fields_of(Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation, found)
        else:
            for part in get_args(member.kind):
                if get_origin(member.kind) is not Literal and part is not Ellipsis:
                    fields_of(part, found)
    return found


# ---------------------------------------------------------------------------------------------------- the mistakes

#: One value of each YAML type. The text looks like a number, the whole number like a truth value.
SAMPLES: dict[str, Any] = {
    "text": "7", "whole number": 1, "fraction": 2.5, "bool": True, "null": None, "list": [], "mapping": {},
}  # fmt: skip

#: Not finite, whatever the field is.
NOT_FINITE = (".nan", ".inf", "-.inf", "1e999")
TOO_LARGE = "9" * 30


def faults(kind: Any, value: Any, path: KeyPath = (), field: tuple[type[Record], str] | None = None) -> Iterator[Fault]:
    """Every mistake that a schema's fields can have, in and below ``value``, a good value of it that stands at
    ``path``."""

    def fault(what: str, bad: Any, refused: bool) -> Fault:
        return Fault(what, path, bad, path, refused, field)

    alternatives = members(kind)
    accepted = set().union(*(member.accepts for member in alternatives))
    for name, sample in SAMPLES.items():
        if name not in accepted:
            yield fault(f"{name} in place of {' or '.join(sorted(accepted))}", sample, True)
        elif name in ("null", "list", "mapping"):
            required = name == "mapping" and all(is_record(m.kind) for m in alternatives if "mapping" in m.accepts)
            if not required:
                yield fault(f"empty: {name}", sample, False)
    if not any(is_record(member.kind) or member.as_written for member in alternatives):
        for text in NOT_FINITE:
            yield fault(f"not finite: {text}", Written(text), True)
        yield fault("a number of 30 digits", Written(TOO_LARGE), True)
    for member in alternatives:
        yield from _faults_of(member, accepted, value, path, field)


def _faults_of(
    member: Member, accepted: set[str], value: Any, path: KeyPath, field: tuple[type[Record], str] | None
) -> Iterator[Fault]:
    kind, limits = member.kind, member.constraints
    origin = get_origin(kind) or kind

    def fault(what: str, bad: Any, refused: bool = True) -> Fault:
        return Fault(what, path, bad, path, refused, field)

    if member.plain:
        yield fault("another word", "no-such-word")
        yield fault("negative", -1)
    elif origin is Literal:
        yield fault("no such choice", NO_NAME)
    elif origin in (int, float):
        step = 1 if origin is int else 1e-3
        for limit, sign in (("ge", -1), ("le", 1)):
            if limit in limits:
                yield fault(f"beyond {limit} {limits[limit]}", limits[limit] + sign * step)
        for limit in ("gt", "lt"):
            if limit in limits:
                yield fault(f"at {limit} {limits[limit]}", origin(limits[limit]))
        yield fault("huge", 10**17, "le" in limits or "lt" in limits)
        yield fault("negative", -(10**17), "ge" in limits or "gt" in limits)
        if origin is float:
            yield fault("huge fraction", 1e300, "le" in limits or "lt" in limits)
        else:
            yield fault("a whole number written as a fraction", Written("3.0"), "fraction" not in accepted)
    elif origin is str:
        pattern = limits.get("pattern")
        yield fault("empty text", "", bool(limits.get("min_length")) or (pattern and not re.search(pattern, "")))
        for what, text in (
            ("no such name", NO_NAME),
            ("a sentence", "two words § and\nanother line"),
            ("long", "x" * 100_000),
        ):
            refused = (pattern and not re.search(pattern, text)) or len(text) > limits.get("max_length", 10**9)
            yield fault(what, text, bool(refused))
    elif origin in (tuple, list):
        yield from _list_faults(member, value, path, field)
    elif origin is dict:
        yield from _mapping_faults(member, value, path, field)
    elif is_record(kind) and isinstance(value, dict) and _is_meant(kind, value):
        yield from _record_faults(kind, value, path)


def _list_faults(member: Member, value: Any, path: KeyPath, field: Any) -> Iterator[Fault]:
    limits, element = member.constraints, get_args(member.kind)[0]
    if limits.get("min_length"):
        yield Fault("empty list", path, [], path, True, field)
    if isinstance(value, list | tuple) and value:
        yield Fault("the same twice", path, [*value, value[0]], path, False, field)
        if "max_length" in limits:
            yield Fault("too long", path, [value[0]] * (limits["max_length"] + 1), path, True, field)
        # Every element has the same type: mistakes in the first one show all kinds; records may differ in what they
        # set.
        for position, item in enumerate(value[:1] if not isinstance(value[0], dict) else value):
            yield from faults(element, item, (*path, position), field)


def _mapping_faults(member: Member, value: Any, path: KeyPath, field: Any) -> Iterator[Fault]:
    keys, values = get_args(member.kind)
    if member.constraints.get("min_length"):
        yield Fault("empty mapping", path, {}, path, True, field)
    if not isinstance(value, dict) or not value:
        return
    first = next(iter(value))
    for what, bad in (
        ("empty key", ""),
        ("odd key", "§ two\nwords"),
        ("long key", "x" * 1000),
        ("unknown key", NO_NAME),
    ):
        refused = any(
            (pattern := part.constraints.get("pattern")) and not re.search(pattern, bad) for part in members(keys)
        )
        renamed = {(bad if key == first else key): item for key, item in value.items()}
        yield Fault(what, path, renamed, (*path, bad), bool(refused), field)
    for key, item in value.items():
        yield from faults(values, item, (*path, key), field)


def _is_meant(record: type[Record], value: dict[str, Any]) -> bool:
    """Whether a member of a discriminated union is the one that ``value`` chooses."""
    return all(
        value[name_in_file(record, name)] in get_args(info.annotation)
        for name, info in record.model_fields.items()
        if name in ("family", "method", "kind") and get_origin(info.annotation) is Literal and info.is_required()
    )


def _record_faults(record: type[Record], value: dict[str, Any], path: KeyPath) -> Iterator[Fault]:
    yield Fault("unknown key", path, {**value, "no_such_key": 1}, (*path, "no_such_key"), True, None)
    for name, info in record.model_fields.items():
        key = name_in_file(record, name)
        own = (*path, key)
        if info.is_required():
            yield Fault("missing", own, ABSENT, own, True, (record, name))
        annotation = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
        yield from faults(annotation, value.get(key, ABSENT), own, (record, name))


# ------------------------------------------------------------------------------------------------------ the file


def one_of_every_kind(every: Iterable[tuple[Whole, Fault]]) -> list[tuple[Whole, Fault]]:
    """Of faults and what they are put into: each kind of mistake at least once, each field at least once."""
    seen: set[Any] = set()
    chosen = []
    for whole, fault in every:
        kind, place = fault.what.split(":")[0], fault.field or fault.key
        if kind not in seen or place not in seen:
            seen |= {kind, place}
            chosen.append((whole, fault))
    return chosen


def mutated(value: Any, fault: Fault) -> Any:
    """A copy of ``value`` with the fault in it."""

    def change(inner: Any, path: KeyPath) -> Any:
        if not path:
            return fault.value
        if isinstance(inner, dict):
            changed = {**inner, path[0]: change(inner.get(path[0], ABSENT), path[1:])}
            return {key: item for key, item in changed.items() if item is not ABSENT}
        return [change(item, path[1:]) if position == path[0] else item for position, item in enumerate(inner)]

    return change(value, fault.at)


def render(value: Any) -> tuple[str, dict[KeyPath, int]]:
    """YAML in block style, and on which line each key stands."""
    lines: list[str] = []
    where: dict[KeyPath, int] = {}

    def scalar(item: Any) -> str:
        return item.text if isinstance(item, Written) else json.dumps(item, ensure_ascii=False)

    def block(item: Any, path: KeyPath, indent: str) -> None:
        parts = item.items() if isinstance(item, dict) else enumerate(item)
        for key, inner in parts:
            mark = f"{json.dumps(key, ensure_ascii=False)}:" if isinstance(item, dict) else "-"
            where[(*path, key)] = len(lines) + 1
            if isinstance(inner, dict | list | tuple) and inner:
                if mark == "-":  # an element begins where its first key or element stands
                    where[(*path, key)] += 1
                lines.append(f"{indent}{mark}")
                block(inner, (*path, key), indent + "  ")
            else:
                lines.append(f"{indent}{mark} {scalar(inner)}")

    where[()] = 1
    if isinstance(value, dict | list) and value:
        block(value, (), "")
    else:
        lines.append(scalar(value))
    return "\n".join(lines) + "\n", where


def line_of(where: dict[KeyPath, int], key: KeyPath) -> int:
    """The line of the deepest part of ``key`` that stands in the file."""
    while key not in where:
        key = key[:-1]
    return where[key]


# ---------------------------------------------------------------------------------------------------- the answer


def shown(key: KeyPath) -> str:
    """A key as messages show it: odd and long ones are quoted, and here cut off before messages cut them."""
    parts = []
    for part in key:
        plain = isinstance(part, int) or (part.isprintable() and 0 < len(part) <= 80 and " " not in part)
        parts.append(str(part) if plain else repr(part)[:50])
    return ".".join(parts)


def wrong_answer(message: str, path: Path, where: dict[KeyPath, int], fault: Fault) -> str | None:
    """What is wrong with the message with which a file is refused: it must be one line and name the file, and the line
    and the key where the schema alone decides."""
    if not message.isprintable() or len(message) > 2100:
        return f"is no single line: {message[:300]!r}"
    if fault.refused:
        expected = f"{path}:{line_of(where, fault.key)}: {shown(fault.key)}"
        if not message.startswith(expected):
            return f"should begin with {expected}, says {message}"
    elif not message.startswith(f"{path}:"):
        return f"does not name the file: {message}"
    return None
