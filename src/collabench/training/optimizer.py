"""The optimizer of a recipe."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from collabench.config.sections import RecipeConfig


class _SGD(torch.optim.SGD):
    """torch's SGD without the wrappers around its methods for compiled optimizers, which import the compiler (more than
    a second)."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)


class _AdamW(torch.optim.AdamW):
    """torch's AdamW, likewise."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)


class _PortableAdamW(_AdamW):
    """AdamW with the same bits on every processor.

    torch's square root is MKL's, which is not correctly rounded and differs between processors. Its ``rsqrt`` is a
    square root and a division of the processor, both correctly rounded, so that here ``1 / rsqrt(v)`` stands for
    ``sqrt(v)``. The count of steps is a plain number.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override] # no closure: nothing here has one
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            for parameter in trained:
                state = self.state[parameter]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter))
                state["step"] += 1
            self._update(group, trained, [self.state[parameter] for parameter in trained])

    def _update(self, group: dict[str, Any], trained: list[Tensor], states: list[dict[str, Any]]) -> None:
        if not trained:
            return
        (first, second), rate = group["betas"], group["lr"]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_mul_(trained, 1 - rate * group["weight_decay"])
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        lengths = torch._foreach_rsqrt(squares)
        torch._foreach_reciprocal_(lengths)
        torch._foreach_div_(lengths, [math.sqrt(1 - second ** state["step"]) for state in states])
        torch._foreach_add_(lengths, group["eps"])
        torch._foreach_addcdiv_(trained, means, lengths, [-rate / (1 - first ** state["step"]) for state in states])


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: RecipeConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer for a network's trainable parameters."""
    trained = [p for p in parameters if p.requires_grad] or [nn.Parameter(torch.zeros(1))]
    # foreach: all parameters are updated in a few calls, with the same bits as one by one.
    if recipe.optimizer == "adamw":
        portable = recipe.arithmetic == "portable" and trained[0].device.type == "cpu"
        return (_PortableAdamW if portable else _AdamW)(
            trained,
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.eps,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )
    return _SGD(
        trained,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale the gradients so that their length, over all parameters that have one, is at most ``largest``."""
    torch.nn.utils.clip_grad_norm_(parameters, largest, foreach=True)
