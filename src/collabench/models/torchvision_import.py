"""torchvision, also where its compiled operators do not fit the installed torch.

A torchvision build made for another device (CUDA wheels beside a CPU torch, say) cannot load its operator library, and
then its import fails while it registers shapes for two operators that were never declared. Data sets and classification
models need none of the operators. Declaring those two lets the import go through; calling them still fails loudly, as
they have no implementation.
"""

from __future__ import annotations

from types import ModuleType

_MISSING = "operator torchvision::nms does not exist"
_declared: list[object] = []  # torch forgets a declaration when its Library object is collected


def import_torchvision() -> ModuleType:
    """The module ``torchvision``. Raises what its import raises, except where only its operators are missing."""
    try:
        import torchvision
    except RuntimeError as error:
        if _MISSING not in str(error) or _declared:
            raise
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        import torchvision
    return torchvision
