"""A pool of training processes, which run a study without Snakemake in plan order, as runs become ready."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from collabench.config.configuration import Run
from collabench.core.errors import ConfigError, RunFailed
from collabench.core.processes import end_with_parent
from collabench.core.resources import Resources, lease_gpu
from collabench.study.runner import Outcome, Runner
from collabench.study.study import Study, load_study

_held = ExitStack()


@cache
def _study(root: Path, profile: str, resources: Resources) -> Study:
    """This process's study, and the lease of the GPU that the process trains on."""
    if resources.gpus:
        _held.enter_context(lease_gpu(resources.gpus, resources.slots_per_gpu))
    return load_study(root, profile, planned=True)


def _train(root: Path, profile: str, resources: Resources, run_id: str, retry_failed: bool) -> Outcome:
    study = _study(root, profile, resources)
    run = next((run for run in study.plan.runs if run.id == run_id), None)
    if run is None:
        raise ConfigError(
            f"{study.workspace.params}: was changed while the study began, it no longer has {run_id}; start again"
        )
    return Runner(study).train(
        [run], device=resources.device, retry_failed=retry_failed, log=partial(print, flush=True)
    )


def _nothing() -> None:
    pass


def train(
    study: Study,
    runs: Sequence[Run],
    resources: Resources,
    *,
    retry_failed: bool = False,
    finished: Callable[[Run, str], None] = lambda run, state: None,
) -> Outcome:
    """Train ``runs`` in ``resources.workers`` processes with one thread (or one leased GPU) each.

    A run starts when all runs that it requires are available, and fails if one of them failed. ``finished`` is called
    for each run with its state: done, trained, linked or failed. Raises RunFailed if a worker process is killed from
    outside, StorageError if the disk is full or read-only (after the runs in progress have ended).
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    outcome = Outcome()
    waiting, wanted = list(runs), {run.id for run in runs}
    failed: set[str] = set()
    over: set[str] = set()
    pending: dict[Future[Outcome], Run] = {}
    context = multiprocessing.get_context("spawn")
    arguments = (study.workspace.root, study.workspace.profile, resources)
    # The first action of a child: importing its libraries takes seconds, and it must not outlive this process
    # meanwhile.
    with ProcessPoolExecutor(resources.workers, context, end_with_parent, (os.getpid(),)) as pool:
        try:
            while waiting or pending:
                for run in list(waiting):
                    if len(pending) >= resources.workers:
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
                        pending[pool.submit(_train, *arguments, run.id, retry_failed)] = run
                if not pending:
                    continue
                # The executor notices only the death of processes that it had started when it was last called: a
                # process which `submit` starts is watched from the next call on.
                pool.submit(_nothing)
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    run = pending[future]
                    result = future.result()
                    del pending[future]
                    outcome.add(result, run, finished)
                    (failed if result.failed else over).add(run.id)
        # Ctrl-C of a terminal also reaches the children, `kill -INT` does not; the children are not waited for
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        except BrokenProcessPool:
            running = ", ".join(sorted(run.id for run in pending.values())) or "no run"
            raise RunFailed(
                f"a training process died (killed, or short of memory) while there ran: {running}; start again to "
                "resume"
            ) from None
    return outcome
