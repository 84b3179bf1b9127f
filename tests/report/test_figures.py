"""Figures are the same files, however many processes draw them."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from collabench.report.pages import figures


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


def _condition(errors, epochs, every):
    """One method with these last errors by seed, evaluated every so many epochs, falling from five points more."""
    curves = [[e + 0.05 * (1 - n / epochs) if n % every == 0 else None for n in range(1, epochs + 1)] for e in errors]
    results = {seed: SimpleNamespace(curves=SimpleNamespace(test_error=curve)) for seed, curve in enumerate(curves)}
    return SimpleNamespace(rows=[SimpleNamespace(method="one")], baseline=None), {"one": results}


@pytest.mark.parametrize(("epochs", "every", "marker"), [(20, 5, "o"), (20, 1, "None")])
def test_curves_show_their_whole_band_and_mark_epochs_where_few_were_evaluated(epochs, every, marker):
    axes = figures.training_curves(*_condition([0.30, 0.36, 0.48], epochs, every)).axes[0]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert axes.get_yscale() == "linear" and band.max() > 47.5  # mean 38, standard deviation 9.2, at the last epoch
    assert axes.get_ylim()[0] < band.min() and band.max() < axes.get_ylim()[1]
    assert axes.lines[0].get_marker() == marker
