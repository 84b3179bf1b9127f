"""Scratch memory of the loops. It is reused for every batch, and each thread has its own."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}


_rooms = _Rooms()


def room(name: str, size: int) -> int:
    """Return the address of scratch memory for ``size`` float32 values, whose content is undefined.

    Calls with the same name reuse the same memory. Newly allocated memory would come from the operating system, which
    costs as much time as writing to it.
    """
    found = _rooms.found.get(name)
    if found is None or found.numel() < size:
        found = _rooms.found[name] = torch.empty(size)
    return found.data_ptr()


def clear() -> None:
    """Free the scratch memory of this thread."""
    _rooms.found.clear()
