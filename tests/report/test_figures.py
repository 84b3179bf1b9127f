"""Figures are the same files, however many processes draw them."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from collabench.report.pages import differences, figures
from collabench.stats import Paired


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


def _row(method, difference, holm_p=None):
    found = difference and Paired(
        n=6, difference=difference, sd=1.0, low=difference - 1, high=difference + 1, level=0.95, t=1.0, p=0.1,
        sign_flip_p=None, sign_flip_minimum=0.03, effect_size=1.0, detectable=1.0,
    )  # fmt: skip
    return SimpleNamespace(method=method, difference=found, holm_p=holm_p)


def _with_differences(**errors):
    """Six seeds whose errors (percent) differ from the baseline's 10 by the given amounts."""
    rows = [_row("base", None), *(_row(name, value, 0.01 if value < -1 else 0.9) for name, value in errors.items())]
    results = {
        row.method: {
            seed: SimpleNamespace(last=SimpleNamespace(error=(10 + errors.get(row.method, 0)) / 100))
            for seed in range(6)
        }
        for row in rows
    }  # fmt: skip
    return SimpleNamespace(rows=rows, baseline="base", family_size=4), results


def test_differences_are_sorted_with_both_intervals_and_a_mark_for_what_survives():
    condition, results = _with_differences(a=1.0, b=-2.0, c=-0.5)
    (axes,) = differences.differences(condition, results, {}).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    wide, plain = (lines.get_segments() for lines in axes.collections)
    assert [segment[:, 0].tolist() for segment in plain] == [[-3.0, -1.0], [-1.5, 0.5], [0.0, 2.0]]
    assert all(w[0, 0] < p[0, 0] and w[1, 0] > p[1, 0] for w, p in zip(wide, plain, strict=True))
    filled, hollow = axes.lines[-2:]
    assert filled.get_xdata().tolist() == [-2.0] and hollow.get_xdata().tolist() == [-0.5, 1.0]
    assert hollow.get_markerfacecolor() == "white"


def test_sets_of_losses_have_a_dot_matrix_beside_the_plot():
    condition, results = _with_differences(a=1.0, b=-2.0, c=-0.5, d=0.2, other=3.0)
    sets = {"a": ("out",), "b": ("mid",), "c": ("out", "mid"), "d": ("out", "mid", "kernel_x")}
    _, matrix = differences.differences(condition, results, sets).axes
    assert [label.get_text() for label in matrix.get_xticklabels()] == ["mid", "out", "kernel-x"]
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["b", "c", "d", "a", "other"]
    empty, full = ({tuple(map(int, dot)) for dot in line.get_xydata()} for line in matrix.lines)
    assert full == {(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), (1, 3)}
    assert len(full) + len(empty) == 3 * 4  # no dots for a method that is no set of losses
    assert len(differences.differences(condition, results, {"a": ("out",)}).axes) == 1


def test_heads_are_summarised_by_means_over_runs():
    heads = {0: (0.10, 0.12), 1: (0.12, 0.16)}
    results = {
        seed: SimpleNamespace(
            heads=[SimpleNamespace(error=e) for e in errors], averaged_heads=SimpleNamespace(error=0.08 + 0.02 * seed)
        )
        for seed, errors in heads.items()
    }
    row = SimpleNamespace(method="one", heads=object(), seeds=(0, 1))
    axes = figures.spread_over_heads(SimpleNamespace(rows=[row]), {"one": results}).axes[0]
    ranges, deployed, averaged = (lines.get_segments()[0][:, 0].tolist() for lines in axes.collections)
    assert ranges == pytest.approx([11, 14])
    assert deployed == pytest.approx([11 - 2**0.5, 11 + 2**0.5]) and averaged == pytest.approx([9 - 2**0.5, 9 + 2**0.5])


def test_a_logarithmic_axis_is_named():
    condition, results = _condition([0.01, 0.02], 20, 1)
    axes = figures.training_curves(condition, results).axes[0]
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "test error %, log axis")
