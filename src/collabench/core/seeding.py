"""Named random streams.

Every random decision draws from the stream of its own name, so that adding a draw in one place changes no number in
another, and so that everything which does not depend on the method (``split``, ``noise``, ``order``, ``augmentation``)
is the same for all methods of one seed: comparisons are paired.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import torch

Stream = Literal["split", "noise", "init", "order", "augmentation", "dropout", "bootstrap"]


def stream_seed(seed: int, stream: Stream, *context: int | str) -> int:
    """A 63-bit number that depends on every argument and on nothing else (not on the machine, not on Python's hash)."""
    key = "\x1f".join(["collabench", str(seed), stream, *map(str, context)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def dropout_seed(seed: int, epoch: int, number: int) -> int:
    """Where a stream of dropout begins an epoch. Stream 0 is that of a network trained alone; every further copy of the
    network has one of its own."""
    return stream_seed(seed, "dropout", epoch, *([number] if number else []))


def torch_generator(
    seed: int, stream: Stream, *context: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator at the beginning of the named stream."""
    generator = torch.Generator(device=device)
    generator.manual_seed(stream_seed(seed, stream, *context))
    return generator


def numpy_generator(seed: int, stream: Stream, *context: int | str) -> np.random.Generator:
    """As :func:`torch_generator`, from NumPy's counter-based Philox generator (the same on every machine)."""
    return np.random.Generator(np.random.Philox(key=stream_seed(seed, stream, *context)))
