"""Which arithmetic this process computes with: ``portable``, the same bits on every x86-64 processor with AVX2 and
FMA, or ``native``.

A portable run's convolutions and products are the project's own loops. What is left to torch is held to one set of
instructions by three variables of the environment, which torch, oneDNN and MKL read once. So they have to be there
before torch is imported: importing this module sets them, unless ``COLLABENCH_ARITHMETIC`` is ``native``. A process
that imported torch before can compute, but :func:`refusal` says why its results would not be portable.

``native`` may be computed in any process; where torch is to be as fast as it can, the process starts with
:func:`environment`.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, get_args

from collabench.core.errors import ConfigError

Arithmetic = Literal["portable", "native"]

#: The environment's variable that says which of both a process is for.
CHOICE = "COLLABENCH_ARITHMETIC"

#: What holds torch, oneDNN and MKL to one set of instructions. MKL's other values choose by the processor's vendor.
HELD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}

#: Present where this module set the variables, so that a native process beneath a portable one takes them away again.
_BY_US = "COLLABENCH_HELD"

_REMEDY = (
    "use collabench --arithmetic native, or make ARITHMETIC=native (other run ids; results are compared by statistics)"
)

_late = False


def chosen() -> Arithmetic:
    """What this process is for; portable unless the environment says otherwise."""
    value = os.environ.get(CHOICE) or "portable"
    if value not in get_args(Arithmetic):
        raise ConfigError(f"{value!r} is no arithmetic: --arithmetic and ${CHOICE} take portable or native")
    return "native" if value == "native" else "portable"


def environment(arithmetic: Arithmetic, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process that is to compute in this way, made of ``base`` (by default this process's
    own)."""
    found = dict(os.environ if base is None else base)
    if found.pop(_BY_US, None):
        for name in HELD:
            found.pop(name, None)
    if arithmetic == "portable":
        found |= HELD | {_BY_US: "1"}
    return found | {CHOICE: arithmetic}


def hold() -> None:
    """Set this process's environment to what was chosen, and note whether torch had been imported before. Does
    nothing twice."""
    global _late
    arithmetic = chosen()
    wanted = environment(arithmetic)
    before = {name: os.environ.get(name) for name in HELD}
    if before == {name: wanted.get(name) for name in HELD}:
        return
    if "torch" in sys.modules:
        _late = arithmetic == "portable"
        return
    for name in (*HELD, _BY_US):
        if name in wanted:
            os.environ[name] = wanted[name]
        else:
            os.environ.pop(name, None)


def choose(arithmetic: str) -> None:
    """Choose what this process and its children are for. Raises ConfigError for a word other than portable, native."""
    os.environ[CHOICE] = arithmetic
    chosen()
    hold()


def refusal() -> str | None:
    """One line that says why this process cannot compute portably, and what to do; None if it can. Imports torch."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"portable arithmetic needs an x86-64 processor, this is {platform.machine()}: {_REMEDY}"
    if missing := missing_instructions():
        return (
            f"portable arithmetic needs the instructions {' and '.join(missing)}, which this processor lacks: {_REMEDY}"
        )
    if chosen() == "native":
        return f"this process was started with {CHOICE}=native: start it without"
    if _late:
        return (
            "torch was imported before collabench, so its arithmetic is this machine's: import collabench first, set "
            f"{' '.join(f'{name}={value}' for name, value in HELD.items())}, or {_REMEDY}"
        )
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX2":
        return f"torch computes with {capability} in spite of ATEN_CPU_CAPABILITY=avx2: start anew, or {_REMEDY}"
    return None


def missing_instructions() -> list[str]:
    """Of those that portable arithmetic needs, as the processor itself tells them (an emulated one too)."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return [name.upper() for name in ("avx2", "fma") if not features.get(name, False)]


with suppress(ConfigError):  # a mistake in the environment is said by the command, in one line
    hold()
