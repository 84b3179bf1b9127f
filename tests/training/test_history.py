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


def test_checkpoints_that_take_long_to_write_are_written_less_often(time):
    clock = Clock(60)
    time[0] += 60
    assert clock.checkpoint_due()
    with clock.writing_checkpoint():
        time[0] += 4
    time[0] += 199
    assert not clock.checkpoint_due()
    time[0] += 1
    assert clock.checkpoint_due()
    with clock.writing_checkpoint():
        time[0] += 0.1
    time[0] += 60
    assert not clock.checkpoint_due()  # the slowest one counts


def test_no_interval_means_a_checkpoint_at_every_step(time):
    clock = Clock(0)
    with clock.writing_checkpoint():
        time[0] += 4
    assert clock.checkpoint_due()
