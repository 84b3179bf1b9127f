"""Hierarchical dropout of Fang & Lin 2021: several predictions from one pass of the convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from collabench.models import Backbone
from collabench.models.classifier import HiddenLayer
from collabench.models.dropout import SeededDropout


def hidden_stages(backbone: Backbone) -> tuple[str, ...]:
    """The stages from the first one with a dropout layer to the last one; none in a backbone without dropout."""
    names = backbone.stage_names
    hidden = [
        index
        for index, stage in enumerate(names)
        if any(isinstance(backbone.module_at(path), HiddenLayer) for path in backbone.stages[stage])
    ]
    return names[hidden[0] :] if hidden else ()


def branch_dropout(x: Tensor, dropout: SeededDropout, branches: int, groups: int, shared_masks: bool) -> Tensor:
    """Apply K dropout masks to each group of predictions: (groups B, d) → (groups K B, d).

    The groups have independent masks, or with ``shared_masks`` the same K masks.
    """
    x = torch.unflatten(x, 0, (groups, 1, -1)).expand(-1, branches, -1, -1)
    if dropout.training and dropout.probability > 0:
        drawn = (1 if shared_masks else groups, *x.shape[1:])
        x = x * dropout.kept(drawn, x.device, dim=2) / (1 - dropout.probability)
    return x.flatten(0, 2)


def hierarchical_predictions(
    backbone: Backbone, stages: Sequence[str], x: Tensor, branches: int, shared_masks: bool
) -> Tensor:
    """Logits (K^n, B, m) from the input (B, d) of the first stage with dropout (L_out, eq. 4).

    Each of the n dropout layers multiplies the number of predictions by K. Predictions with the same mask in the first
    layer are adjacent.
    """
    predictions = 1
    for stage in stages:
        for path in backbone.stages[stage]:
            module = backbone.module_at(path)
            if isinstance(module, HiddenLayer):
                x = branch_dropout(module.activations(x), module.dropout, branches, predictions, shared_masks)
                predictions *= branches
            else:
                x = module(x)
    return torch.unflatten(x, 0, (predictions, -1))
