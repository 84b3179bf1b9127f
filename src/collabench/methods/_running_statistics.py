"""Passes that leave the running statistics of batch normalisation alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def fixed_running_statistics(network: nn.Module) -> Iterator[None]:
    """Within the block batch normalisation uses the batch's statistics and does not update its running statistics, so
    that a second pass over a batch does not count twice."""
    tracking = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
