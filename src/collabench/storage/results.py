"""What a run leaves behind: the schema, atomic writing, strict loading.

``result.json`` holds only what specification and seed determine and is byte-identical whenever the run is repeated on
the same machine and versions. ``measured.json`` holds time, memory, device, versions, commit and dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from collabench.config.configuration import Run
from collabench.core.errors import ResultError
from collabench.core.record import Record
from collabench.storage.files import read_json, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA: Final = 1
#: From so many classes on a run records its top-5 error after every epoch, as papers on ImageNet publish it.
TOP5_CLASSES = 100

RESULT, LOGITS, WEIGHTS = "result.json", "logits.safetensors", "weights.safetensors"

#: What to do about a damaged ``measured.json``, which only another training would make again.
WITHOUT_MEASUREMENT = "delete it, and its run counts as not measured in the tables of costs"


class Metrics(Record):
    """Figures of one set of logits on one split. Errors are shares (0 to 1), not percent.

    ``top5_error`` is None with five classes or fewer. ``calibration_error``: expected calibration error over 15 bins
    of equal width. ``negative_log_likelihood``: nats per image.
    """

    error: float = Field(ge=0, le=1)
    top5_error: float | None = Field(default=None, ge=0, le=1)
    negative_log_likelihood: float
    calibration_error: float = Field(ge=0, le=1)


class Curves(Record):
    """Per-epoch curves. Errors are the deployed head's, None for epochs not evaluated.

    test_top5_error: left out with fewer than ``TOP5_CLASSES`` classes.
    """

    learning_rate: tuple[float, ...] = ()
    losses: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    test_error: tuple[float | None, ...] = ()
    validation_error: tuple[float | None, ...] = ()
    test_top5_error: tuple[float | None, ...] | None = Field(default=None, exclude_if=lambda value: value is None)


class NoiseRealised(Record):
    """Share of training labels that differ from the clean ones: static noise, or the mean over epochs."""

    kind: str
    rate: float
    corruption: float = Field(ge=0, le=1)


class Result(Record):
    """What a run found.

    last: deployed head after the last epoch. best: the lowest test error over epochs (chosen on test data: optimistic),
    with its epoch (0-based); None where not every epoch was evaluated. best_top5_error: the lowest top-5 error over
    epochs, where the curve has it (of an epoch of its own). selected: test figures of the epoch with the lowest
    validation error; None without a validation split. heads: every head after the last epoch, the deployed one first.
    averaged_heads: the heads' averaged logits; None with one head.
    source: digest of the code that computed it (:mod:`collabench.study.source_code`); None where it was not recorded.
    files: name → SHA-256 of the files beside this one.
    """

    schema_version: Literal[1] = SCHEMA
    run_id: str
    configuration_id: str
    seed: int
    identity: dict[str, Any]
    dataset_digest: str
    train_images: int
    test_images: int
    parameters: int
    training_parameters: int
    noise: NoiseRealised
    last: Metrics
    best_error: float | None = Field(default=None, ge=0, le=1)
    best_epoch: int | None = None
    best_top5_error: float | None = Field(default=None, ge=0, le=1, exclude_if=lambda value: value is None)
    selected: Metrics | None = None
    selected_epoch: int | None = None
    heads: tuple[Metrics, ...]
    averaged_heads: Metrics | None = None
    curves: Curves
    deterministic: bool
    source: str | None = Field(default=None, exclude_if=lambda value: value is None)
    files: dict[str, str]

    def found(self) -> Result:
        """The result without the code that computed it: what two runs of the same configuration and seed must have in
        common."""
        return self.model_copy(update={"source": None})


class Measured(Record):
    """What running it cost, where and with what. Times in seconds, memory in bytes.

    commit, dirty: of the project, and whether code or configuration differed from it. configuration: SHA-256 of the
    run's identity. dataset: the data set's digest, as in ``result.json``. None where it isn't known. resumed: how often
    the run went on from a checkpoint. nondeterministic_operations: those that torch named, where ``result.json`` says
    that the run was not deterministic.
    """

    run_id: str
    configuration: str | None = None
    dataset: str | None = None
    train_seconds: float = Field(ge=0)
    evaluate_seconds: float = Field(ge=0)
    images_per_second: float = Field(ge=0)
    peak_memory_bytes: int | None = Field(default=None, ge=0)
    device_type: Literal["cpu", "cuda"]
    device: str
    threads: int
    versions: dict[str, str]
    commit: str | None = None
    dirty: bool | None = None
    started: str
    finished: str
    resumed: int = Field(default=0, ge=0)
    nondeterministic_operations: tuple[str, ...] = ()

    @property
    def commit_text(self) -> str:
        """``0123456789ab``, ``0123456789ab with changes``, or ``unknown``."""
        if self.commit is None:
            return "unknown"
        return self.commit[:12] + (" with changes" if self.dirty else "")


class InProgress(Record):
    """Where a run in training stands, for those who wait. epoch: how many are complete. error: test error of the last
    evaluation (0 to 1). pid: of the process that trains it."""

    run_id: str
    label: str
    seed: int
    epoch: int
    epochs: int
    error: float | None
    images_per_second: float
    seconds_left: float
    pid: int


class Failure(Record):
    """Why a run could not be finished."""

    run_id: str
    label: str
    reason: str
    when: str


def load_result(folder: Path, run: Run) -> Result:
    """The result of ``run`` from its folder, with the files beside it checked.

    Raises ResultError if it is missing, damaged, or belongs to another run.
    """
    result = read_json(folder / RESULT, Result)
    if result.run_id != run.id:
        raise ResultError(f"{folder / RESULT}: holds run {result.run_id}, expected {run.id}")
    if not result.files.keys() <= {LOGITS, WEIGHTS}:
        raise ResultError(f"{folder / RESULT}: names other files than {LOGITS} and {WEIGHTS}")
    for name, expected in result.files.items():
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise ResultError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if actual != expected:
            raise ResultError(f"{folder / name}: damaged (checksum differs); delete {folder} to train it again")
    return result


# A checksum says that a file is the one that its result names, not what is in it: what comes from elsewhere may be
# anything.


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """A run's file of tensors, opened for numpy by safetensors' ``safe_open``.

    Raises ResultError naming it, also for what is read of it within the block, if it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise _not_tensors(path, error) from None


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Name → tensor of the weights in a run's folder, on the CPU. Raises ResultError naming the file if it is
    damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load((folder / WEIGHTS).read_bytes())
    except SafetensorError as error:
        raise _not_tensors(folder / WEIGHTS, error) from None


def _not_tensors(path: Path, error: Exception) -> ResultError:
    return ResultError(f"{path}: does not hold a run's tensors ({error}); delete {path.parent} to train it again")
