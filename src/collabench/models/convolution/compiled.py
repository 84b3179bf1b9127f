"""Compilation of loops in LLVM's intermediate representation to functions of this process, and the cache of machine
code.

There are two instruction sets: ``x86-64-v3`` (AVX2 and FMA, vector registers of 8 lanes) and ``x86-64-v4`` (AVX-512,
16 lanes). The machine code for an instruction set is the same on every processor, because the compiler knows nothing
else about the processor. Tests override the choice by setting ``COLLABENCH_LANES`` to 8 or 16.

Machine code is cached in a file. The file's name is a digest of this package's source code, the function's name and
sizes, the number of lanes, and the versions of llvmlite and LLVM.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
from llvmlite import binding, ir

#: Number of lanes → LLVM's name of the instruction set.
PROCESSORS = {8: "x86-64-v3", 16: "x86-64-v4"}

_NEEDED = {8: ("avx2", "fma"), 16: ("avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512cd")}


@cache
def lanes() -> int:
    """Return the number of float32 lanes of a vector register: 16 if the processor has AVX-512, else 8.

    Raises ValueError if COLLABENCH_LANES is set to anything but 8 or 16.
    """
    asked = os.environ.get("COLLABENCH_LANES")
    if asked not in (None, "8", "16"):
        raise ValueError(f"COLLABENCH_LANES is {asked!r}; it must be 8 or 16")
    if asked:
        return int(asked)
    features = binding.get_host_cpu_features()
    return 16 if all(features.get(name, False) for name in _NEEDED[16]) else 8


def function(write: Callable[..., ir.Module], *sizes: int) -> Callable[..., None]:
    """Return the compiled function ``write.__name__`` of the module that ``write(lanes, *sizes)`` returns.

    The function takes addresses and 64-bit integers. It releases the GIL, so that other threads run meanwhile.
    """
    return _function(write, lanes(), sizes)


@cache
def _function(write: Callable[..., ir.Module], width: int, sizes: tuple[int, ...]) -> Callable[..., None]:
    asked = f"{write.__name__} {width} {sizes} {llvmlite.__version__} {binding.llvm_version_info}"
    name = hashlib.sha256(f"{_digest_of_sources()} {asked}".encode()).hexdigest()[:24]
    code = _kept(name)
    if code is None:
        code = _machine_code(write(width, *sizes), width)
        _keep(name, code)
    library = _jit()
    builder = binding.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(write.__name__)
    resources = builder.link(library, name)
    address = resources[write.__name__]
    _alive.append(resources)
    return _caller(address, write)


_alive: list[Any] = []


def _caller(address: int, write: Callable[..., ir.Module]) -> Callable[..., None]:
    arguments = [ctypes.c_int64] * write.arguments  # type: ignore[attr-defined]
    return ctypes.CFUNCTYPE(None, *arguments)(address)


@cache
def _initialised() -> None:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


@cache
def _jit() -> Any:
    _initialised()
    return binding.create_lljit_compiler()


def _target(width: int) -> Any:
    _initialised()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    return target.create_target_machine(cpu=PROCESSORS[width], features="", opt=2, reloc="pic", codemodel="large")


def _optimised(module: ir.Module, width: int) -> tuple[Any, Any]:
    machine = _target(width)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    tuning = binding.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = False  # the loops are already written with vectors
    builder = binding.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(parsed, builder)
    return machine, parsed


def _machine_code(module: ir.Module, width: int) -> bytes:
    machine, parsed = _optimised(module, width)
    return machine.emit_object(parsed)


def assembly(write: Callable[..., ir.Module], width: int, *sizes: int) -> str:
    """Return the assembly code of a function for ``width`` lanes, to be read by people and tests."""
    machine, parsed = _optimised(write(width, *sizes), width)
    return machine.emit_assembly(parsed)


@cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _folder() -> Path | None:
    """Return the folder of cached machine code: ``__pycache__`` beside this file, else one in the user's cache.

    It is the first of the two that is writable; None if neither is.
    """
    folders = [Path(__file__).with_name("__pycache__")]
    with suppress(RuntimeError):  # the user has no home folder
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collabench")
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


def _kept(name: str) -> bytes | None:
    folder = _folder()
    try:
        content = (folder / f"{name}.loops").read_bytes() if folder else b""
    except OSError:
        return None
    code, digest = content[:-32], content[-32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(name: str, code: bytes) -> None:
    folder = _folder()
    if folder is None:
        return
    try:
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(code + hashlib.sha256(code).digest())
        os.replace(file.name, folder / f"{name}.loops")
    except OSError:
        return
