"""Importing this module in a process with ``LD_PRELOAD=libpretend.so`` makes torch see one GPU."""

from __future__ import annotations

import ctypes
import os
from types import SimpleNamespace
from unittest.mock import patch

import torch

_library = ctypes.CDLL(os.environ["LD_PRELOAD"])
_library.pretend_dump.restype = ctypes.c_char_p
_library.pretend_live.restype = ctypes.c_long

#: Bytes of the device, more than any machine has.
MEMORY = 1 << 50

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
    "get_device_capability": lambda device=None: (8, 0),
    "get_device_properties": lambda device=None: SimpleNamespace(
        multi_processor_count=1, uuid="pretended", total_memory=MEMORY
    ),
    "get_arch_list": lambda: ["sm_80", "sm_90"],
    "mem_get_info": lambda device=None: (MEMORY, MEMORY),
    "synchronize": lambda device=None: None,
    "set_sync_debug_mode": lambda mode: _watch_waits(mode),
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


def _watch_waits(mode: str) -> None:
    """As torch's: in mode ``error`` what waits raises. Here the error comes when the mode ends."""
    waits = [name for name in counts() if name.startswith("!")]
    forget()
    if mode == "default" and waits:
        raise RuntimeError(f"called a synchronizing CUDA operation: {waits}")


def live_bytes() -> int:
    """Bytes of the device's memory that tensors hold."""
    return _library.pretend_live()
