"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """``average = decay * average + (1 - decay) * now``, of every parameter and running statistic of a network.

    It begins with the initial weights. Whole numbers (batches that a normalisation has seen) are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._share = 1 - decay
        self._own = [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
        self._average = [tensor.clone() for tensor in self._own]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network after an update of its weights."""
        pairs = list(zip(self._average, self._own, strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in real], [own for _, own in real], self._share)
        for average, own in pairs:
            if not average.is_floating_point():
                average.copy_(own)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block the network has the averaged weights."""
        kept = [tensor.clone() for tensor in self._own]
        self.use()
        try:
            yield
        finally:
            _copy(kept, self._own)

    def use(self) -> None:
        """Give the network the averaged weights for good."""
        _copy(self._average, self._own)

    def state(self) -> list[Tensor]:
        return self._average

    def load_state(self, state: Sequence[Tensor]) -> None:
        _copy(state, self._average)


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for old, new in zip(target, source, strict=True):
        old.copy_(new)
