"""Named random streams.

Every random decision draws from the stream of its own name. Adding a draw in one place therefore changes no number in
another place. Streams that do not depend on the method (``split``, ``noise``, ``order``, ``augmentation``) are the same
for all methods of one seed, so that comparisons are paired.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import torch

Stream = Literal["split", "noise", "init", "order", "augmentation", "dropout", "bootstrap"]


def stream_seed(seed: int, stream: Stream, *context: int | str) -> int:
    """A 63-bit number that depends on the arguments only (not on the machine or on Python's hash)."""
    key = "\x1f".join(["collabench", str(seed), stream, *map(str, context)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def dropout_seed(seed: int, epoch: int, number: int) -> int:
    """Seed of a dropout stream at the beginning of an epoch.

    Stream 0 is the one of a network trained alone. Every further copy of the network has its own stream.
    """
    return stream_seed(seed, "dropout", epoch, *([number] if number else []))


def torch_generator(seed: int, stream: Stream, *context: int | str) -> torch.Generator:
    """A new generator, on the CPU, at the beginning of the named stream."""
    generator = torch.Generator()
    generator.manual_seed(stream_seed(seed, stream, *context))
    return generator


def numpy_generator(seed: int, stream: Stream, *context: int | str) -> np.random.Generator:
    """As :func:`torch_generator`, with NumPy's counter-based Philox generator, which is the same on every machine."""
    return np.random.Generator(np.random.Philox(key=stream_seed(seed, stream, *context)))
