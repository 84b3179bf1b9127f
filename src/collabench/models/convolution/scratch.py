"""Scratch memory of the loops, which every batch uses again; each thread has its own."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}


_rooms = _Rooms()


def room(name: str, size: int) -> int:
    """The address of memory for ``size`` numbers of 4 bytes, the same again and again: fresh memory would come from
    the system, and cost as much as what is written to it. What it holds is not known."""
    found = _rooms.found.get(name)
    if found is None or found.numel() < size:
        found = _rooms.found[name] = torch.empty(size)
    return found.data_ptr()


def clear() -> None:
    """Give this thread's memory back."""
    _rooms.found.clear()
