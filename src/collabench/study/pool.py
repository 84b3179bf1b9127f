"""A pool of training processes, which run a study without Snakemake in plan order, as runs become ready."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from collabench.config.configuration import Run
from collabench.core.device_errors import kills_for_memory
from collabench.core.errors import ConfigError, DeviceError, Log, RunFailed
from collabench.core.processes import end_with_parent
from collabench.core.resources import Resources
from collabench.core.text import counted
from collabench.study.needs import lease_for
from collabench.study.runner import Outcome, Runner
from collabench.study.study import Study, load_study

#: How often a run is tried, in a process of its own each time, where memory is short or a GPU fails.
ATTEMPTS = 3

_held = ExitStack()


@cache
def _study(root: Path, profile: str) -> Study:
    """This process's study."""
    return load_study(root, profile, planned=True)


def _train(root: Path, profile: str, resources: Resources, attempt: int, run_id: str, retry_failed: bool) -> Outcome:
    study = _study(root, profile)
    run = next((run for run in study.plan.runs if run.id == run_id), None)
    if run is None:
        raise ConfigError(
            f"{study.workspace.params}: was changed while the study began, it no longer has {run_id}; start again"
        )
    runner = Runner(study)
    if resources.gpus and runner.has_to_train(run, retry_failed=retry_failed):
        _held.enter_context(resources.lease(lease_for(study, run.configuration, attempt)))
    outcome = runner.train([run], device=resources.device, retry_failed=retry_failed, log=partial(print, flush=True))
    if not _ends_process(outcome):
        _held.close()  # another process had it trained meanwhile
    return outcome


def _ends_process(outcome: Outcome) -> bool:
    """Whether a process on a GPU must end with this outcome: its lease, and what it holds of the GPU, end with it."""
    return bool(outcome.trained or outcome.failed)


def train(
    study: Study,
    runs: Sequence[Run],
    resources: Resources,
    *,
    retry_failed: bool = False,
    finished: Callable[[Run, str], None] = lambda run, state: None,
    log: Log = print,
) -> Outcome:
    """Train ``runs`` in up to ``resources.workers`` processes with one thread each.

    On GPUs every run that is trained has a process of its own, which leases the memory that it needs of one GPU. A run
    that is there already leases nothing. A run starts when all runs that it requires are available, and fails if one of
    them failed. ``finished`` is called for each run with its
    state: done, trained, linked or failed.

    A process that is short of memory, or whose GPU fails, ends; where memory runs out altogether, Linux kills it. Its
    run resumes in another process: on another GPU if there is one, and beside fewer processes after a shortage.

    Raises RunFailed if a worker process is killed from outside; StorageError if the disk is full or read-only, and
    DeviceError if a run finds no memory alone or was tried :data:`ATTEMPTS` times (both after the runs in progress have
    ended).
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    outcome = Outcome()
    wanted, failed = {run.id for run in runs}, set[str]()
    over = _add_those_there(Runner(study), runs, outcome, finished, log)
    waiting = [run for run in runs if run.id not in over]
    attempts = Counter[str]()
    most, killed = resources.workers, kills_for_memory()
    pending: dict[Future[Outcome], tuple[Run, ProcessPoolExecutor]] = {}
    idle: list[ProcessPoolExecutor] = []
    context = multiprocessing.get_context("spawn")
    with ExitStack() as processes:
        try:
            while waiting or pending:
                for run in list(waiting):
                    if len(pending) >= most:
                        break
                    required = [other.id for other in run.requires() if other.id in wanted]
                    broken = [other for other in required if other in failed]
                    if broken:
                        waiting.remove(run)
                        failed.add(run.id)
                        outcome.failed.append((run, f"needs {broken[0]}, which failed"))
                        finished(run, "failed")
                    elif all(other in over for other in required):
                        waiting.remove(run)
                        # The first action of a child: importing its libraries takes seconds, and it must not outlive
                        # this process meanwhile.
                        process = idle.pop() if idle else processes.enter_context(
                            ProcessPoolExecutor(1, context, end_with_parent, (os.getpid(),))
                        )  # fmt: skip
                        place = (study.workspace.root, study.workspace.profile, resources, attempts[run.id])
                        pending[process.submit(_train, *place, run.id, retry_failed)] = run, process
                if not pending:
                    continue
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    run, process = pending[future]
                    try:
                        result = future.result()
                    except (DeviceError, BrokenProcessPool) as end:
                        now = kills_for_memory()
                        if isinstance(end, DeviceError):
                            error = end
                        elif now > killed:
                            error = DeviceError(
                                f"short of memory while {run.id} was trained (the system killed its process)",
                                shortage=True,
                            )
                        else:
                            raise
                        killed = now
                        del pending[future]
                        process.shutdown(wait=False)  # with it end its lease and what it holds of the GPU
                        attempts[run.id] += 1
                        check_attempts(error, attempts[run.id], alone=error.shortage and most == 1)
                        if error.shortage:
                            most = max(1, most - 1)
                        else:
                            resources = resources.with_last(error.gpu)
                        log(f"{error}; it resumes in another process")
                        waiting.insert(0, run)
                        continue
                    del pending[future]
                    if resources.gpus and _ends_process(result):
                        process.shutdown(wait=False)
                    else:
                        idle.append(process)
                    outcome.add(result, run, finished)
                    (failed if result.failed else over).add(run.id)
        # Ctrl-C of a terminal also reaches the children, `kill -INT` does not; the children are not waited for
        except KeyboardInterrupt:
            _end_children()
            raise
        except BrokenProcessPool:
            _end_children()
            running = ", ".join(sorted(run.id for run, _ in pending.values())) or "no run"
            raise RunFailed(
                f"a training process died (killed, or short of memory) while there ran: {running}; start again to "
                "resume"
            ) from None
    return outcome


def _add_those_there(
    runner: Runner, runs: Sequence[Run], outcome: Outcome, finished: Callable[[Run, str], None], log: Log
) -> set[str]:
    """Add the runs that are there already to ``outcome``, without a process for any of them. Returns their ids."""
    there = [run for run in runs if runner.is_there(run)]
    if there:
        log(f"{len(there):,} of {counted(len(runs), 'run')} already there")
    for run in there:
        outcome.done.append(run)
        finished(run, "done")
    return {run.id for run in there}


def _end_children() -> None:
    for child in multiprocessing.active_children():
        child.terminate()


def check_attempts(error: DeviceError, number: int, *, alone: bool) -> None:
    """Raise DeviceError, with the remedy, where a further attempt would meet the same."""
    if not alone and number < ATTEMPTS:
        return
    tried = (
        "no other run was trained beside it" if alone else f"tried {number} times, in a process of its own each time"
    )
    mend = (
        "it needs a machine or a GPU with more memory, or other programs hold it"
        if error.shortage
        else "collabench doctor --gpu examines the GPUs"
    )
    raise DeviceError(f"{error}; {tried}; {mend}; no run is recorded as failed, start again to resume") from None
