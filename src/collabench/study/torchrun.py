"""A study whose runs are shared by the processes that torchrun started (:mod:`collabench.core.distributed`).

The first process decides which run is trained and is the only one that writes. The others train the runs that it names
and store nothing. A failure that all processes see (a loss that is not finite) is a failure of the run. After any other
failure (for example a killed process) the processes' states may differ: all of them end, no run counts as failed, and
the next start resumes from the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from collabench.config.configuration import Run
from collabench.core import distributed
from collabench.core.errors import CollabenchError, ConfigError, RunFailed
from collabench.core.resources import Resources
from collabench.core.text import counted
from collabench.study.runner import Outcome, Runner
from collabench.study.study import Study

if TYPE_CHECKING:
    from collabench.training import Trained

#: Failures that all processes see.
_SEEN_BY_ALL = (RunFailed, ConfigError)


def own_place() -> int:
    """The place of this process's GPU among those of its host."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _processes_here() -> int:
    """How many processes torchrun started on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def describe(resources: Resources) -> str:
    """One line on the processes that share the runs."""
    where = (
        f"a GPU each of {', '.join(resources.gpus[: _processes_here()])}"
        if resources.gpus
        else "on the CPU, one thread each"
    )
    return f"{distributed.launched_world()} processes share every run: {where}"


def train(
    study: Study,
    runs: Sequence[Run],
    resources: Resources,
    *,
    retry_failed: bool = False,
    finished: Callable[[Run, str], None] = lambda run, state: None,
) -> Outcome:
    """As :func:`collabench.study.pool.train`, one run after the other, in the first process. The others run
    :func:`follow`.

    Runs whose recipe asks for another number of processes are skipped. Raises ConfigError if such a run is required and
    missing, RunFailed if the processes cannot continue together.
    """
    here = distributed.launched_world()
    chosen = [run for run in runs if run.configuration.recipe.processes == here]
    if not chosen:
        numbers = sorted({run.configuration.recipe.processes for run in runs})
        raise ConfigError(
            f"torchrun started {here} processes, and no run asks for so many (their recipes say processes: "
            f"{', '.join(map(str, numbers))})"
        )
    for required in (other for run in chosen for other in run.requires()):
        if required.configuration.recipe.processes != here and study.status(required).state not in (
            "done",
            "elsewhere",
        ):
            raise ConfigError(
                f"{required.configuration.label}, seed {required.seed}, is required first, and its recipe says "
                "processes: "
                f"{required.configuration.recipe.processes}; train it without torchrun, or with so many processes"
            )
    leader = Runner(study, _train_together)
    outcome = Outcome()
    with ExitStack() as held:
        _join(resources, held)
        for run in chosen:
            try:
                result = leader.train([run], device=resources.device, retry_failed=retry_failed)
            except _Parted as parted:
                raise _ended(run, parted.__cause__) from None
            outcome.add(result, run, finished)
        distributed.from_first(lambda: None)
        distributed.leave()
    return outcome


def follow(study: Study, resources: Resources) -> None:
    """The work of every process but the first: take part in training until the first process has finished."""
    from collabench.training import train_run
    from collabench.training.device import choose_device

    runs = {run.id: run for run in study.plan.runs}
    with ExitStack() as held:
        _join(resources, held)
        while (name := distributed.from_first(lambda: None)) is not None:
            run = runs[name]
            try:
                train_run(
                    run,
                    study.inputs.dataset(run, _quiet),
                    device=choose_device(resources.device),
                    static_noise=study.inputs.static_noise(run, _quiet),
                    teachers=[Runner(study).deployed(required) for required in run.requires()],
                )
            except _SEEN_BY_ALL:
                continue
            except Exception as error:
                raise _ended(run, error) from None
        distributed.leave()


def _quiet(line: str) -> None:
    """Drops the line, which the first process has printed."""


class _Parted(BaseException):
    """The processes cannot continue together. Not an Exception, so that it does not count as a failure of the run."""


def _ended(run: Run, cause: BaseException | None) -> RunFailed:
    reason = str(cause) if isinstance(cause, CollabenchError) else f"{type(cause).__name__}: {cause}"
    return RunFailed(
        f"process {os.environ.get('RANK')} of {distributed.launched_world()} cannot continue {run.id}: "
        f"{reason[:300]}; once "
        "mended, start again to resume from the last checkpoint"
    )


def _train_together(run: Run, *given: Any, **named: Any) -> Trained:
    """Train a run together with the other processes. This process alone prepared what the run needs."""
    from collabench.training import train_run

    distributed.from_first(lambda: run.id)
    try:
        return train_run(run, *given, **named)
    except _SEEN_BY_ALL:
        raise
    except Exception as error:
        raise _Parted from error


def _join(resources: Resources, held: ExitStack) -> None:
    """Join the other processes and lease this process's GPU. Leases follow the order of ranks, which prevents a
    deadlock between groups."""
    own, here = own_place(), _processes_here()
    if resources.gpus and here > len(resources.gpus):  # NCCL needs a GPU for each
        raise CollabenchError(
            f"torchrun started {counted(here, 'process', 'processes')} here for {counted(len(resources.gpus), 'GPU')}"
        )
    distributed.join()
    for turn in range(here if resources.gpus else 0):
        if turn == own:
            alone = replace(resources, gpus=(resources.gpus[own],), gpu_memory=resources.gpu_memory[own : own + 1])
            held.enter_context(alone.lease(need=None))
        distributed.wait_for_all()
    if resources.gpus:
        import torch

        distributed.use_gpus(torch.device("cuda", 0))  # the leased one is the only one that this process sees
