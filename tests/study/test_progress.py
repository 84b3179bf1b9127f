"""What a person who waits sees, on a terminal and in a log."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from collabench.storage.files import write_json
from collabench.storage.locks import holding
from collabench.storage.results import RESULT, Failure, InProgress
from collabench.study import progress
from collabench.study.progress import Watcher, watch, watching
from tests.support.fabricated import measured_of, result_of
from tests.support.studies import study_in


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path / "project")


def finish(study, run, seconds: float = 9.0) -> None:
    """As a training process leaves a run: what it cost, then the result."""
    cost = measured_of(run, train_seconds=seconds - 1, evaluate_seconds=1.0)
    write_json(study.workspace.measured_file(run), cost)
    write_json(study.workspace.folder(run) / RESULT, result_of(run, 0.1))


def fail(study, run) -> None:
    failure = Failure(run_id=run.id, label=run.configuration.label, reason="diverged", when="2026-01-01T00:00:00+00:00")
    write_json(study.workspace.failure(run.id), failure)


def record(study, run, **values) -> None:
    standing = {"epoch": 1, "epochs": 4, "error": 0.125, "images_per_second": 1234.5, "seconds_left": 30.0, "pid": 1}
    values = {"run_id": run.id, "label": run.configuration.label, "seed": run.seed, **standing, **values}
    write_json(study.workspace.progress(run.id), InProgress(**values), durable=False)


def training(study, run):
    """A process trains the run: its lock is held."""
    return holding(study.workspace.lock(run.id), run.id, lambda line: None)


def test_a_line_for_each_run_says_which_of_how_many_epoch_error_speed_and_time_left(study):
    runs = study.plan.runs
    watcher = Watcher(study, 2)
    with training(study, runs[2]):
        record(study, runs[2])
        first, second = watcher.lines()
    assert first == f"0 of {len(runs)} runs done, about {progress._duration((30 + 40 * (len(runs) - 1)) / 2)} left"
    assert second == (
        "  epoch 1/4, error 12.5 %, 30 s left: "
        f"run 3 of {len(runs)}, {runs[2].configuration.label}, seed {runs[2].seed}, 1,234 images/s"
    )


def test_before_the_first_evaluation_there_is_no_error(study):
    run = study.plan.runs[0]
    with training(study, run):
        record(study, run, epoch=0, error=None)
        lines = Watcher(study, 1).lines()
    assert "error –" in lines[1] and "time left unknown until a run has begun" in lines[0]


def test_the_time_left_follows_what_each_configuration_took(study):
    """Runs that ended while this watched count with their own time, the others with the mean of all."""
    runs = study.plan.runs
    watcher = Watcher(study, 2)
    finish(study, runs[0], seconds=10.0)
    same = [run for run in runs[1:] if run.configuration.id == runs[0].configuration.id]
    other = next(run for run in runs if run.configuration.id != runs[0].configuration.id)
    finish(study, other, seconds=20.0)
    others = [run for run in runs if run.configuration.id == other.configuration.id and run is not other]
    unknown = len(runs) - 2 - len(same) - len(others)
    expected = (10 * len(same) + 20 * len(others) + 15 * unknown) / 2
    assert watcher.study_line() == f"2 of {len(runs)} runs done, about {progress._duration(expected)} left"


def test_the_time_left_counts_what_passes_around_the_runs(study):
    """Runs of a second in processes that take nine to start: the clock says so, their own times don't."""
    now = [0.0]
    watcher = Watcher(study, 2, clock=lambda: now[0])
    now[0] = 100.0
    assert "time left unknown" in watcher.study_line()  # data are prepared: no run's time
    for number, run in enumerate(study.plan.runs[:2], 1):
        finish(study, run, seconds=1.0)
        now[0] = 100.0 + 5 * number
        ahead = len(study.plan.runs) - number
        assert watcher.study_line().endswith(f"about {progress._duration(10 * ahead / 2)} left")


def test_runs_that_were_done_before_say_nothing_about_this_machine(study):
    finish(study, study.plan.runs[0], seconds=1000.0)
    watcher = Watcher(study, 2)
    assert watcher.study_line() == f"1 of {len(study.plan.runs)} runs done, time left unknown until a run has begun"


def test_the_study_lasts_at_least_as_long_as_its_longest_run(study):
    *ended, last = study.plan.runs
    for run in ended:
        finish(study, run)
    watcher = Watcher(study, 8)
    with training(study, last):
        record(study, last, seconds_left=600.0)
        assert "about 10 min 0 s left" in watcher.lines()[0]


def test_failed_runs_are_counted_and_not_waited_for(study):
    *others, last = study.plan.runs
    watcher = Watcher(study, 1)
    for run in others:
        finish(study, run)
    fail(study, last)
    assert watcher.study_line() == f"{len(others)} of {len(others) + 1} runs done, 1 failed, none left to train"


def test_only_the_runs_that_are_waited_for_count(study):
    chosen = study.plan.runs[:2]
    watcher = Watcher(study, 1, chosen)
    finish(study, study.plan.runs[2])
    assert watcher.study_line().startswith("0 of 2 runs done")
    for run in chosen:
        finish(study, run)
    assert watcher.study_line() == "2 of 2 runs done, all trained"


def test_what_a_killed_process_left_is_not_shown(study):
    record(study, study.plan.runs[0])
    study.workspace.progress("half-written").write_text('{"run_id"')
    assert len(Watcher(study, 1).lines()) == 1


def test_while_nothing_is_trained_the_note_says_what_is_done(study):
    watcher = Watcher(study, 1, note=lambda: "downloading cifar10: 12 of 170 MB")
    assert watcher.lines()[1] == "  downloading cifar10: 12 of 170 MB"
    with training(study, study.plan.runs[0]):
        record(study, study.plan.runs[0])
        assert "downloading" not in "\n".join(watcher.lines())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (90_000, "25 h 0 min")],
)
def test_durations_are_written_for_people(seconds, text):
    assert progress._duration(seconds) == text


def for_a_while(seconds: float):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def test_a_log_gets_plain_lines_at_intervals_while_something_changes(study, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.3)
    out, run = io.StringIO(), study.plan.runs[0]
    going = iter([*range(1, 9), *[8] * 8])  # asked every 0.2 s: epochs 1 to 8, then none

    def is_running() -> bool:
        if (epoch := next(going, None)) is not None:
            record(study, run, epoch=epoch, epochs=8)
        return epoch is not None

    with training(study, run):
        watch(Watcher(study, 1), is_running, Console(file=out, force_terminal=False, width=60))
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    epochs = [line.split("epoch ")[1].split("/")[0] for line in lines if "epoch " in line]
    assert len(epochs) >= 2 and epochs[-1] == "8" and len(set(epochs)) == len(epochs), "nothing is said twice"
    assert sum("runs done" in line for line in lines) == len(epochs)
    assert any(line.startswith("  epoch ") and line.endswith("images/s") for line in lines), "lines are whole in a log"


def test_a_terminal_shows_the_lines_in_place_and_clears_them(study):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200, height=30)
    with training(study, study.plan.runs[0]):
        record(study, study.plan.runs[0])
        watch(Watcher(study, 1), for_a_while(1.2), console)
    text = out.getvalue()
    assert "epoch 1/4" in text and "images/s" in text
    assert re.search(r"\x1b\[\d*A|\x1b\[2K", text), "the lines are written over"


def test_what_is_printed_meanwhile_stands_above(study, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.2)
    with watching(Watcher(study, 1)):
        print("a run has ended")
        time.sleep(0.8)
    out = capsys.readouterr().out
    assert out.startswith("a run has ended\n") and "runs done" in out


def test_an_error_in_the_block_ends_the_watching(study):
    import threading

    with pytest.raises(RuntimeError, match="trouble"), watching(Watcher(study, 1)):
        raise RuntimeError("trouble")
    assert "progress" not in {thread.name for thread in threading.enumerate()}
