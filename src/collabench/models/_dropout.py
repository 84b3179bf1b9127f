"""Dropout that draws from a generator of its own instead of torch's global one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from collabench import distributed


class SeededDropout(nn.Module):
    """In training, each element is zeroed with ``probability`` and the others divided by ``1 - probability``.

    ``generator`` lies on the training device; the trainer sets it (:func:`set_dropout_generator`) and reseeds it.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout lies in [0, 1), not {probability}")
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if self.generator is None:
            raise RuntimeError("SeededDropout has no generator; call set_dropout_generator before training")
        kept = distributed.rand(x.shape, self.generator, x.device) >= self.probability
        return x * kept / (1 - self.probability)


def set_dropout_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let every :class:`SeededDropout` of a network draw from ``generator``.

    Where a method trains several copies of a network they draw in turn: the first copy's masks are not those of the network
    trained alone.
    """
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.generator = generator
