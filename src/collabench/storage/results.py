"""The files of a finished run: schemas, atomic writing and strict loading.

``result.json`` contains only what configuration and seed determine. It is byte-identical whenever the run is repeated
on the same machine with the same versions. ``measured.json`` contains time, memory, device, versions, commit and dates.
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
from collabench.core.regular import read_file
from collabench.storage.files import read_json, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA: Final = 1
#: With at least this many classes a run records its top-5 error after every epoch, as papers on ImageNet publish it.
TOP5_CLASSES = 100

RESULT, LOGITS, WEIGHTS = "result.json", "logits.safetensors", "weights.safetensors"

#: Beside the result of a run whose logits and weights are elsewhere.
RECORD = "record.json"

#: What to do about a damaged ``measured.json``, which only another training would produce again.
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
    """Curves over epochs. Errors are those of the deployed head; None for epochs that were not evaluated.

    test_top5_error: None with fewer than ``TOP5_CLASSES`` classes.
    """

    learning_rate: tuple[float, ...] = ()
    losses: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    test_error: tuple[float | None, ...] = ()
    validation_error: tuple[float | None, ...] = ()
    test_top5_error: tuple[float | None, ...] | None = Field(default=None, exclude_if=lambda value: value is None)


#: Row = right class, column = label.
Matrix = tuple[tuple[float, ...], ...]


class NoiseRealised(Record):
    """The label noise that a run saw.

    rate: asked for; None if a matrix or a file determines which labels are wrong. corruption: share of training labels
    that differ from the clean ones: static noise, or the mean over epochs.
    flips, classes: asymmetric noise only: class → the class that its images are mistaken for, and the number of all
    classes. The rate counts the images of the classes that flip, the corruption counts all images.
    asked, realised: the share of the images of each class (row) that have each label (column), for up to 20 classes:
    ``kind: matrix`` as its matrix says, and that, ``instance`` or ``file`` as the static labels are.
    """

    kind: str
    rate: float | None
    corruption: float = Field(ge=0, le=1)
    flips: dict[str, str] | None = Field(default=None, exclude_if=lambda value: value is None)
    classes: int | None = Field(default=None, exclude_if=lambda value: value is None)
    asked: Matrix | None = Field(default=None, exclude_if=lambda value: value is None)
    realised: Matrix | None = Field(default=None, exclude_if=lambda value: value is None)


class Result(Record):
    """The result of a run.

    last: metrics of the deployed head after the last epoch.
    best_error, best_epoch: the lowest test error over the epochs and its epoch, counted from 0; None if not every epoch
    was evaluated. The epoch is chosen on test data, so this error is optimistic.
    best_top5_error: the lowest top-5 error over the epochs (its epoch may be another one); None if the curve lacks it.
    selected, selected_epoch: test metrics of the epoch with the lowest validation error; None without a validation
    split.
    heads: metrics of every head after the last epoch, the deployed one first.
    averaged_heads: metrics of the heads' averaged logits; None with one head.
    source: digest of the code that computed it (:mod:`collabench.study.source_code`); None if it was not recorded.
    labels: digest of the static noisy labels that the run saw; None without them, or if it was not recorded.
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
    labels: str | None = Field(default=None, exclude_if=lambda value: value is None)
    files: dict[str, str]

    def found(self) -> Result:
        """The result without the digests of code and labels: equal in two runs of the same configuration and seed."""
        return self.model_copy(update={"source": None, "labels": None})


class RunRecord(Record):
    """What reports need of logits and weights, in place of them: of a run that came from records.

    predicted: the class that the deployed network gives to each test image; None where no report reads it.
    ties: number of test images with more than one largest logit, as they are stored in half precision.
    shapes: name → shape of every tensor of the deployed network; None of a run without weights of its own.
    """

    predicted: tuple[int, ...] | None = None
    ties: int = Field(default=0, ge=0)
    shapes: dict[str, tuple[int, ...]] | None = None


class Measured(Record):
    """The cost of a run, and where it was computed. Times in seconds, memory in bytes.

    commit, dirty: of the project, and whether code or configuration differed from the commit.
    commit_unknown: why the two are None.
    configuration: SHA-256 of the run's identity.
    dataset: the data set's digest, as in ``result.json``; None if unknown.
    resumed: how often the run was resumed from a checkpoint.
    nondeterministic_operations: the operations that torch named, if ``result.json`` says that the run was not
    deterministic.
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
    commit_unknown: str | None = Field(default=None, exclude_if=lambda value: value is None)
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
    """Progress of a run in training, for those who wait for it.

    epoch: number of complete epochs. error: test error of the last evaluation (0 to 1). pid: of the process that
    trains.
    """

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
    """Why a run failed."""

    run_id: str
    label: str
    reason: str
    when: str


def load_measured(path: Path, run: Run) -> Measured:
    """The measurements of ``run``. Raises ResultError if they are missing, damaged, or those of another run."""
    measured = read_json(path, Measured, remedy=WITHOUT_MEASUREMENT)
    if measured.run_id != run.id:
        raise ResultError(f"{path}: holds run {measured.run_id}, expected {run.id}; {WITHOUT_MEASUREMENT}")
    return measured


def load_result(folder: Path, run: Run, *, whole: bool = False) -> Result:
    """Load the result of ``run`` from its folder and check the files beside it.

    whole: require logits and weights, also of a run that came from records.

    Raises ResultError if it is missing or damaged, or belongs to another run.
    """
    result = read_json(folder / RESULT, Result)
    if result.run_id != run.id:
        raise ResultError(f"{folder / RESULT}: holds run {result.run_id}, expected {run.id}")
    if not result.files.keys() <= {LOGITS, WEIGHTS}:
        raise ResultError(f"{folder / RESULT}: names other files than {LOGITS} and {WEIGHTS}")
    recorded = is_recorded(folder)
    for name, expected in result.files.items():
        if recorded and not (folder / name).exists():
            if whole:
                raise ResultError(
                    f"{folder / name}: is not here, only the record of the run; delete {folder} to train it"
                )
            continue
        try:
            actual = sha256_of(folder / name)
        except OSError as error:
            raise ResultError(f"{folder / name}: cannot be read ({error.strerror})") from None
        if actual != expected:
            raise ResultError(f"{folder / name}: damaged (checksum differs); delete {folder} to train it again")
    return result


def files_of_run(folder: Path) -> list[str]:
    """Names of the files that a finished run consists of in ``folder``, the result last."""
    return [name for name in (LOGITS, WEIGHTS, RECORD, RESULT) if (folder / name).exists()]


def is_recorded(folder: Path) -> bool:
    """Whether the run in ``folder`` came from records, without logits and weights."""
    return (folder / RECORD).exists()


def load_record(folder: Path) -> RunRecord | None:
    """What stands in for logits and weights of the run in ``folder``; None if nothing does. Raises ResultError for a
    damaged one."""
    return read_json(folder / RECORD, RunRecord) if is_recorded(folder) else None


# A checksum shows that a file is the one that its result names. It says nothing about the content, which may be
# anything in a file that comes from elsewhere.


@contextmanager
def open_tensors(path: Path) -> Iterator[Any]:
    """Open a run's file of tensors for NumPy with safetensors' ``safe_open``.

    Raises ResultError with the file's name, also for errors while it is read within the block.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise _not_tensors(path, error) from None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the tensors in a run's file. Raises ResultError for a damaged file."""
    with open_tensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in a run's folder: name → tensor on the CPU. Raises ResultError for a damaged file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(read_file(folder / WEIGHTS))
    except SafetensorError as error:
        raise _not_tensors(folder / WEIGHTS, error) from None


def _not_tensors(path: Path, error: Exception) -> ResultError:
    return ResultError(f"{path}: does not hold a run's tensors ({error}); delete {path.parent} to train it again")
