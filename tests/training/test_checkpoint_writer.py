"""Checkpoints are written while training goes on: what is written, in which order, and how errors surface."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from collabench.core.errors import StorageError
from collabench.training import checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """Writing waits for it."""
    opened, save = threading.Event(), checkpoint.save

    def waiting(path: Path, state: dict) -> None:
        assert opened.wait(30)
        save(path, state)

    monkeypatch.setattr(checkpoint, "save", waiting)
    return opened


def state(value: float) -> dict:
    return {"run_id": "r", "weights": {"w": torch.full((3,), value)}, "history": {"losses": [value]}, "none": None}


def test_what_is_written_is_the_state_at_that_time(tmp_path, gate):
    path, live = tmp_path / "c.ckpt", state(1.0)
    with checkpoint.Writer(path) as writer:
        writer.write(live)
        assert writer.is_busy and not path.exists(), "the caller goes on"
        live["weights"]["w"].fill_(2.0)
        live["history"]["losses"].append(2.0)
        gate.set()
    found = checkpoint.load(path, CPU)
    assert found["weights"]["w"].tolist() == [1.0] * 3 and found["history"]["losses"] == [1.0]
    assert not writer.is_busy and writer.slowest > 0


def test_the_next_one_waits_for_the_last(tmp_path, gate):
    path = tmp_path / "c.ckpt"
    with checkpoint.Writer(path) as writer:
        writer.write(state(1.0))
        timer = threading.Timer(0.2, gate.set)
        timer.start()
        writer.write(state(2.0))
        assert gate.is_set() and path.exists()
    assert checkpoint.load(path, CPU)["weights"]["w"].tolist() == [2.0] * 3


def test_an_error_surfaces_at_the_next_write_and_at_the_end(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "c.ckpt"
    with pytest.raises(StorageError, match="cannot be written") as next_write, checkpoint.Writer(path) as writer:
        writer.write(state(1.0))
        writer.write(state(2.0))
        pytest.fail("the first one's error came")
    with pytest.raises(StorageError, match="cannot be written") as end, checkpoint.Writer(path) as writer:
        writer.write(state(1.0))
    assert str(next_write.value) == str(end.value)


def test_another_error_is_not_hidden_and_the_writer_still_waits(tmp_path, gate):
    path = tmp_path / "c.ckpt"
    timer = threading.Timer(0.2, gate.set)
    with pytest.raises(KeyError), checkpoint.Writer(path) as writer:
        writer.write(state(1.0))
        timer.start()
        raise KeyError
    assert checkpoint.load(path, CPU)["weights"]["w"].tolist() == [1.0] * 3
