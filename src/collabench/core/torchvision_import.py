"""Import of torchvision, also if its compiled operators do not fit the installed torch.

A torchvision build for another device (for example CUDA wheels with a CPU torch) cannot load its library of operators.
Its import then fails while it registers shapes for two operators that were never declared. Data sets and classification
models need none of the operators. Declaring these two lets the import succeed. Calling them still raises an error,
because they have no implementation.
"""

from __future__ import annotations

from types import ModuleType

_MISSING = "operator torchvision::nms does not exist"
_declared: list[object] = []  # torch removes a declaration when its Library object is collected


def import_torchvision() -> ModuleType:
    """The module ``torchvision``. Raises what its import raises, except if only its operators are missing."""
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
