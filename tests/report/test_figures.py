"""Figures are the same files, however many processes draw them."""

import os
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from collabench.report import figures


def _figure(number: int, processes: Path) -> Figure | None:
    (processes / str(os.getpid())).touch()
    if number % 5 == 0:
        return None
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().set_title(f"number {number}")
    return figure


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_several_processes_draw_what_one_draws(tmp_path, monkeypatch):
    drawn, tasks = {}, {}
    for cores in ("1", "2"):
        folder, processes = tmp_path / f"figures-{cores}", tmp_path / f"processes-{cores}"
        folder.mkdir()
        processes.mkdir()
        monkeypatch.setenv("COLLABENCH_CORES", cores)
        tasks[cores] = [figures.Task(folder / f"{n}.svg", _figure, (n, processes)) for n in range(17)]
        drawn[cores] = figures.draw(tasks[cores])
        assert (processes / str(os.getpid())).exists() == (cores == "1")
    assert drawn["1"] == drawn["2"] == [n % 5 > 0 for n in range(17)]
    for one, other, exists in zip(tasks["1"], tasks["2"], drawn["1"], strict=True):
        assert one.path.exists() == other.path.exists() == exists
        assert not exists or one.path.read_bytes() == other.path.read_bytes()
