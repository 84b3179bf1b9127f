"""What pydantic finds wrong with a value, in plain words: what would be right, and what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from collabench.config.fields import PATTERNS
from collabench.config.yaml_file import shorten

_NUMBERS = ("int_type", "int_parsing", "int_from_float", "int_parsing_size", "float_type", "float_parsing")

#: The type of an error → what the value must be.
_MUST = {
    **dict.fromkeys(_NUMBERS, "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list, in square brackets"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must have keys, as in {key: value}"),
    "finite_number": "must be a finite number",
}

#: The same for errors with a limit, which stands in the error's context.
_WITHIN = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
}


def must(error: Mapping[str, Any]) -> str:
    """What would be right: of one entry of a ``ValidationError``'s ``errors()``."""
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    if kind in ("too_short", "too_long"):
        few = kind == "too_short"
        return f"must have at {'least' if few else 'most'} {entries(context['min_length' if few else 'max_length'])}"
    if kind == "string_pattern_mismatch" and context["pattern"] in PATTERNS:
        return PATTERNS[context["pattern"]]
    if kind in _WITHIN:
        return _WITHIN[kind].format(**{name: _number(value) for name, value in context.items()})
    said = str(error["msg"]).removeprefix("Value error, ")
    # this one a validator says in pydantic's words (core/record.py)
    return _MUST["int_type"] if said == "Input should be a valid integer" else _MUST.get(kind, said)


def alternatives(errors: Sequence[Mapping[str, Any]]) -> str:
    """The same of a value that fits none of several types."""
    said = list(dict.fromkeys(map(must, errors)))
    return ", or ".join([said[0], *(text.removeprefix("must be ") for text in said[1:])])


def found(error: Mapping[str, Any]) -> str:
    """What is there instead, in brackets; empty where the message of :func:`must` says it."""
    value = error["input"]
    if isinstance(value, str):
        with suppress(ValueError):
            if error["type"] in _NUMBERS:
                float(value)
                return f" (it says {shorten(value)}: remove the quotes)"
    if isinstance(value, dict) or (isinstance(value, list) and error["type"] == "value_error"):
        return ""
    said = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else shorten(value)
    return f" (it says {said})"


def near_key(name: str | int, known: Sequence[str]) -> str | None:
    """The key that a key which nothing reads was probably meant for."""
    return next(iter(get_close_matches(str(name), known, n=1, cutoff=0.7)), None)


def unknown(name: str | int, known: Sequence[str]) -> str:
    """What to say of a key that nothing reads."""
    near = near_key(name, known)
    asks = f" (did you mean {near}?)" if near else ""
    return f"unknown key {shorten(name)}{asks}; keys that would be right: {', '.join(known)}"


def entries(count: int) -> str:
    """A number of entries of a list."""
    return f"{count} {'entry' if count == 1 else 'entries'}"


def _number(value: object) -> object:
    """A limit as people write it: without the decimals of a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
