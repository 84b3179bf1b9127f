"""With this folder on its path, every Python process that has the pretended GPU sees it as soon as it imports torch.

So commands can be run as on a machine with one GPU, and so can the processes that they start. $PRETENDED_GPUS is the
number of GPUs; $PRETENDED_ROCM makes torch a build for this version of ROCm.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


class _AfterTorch(importlib.abc.MetaPathFinder):
    """Finds torch where it is, and has the device imported after it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_pretend(module: ModuleType) -> None:
            run(module)
            if rocm := os.environ.get("PRETENDED_ROCM"):  # AMD's GPUs have the names of CUDA's in torch
                module.version.hip = rocm
            else:
                module.version.cuda = "13.0"
            from tests.support.pretended_gpu import device

            assert device.MEMORY

        spec.loader.exec_module = run_and_pretend  # type: ignore[method-assign]
        return spec


if "libpretend" in os.environ.get("LD_PRELOAD", ""):
    sys.meta_path.insert(0, _AfterTorch())
