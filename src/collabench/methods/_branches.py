"""Branches that share their first stages, for methods that need the shared output or the features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from collabench.methods.song2018 import DEFAULT_SPLIT_POINTS
from collabench.models import Backbone
from collabench.models.tree import INPUT, TrainingTree, check_splits, simple_tree


def default_split_points(backbone: Backbone) -> tuple[str, ...]:
    """Those of Song & Chai's split points that the backbone has, in order; none if it has other stages."""
    fitting = (points for points in DEFAULT_SPLIT_POINTS if set(points) <= set(backbone.stage_names))
    return next(fitting, ())


def split_point(backbone: Backbone, split_after: str | None) -> str:
    """``split_after``, or the default: the last of Song & Chai's split points that the backbone has.

    Raises ValueError (one line) if the backbone has no such stage.
    """
    if split_after is None:
        points = default_split_points(backbone)
        if not points:
            choices = ", ".join((INPUT, *backbone.stage_names[:-1]))
            raise ValueError(f"no default split point for this backbone: name one in split_after, from {choices}")
        return points[-1]
    check_splits(backbone.stage_names, simple_tree(split_after, 2))
    return split_after


class BranchOutputs(NamedTuple):
    """shared: output of the shared stages. features: (heads, B, features) before the classifiers. logits: (heads, B,
    m)."""

    shared: Tensor
    features: Tensor
    logits: Tensor


def run_branches(tree: TrainingTree, images: Tensor) -> BranchOutputs:
    """All outputs of one pass through a tree with a single split. The shared stages run once, so that their running
    statistics are updated once."""
    shared = tree.shared(images)
    branches = [branch.segment for branch in tree.root.branches]
    features = [branch.features(shared) for branch in branches]
    logits = [branch.classify(x) for branch, x in zip(branches, features, strict=True)]
    return BranchOutputs(shared, torch.stack(features), torch.stack(logits))
