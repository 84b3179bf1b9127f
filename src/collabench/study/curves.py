"""Curves of runs in training, for the tool that people have open: ``COLLABENCH_LOG=tensorboard``.

A tool gets the figures of an epoch when the epoch has ended: the terms of the loss, the learning rate, and the errors
in percent where the epoch was evaluated. Nothing is read back, so that results and ids do not depend on it. If a tool
fails, one line says so and the run continues without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from collabench.config.configuration import Run
from collabench.core.errors import ConfigError, Log, one_line

if TYPE_CHECKING:
    from collabench.training.history import History

#: Environment variable that names tools, separated by commas.
CHOICE = "COLLABENCH_LOG"


class Writer(Protocol):
    """One run's curves in one tool."""

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """The figures of an epoch (counted from 1)."""

    def close(self) -> None:
        """The run has ended."""


class _TensorBoard:
    """Event files in ``<folder>/tensorboard``: ``tensorboard --logdir`` shows them."""

    def __init__(self, run: Run, folder: Path, profile: str, begun: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # epochs that were logged and lost, since the run resumes from an older checkpoint, are purged
        place = folder / "tensorboard" / run.configuration.id / f"seed-{run.seed}"
        self._writer: Any = SummaryWriter(str(place), purge_step=begun + 1)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


#: MLflow's settings unless the environment has others. By its own a server that does not answer holds each run up for
#: several minutes.
_MLFLOW_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class _MLflow:
    """A run of the experiment with the profile's name, at ``$MLFLOW_TRACKING_URI``; else in ``<folder>/mlflow.db``."""

    def __init__(self, run: Run, folder: Path, profile: str, begun: int) -> None:
        for name, value in _MLFLOW_PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client: Any = MlflowClient(uri)
        known = self._client.get_experiment_by_name(profile)
        experiment = known.experiment_id if known else self._client.create_experiment(profile)
        tags = {**run.configuration.names, "seed": str(run.seed), "collabench.run_id": run.id, "from_epoch": str(begun)}
        self._run = self._client.create_run(experiment, run_name=run.id, tags=tags).info.run_id

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class _Trackio:
    """A run of the project with the profile's name; ``trackio show`` opens it."""

    def __init__(self, run: Run, folder: Path, profile: str, begun: int) -> None:
        import trackio

        self._trackio: Any = trackio
        config = {**run.configuration.names, "seed": run.seed}
        trackio.init(project=profile, name=run.id, config=config, resume="allow")

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=epoch)

    def close(self) -> None:
        self._trackio.finish()


class _DVCLive:
    """Files in ``<folder>/dvclive``, which ``dvc plots`` and the VS Code extension of DVC read."""

    def __init__(self, run: Run, folder: Path, profile: str, begun: int) -> None:
        from dvclive import Live

        place = folder / "dvclive" / run.configuration.id / f"seed-{run.seed}"
        self._live: Any = Live(str(place), resume=begun > 0, report=None, save_dvc_exp=False, dvcyaml=None)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        self._live.step = epoch
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def close(self) -> None:
        self._live.end()


#: Name → the tool's writer for a run: called with the run, the folder for files, the profile, and the number of epochs
#: that a resumed run had finished before.
TOOLS: Mapping[str, Callable[[Run, Path, str, int], Writer]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "trackio": _Trackio,
    "dvclive": _DVCLive,
}


def chosen() -> tuple[str, ...]:
    """The tools that $COLLABENCH_LOG names. Raises ConfigError for a name that is none."""
    names = tuple(dict.fromkeys(name.strip() for name in os.environ.get(CHOICE, "").split(",") if name.strip()))
    for name in names:
        if name not in TOOLS:
            raise ConfigError(f"{CHOICE}={name}: there are {', '.join(TOOLS)}, and several separated by commas")
    return names


@contextmanager
def logging(run: Run, folder: Path, profile: str, log: Log) -> Iterator[Callable[[History], None] | None]:
    """What the trainer is to call after each epoch of a run, or None if no tool was chosen.

    folder: for tools that write files. No error of a tool leaves this context.
    """
    names, open_tools = chosen(), dict[str, Writer]()
    failed = set[str]()

    def attempt(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a tool can raise anything, and is no part of the run
            failed.add(name)
            open_tools.pop(name, None)
            log(one_line(f"warning: {CHOICE}={name}: {_why(name, error)}; {run.id} continues without it"))

    def begin(name: str, begun: int) -> None:
        open_tools[name] = TOOLS[name](run, folder, profile, begun)

    def after_epoch(history: History) -> None:
        for name in names:
            if name not in open_tools and name not in failed:  # now it is known where the run resumes
                attempt(name, lambda name=name: begin(name, history.epoch - 1))  # type: ignore[misc]
        values = values_of(history)
        for name, writer in list(open_tools.items()):
            attempt(name, lambda writer=writer: writer.write(history.epoch, values))  # type: ignore[misc]

    try:
        yield after_epoch if names else None
    finally:
        for name, writer in list(open_tools.items()):
            attempt(name, writer.close)


def values_of(history: History) -> dict[str, float]:
    """The figures of the epoch that has just ended; errors in percent, none where the epoch was not evaluated."""
    values = {f"loss/{name}": curve[-1] for name, curve in history.losses.items()}
    values["learning_rate"] = history.learning_rate[-1]
    for name in ("test_error", "validation_error", "test_top5_error"):
        curve = getattr(history, name)
        if curve and curve[-1] is not None:
            values[name] = 100 * curve[-1]
    return values


def _why(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is missing: pip install 'collabench[{name}]'"
    return f"{type(error).__name__}: {error}"
