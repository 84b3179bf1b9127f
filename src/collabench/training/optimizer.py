"""The optimizer of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from collabench.config.sections import RecipeConfig


class _SGD(torch.optim.SGD):
    """torch's SGD without the wrappers around its methods for compiled optimizers, which import the compiler (more than
    a second)."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: RecipeConfig) -> torch.optim.SGD:
    """The optimizer for a network's trainable parameters."""
    return _SGD(
        [p for p in parameters if p.requires_grad] or [nn.Parameter(torch.zeros(1))],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        foreach=True,  # updates all parameters in a few calls, with the same bits as one by one
    )
