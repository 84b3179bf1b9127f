"""Records: what every table and verdict of a study is computed from, without logits and weights, small enough for git.

``records/<profile>/<configuration>.json.xz`` holds, for each finished run of a configuration, its result, its
measurements, and what reports need of logits and weights. A result names the SHA-256 of logits and weights, so that a
run which is trained again is compared with its record byte for byte.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from collabench.config.configuration import Run
from collabench.core.errors import Log, ResultError
from collabench.core.record import Record
from collabench.core.regular import read_file
from collabench.core.text import counted
from collabench.report.across_images import predictions
from collabench.storage.files import folder_beside, unwritable, write_atomically, write_json
from collabench.storage.results import (
    RECORD,
    RESULT,
    WEIGHTS,
    Measured,
    Result,
    RunRecord,
    load_measured,
    load_record,
    load_result,
    tensor_shapes,
)
from collabench.storage.workspace import Workspace
from collabench.study.study import Study

SCHEMA: Final = 1
SUFFIX = ".json.xz"

#: Bytes: the largest size that a file of records may have when it is unpacked, and what unpacking may take meanwhile.
LARGEST = MEMORY = 256 * 2**20


class OneRun(Record):
    """A run's ``result.json``, ``measured.json`` (None if it was not measured) and ``record.json``.

    ``record.shapes`` is left out here, because it is the same for all runs of a configuration.
    """

    result: Result
    measured: Measured | None
    record: RunRecord


class Records(Record):
    """The records of one configuration, by seed."""

    schema_version: Literal[1] = SCHEMA
    configuration: str
    shapes: dict[str, tuple[int, ...]] | None
    runs: tuple[OneRun, ...]


@dataclass(frozen=True)
class Written:
    """folder: of the records. runs: how many it has. added: how many of them are new. bytes: of all files."""

    folder: Path
    runs: int
    added: int
    bytes: int


# ------------------------------------------------------------------------------------------------------------- writing


def write_records(study: Study, log: Log = print) -> Written:
    """Add the finished runs of the study's plan to its records. Recorded runs that are not here stay recorded.

    The same runs give the same bytes. Raises ResultError, naming the file, if a run or a file of records is damaged, or
    if a recorded run lies here with another result; StorageError if a file cannot be written. Nothing is written then.
    """
    workspace = study.workspace
    files, total, added = {}, 0, 0
    for identifier in study.plan.configurations:
        path = workspace.records / f"{identifier}{SUFFIX}"
        before = {one.result.seed: one for one in read_records(path).runs} if path.exists() else {}
        runs, shapes = dict(before), None
        for run in (run for run in study.plan.possible if run.configuration.id == identifier):
            if not (workspace.folder(run) / RESULT).exists():
                continue
            found, shapes = _record_of(workspace, run, shapes)
            if run.seed in before and before[run.seed].result.found() != found.result.found():
                raise ResultError(
                    f"{path}: holds another result of {run.id} than {workspace.folder(run)}; delete one of the two"
                )
            runs.setdefault(run.seed, found)
        total, added = total + len(runs), added + len(runs) - len(before)
        if len(runs) > len(before):
            known = shapes if shapes is not None or not before else read_records(path).shapes
            ordered = tuple(runs[seed] for seed in sorted(runs))
            files[path] = _bytes(Records(configuration=identifier, shapes=known, runs=ordered))
    for path, content in files.items():
        write_atomically(path, content)
    if not total:
        raise ResultError(f"{workspace.runs}: holds no finished run of profile {workspace.profile}; train first")
    others = sorted(
        {path.name for path in workspace.records.glob(f"*{SUFFIX}")}
        - {f"{one}{SUFFIX}" for one in study.plan.configurations}
    )
    if others:
        named = ", ".join(others[:3])
        log(f"{workspace.records}: keeps {counted(len(others), 'file')} of configurations that the plan lacks: {named}")
    size = sum(path.stat().st_size for path in workspace.records.glob(f"*{SUFFIX}"))
    return Written(workspace.records, total, added, size)


def _record_of(
    workspace: Workspace, run: Run, shapes: dict[str, tuple[int, ...]] | None
) -> tuple[OneRun, dict[str, tuple[int, ...]] | None]:
    """The record of a finished run, and the shapes of its configuration's weights."""
    folder, measured = workspace.folder(run), workspace.measured_file(run)
    result = load_result(folder, run)
    record = load_record(folder)
    if record is None:
        found = predictions(folder) if run.configuration.dataset.split == "fixed" else None
        record = RunRecord() if found is None else RunRecord(predicted=tuple(map(int, found[1])), ties=found[2])
        shapes = tensor_shapes(folder / WEIGHTS) if (folder / WEIGHTS).exists() else shapes
    else:
        shapes, record = record.shapes or shapes, record.model_copy(update={"shapes": None})
    return OneRun(
        result=result, measured=load_measured(measured, run) if measured.exists() else None, record=record
    ), shapes


def _bytes(records: Records) -> bytes:
    text = json.dumps(json.loads(records.model_dump_json()), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return lzma.compress(text.encode() + b"\n", preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_SHA256)


# ------------------------------------------------------------------------------------------------------------- reading


def read_records(path: Path) -> Records:
    """Read one file of records. Raises ResultError, naming it, for anything that is wrong."""
    try:
        content = _unpacked(read_file(path))
        records = Records.model_validate_json(content)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read ({error.strerror})") from None
    except (lzma.LZMAError, EOFError, RecursionError) as error:
        raise ResultError(f"{path}: damaged ({error}); get it again with git checkout") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "its text"
        raise ResultError(f"{path}: {where}: {first['msg']} (written by another version?)") from None
    if f"{records.configuration}{SUFFIX}" != path.name:
        raise ResultError(f"{path}: holds runs of {records.configuration}")
    wrong = [one.result.run_id for one in records.runs if one.result.configuration_id != records.configuration]
    if wrong:
        raise ResultError(f"{path}: holds run {wrong[0]}, which is not of {records.configuration}")
    return records


def _unpacked(content: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY)
    text = decompressor.decompress(content, max_length=LARGEST)
    if not decompressor.eof:
        raise EOFError("it is truncated, or too large")
    if decompressor.unused_data:
        raise EOFError("something follows its end")
    return text


def records_at(folder: Path, profile: str) -> Path | None:
    """The profile's folder of records: ``folder`` itself, or below it, or below its ``records/``. None if there is
    none."""
    if (folder / "artifacts").is_dir() and (folder / "artifacts" / profile / "runs").is_dir():
        return None  # a copy of the project with whole runs
    candidates = (folder / "records" / profile, folder / profile, folder)
    return next((place for place in candidates if any(place.glob(f"*{SUFFIX}"))), None)


def profiles_with_records(folder: Path) -> list[str]:
    """The profiles whose records lie in a folder of records, or below its ``records/``."""
    return sorted({path.parent.name for inner in ("", "records") for path in (folder / inner).glob(f"*/*{SUFFIX}")})


@contextmanager
def unpacked_records(folder: Path, profile: str, beside: Path) -> Iterator[Workspace]:
    """A workspace with the recorded runs of ``folder``, in a temporary folder beside the path ``beside``.

    Raises ResultError for a damaged file, StorageError if files cannot be written.
    """
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(beside) as place:
            workspace = Workspace(place, profile)
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                _unpack(read_records(path), workspace)
            yield workspace
    except OSError as error:
        raise unwritable(Path(error.filename or beside), error) from None


def _unpack(records: Records, workspace: Workspace) -> None:
    for one in records.runs:
        if one.measured is not None and one.measured.run_id != one.result.run_id:
            raise ResultError(
                f"{records.configuration}: the measurements of {one.result.run_id} are of {one.measured.run_id}"
            )
        seed = f"seed-{one.result.seed}"
        folder = workspace.runs / records.configuration / seed
        write_json(folder / RECORD, one.record.model_copy(update={"shapes": records.shapes}), durable=False)
        if one.measured is not None:
            write_json(workspace.measured / records.configuration / f"{seed}.json", one.measured, durable=False)
        write_json(folder / RESULT, one.result, durable=False)
