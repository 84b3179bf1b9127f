"""Importing this module in a process with ``LD_PRELOAD=libpretend.so`` makes torch see one GPU."""

from __future__ import annotations

import ctypes
import os
from unittest.mock import patch

import torch

_library = ctypes.CDLL(os.environ["LD_PRELOAD"])
_library.pretend_dump.restype = ctypes.c_char_p
_library.pretend_live.restype = ctypes.c_long

#: What torch would ask the CUDA runtime, answered.
_ANSWERS = {
    "is_available": lambda: True,
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "get_device_name": lambda device=None: "pretended GPU",
    "current_device": lambda: 0,
    "is_bf16_supported": lambda *_, **__: True,
    "is_initialized": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: 1,
}
for _name, _answer in _ANSWERS.items():
    patch.object(torch.cuda, _name, _answer).start()


def forget() -> None:
    """Set all counts to zero."""
    _library.pretend_clear()


def counts() -> dict[str, int]:
    """What was called, and how often. Names that begin with ``!`` make the host wait for the device."""
    lines = _library.pretend_dump().decode().splitlines()
    return {name: int(number) for name, number in (line.rsplit("\t", 1) for line in lines)}


def live_bytes() -> int:
    """Bytes of the device's memory that tensors hold."""
    return _library.pretend_live()
