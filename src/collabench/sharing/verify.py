"""Is what a report rests on still what was found? Every file is hashed again, and a random sample of runs is trained again.

Nothing of the study is written to: what is made again lies in a temporary folder.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from collabench.config.configuration import Run, dataset_key, digest
from collabench.core.errors import CollabenchError, Log
from collabench.core.seeding import numpy_generator
from collabench.storage import archives
from collabench.storage.files import read_json
from collabench.storage.results import LOGITS, RESULT, WEIGHTS, Measured, Result, load_result
from collabench.storage.workspace import Workspace
from collabench.study.runner import Runner
from collabench.study.source_code import source_digest
from collabench.study.study import Study

if TYPE_CHECKING:
    from collabench.data import Dataset

SEEDS_FOR_SPREAD = 3
"""From so many seeds on, a configuration's own spread says how far a run may be from its repetition elsewhere."""

SMALLEST_TOLERANCE, TOLERANCE_WITHOUT_SPREAD = 1.0, 5.0
"""Percentage points of test error."""

_SAME_BY_DEFINITION = ("dataset_digest", "train_images", "test_images", "parameters", "training_parameters")
"""Fields of a result that no device and no version may change."""


@dataclass(frozen=True)
class Rerun:
    """One run of the sample, trained again.

    compared: ``bytes`` of result, logits and weights, or ``tolerance`` on the test error; why: the reason for the latter.
    recorded, repeated: test error in percent (repeated: None where it failed). allowed: percentage points, None with
    ``bytes``. difference: what differs, empty where nothing does.
    """

    run: Run
    compared: Literal["bytes", "tolerance"]
    why: str
    recorded: float
    repeated: float | None
    allowed: float | None
    difference: str

    def line(self) -> str:
        """One line for people."""
        name = f"{self.run.configuration.label}, seed {self.run.seed} [{self.run.id}]"
        if self.difference:
            return f"{name}: {self.difference}"
        if self.compared == "bytes":
            return f"{name}: trained again, the same bytes"
        return (
            f"{name}: trained again, test error {self.recorded:.2f} % recorded, {self.repeated:.2f} % now, "
            f"{self.allowed:.2f} points allowed ({self.why})"
        )


@dataclass
class Verification:
    """hashed: kind of file → how many were hashed. differences: one line each; a study without any is verified.
    notes: what should be known about the results and is no difference."""

    hashed: Counter[str] = field(default_factory=Counter)
    reruns: list[Rerun] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    study: Study,
    *,
    sample: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    device: str | None = None,
    log: Log = print,
) -> Verification:
    """Hash the study's files, build its report from them and compare it with the accepted one, and repeat some runs.

    sample, seed: how many runs to train again, and of which draw; one run of each code other than the present one is added. tolerance: percentage points by which the test error of
    a repetition on another device or other versions may differ; by default 3 √2 standard deviations over the
    configuration's seeds (what two runs of unequal luck differ by), at least :data:`SMALLEST_TOLERANCE`, and
    :data:`TOLERANCE_WITHOUT_SPREAD` with fewer than :data:`SEEDS_FOR_SPREAD` seeds. device: where to train; by default on the
    kind of device that a run was trained on, or on the CPU where this machine has none.
    Raises ConfigError where the sample asks for what this machine cannot do.
    """
    found = Verification()
    datasets = _verify_datasets(study, found)
    whole_noise = _verify_noise(study, datasets, found)
    results = _verify_results(study, datasets, found)
    found.differences += archives.damaged(study.workspace)
    log(", ".join(f"{count} {kind}" for kind, count in found.hashed.items()) + " hashed")
    if len(results) == len(study.plan.runs) and not found.differences:
        _verify_report(study, found, log)
    else:
        found.notes.append("the report was not built again, since files it needs are missing or damaged")
    usable = [run for run in study.plan.runs if _trainable(study, run, datasets, whole_noise, results)]
    chosen = _choose(usable, sample, seed)
    others = _one_of_each_code(usable, results)
    if others:
        found.notes.append(
            f"{len(others)} runs stand for code other than the present one; one run of each was trained again"
        )
        chosen = [run for run in usable if run in chosen or run in others]
    if len(chosen) < min(sample, len(study.plan.runs)):
        found.notes.append(f"only {len(chosen)} runs could be trained again: the others lack whole files")
    for run in chosen:
        log(f"training again: {run.configuration.label}, seed {run.seed}")
        found.reruns.append(_repeat(study, run, results, tolerance, device))
    found.differences += [rerun.line() for rerun in found.reruns if rerun.difference]
    return found


# ------------------------------------------------------------------------------------------------------------- hashing


def _verify_datasets(study: Study, found: Verification) -> dict[str, Dataset]:
    """Key → open data set, of those that are whole."""
    from collabench import data

    whole = {}
    configurations = {dataset_key(c.dataset): c for c in study.plan.configurations.values()}
    for key, configuration in configurations.items():
        folder = study.workspace.datasets / key
        try:
            dataset = data.load(folder)
            manifest = read_json(folder / data.MANIFEST, data.Manifest)
            if digest(manifest.identity) != digest(configuration.dataset.identity()):
                raise CollabenchError(f"{folder / data.MANIFEST}: holds another data set than params.yaml asks for")
            if manifest.streamed_from is not None:  # its images lie outside of what was hashed so far
                pinned = configuration.dataset.sha256
                if data.source_digest(configuration.dataset, study.workspace.root) != pinned:
                    raise CollabenchError(
                        f"{folder / manifest.streamed_from}: its images are not those of the pinned sha256"
                    )
            found.hashed["data sets"] += 1
            whole[key] = dataset
        except CollabenchError as error:
            found.differences.append(str(error))
    return whole


def _verify_noise(study: Study, datasets: dict[str, Dataset], found: Verification) -> set[Path]:
    """The files of static noisy labels that are whole, and what their seeds draw."""
    import torch

    from collabench.data import noise

    whole = set()
    for runs in study.inputs.noise_files().values():
        for run in runs:
            path, config = study.inputs.noise_file(run), run.configuration.noise
            try:
                stored = noise.read_static(path)
                dataset = datasets.get(dataset_key(run.configuration.dataset))
                if dataset is not None:
                    drawn = noise.draw(config, dataset.train_labels, dataset.classes, run.data_seed)
                    if not torch.equal(drawn.noisy, stored.noisy):
                        raise CollabenchError(f"{path}: its labels are not those that its seed draws")
                found.hashed["noise files"] += 1
                whole.add(path)
            except CollabenchError as error:
                found.differences.append(str(error))
    return whole


def _verify_results(study: Study, datasets: dict[str, Dataset], found: Verification) -> dict[str, Result]:
    """Run id → result, of those whose files are all whole."""
    whole: dict[str, Result] = {}
    commits: Counter[str] = Counter()
    unmeasured = 0
    for run in study.plan.runs:
        folder = study.workspace.folder(run)
        try:
            if not (folder / RESULT).exists():
                raise CollabenchError(f"{folder / RESULT}: is missing")
            result = load_result(folder, run)
            expected = {LOGITS, WEIGHTS} if _trains(run) else {LOGITS}
            if result.files.keys() != expected:
                raise CollabenchError(
                    f"{folder / RESULT}: names the files {sorted(result.files)}, not {sorted(expected)}"
                )
            if digest(result.identity) != digest(run.configuration.identity()):
                raise CollabenchError(f"{folder / RESULT}: its identity is not that of its run")
            dataset = datasets.get(dataset_key(run.configuration.dataset))
            if dataset is not None and result.dataset_digest != dataset.digest:
                raise CollabenchError(f"{folder / RESULT}: was trained on another data set than the one that lies here")
            found.hashed["results"] += 1
            found.hashed["logits and weights"] += len(result.files)
            measured = _measured(study, run)
            if measured is None:
                unmeasured += 1
            else:
                _check_measured(study, run, result, measured)
                found.hashed["measurements"] += 1
                commits[f"commit {(measured.commit or 'unknown')[:12]}{' with changes' if measured.dirty else ''}"] += 1
            whole[run.id] = result
        except CollabenchError as error:
            found.differences.append(f"{error} ({run.configuration.label}, seed {run.seed})")
    found.notes += [f"{count} runs were made at {commit}" for commit, count in sorted(commits.items())]
    if unmeasured:
        found.notes.append(f"{unmeasured} runs have no measured.json here: device and versions unknown")
    return whole


def _trains(run: Run) -> bool:
    from collabench.methods import METHODS

    return METHODS[run.configuration.method.method].Method.trains


def _measured(study: Study, run: Run) -> Measured | None:
    path = study.workspace.measured_file(run)
    return read_json(path, Measured) if path.exists() else None


def _check_measured(study: Study, run: Run, result: Result, measured: Measured) -> None:
    expected = {
        "run_id": run.id,
        "configuration": digest(run.configuration.identity()),
        "dataset": result.dataset_digest,
    }
    for name, value in expected.items():
        if getattr(measured, name) not in (None, value):
            path = study.workspace.measured_file(run)
            raise CollabenchError(f"{path}: {name} is {getattr(measured, name)}, that of the run is {value}")


# --------------------------------------------------------------------------------------------------------- the report


def _verify_report(study: Study, found: Verification, log: Log) -> None:
    """Every number of the accepted report follows from the files that were hashed, ``params.yaml`` and ``papers/``."""
    from collabench.report.accepted import compare
    from collabench.report.build import build_report

    workspace = study.workspace
    if not workspace.accepted_report.is_dir():
        found.notes.append(f"{workspace.accepted_report} is not there: no report to compare")
        return
    log("building the report again")
    with _temporary(study, ("runs", "measured", "datasets")) as copy:
        try:
            build_report(study.params, study.plan, copy)
            lines = compare(copy)
        except CollabenchError as error:
            where = str(error).replace(str(copy.root), str(workspace.root))
            found.differences.append(f"the report cannot be built: {where}")
            return
        found.hashed["report tables"] += len(list(copy.report.glob("*.csv")))
    numbers = [line for line in lines if line.split(":", 1)[0].endswith(".csv")]
    found.differences += [f"{workspace.accepted_report}: {line}" for line in numbers]
    found.notes += [f"{workspace.accepted_report}: {line}" for line in lines if line not in numbers]


@contextmanager
def _temporary(study: Study, folders: Sequence[str], runs: Sequence[Run] = ()) -> Iterator[Workspace]:
    """A workspace of its own that sees these of the study's folders, and of these runs the results."""
    real = study.workspace
    with tempfile.TemporaryDirectory(prefix="collabench-verify-") as name:
        copy = Workspace(Path(name), real.profile)
        copy.home.mkdir(parents=True)
        for path in (real.params, real.papers, real.root / "reports"):
            if path.exists():
                (copy.root / path.name).symlink_to(path)
        for folder in folders:
            if (real.home / folder).exists():
                (copy.home / folder).symlink_to(real.home / folder)
        for run in runs:
            target = copy.folder(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(real.folder(run))
        yield copy


# ----------------------------------------------------------------------------------------------------- training again


def _trainable(
    study: Study, run: Run, datasets: dict[str, Dataset], noise: set[Path], results: dict[str, Result]
) -> bool:
    """Whether the run, and everything that it starts from, is whole."""
    config = run.configuration.noise
    static = config.is_static
    return (
        run.id in results
        and dataset_key(run.configuration.dataset) in datasets
        and (not static or study.inputs.noise_file(run) in noise)
        and all(required.id in results for required in run.requires())
    )


def _choose(runs: Sequence[Run], sample: int, seed: int) -> list[Run]:
    generator = numpy_generator(seed, "bootstrap", "verify")
    chosen = generator.choice(len(runs), size=min(sample, len(runs)), replace=False) if runs else []
    return [runs[index] for index in sorted(map(int, chosen))]


def _one_of_each_code(runs: Sequence[Run], results: dict[str, Result]) -> list[Run]:
    """One run of each code that is not the present one, accepted or not."""
    chosen: dict[str | None, Run] = {}
    for run in runs:
        source = results[run.id].source
        if source is not None and source != source_digest(run.configuration):
            chosen.setdefault(source, run)
    return list(chosen.values())


def _repeat(study: Study, run: Run, results: dict[str, Result], tolerance: float | None, device: str | None) -> Rerun:
    """Train a run again, from the study's data set and from the runs that it requires, with its noise drawn again."""
    recorded, before = results[run.id], _measured(study, run)
    error = 100 * recorded.last.error
    device = device or _device_like(before)
    study.check_device(device)
    with _temporary(study, ("datasets",), run.requires()) as copy:
        again = Study(study.params, study.plan, copy)
        outcome = Runner(again).train([run], device=device, log=lambda line: None)
        if outcome.failed:
            reason = f"was finished when recorded, fails now: {outcome.failed[0][1]}"
            return Rerun(run, "tolerance", "", error, None, None, reason)
        folder, now = copy.folder(run), _measured(again, run)
        repeated = load_result(folder, run)
        assert now is not None, "training measures"
        why = _why_not_bytes(recorded, repeated, before, now)
        if not why:
            original = study.workspace.folder(run)
            names = [
                name
                for name in recorded.files
                if not (folder / name).is_file() or (folder / name).read_bytes() != (original / name).read_bytes()
            ]
            if recorded.found() != repeated.found():  # the code that computed it may differ
                names.insert(0, RESULT)
    repeated_error = 100 * repeated.last.error
    if not why:
        commit = "" if before is None else f", recorded at commit {(before.commit or 'unknown')[:12]}"
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


def _why_not_bytes(recorded: Result, repeated: Result, before: Measured | None, now: Measured) -> str:
    """Why the same bytes cannot be asked for; empty where they can."""
    if before is None:
        return "where it was trained is unknown"
    for name in ("device_type", "device", "threads"):
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
    """Percentage points by which the repetition of a run may differ; see :func:`verify`."""
    same = (result for result in results.values() if result.configuration_id == run.configuration.id)
    errors = [100 * result.last.error for result in same]
    if len(errors) < SEEDS_FOR_SPREAD:
        return TOLERANCE_WITHOUT_SPREAD
    return max(SMALLEST_TOLERANCE, 3 * math.sqrt(2) * statistics.stdev(errors))
