"""Training one run: the loop, evaluation, checkpoints, device and precision. Knows no method by name."""

from __future__ import annotations

from collabench.training.loop import Trained, make_context, train_run

__all__ = ["Trained", "make_context", "train_run"]
