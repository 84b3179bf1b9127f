"""Repetition of a sample of a study's runs, and comparison of the results with the recorded ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collabench.config.configuration import Run, dataset_key
from collabench.core.seeding import numpy_generator
from collabench.storage.results import RESULT, Measured, Result, is_recorded, load_measured, load_result
from collabench.storage.temporary import temporary_folder
from collabench.storage.workspace import Workspace
from collabench.study.runner import Runner
from collabench.study.source_code import source_digest
from collabench.study.study import Study

if TYPE_CHECKING:
    from collabench.data import Dataset

SEEDS_FOR_SPREAD = 3
"""With at least this many seeds, a configuration's own spread determines how far a repetition on another machine may
differ."""

SMALLEST_TOLERANCE, TOLERANCE_WITHOUT_SPREAD = 1.0, 5.0
"""The smallest tolerance, and the tolerance for fewer seeds, in percentage points of test error."""

_SAME_BY_DEFINITION = ("dataset_digest", "train_images", "test_images", "parameters", "training_parameters")
"""Fields of a result that are the same on every device and version."""


@dataclass(frozen=True)
class Rerun:
    """A run of the sample and its repetition.

    compared: ``bytes`` if result, logits and weights had to be equal byte for byte; ``tolerance`` if the test errors
        were compared. why: the reason for a tolerance.
    recorded, repeated: test error in percent; repeated is None if the repetition failed.
    allowed: the tolerance in percentage points; None with ``bytes``.
    difference: a description of the difference; empty if there is none.
    """

    run: Run
    compared: Literal["bytes", "tolerance"]
    why: str
    recorded: float
    repeated: float | None
    allowed: float | None
    difference: str

    def line(self) -> str:
        """Return the result of the repetition on one line."""
        name = f"{self.run.configuration.label}, seed {self.run.seed} [{self.run.id}]"
        if self.difference:
            return f"{name}: {self.difference}"
        if self.compared == "bytes":
            return f"{name}: trained again, the same bytes"
        return (
            f"{name}: trained again, test error {self.recorded:.2f} % recorded, {self.repeated:.2f} % now, "
            f"{self.allowed:.2f} points allowed ({self.why})"
        )


def is_trainable(
    study: Study, run: Run, datasets: dict[str, Dataset], noise: Container[Path], results: dict[str, Result]
) -> bool:
    """Return whether the run's files, its data set and noise, and the runs that it requires are undamaged."""
    config = run.configuration.noise
    static = config.is_static
    return (
        run.id in results
        and dataset_key(run.configuration.dataset) in datasets
        and (not static or study.inputs.noise_file(run) in noise)
        and all(required.id in results for required in run.requires())
    )


def draw_sample(runs: Sequence[Run], sample: int, seed: int) -> list[Run]:
    generator = numpy_generator(seed, "bootstrap", "verify")
    if not runs:
        return []
    chosen = generator.choice(len(runs), size=min(sample, len(runs)), replace=False)
    return [runs[index] for index in sorted(map(int, chosen))]


def one_of_each_code(runs: Sequence[Run], results: dict[str, Result]) -> list[Run]:
    """Return one run of each version of the code other than the present one, whether accepted or not."""
    chosen: dict[str | None, Run] = {}
    for run in runs:
        source = results[run.id].source
        if source is not None and source != source_digest(run.configuration):
            chosen.setdefault(source, run)
    return list(chosen.values())


def repeat(study: Study, run: Run, results: dict[str, Result], tolerance: float | None, device: str | None) -> Rerun:
    """Train a run again, from the study's data set and the runs that it requires, and compare the results.

    Its noisy labels are drawn again.
    tolerance: largest difference of the test errors, in percentage points; None for that of :func:`_allowed`.
    device: ``cpu`` or ``cuda``; by default the kind of device of the recorded run, if this machine has it.
    """
    recorded, before = results[run.id], measured_of(study, run)
    error = 100 * recorded.last.error
    device = device or _device_like(before)
    study.check_device(device)
    with temporary_copy(study, ("datasets",), run.requires()) as copy:
        again = Study(study.params, study.plan, copy)
        outcome = Runner(again).train([run], device=device, log=lambda line: None)
        if outcome.failed:
            reason = f"was finished when recorded, fails now: {outcome.failed[0][1]}"
            return Rerun(run, "tolerance", "", error, None, None, reason)
        now = measured_of(again, run)
        repeated = load_result(copy.folder(run), run)
        assert now is not None, "training measures"
        why = _why_not_bytes(run, recorded, repeated, before, now)
        if not why:
            # load_result compared the files with these checksums
            names = [name for name in recorded.files if repeated.files.get(name) != recorded.files[name]]
            if recorded.found() != repeated.found() or recorded.labels not in (
                None,
                repeated.labels,
            ):  # the digest of the code may differ
                names.insert(0, RESULT)
    repeated_error = 100 * repeated.last.error
    if not why:
        commit = "" if before is None else f", recorded at commit {before.commit_text}"
        text = f"other bytes when trained again on the same device and versions: {', '.join(names)}{commit}"
        return Rerun(run, "bytes", "", error, repeated_error, None, text if names else "")
    allowed = _allowed(study, run, results) if tolerance is None else tolerance
    text = ""
    wrong = [name for name in _SAME_BY_DEFINITION if getattr(recorded, name) != getattr(repeated, name)]
    if wrong:
        text = f"trained again, {', '.join(wrong)} differ"
    elif abs(repeated_error - error) > allowed:
        text = (
            f"trained again, test error {error:.2f} % recorded, {repeated_error:.2f} % now, only {allowed:.2f} points "
            f"allowed ({why})"
        )
    return Rerun(run, "tolerance", why, error, repeated_error, allowed, text)


def _device_like(before: Measured | None) -> str:
    import torch

    there = torch.cuda.is_available()
    return "cuda" if there and (before is None or before.device_type == "cuda") else "cpu"


def _why_not_bytes(run: Run, recorded: Result, repeated: Result, before: Measured | None, now: Measured) -> str:
    """Return the reason why the bytes need not be equal; empty if they must be.

    A portable run on a CPU gives the same bytes on every processor that can compute it.
    """
    if before is None:
        return "where it was trained is unknown"
    portable = run.configuration.recipe.arithmetic == "portable" and now.device_type == "cpu"
    for name in ("device_type",) if portable else ("device_type", "device", "threads"):
        if getattr(before, name) != getattr(now, name):
            return f"{name.replace('_', ' ')}: {getattr(before, name)} → {getattr(now, name)}"
    changed = [
        f"{package} {before.versions.get(package)} → {now.versions.get(package)}"
        for package in sorted(before.versions.keys() | now.versions.keys())
        if before.versions.get(package) != now.versions.get(package)
    ]
    if changed:
        return "versions: " + ", ".join(changed)
    return "" if recorded.deterministic and repeated.deterministic else "its operations are not all deterministic"


def _allowed(study: Study, run: Run, results: dict[str, Result]) -> float:
    """Return the percentage points by which the test error of a repetition may differ.

    They follow from the spread over the configuration's seeds if there are enough of them; see
    :func:`collabench.sharing.verify.verify`.
    """
    same = (result for result in results.values() if result.configuration_id == run.configuration.id)
    errors = [100 * result.last.error for result in same]
    if len(errors) < SEEDS_FOR_SPREAD:
        return TOLERANCE_WITHOUT_SPREAD
    return max(SMALLEST_TOLERANCE, 3 * math.sqrt(2) * statistics.stdev(errors))


def measured_of(study: Study, run: Run) -> Measured | None:
    path = study.workspace.measured_file(run)
    return load_measured(path, run) if path.exists() else None


@contextmanager
def temporary_copy(study: Study, folders: Sequence[str], runs: Sequence[Run] = ()) -> Iterator[Workspace]:
    """Create a temporary workspace with links to these folders of the study and to the results of these runs."""
    real = study.workspace
    with temporary_folder("verify") as place:
        copy = Workspace(place, real.profile, real.base_of_data)
        copy.home.mkdir(parents=True)
        for path in (real.params, real.papers, real.root / "reports"):
            if path.exists():
                (copy.root / path.name).symlink_to(path)
        for folder in folders:
            if (real.home / folder).exists():
                (copy.home / folder).symlink_to(real.home / folder)
        for run in runs:
            if is_recorded(real.folder(run)):
                continue  # without weights: it is trained in the copy
            target = copy.folder(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(real.folder(run))
        yield copy
