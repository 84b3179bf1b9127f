"""The arithmetic of this process: ``portable``, with the same bits on every x86-64 processor with AVX2 and FMA, or
``native``, with torch's own operators.

A portable run computes convolutions and matrix products with the project's own loops. Three environment variables
restrict torch, oneDNN and MKL to one instruction set for everything else. These libraries read the variables once, so
they must be set before torch is imported. Importing this module sets them, unless ``COLLABENCH_ARITHMETIC`` is
``native``. A process that imported torch earlier can still compute, but :func:`refusal` says why its results would not
be portable.

Any process can compute native runs. They reach torch's full speed only in a process that was started with
:func:`environment`, without the three variables.
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

#: Environment variable that chooses the arithmetic of a process.
CHOICE = "COLLABENCH_ARITHMETIC"

#: Variables that restrict torch, oneDNN and MKL to one instruction set. With MKL_CBWR's other values, MKL chooses its
#: code by the processor's vendor.
HELD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}

#: Set together with these variables, so that a native child of a portable process removes them again.
_BY_US = "COLLABENCH_HELD"

_REMEDY = (
    "use collabench --arithmetic native, or make ARITHMETIC=native (other run ids; results are compared by statistics)"
)

_late = False


def chosen() -> Arithmetic:
    """Return the arithmetic of this process: portable unless the environment says otherwise.

    Raises ConfigError if the environment contains another word.
    """
    value = os.environ.get(CHOICE) or "portable"
    if value not in get_args(Arithmetic):
        raise ConfigError(f"unknown arithmetic {value!r}: --arithmetic and ${CHOICE} take portable or native")
    return "native" if value == "native" else "portable"


def environment(arithmetic: Arithmetic, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables for a process with this arithmetic, derived from ``base``.

    base: the variables to start from; this process's own by default.
    """
    found = dict(os.environ if base is None else base)
    if found.pop(_BY_US, None):
        for name in HELD:
            found.pop(name, None)
    if arithmetic == "portable":
        found |= HELD | {_BY_US: "1"}
    return found | {CHOICE: arithmetic}


def hold() -> None:
    """Set this process's environment variables for the chosen arithmetic.

    If torch was imported before, this is too late: nothing is set, and :func:`refusal` reports it. A second call
    changes nothing. Raises ConfigError as :func:`chosen`.
    """
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
    """Choose the arithmetic of this process and its children. Raises ConfigError unless it is portable or native."""
    os.environ[CHOICE] = arithmetic
    chosen()
    hold()


def refusal() -> str | None:
    """Return one line on why this process cannot compute portable runs, and what to do; None if it can.

    Imports torch.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"portable arithmetic needs an x86-64 processor, this is {platform.machine()}: {_REMEDY}"
    if missing := missing_instructions():
        return (
            f"portable arithmetic needs the instructions {' and '.join(missing)}, which this processor lacks: {_REMEDY}"
        )
    if chosen() == "native":
        return f"this process was started with {CHOICE}=native: start it without that variable"
    if _late:
        return (
            "torch was imported before collabench, so its arithmetic is this machine's: import collabench first, set "
            f"{' '.join(f'{name}={value}' for name, value in HELD.items())}, or {_REMEDY}"
        )
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX2":
        return f"torch computes with {capability} despite ATEN_CPU_CAPABILITY=avx2: start a new process, or {_REMEDY}"
    return None


def missing_instructions() -> list[str]:
    """Return the instruction sets that portable arithmetic needs and this processor lacks (``AVX2``, ``FMA``).

    The processor itself is asked, so that an emulated processor's answer counts too.
    """
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return [name.upper() for name in ("avx2", "fma") if not features.get(name, False)]


with suppress(ConfigError):  # the command reports a wrong environment variable, in one line
    hold()
