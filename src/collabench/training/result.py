"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from collabench.storage.results import Measured, Result


@dataclass
class Trained:
    """A finished run, not yet written: ``result`` lacks the files' checksums."""

    result: Result
    measured: Measured
    logits: dict[str, Tensor]
    weights: dict[str, Tensor] | None
