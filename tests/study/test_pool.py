"""The pool: what depends on a failed run fails, a full disk stops the study, and a killed worker is said."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext

import pytest

from collabench.core.errors import DeviceError, RunFailed, StorageError
from collabench.core.resources import Resources
from collabench.storage.files import read_json
from collabench.storage.results import RESULT, InProgress
from collabench.study import pool
from collabench.study.needs import lease_for
from collabench.study.runner import Outcome
from tests.support.fabricated import write_failure, write_results
from tests.support.studies import CLEAN_TABLE, study_in

TWO_CORES = Resources(2, (), 1, "for a test")


@pytest.fixture
def study(tmp_path):
    return study_in(tmp_path / "project")


@pytest.fixture
def trained_by(monkeypatch):
    """Replace the training processes: ``train(run id)`` gives a run's outcome, or raises. The ids, in order.

    processes: gets a list for each process, of the ids that it was asked for. One that was ended must not be asked.
    """

    def replace(study, train, processes: list[list[str]] | None = None) -> list[str]:
        asked: list[str] = []
        runs = {run.id: run for run in study.plan.runs}

        class Here(Executor):
            def __init__(self, workers, context, initializer, arguments):
                assert workers == 1
                self.asked, self.ended = [], False
                if processes is not None:
                    processes.append(self.asked)

            def shutdown(self, wait=True, **options):
                self.ended = True

            def submit(self, function, *arguments):
                assert not self.ended, "a process that was ended is asked for more"
                future: Future[Outcome] = Future()
                if not arguments:
                    return future
                *_, run_id, _ = arguments
                asked.append(run_id)
                self.asked.append(run_id)
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


def test_runs_that_are_whole_need_no_process_and_are_told_in_one_line(study, trained_by):
    """Not so a run that has left something over, or whose result is damaged: a process sees to it."""
    whole, killed, damaged, *others = study.plan.runs
    write_results(study, [whole, killed, damaged])
    left_over = study.workspace.checkpoint(killed.id)
    left_over.parent.mkdir(parents=True, exist_ok=True)
    left_over.touch()
    (study.workspace.folder(damaged) / RESULT).write_text("damaged")
    asked, said, heard = trained_by(study, lambda run_id: "trained"), [], []
    outcome = pool.train(
        study, study.plan.runs, TWO_CORES, log=said.append, finished=lambda run, state: heard.append((run.id, state))
    )
    assert outcome.done == [whole] and heard[0] == (whole.id, "done")
    assert sorted(asked) == sorted(run.id for run in (killed, damaged, *others))
    assert said == [f"1 of {len(study.plan.runs)} runs already there"]


def test_a_full_disk_stops_the_study_and_no_run_is_blamed(study, trained_by):
    def train(run_id: str) -> str:
        raise StorageError("artifacts: cannot be written (No space left on device); free some space")

    asked = trained_by(study, train)
    with pytest.raises(StorageError, match="free some space"):
        pool.train(study, study.plan.runs, TWO_CORES)
    assert len(asked) <= TWO_CORES.workers, "nothing further is begun"


SHORT = DeviceError("short of memory while it was trained on GPU 0", shortage=True, gpu="0")
BROKEN = DeviceError("the GPU failed while it was trained on GPU 0 (CUDA error: unspecified launch failure)", gpu="0")


@pytest.mark.parametrize("error", [SHORT, BROKEN], ids=["memory", "device"])
def test_a_run_whose_machine_fails_goes_on_in_another_process_and_nothing_else_is_touched(study, trained_by, error):
    unlucky, left = study.plan.runs[1].id, [error]

    def train(run_id: str) -> str:
        if run_id == unlucky and left:
            raise left.pop()
        return "trained"

    processes: list[list[str]] = []
    asked, said = trained_by(study, train, processes), []
    outcome = pool.train(study, study.plan.runs, TWO_CORES, log=said.append)
    assert not outcome.failed and len(outcome.trained) == len(study.plan.runs)
    tried = [one for one in processes if unlucky in one]
    assert len(tried) == 2 and unlucky in (tried[0][-1], tried[1][-1]), "it failed as its process's last"
    assert {run_id: asked.count(run_id) for run_id in asked if asked.count(run_id) > 1} == {unlucky: 2}
    assert said == [f"{error}; it resumes in another process"]
    assert not list(study.workspace.state.glob("failures/*"))


def test_a_process_that_linux_killed_for_memory_is_a_shortage(study, trained_by, monkeypatch):
    unlucky, killed = study.plan.runs[1].id, [7]
    monkeypatch.setattr(pool, "kills_for_memory", lambda: killed[0])

    def train(run_id: str) -> str:
        if run_id == unlucky and killed == [7]:
            killed[0] += 1
            raise BrokenProcessPool("terminated abruptly")
        return "trained"

    asked, said = trained_by(study, train), []
    outcome = pool.train(study, study.plan.runs, TWO_CORES, log=said.append)
    assert len(outcome.trained) == len(study.plan.runs) and asked.count(unlucky) == 2
    assert said == [
        f"short of memory while {unlucky} was trained (the system killed its process); it resumes in another process"
    ]


def test_after_a_shortage_fewer_processes_train(study, trained_by, monkeypatch):
    left, widths = [SHORT], []
    waits = pool.wait

    def watched(pending, **options):
        widths.append(len(pending))
        return waits(pending, **options)

    def train(run_id: str) -> str:
        if left:
            raise left.pop()
        return "trained"

    monkeypatch.setattr(pool, "wait", watched)
    trained_by(study, train)
    pool.train(study, study.plan.runs, TWO_CORES, log=lambda line: None)
    assert widths[0] == 2 and set(widths[1:]) == {1}


def test_a_gpu_that_fails_every_time_ends_the_study_with_one_line_and_no_run_is_blamed(study, trained_by):
    def train(run_id: str) -> str:
        raise BROKEN

    trained_by(study, train)
    with pytest.raises(DeviceError, match=r"tried 3 times, .* doctor --gpu .* no run is recorded as failed") as caught:
        pool.train(study, study.plan.runs[:1], TWO_CORES, log=lambda line: None)
    assert "\n" not in str(caught.value)


def test_a_run_that_finds_no_memory_alone_is_not_tried_again(study, trained_by):
    def train(run_id: str) -> str:
        raise SHORT

    asked = trained_by(study, train)
    one = Resources(1, (), 1, "for a test")
    with pytest.raises(DeviceError, match="no other run was trained beside it; it needs a machine or a GPU with more"):
        pool.train(study, study.plan.runs[:1], one, log=lambda line: None)
    assert len(asked) == 1


def test_a_failed_gpu_is_chosen_last(study, trained_by, monkeypatch):
    left, gpus = [BROKEN], []

    def train(run_id: str) -> str:
        if left:
            raise left.pop()
        return "trained"

    trained_by(study, train)
    submit = pool.ProcessPoolExecutor.submit
    monkeypatch.setattr(pool.ProcessPoolExecutor, "submit", lambda *given: gpus.append(given[4].gpus) or submit(*given))
    pool.train(study, study.plan.runs[:1], Resources(4, ("0", "1"), 1, "for a test"), log=lambda line: None)
    assert gpus == [("0", "1"), ("1", "0")]


def test_on_a_gpu_a_process_ends_with_the_run_that_it_trained_and_finds_all_that_is_there(study, trained_by):
    """Until it ends it holds memory of the GPU, and its lease. What is there already needs neither."""
    there = {run.id for run in study.plan.runs[::2]}
    assert len(there) > 2 and len(there) < len(study.plan.runs)
    processes: list[list[str]] = []
    trained_by(study, lambda run_id: "done" if run_id in there else "trained", processes)
    pool.train(study, study.plan.runs, Resources(1, ("0",), 1, "for a test"))
    assert sorted(run_id for one in processes for run_id in one) == sorted(run.id for run in study.plan.runs)
    assert all(set(one[:-1]) <= there for one in processes)
    assert len(processes) <= len(study.plan.runs) - len(there) + 1


@pytest.fixture
def leased(monkeypatch) -> list[int | None]:
    """What processes on a GPU lease, in their order; training itself is replaced. Leases end with their process."""
    held: list[int | None] = []

    def lease(self, need):
        @contextmanager
        def holding():
            held.append(need)
            yield "0"
            held.remove(need)

        return holding()

    def train(self, runs, **options):
        return Outcome(**{"trained" if held else "done": list(runs)})

    monkeypatch.setattr(Resources, "lease", lease)
    monkeypatch.setattr(pool.Runner, "train", train)
    yield held
    pool._held.close()


def test_a_process_on_a_gpu_leases_what_its_run_needs_and_more_after_each_shortage(study, leased):
    run, gpu = study.plan.runs[0], Resources(1, ("0",), 1, "for a test", (80,))
    place = study.workspace.root, study.workspace.profile
    for attempt in range(3):
        assert pool._train(*place, gpu, attempt, run.id, False).trained == [run]
    need = lease_for(study, run.configuration)
    assert leased == [need, 2 * need, 4 * need], "held on until the process ends"


def test_a_run_that_is_there_needs_no_lease_and_one_that_another_process_trained_keeps_none(study, leased, monkeypatch):
    place = study.workspace.root, study.workspace.profile, Resources(1, ("0",), 1, "for a test", (80,)), 0
    monkeypatch.setattr(pool.Runner, "has_to_train", lambda self, run, **options: False)
    assert pool._train(*place, study.plan.runs[0].id, False).done and not leased
    monkeypatch.undo()
    monkeypatch.setattr(pool.Runner, "has_to_train", lambda self, run, **options: True)
    monkeypatch.setattr(Resources, "lease", lambda self, need: nullcontext(leased.append(need)))
    ended = []
    pool._held.callback(lambda: ended.append(True))
    monkeypatch.setattr(pool.Runner, "train", lambda self, runs, **options: Outcome(done=list(runs)))
    assert pool._train(*place, study.plan.runs[0].id, False).done and leased and ended


def test_what_has_to_be_trained(study):
    run, runner = study.plan.runs[0], pool.Runner(study)
    assert runner.has_to_train(run)
    write_failure(study, run, "diverged")
    assert not runner.has_to_train(run) and runner.has_to_train(run, retry_failed=True)
    study.workspace.failure(run.id).unlink()
    folder = study.workspace.folder(run)
    write_results(study, [run])
    assert not runner.has_to_train(run)
    (folder / RESULT).write_text("damaged")
    assert runner.has_to_train(run)


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
