"""Checks of declared levels, margins and family sizes."""

from __future__ import annotations

import math

from collabench.core.errors import ConfigError


def check_level(level: float) -> None:
    """Raise :class:`ConfigError` unless ``level`` is a coverage between 0.5 and 1, such as 0.95."""
    if not 0.5 < level < 1:
        raise ConfigError(f"level: a coverage between 0.5 and 1 is needed, such as 0.95, got {level}")


def check_positive(value: float, what: str) -> None:
    """Raise :class:`ConfigError` unless ``value`` is finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{what}: a number above 0 is needed, got {value}")


def check_family(family: int) -> None:
    """Raise :class:`ConfigError` unless ``family`` is a whole number of hypotheses, at least one."""
    if family != int(family) or family < 1:
        raise ConfigError(f"family: a whole number of hypotheses, at least 1, is needed, got {family}")
