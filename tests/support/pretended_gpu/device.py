"""Importing this module in a process with ``LD_PRELOAD=libpretend.so`` makes torch see a GPU, or $PRETENDED_GPUS."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

_library = ctypes.CDLL(os.environ["LD_PRELOAD"])
_library.pretend_dump.restype = ctypes.c_char_p
_library.pretend_live.restype = ctypes.c_long

#: Bytes of the device, more than any machine has.
MEMORY = 1 << 50

#: Environment variable with the number of GPUs of the machine. In this process, each of them is the same memory.
GPUS = "PRETENDED_GPUS"


def _visible() -> list[str]:
    """The GPUs that this process sees, as the driver names them."""
    existing = [str(number) for number in range(int(os.environ.get(GPUS, "1")))]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return existing if named is None else [name for name in named.split(",") if name in existing]


#: What torch would ask the CUDA runtime, answered.
_ANSWERS = {
    "is_available": lambda: bool(_visible()),
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "get_device_name": lambda device=None: "pretended GPU",
    "current_device": lambda: 0,
    "is_bf16_supported": lambda *_, **__: True,
    "is_initialized": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: len(_visible()),
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
# Compilation keeps the state of the default generator.
patch.object(torch._C, "_cuda_getDevice", lambda: 0, create=True).start()
patch.object(torch.cuda, "default_generators", (torch.Generator("cuda"),)).start()


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


# ------------------------------------------------------------------------------------------------------------- NCCL


def _new_group(*given: Any, _torchs: Callable[..., Any] = dist.new_group, **named: Any) -> dist.ProcessGroup:
    """As torch's. A group over NCCL is one over gloo that exchanges copies. As with NCCL, its processes must have a GPU
    each; of two that use the same one, NCCL reports "Duplicate GPU detected"."""
    if named.get("backend") != "nccl":
        return _torchs(*given, **named)
    assert named.pop("device_id") == torch.device("cuda", 0), "each process must see its own GPU alone"
    group = _torchs(*given, **named | {"backend": "gloo"})
    used: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(used, _visible(), group=group)
    if any(len(one) != 1 for one in used) or len({one[0] for one in used}) < len(used):
        raise RuntimeError(f"NCCL: Duplicate GPU detected: {used}")
    _over_nccl.append(group)
    return group


def _exchanging(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation for tensors of the GPU, which only a group over NCCL exchanges."""

    def exchange(tensor: torch.Tensor, *given: Any, group: dist.ProcessGroup | None = None, **named: Any) -> None:
        assert tensor.is_cuda == (group in _over_nccl), "tensors of GPUs go over NCCL, and no others do"
        here = tensor.cpu() if tensor.is_cuda else tensor
        operation(here, *given, group=group, **named)
        if tensor.is_cuda:
            tensor.copy_(here)

    return exchange


_over_nccl: list[dist.ProcessGroup] = []
patch.object(dist, "new_group", _new_group).start()
for _name in ("all_reduce", "broadcast"):
    patch.object(dist, _name, _exchanging(getattr(dist, _name))).start()
