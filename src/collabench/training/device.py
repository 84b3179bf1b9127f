"""Device, precision and determinism of a training process."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from collabench.config.sections import RecipeConfig
from collabench.core import arithmetic, resources
from collabench.core.errors import ConfigError


def choose_device(wanted: str) -> torch.device:
    """``auto``: CUDA if torch finds a device, else the CPU. Raises ConfigError if ``cuda`` is requested but not
    available."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: cuda is asked for, but {resources.seen()}; write device: cpu or auto")
    return torch.device(wanted)


def type_of(device: torch.device) -> Literal["cpu", "cuda"]:
    """The device's type as it is recorded in results."""
    return "cuda" if device.type == "cuda" else "cpu"


def prepare_process(device: torch.device, *, compiles: bool = False) -> None:
    """Fix what would otherwise depend on the machine's state: threads, deterministic algorithms, float32 arithmetic.

    On a CPU one process uses one thread. Several processes are faster than one process with several threads, and the
    number of threads can change the last bit of results.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if device.type == "cpu":
        torch.set_num_threads(1)
    if compiles:
        torch.use_deterministic_algorithms(
            True, warn_only=True
        )  # also tells the compiler and imports it, which takes more than a second
    else:
        torch.set_deterministic_debug_mode("warn")
    # torch sets this through a property of the module, which its types omit.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # costs time; nothing here reads such memory
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def is_portable(recipe: RecipeConfig, device: torch.device) -> bool:
    """Whether runs of this recipe on this device use the project's own convolutions and matrix products."""
    return recipe.arithmetic == "portable" and device.type == "cpu"


def check_execution(recipe: RecipeConfig, device: torch.device) -> None:
    """Raise ConfigError where this process cannot compute as the recipe says on this device, or where the recipe's
    precision or compilation would only slow training down."""
    if device.type != "cpu":
        return
    if is_portable(recipe, device) and (problem := arithmetic.refusal()):
        raise ConfigError(problem)
    if recipe.precision == "bfloat16" and not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        raise ConfigError(
            "precision: bfloat16 would be about ten times slower than float32 on this CPU, which has no bfloat16 "
            "arithmetic; write precision: float32 or train on a GPU"
        )
    if recipe.compile:
        raise ConfigError(
            f"compile: {str(recipe.compile).lower()} costs every run a minute of compilation and gains less than a "
            "tenth on a CPU (docs/performance.md); write compile: false or train on a GPU"
        )


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which losses are computed."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def computing(recipe: RecipeConfig, device: torch.device) -> AbstractContextManager:
    """The context of one training step, or of one batch in evaluation.

    CUDA graphs write to the same memory in every context, so results that are kept longer must be copied.
    """
    if recipe.compile == "cuda-graphs":
        torch.compiler.cudagraph_mark_step_begin()
    return autocast(recipe.precision, device)


@contextmanager
def watch_determinism() -> Iterator[list[str]]:
    """Collect the names of operations that torch reports as nondeterministic. Other warnings are passed on."""
    found: list[str] = []
    show = warnings.showwarning

    def collect(message: Warning | str, *arguments: Any, **options: Any) -> None:
        text = str(message)
        if "deterministic" in text:
            name = text.split(" does not", 1)[0].splitlines()[0]
            if name not in found:
                found.append(name)
        else:
            show(message, *arguments, **options)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".*deterministic.*")
        warnings.showwarning = collect
        yield found


class PeakMemory:
    """Peak memory of a section of work, in bytes.

    On CUDA it is the device's own count. On Linux it is the process's resident set, whose high-water mark is reset at
    the start.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
                self._resets = True
            except OSError:
                self._resets = False

    def read(self) -> int | None:
        """Bytes since the start; None if the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if not self._resets:
            return None
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None


def describe(device: torch.device) -> str:
    """The device's name: GPU model, or CPU model with its number of logical processors."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} logical processors, {torch.backends.cpu.get_cpu_capability()}"


def versions(portable: bool = False, families: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what computes the numbers, and torch's set of instructions; with the compiler of portable loops if a
    run has them, and with timm if it has one of its networks. families: of the run's models."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    if torch.version.hip:
        found["rocm"] = torch.version.hip
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    for package in ("collabench", "numpy", "torchvision", "scikit-learn", *(("llvmlite",) if portable else ()),
                    *(("timm",) if "timm" in families else ())):  # fmt: skip
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
