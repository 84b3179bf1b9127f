"""The record of a run in training: curves, learning rate, progress, and when a checkpoint is due."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from collabench.config.sections import RecipeConfig


@dataclass
class Progress:
    """Progress of a run. ``error``: test error of the last evaluation (0 to 1), None before the first one."""

    epoch: int
    epochs: int
    error: float | None
    images_per_second: float
    seconds_left: float


def ends_early(recipe: RecipeConfig, history: History) -> bool:
    """Whether ``early_stopping`` ends training after the epochs of ``history``."""
    errors = [(error, epoch) for epoch, error in enumerate(history.validation_error) if error is not None]
    if recipe.early_stopping is None or not errors:
        return False
    (_, best), (_, last) = min(errors), errors[-1]
    return last == history.epoch - 1 and last - best >= recipe.early_stopping.patience


@dataclass
class History:
    """Everything that accumulates over a run, as plain numbers. It is part of every checkpoint."""

    epoch: int = 0
    step: int = 0
    loss_sums: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    test_error: list[float | None] = field(default_factory=list)
    validation_error: list[float | None] = field(default_factory=list)
    test_top5_error: list[float | None] = field(default_factory=list)
    selected: dict[str, Any] | None = None
    selected_epoch: int | None = None
    corruption: list[float] = field(default_factory=list)
    nondeterministic: list[str] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    resumed: int = 0


class _Writer(Protocol):
    """Of a :class:`collabench.training.checkpoint.Writer`, what a clock asks."""

    slowest: float

    @property
    def is_busy(self) -> bool: ...


class Clock:
    """Tells when a checkpoint or a progress report is due.

    Writing checkpoints takes at most 2 % of the time: the next one is due ``checkpoint_seconds`` after the last one
    began, or 50 times as long as the slowest one took to write, whichever is later, and not while one is being written.
    0 seconds: one is due at every step.
    """

    def __init__(self, checkpoint_seconds: float) -> None:
        self._checkpoint_seconds = checkpoint_seconds
        self._last_checkpoint = self._last_report = time.monotonic()

    def checkpoint_due(self, writer: _Writer) -> bool:
        """Whether ``writer`` should write a checkpoint now. If it is, the time until the next one begins."""
        now, seconds = time.monotonic(), self._checkpoint_seconds
        if seconds and (writer.is_busy or now - self._last_checkpoint < max(seconds, 50 * writer.slowest)):
            return False
        self._last_checkpoint = now
        return True

    def report_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_report < 1.0:
            return False
        self._last_report = now
        return True
