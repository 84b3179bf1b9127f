"""What a run leaves behind: the schema, atomic writing, strict loading.

``result.json`` holds only what specification and seed determine and is byte-identical whenever the run is repeated on
the same machine and versions. ``measured.json`` holds time, memory, device, versions, commit and dates.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from collabench.errors import ResultError
from collabench.spec import Run
from collabench.strict import Strict

T = TypeVar("T", bound=Strict)

SCHEMA = 1
RESULT, LOGITS, WEIGHTS = "result.json", "logits.safetensors", "weights.safetensors"


class Figures(Strict):
    """Figures of one set of logits on one split. Errors are shares (0 to 1), not percent.

    ``top5_error`` is None with five classes or fewer. ``calibration_error``: expected calibration error over 15 bins
    of equal width. ``negative_log_likelihood``: nats per image.
    """

    error: float = Field(ge=0, le=1)
    top5_error: float | None = Field(default=None, ge=0, le=1)
    negative_log_likelihood: float
    calibration_error: float = Field(ge=0, le=1)


class Curves(Strict):
    """Per-epoch curves. ``test_error``, ``validation_error``: of the deployed head, None for epochs not evaluated."""

    learning_rate: tuple[float, ...] = ()
    losses: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    test_error: tuple[float | None, ...] = ()
    validation_error: tuple[float | None, ...] = ()


class NoiseRealised(Strict):
    """Share of training labels that differ from the clean ones: static noise, or the mean over epochs."""

    kind: str
    rate: float
    corruption: float = Field(ge=0, le=1)


class Result(Strict):
    """What a run found.

    last: deployed head after the last epoch. best: the lowest test error over epochs (chosen on test data: optimistic),
    with its epoch (0-based); None where not every epoch was evaluated. selected: test figures of the epoch
    with the lowest validation error; None without a validation split. heads: every head after the last epoch, the
    deployed one first. averaged_heads: the heads' averaged logits; None with one head.
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
    last: Figures
    best_error: float | None = Field(default=None, ge=0, le=1)
    best_epoch: int | None = None
    selected: Figures | None = None
    selected_epoch: int | None = None
    heads: tuple[Figures, ...]
    averaged_heads: Figures | None = None
    curves: Curves
    deterministic: bool
    files: dict[str, str]


class Measured(Strict):
    """What running it cost, where and with what. Times in seconds, memory in bytes."""

    run_id: str
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


class Failure(Strict):
    """Why a run could not be finished."""

    run_id: str
    label: str
    reason: str
    epoch: int | None = None
    when: str


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, record: Strict) -> None:
    """Write a record as canonical JSON with a checksum over its content, atomically."""
    body = json.loads(record.model_dump_json())
    body["checksum"] = _checksum(body)
    write_atomically(path, (json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path, kind: type[T]) -> T:
    """Read a record written by :func:`write_json`. Raises ResultError naming the file for anything that is wrong."""
    try:
        body = json.loads(path.read_bytes())
        checksum = body.pop("checksum")
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ResultError(f"{path}: damaged (not a record with a checksum); delete it to have it made again") from None
    if checksum != _checksum(body):
        raise ResultError(f"{path}: damaged (checksum differs); delete it to have it made again")
    try:
        return kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultError(f"{path}: {where}: {first['msg']} (written by another version?)") from None


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_result(folder: Path, run: Run, *, check_files: bool = True) -> Result:
    """The result of ``run`` from its folder, with the files beside it checked.

    Raises ResultError if it is missing, damaged, or belongs to another run.
    """
    result = read_json(folder / RESULT, Result)
    if result.run_id != run.id:
        raise ResultError(f"{folder / RESULT}: holds run {result.run_id}, expected {run.id}")
    if check_files:
        for name, expected in result.files.items():
            try:
                actual = sha256_of(folder / name)
            except OSError as error:
                raise ResultError(f"{folder / name}: cannot be read ({error.strerror})") from None
            if actual != expected:
                raise ResultError(f"{folder / name}: damaged (checksum differs); delete {folder} to train it again")
    return result
