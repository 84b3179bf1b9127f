"""Outputs of a backbone's stages, reduced to one vector per image: the input of a method's additional layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collabench.models import Backbone
from collabench.models.pooling import global_average


@dataclass(frozen=True)
class StageOutput:
    """``shape``: of one image's output, (C, H, W) for a map. ``is_trained``: the stage has weights."""

    shape: tuple[int, ...]
    is_trained: bool

    @property
    def is_map(self) -> bool:
        """Whether the output has a height and a width."""
        return len(self.shape) == 3

    @property
    def width(self) -> int:
        """Length of the vector that :func:`pooled` gives."""
        return self.shape[0] if self.is_map else math.prod(self.shape)


def pooled(x: Tensor) -> Tensor:
    """Vectors (B, C) from maps (B, C, H, W) by global average pooling; any other shape is flattened."""
    return global_average(x) if x.ndim == 4 else x.flatten(1)


def stage_outputs(backbone: Backbone, input_shape: tuple[int, int, int]) -> dict[str, StageOutput]:
    """The output of every stage but the classifier for images of ``input_shape``. The backbone stays unchanged."""
    training = backbone.training
    backbone.eval()
    x = torch.zeros(1, *input_shape, device=next(backbone.parameters()).device)
    outputs = {}
    with torch.no_grad():
        for stage in backbone.stage_names[:-1]:
            x = backbone.run((stage,), x)
            trained = any(True for path in backbone.stages[stage] for _ in backbone.module_at(path).parameters())
            outputs[stage] = StageOutput(tuple(x.shape[1:]), trained)
    backbone.train(training)
    return outputs


def feature_width(backbone: Backbone, input_shape: tuple[int, int, int]) -> int:
    """Width of the penultimate features (B, width). The backbone stays unchanged.

    Raises ValueError (one line) if the classifier's input is not a vector, which the method's additional layers need.
    """
    *_, (stage, output) = stage_outputs(backbone, input_shape).items()
    if len(output.shape) != 1:
        raise ValueError(f"the method needs penultimate features that are vectors; the stage {stage}, before the "
                         "classifier, "
                         f"puts out {'x'.join(map(str, output.shape))}: let pooling and flattening end the stages "
                         f"before {backbone.stage_names[-1]}")  # fmt: skip
    return output.width
