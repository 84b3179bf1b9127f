"""The pool: what depends on a failed run fails, a full disk stops the study, and a killed worker is said."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from collabench.core.errors import RunFailed, StorageError
from collabench.core.resources import Resources
from collabench.storage.files import read_json
from collabench.storage.results import InProgress
from collabench.study import pool
from collabench.study.runner import Outcome
from tests.support.studies import CLEAN_TABLE, study_in

TWO_CORES = Resources(2, (), 1, "for a test")


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path / "project")


@pytest.fixture
def trained_by(monkeypatch):
    """Replace the training processes: ``train(run id)`` gives a run's outcome, or raises. The ids, in order."""

    def replace(study, train) -> list[str]:
        asked: list[str] = []
        runs = {run.id: run for run in study.plan.runs}

        class Here(Executor):
            def __init__(self, workers, context, initializer, arguments):
                assert workers == TWO_CORES.workers

            def submit(self, function, *arguments):
                future: Future[Outcome] = Future()
                if not arguments:
                    return future
                *_, run_id, _ = arguments
                asked.append(run_id)
                try:
                    state = train(run_id)
                    reason = "diverged"
                    run = runs[run_id]
                    future.set_result(Outcome(**{state: [(run, reason) if state == "failed" else run]}))
                except Exception as error:
                    future.set_exception(error)
                return future

        monkeypatch.setattr(pool, "ProcessPoolExecutor", Here)
        return asked

    return replace


def test_every_run_is_trained_once_and_after_what_it_requires(study, trained_by):
    asked = trained_by(study, lambda run_id: "trained")
    heard = []
    outcome = pool.train(study, study.plan.runs, TWO_CORES, finished=lambda run, state: heard.append((run.id, state)))
    assert sorted(asked) == sorted(run.id for run in study.plan.runs)
    assert [run.id for run in outcome.trained] == [run_id for run_id, _ in heard]
    position = {run_id: index for index, run_id in enumerate(asked)}
    for run in study.plan.runs:
        assert all(position[other.id] < position[run.id] for other in run.requires())


def test_what_requires_a_failed_run_fails_without_being_tried(study, trained_by):
    ensembles = [run for run in study.plan.runs if run.configuration.names["method"] == "ensemble-2"]
    doomed = ensembles[0]
    culprit = doomed.requires()[1].id
    asked = trained_by(study, lambda run_id: "failed" if run_id == culprit else "trained")
    heard = {}
    outcome = pool.train(study, study.plan.runs, TWO_CORES, finished=lambda run, state: heard.update({run.id: state}))
    assert {run.id: reason for run, reason in outcome.failed} == {
        culprit: "diverged",
        doomed.id: f"needs {culprit}, which failed",
    }
    assert doomed.id not in asked and heard[doomed.id] == heard[culprit] == "failed"
    assert len(outcome.trained) == len(study.plan.runs) - 2, "the others go on"
    assert ensembles[1].id in {run.id for run in outcome.trained}


@pytest.mark.parametrize("state", ["done", "linked"])
def test_what_is_there_already_counts_as_that(study, trained_by, state):
    trained_by(study, lambda run_id: state)
    outcome = pool.train(study, study.plan.runs, TWO_CORES)
    assert getattr(outcome, state) and not outcome.trained


def test_a_full_disk_stops_the_study_and_no_run_is_blamed(study, trained_by):
    def train(run_id: str) -> str:
        raise StorageError("artifacts: cannot be written (No space left on device); free some space")

    asked = trained_by(study, train)
    with pytest.raises(StorageError, match="free some space"):
        pool.train(study, study.plan.runs, TWO_CORES)
    assert len(asked) <= TWO_CORES.workers, "nothing further is begun"


def test_a_dead_worker_is_said_with_the_run_and_the_remedy(study, trained_by):
    def train(run_id: str) -> str:
        raise BrokenProcessPool("terminated abruptly")

    trained_by(study, train)
    with pytest.raises(RunFailed, match=r"^a training process died \(.*\) while there ran: \S+-s\d+, \S+-s\d+; start"):
        pool.train(study, study.plan.runs, TWO_CORES)


def test_only_the_runs_asked_for_are_trained(study, trained_by):
    one = study.plan.runs[0]
    assert trained_by(study, lambda run_id: "trained") == []
    asked = trained_by(study, lambda run_id: "trained")
    pool.train(study, [one], TWO_CORES)
    assert asked == [one.id]


@pytest.mark.slow
def test_real_processes_train_a_study(study, tmp_path):
    study.inputs.prepare_for(study.plan.runs, lambda line: None)
    outcome = pool.train(study, study.plan.runs, TWO_CORES)
    assert len(outcome.trained) == len(study.plan.runs) and not outcome.failed
    assert {status.state for status in study.statuses()} == {"done"}


@pytest.mark.slow
def test_a_run_that_diverges_fails_its_dependants_in_real_processes(tmp_path):
    broken = CLEAN_TABLE.replace("[short], methods: [individual]", "[broken], methods: [individual, ensemble-2]")
    study = study_in(tmp_path / "project", (CLEAN_TABLE, broken))
    study.inputs.prepare_for(study.plan.runs, lambda line: None)
    outcome = pool.train(study, study.plan.runs, TWO_CORES)
    failed = {run.id for run, _ in outcome.failed}
    assert failed == {run.id for run in study.plan.runs if run.configuration.names["recipe"] == "broken"}
    assert any("not finite" in reason for _, reason in outcome.failed)
    assert {run.id for run in outcome.trained} == {run.id for run in study.plan.runs} - failed


@pytest.mark.slow
@pytest.mark.parametrize("started", ["first", "last"])
def test_a_worker_killed_from_outside_leaves_a_study_that_resumes(tmp_path, started):
    """And it is noticed at once, not when the next run ends: the other is in the midst of its 2,000 epochs."""
    long = ("{epochs: 2, batch_size: 20, learning_rate: 0.1}", "{epochs: 2000, batch_size: 20, learning_rate: 0.1}")
    study = study_in(tmp_path / "project", long)
    study.inputs.prepare_for(study.plan.runs, lambda line: None)
    begun = study.workspace.state / "progress"

    def kill() -> None:
        while len(processes := [read_json(path, InProgress).pid for path in begun.glob("*.json")]) < TWO_CORES.workers:
            time.sleep(0.05)
        os.kill(min(processes) if started == "first" else max(processes), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RunFailed, match="start again to resume"):
        pool.train(study, study.plan.runs, TWO_CORES)
    assert not list((study.workspace.state / "failures").glob("*")), "no run is blamed"
    assert {status.state for status in study.statuses()} == {"todo"}
