"""When a checkpoint is due."""

from __future__ import annotations

import pytest

from collabench.training import history
from collabench.training.history import Clock


@pytest.fixture
def time(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(history.time, "monotonic", lambda: now[0])
    return now


class Writer:
    slowest, is_busy = 0.0, False


def test_checkpoints_that_take_long_to_write_are_written_less_often(time):
    clock, writer = Clock(60), Writer()
    time[0] += 60
    assert clock.checkpoint_due(writer)
    writer.slowest = 4.0
    time[0] += 199
    assert not clock.checkpoint_due(writer)
    time[0] += 1
    assert clock.checkpoint_due(writer) and not clock.checkpoint_due(writer)


def test_no_checkpoint_is_due_while_one_is_written(time):
    clock, writer = Clock(60), Writer()
    writer.is_busy = True
    time[0] += 1000
    assert not clock.checkpoint_due(writer)
    writer.is_busy = False
    assert clock.checkpoint_due(writer)


def test_no_interval_means_a_checkpoint_at_every_step(time):
    clock, writer = Clock(0), Writer()
    writer.slowest, writer.is_busy = 4.0, True
    assert clock.checkpoint_due(writer) and clock.checkpoint_due(writer)
