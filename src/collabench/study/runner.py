"""Making runs available: they are kept, linked from another profile, resumed or trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.configuration import Run, digest
from collabench.core.device_errors import is_device_error, is_shortage_of_memory
from collabench.core.errors import CollabenchError, ConfigError, DeviceError, Log, ResultError, RunFailed, StorageError
from collabench.core.git import State, state_of
from collabench.storage.files import read_json, sha256_of, write_atomically, write_json
from collabench.storage.locks import holding
from collabench.storage.results import (
    LOGITS,
    RECORD,
    RESULT,
    WEIGHTS,
    Failure,
    InProgress,
    Result,
    files_of_run,
    is_recorded,
    load_result,
    load_weights,
)
from collabench.study import curves
from collabench.study.inputs import link_files
from collabench.study.source_code import place_in_own_code, source_digest

if TYPE_CHECKING:
    import torch

    from collabench.study.study import Study
    from collabench.training import Trained
    from collabench.training.history import Progress


@dataclass
class Outcome:
    """What happened to a list of runs."""

    done: list[Run] = field(default_factory=list)
    trained: list[Run] = field(default_factory=list)
    linked: list[Run] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)

    def extend(self, other: Outcome) -> None:
        """Add what happened to further runs."""
        for one in fields(other):
            getattr(self, one.name).extend(getattr(other, one.name))

    def add(self, other: Outcome, run: Run, finished: Callable[[Run, str], None]) -> None:
        """Add the outcome of ``run`` and of what it required. ``finished`` is called with the runs' states."""
        for one in fields(other):
            became = getattr(other, one.name)
            getattr(self, one.name).extend(became)
            if became:
                finished(run, one.name)


class Runner:
    """Makes runs of a study available: keeps, links, resumes or trains them.

    train_run: the function that trains one run; the default is :func:`collabench.training.train_run`.
    """

    def __init__(self, study: Study, train_run: Callable[..., Trained] | None = None) -> None:
        self._study, self._workspace, self._train_run = study, study.workspace, train_run

    def train(
        self,
        runs: Sequence[Run],
        *,
        device: str | None = None,
        retry_failed: bool = False,
        whole: bool = False,
        log: Log = print,
    ) -> Outcome:
        """Make every one of ``runs`` available, in order, in this process: keep, link, resume or train it.

        whole: train also those that came from records, since their weights are needed.

        A run that fails is recorded with its reason, and the others continue. A run that another living process is
        training is waited for. Two errors end the list and count as no run's failure: StorageError if files cannot be
        written, and DeviceError if memory ran out or the GPU reported an error, after which this process must end.
        """
        checkpoint_seconds(), curves.chosen()  # a mistake there is no failure of a run
        outcome = Outcome()
        for run in runs:
            if not whole and self.is_there(run):
                outcome.done.append(run)
                continue
            everywhere = self._workspace.lock_of_all_profiles(run.id)
            with holding(self._workspace.lock(run.id), run.id, log), holding(everywhere, run.id, log):
                self._make_available(run, outcome, device, retry_failed, whole, log)
        return outcome

    def is_there(self, run: Run) -> bool:
        """Whether the run is done and :meth:`train` would change nothing. Waits for no lock, so that a study of
        thousands of finished runs starts within seconds."""
        folder = self._workspace.folder(run)
        if not (folder / RESULT).exists() or any(place.exists() for place in self._left_over(run)):
            return False
        try:
            load_result(folder, run)
        except ResultError:
            return False
        return True

    def has_to_train(self, run: Run, *, retry_failed: bool = False) -> bool:
        """Whether :meth:`train` would train the run as things are: no profile has it whole, and it has not failed."""
        for place in (self._workspace, *self._workspace.siblings()):
            try:
                load_result(place.folder(run), run)
                return False
            except ResultError:
                continue
        return retry_failed or not self._workspace.failure(run.id).exists()

    def _make_available(
        self, run: Run, outcome: Outcome, device: str | None, retry_failed: bool, whole: bool, log: Log
    ) -> None:
        folder, failure = self._workspace.folder(run), self._workspace.failure(run.id)
        if (folder / RESULT).exists():
            try:
                load_result(folder, run, whole=whole)
                self._forget(run)  # if the process was killed between the two steps
                outcome.done.append(run)
                return
            except ResultError as error:
                log(f"{error}; training it again")
                if not is_recorded(folder):  # a record stays until the same run lies here
                    (folder / RESULT).unlink(missing_ok=True)
        if failure.exists() and not retry_failed:
            try:
                outcome.failed.append((run, read_json(failure, Failure).reason))
                return
            except ResultError as error:
                log(f"{error}; training it again")
                failure.unlink(missing_ok=True)
        if self._link_run(run, log):
            self._forget(run)
            outcome.linked.append(run)
            return
        self._study.check_processes(run)
        try:
            self._write(run, self._train(run, device, log), log)
        except (StorageError, DeviceError):
            raise
        except Exception as error:  # for any error the other runs continue, and the report names this run
            if is_shortage_of_memory(error) or is_device_error(error):
                raise _no_fault_of(run, error, device) from None
            if isinstance(error, OSError):
                place, said = error.filename or run.id, error.strerror or error
                raise StorageError(f"{place}: {said}; {run.id} resumes at the next start") from None
            reason = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, CollabenchError):
                reason = f"{type(error).__name__}: {reason}{place_in_own_code(error, run.configuration)}"
            write_json(
                failure,
                Failure(
                    run_id=run.id,
                    label=run.configuration.label,
                    reason=reason[:500],
                    when=datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )
            if isinstance(error, RunFailed):  # the run diverged: a retry must not resume there
                self._workspace.checkpoint(run.id).unlink(missing_ok=True)
            outcome.failed.append((run, reason))
            log(f"{run.id} failed: {reason}")
        else:
            self._forget(run)
            outcome.trained.append(run)
        finally:
            self._workspace.progress(run.id).unlink(missing_ok=True)

    def _forget(self, run: Run) -> None:
        """Remove what a finished run no longer needs."""
        for place in self._left_over(run):
            place.unlink(missing_ok=True)

    def _left_over(self, run: Run) -> Iterator[Path]:
        """The files that a run has until it is finished."""
        for place in (self._workspace.checkpoint, self._workspace.progress, self._workspace.failure):
            yield place(run.id)

    def _train(self, run: Run, device: str | None, log: Log) -> Trained:
        from collabench import training
        from collabench.data.noise import labels_digest
        from collabench.training.device import choose_device

        configuration = run.configuration
        chosen = choose_device(device or self._study.profile.device)
        # Determined before training: the commit of the code that was loaded, not the one at the end.
        self._commit  # noqa: B018
        source_digest(configuration)
        dataset = self._study.inputs.dataset(run, log)
        static_noise = self._study.inputs.static_noise(run, log)
        train_run = self._train_run or training.train_run
        teachers = [self._required(required, device, log) for required in run.requires()]
        with curves.logging(run, self._workspace.curves, self._workspace.profile, log) as after_epoch:
            trained = train_run(
                run,
                dataset,
                device=chosen,
                static_noise=static_noise,
                teachers=teachers,
                checkpoint_path=self._workspace.checkpoint(run.id),
                checkpoint_seconds=checkpoint_seconds(),
                report=self._progress_writer(run),
                after_epoch=after_epoch,
                log=log,
            )
        if static_noise is not None:
            labels = labels_digest(static_noise.noisy)
            trained.result = trained.result.model_copy(update={"labels": labels})
        return trained

    def _required(self, run: Run, device: str | None, log: Log) -> torch.nn.Module:
        """The deployed network of a run that another one needs. The run is trained again if it is damaged or
        missing."""
        try:
            return self.deployed(run)
        except ResultError as error:
            log(str(error))
        outcome = self.train([run], device=device, whole=True, log=log)
        if outcome.failed:
            raise RunFailed(f"needs {run.id}, which failed: {outcome.failed[0][1]}")
        return self.deployed(run)

    def deployed(self, run: Run) -> torch.nn.Module:
        """The network that a finished run deployed, with its weights, in eval mode, on the CPU.

        Raises ResultError if the run is missing or damaged.
        """
        import torch

        from collabench.training.context import make_context, make_method

        folder, configuration = self._workspace.folder(run), run.configuration
        load_result(folder, run, whole=True)
        form = self._study.inputs.dataset(run).form
        shape = form.network_shape(configuration.recipe)
        teachers = [self.deployed(required) for required in run.requires()]
        method = make_method(configuration, make_context(configuration, shape, form.classes, run.seed, teachers))
        network = method.deploy(method.build())
        if method.trains:
            try:
                network.load_state_dict(load_weights(folder))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ResultError(
                    f"{folder / WEIGHTS}: holds the weights of another network ({reason}); delete {folder} to train it "
                    "again"
                ) from None
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's lacks memory_format
        return network.eval()

    def _progress_writer(self, run: Run) -> Callable[[Progress], None]:
        path = self._workspace.progress(run.id)

        def write(progress: Progress) -> None:
            configuration, pid = run.configuration, os.getpid()
            record = InProgress(run_id=run.id, label=configuration.label, seed=run.seed, pid=pid, **asdict(progress))
            write_json(path, record, durable=False)

        return write

    def _write(self, run: Run, trained: Trained, log: Log) -> None:
        """Write a run's files, ``result.json`` last, because its existence means that the run is finished."""
        from safetensors.torch import save

        folder = self._workspace.folder(run)
        files = {LOGITS: save(trained.logits)}
        if trained.weights is not None:
            files[WEIGHTS] = save(trained.weights)
        for name, content in files.items():
            write_atomically(folder / name, content)
        state = self._commit
        write_json(
            self._workspace.measured_file(run),
            trained.measured.model_copy(
                update={
                    "commit": state.commit,
                    "dirty": state.dirty,
                    "commit_unknown": state.why,
                    "configuration": digest(run.configuration.identity()),
                    "dataset": trained.result.dataset_digest,
                }
            ),
        )
        checksums = {name: sha256_of(folder / name) for name in files}
        source = source_digest(run.configuration)
        recorded = _recorded(folder, log)
        write_json(folder / RESULT, trained.result.model_copy(update={"files": checksums, "source": source}))
        (folder / RECORD).unlink(missing_ok=True)
        if recorded is not None:
            _compare_with_record(folder, run, recorded, log)
        self._workspace.checkpoint(run.id).unlink(missing_ok=True)

    @cached_property
    def _commit(self) -> State:
        """The commit that the code is at, and whether code or configuration differ from it."""
        return state_of(self._workspace.root)

    def _link_run(self, run: Run, log: Log) -> bool:
        """Link the run's files from another profile that has it, and check them. False if no profile has it."""
        for sibling in self._workspace.siblings():
            source = sibling.folder(run)
            if not (source / RESULT).exists():
                continue
            try:
                load_result(source, run)
            except ResultError as error:
                log(f"{error}; this copy, of {sibling.title}, is not used")
                continue
            measured = sibling.measured_file(run)
            if measured.exists():
                target = self._workspace.measured_file(run)
                link_files(measured.parent, target.parent, [target.name])
            link_files(source, self._workspace.folder(run), files_of_run(source))
            return True
        return False


def _recorded(folder: Path, log: Log) -> Result | None:
    """The result in a folder that a record brought; None if there is none, or a damaged one."""
    try:
        return read_json(folder / RESULT, Result) if is_recorded(folder) else None
    except ResultError as error:
        log(str(error))
        return None


def _compare_with_record(folder: Path, run: Run, before: Result, log: Log) -> None:
    """Log whether a run that was trained again has the numbers and the checksums of its record."""
    result = load_result(folder, run)
    if before.found() == result.found():
        log(f"{run.id}: trained again, the same as its record, byte for byte")
    else:
        log(f"{run.id}: trained again, differs from its record (error {100 * before.last.error:.2f} % there, "
            f"{100 * result.last.error:.2f} % now), and replaces it")  # fmt: skip


def _no_fault_of(run: Run, error: Exception, device: str | None) -> DeviceError:
    """The error of a machine, or of the leased GPU, that could not continue a run."""
    shortage, said = is_shortage_of_memory(error), " ".join(str(error).split())[:200] or type(error).__name__
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES") if device == "cuda" else None
    what = "short of memory" if shortage else "the GPU failed"
    where = "" if gpu is None else f" on GPU {gpu}"
    return DeviceError(f"{what} while {run.id} was trained{where} ({said})", shortage=shortage, gpu=gpu)


def checkpoint_seconds() -> float:
    """Seconds between checkpoints: $COLLABENCH_CHECKPOINT_SECONDS, or 60. Raises ConfigError for anything but a number
    from 0 on."""
    text = os.environ.get("COLLABENCH_CHECKPOINT_SECONDS", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"COLLABENCH_CHECKPOINT_SECONDS={text}: must be a number of seconds, 0 or more")
    return seconds
