"""What ``collabench verify`` found, as a file beside the accepted report that it checked.

The page of all profiles shows it. It holds neither times nor paths, so that the same check gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from collabench.core.record import Record
from collabench.core.text import counted
from collabench.report.folders import digests_of
from collabench.storage.files import read_json, write_json

VERIFIED = "verified.json"
SCHEMA: Final = 1

#: What became of the report that was built again: its numbers are the accepted ones; they differ; they differ, and the
#: accepted report was made on another device; it was not built, because files are missing or damaged.
Rebuilt = Literal["same", "differs", "made elsewhere", "not built"]


#: Kinds of files that are hashed again, as the record names them → one of them.
_ONE = {
    "data sets": "data set",
    "noise files": "noise file",
    "results": "result",
    "logits and weights": "file of logits or weights",
    "measurements": "measurement",
    "report tables": "report table",
}


class Repetition(Record):
    """A run that was trained again.

    label, seed, run_id: the run. compared: whether every byte or the test errors had to agree; why: the reason for a
    tolerance. recorded, repeated: test errors in percent; repeated is None if the repetition failed. allowed: their
    largest difference in percentage points, None with bytes. agrees: whether the repetition passed.
    """

    label: str
    seed: int
    run_id: str
    compared: Literal["bytes", "tolerance"]
    why: str
    recorded: float
    repeated: float | None
    allowed: float | None
    agrees: bool


class Verified(Record):
    """digests: file of the accepted report → SHA-256, as it was checked. sample, draw_seed: as ``--sample`` and
    ``--seed`` asked. hashed: kind of file → number of files that were hashed again. differences: their number."""

    schema_version: Literal[1] = SCHEMA
    profile: str
    digests: dict[str, str]
    sample: int
    draw_seed: int
    hashed: dict[str, int]
    rebuilt: Rebuilt
    repetitions: tuple[Repetition, ...]
    differences: int


def hashed_text(hashed: Mapping[str, int]) -> str:
    """``1 data set, 18 results``."""
    return ", ".join(counted(files, _ONE[kind], kind) for kind, files in hashed.items())


def load_verified(folder: Path) -> Verified | None:
    """The record in the folder of an accepted report; None if there is none. Raises ResultError if it is damaged."""
    path = folder / VERIFIED
    return read_json(path, Verified, remedy="run collabench verify again") if path.is_file() else None


def save_verified(folder: Path, record: Verified) -> Path:
    """Write the record into the folder of an accepted report. Raises StorageError if it cannot be written."""
    write_json(folder / VERIFIED, record)
    return folder / VERIFIED


def still_holds(folder: Path, record: Verified) -> bool:
    """Whether the report in this folder is the one that was checked."""
    return record.digests == digests_of(folder)
