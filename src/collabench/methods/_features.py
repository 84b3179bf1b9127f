"""What a backbone's stages put out, reduced to one vector per image: the input of small layers beside the backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from collabench.models import Backbone
from collabench.models.pooling import global_average


@dataclass(frozen=True)
class StageOutput:
    """``shape``: of one image's output, (C, H, W) for a map; ``is_trained``: the stage has weights."""

    shape: tuple[int, ...]
    is_trained: bool

    @property
    def is_map(self) -> bool:
        """Has a height and a width."""
        return len(self.shape) == 3

    @property
    def width(self) -> int:
        """Length of the vector that :func:`pooled` gives."""
        return self.shape[0] if self.is_map else math.prod(self.shape)


def pooled(x: Tensor) -> Tensor:
    """(B, C) from maps (B, C, H, W), by global average pooling, or from anything else, flattened."""
    return global_average(x) if x.ndim == 4 else x.flatten(1)


def stage_outputs(backbone: Backbone, input_shape: tuple[int, int, int]) -> dict[str, StageOutput]:
    """What every stage but the classifier puts out for images of ``input_shape``; leaves the backbone as it was."""
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
    """Width of the penultimate features (B, width); leaves the backbone as it was.

    Raises ValueError (one line) where the classifier takes something else: a method that adds layers there needs
    vectors.
    """
    *_, (stage, output) = stage_outputs(backbone, input_shape).items()
    if len(output.shape) != 1:
        raise ValueError(f"the method needs penultimate features that are vectors; the stage {stage}, before the "
                         "classifier, "
                         f"puts out {'x'.join(map(str, output.shape))}: let pooling and flattening end the stages "
                         f"before {backbone.stage_names[-1]}")  # fmt: skip
    return output.width
