"""How numba compiles loops: once for this machine, where there is a folder to keep the result in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

#: Sums and products may become one instruction; a zero's sign doesn't matter.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


def compiled(function: Callable[..., Any]) -> Any:
    """A function of arrays and numbers, compiled when it is first called and kept on disk beside its file, or in numba's folder in
    the user's home. Where neither may be written to, every process compiles for itself."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)


#: The same for a function that becomes part of its callers: numbers that these name are then known to the compiler.
inlined = njit(inline="always", **_OPTIONS)
