"""What a backbone's stages put out, reduced to one vector per image: the input of small layers beside the backbone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from collabench.models import Backbone
from collabench.models._pooling import global_average


@dataclass(frozen=True)
class StageOutput:
    """``width``: channels, or features; ``is_map``: has a height and a width; ``is_trained``: the stage has weights."""

    width: int
    is_map: bool
    is_trained: bool


def pooled(x: Tensor) -> Tensor:
    """(B, C) from maps (B, C, H, W), by global average pooling, or from features (B, C)."""
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
            outputs[stage] = StageOutput(x.shape[1], x.ndim == 4, trained)
    backbone.train(training)
    return outputs
