"""Scratch memory of the convolutions, which every batch uses again."""

from __future__ import annotations

import torch
from torch import Tensor

_workspace: dict[str, Tensor] = {}


def scratch(name: str, size: int) -> Tensor:
    """Memory for ``size`` numbers, the same again and again: fresh memory would come from the system, and cost as much as what is
    written to it."""
    found = _workspace.get(name)
    if found is None or found.numel() < size:
        with torch.inference_mode(False):  # or only evaluation could write to it from now on
            found = _workspace[name] = torch.empty(size)
    return found[:size]
