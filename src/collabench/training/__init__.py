"""Training of one run: the loop, evaluation, checkpoints, device and precision. It knows no method by name."""

from __future__ import annotations

from collabench.training.context import make_context
from collabench.training.loop import train_run
from collabench.training.result import Trained

__all__ = ["Trained", "make_context", "train_run"]
