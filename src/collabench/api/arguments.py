"""Arguments of the functions for Python: one line for a value of another kind than the function takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collabench.core.errors import ConfigError


def check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ConfigError unless the value is a whole number in the range, ends included."""
    # bool is a kind of int; numpy's whole numbers have __index__, too
    whole = not isinstance(value, bool) and hasattr(value, "__index__")
    if not whole or int(value) < low or (high is not None and int(value) > high):  # type: ignore[call-overload]
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} {value!r}: must be a whole number {limits}")


def check_texts(name: str, values: object, example: str) -> None:
    """Raise ConfigError unless the value is a list of texts, and not one text, whose letters would be taken."""
    if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name}={values!r}: must be a list of texts, such as {example}")


def check_mapping(name: str, value: object, example: str) -> None:
    """Raise ConfigError unless the value is a mapping."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}={value!r}: must be a mapping, such as {example}")
