"""Verification of a report: every file is hashed again, and a random sample of runs is trained again.

The check writes nothing to the study: everything is made in a temporary folder. :func:`record` then notes beside the
accepted report what was found.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.configuration import Run, dataset_key, digest
from collabench.core.errors import CollabenchError, Log
from collabench.core.text import counted
from collabench.report.folders import CONTENT, digests_of
from collabench.report.verification import Rebuilt, Repetition, Verified, hashed_text, save_verified
from collabench.sharing.repeat import (
    Rerun,
    draw_sample,
    is_trainable,
    measured_of,
    one_of_each_code,
    repeat,
    temporary_copy,
)
from collabench.storage import archives
from collabench.storage.files import read_json
from collabench.storage.results import (
    LOGITS,
    RESULT,
    WEIGHTS,
    Measured,
    Result,
    files_of_run,
    is_recorded,
    load_result,
)
from collabench.storage.workspace import Workspace
from collabench.study.study import Study

if TYPE_CHECKING:
    from collabench.data import Dataset


@dataclass
class Verification:
    """hashed: kind of file → number of hashed files.
    differences: one line each. A study without differences is verified.
    notes: facts about the results that are no differences.
    rebuilt: what became of the report that was built again.
    """

    hashed: Counter[str] = field(default_factory=Counter)
    reruns: list[Rerun] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rebuilt: Rebuilt = "not built"


def verify(
    study: Study,
    *,
    sample: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    device: str | None = None,
    strict: bool = False,
    log: Log = print,
) -> Verification:
    """Hash the study's files, build its report again, compare it with the accepted one, and repeat some runs.

    sample, seed: number of runs to train again, and the seed of their random choice. One run of each code version other
    than the present one is added.
    tolerance: allowed difference of the test error, in percentage points, of a repetition on another device or with
    other versions. The default is 3 √2 standard deviations over the configuration's seeds (√2 for a difference of two
    runs), at least :data:`SMALLEST_TOLERANCE`; with fewer than :data:`SEEDS_FOR_SPREAD` seeds it is
    :data:`TOLERANCE_WITHOUT_SPREAD`.
    device: where to train. The default is the kind of device that a run was trained on, or the CPU if this machine has
    none.
    strict: count differences from the accepted report also if it was made on another device.

    Raises ConfigError if this machine cannot train the sample.
    """
    found = Verification()
    datasets = _verify_datasets(study, found)
    whole_noise = _verify_noise(study, datasets, found)
    results = _verify_results(study, datasets, whole_noise, found)
    found.differences += archives.damaged(study.workspace)
    log(f"{hashed_text(found.hashed)} hashed")
    expected = study.expected
    if len(results) == len(expected) and not found.differences:
        _verify_report(study, found, log, strict)
    else:
        found.notes.append("the report was not built again, since files it needs are missing or damaged")
        if len(results) == len(expected) and any("came from records" in note for note in found.notes):
            found.notes.append("records hold no data sets and no noisy labels: collabench data prepare -p "
                               f"{study.workspace.profile} makes them")  # fmt: skip
    usable = [run for run in expected if is_trainable(study, run, datasets, whole_noise, results)]
    chosen = draw_sample(usable, sample, seed)
    others = one_of_each_code(usable, results)
    if others:
        found.notes.append(
            f"some results were made by other versions of the code: {counted(len(others), 'run')}, one of each, "
            "trained again"
        )
        chosen = [run for run in usable if run in chosen or run in others]
    if len(chosen) < min(sample, len(expected)):
        found.notes.append(f"only {counted(len(chosen), 'run')} could be trained again: the others lack whole files")
    for run in chosen:
        log(f"training again: {run.configuration.label}, seed {run.seed}")
        found.reruns.append(repeat(study, run, results, tolerance, device))
    found.differences += [rerun.line() for rerun in found.reruns if rerun.difference]
    return found


def record(study: Study, found: Verification, *, sample: int, seed: int) -> Path | None:
    """Note beside the accepted report what was found, for the page of all profiles. Return the file, or None if no
    report is accepted.

    sample, seed: as they were given to :func:`verify`. Raises StorageError if the file cannot be written.
    """
    folder = study.workspace.accepted_report
    if not (folder / CONTENT).is_file():
        return None
    noted = Verified(
        profile=study.workspace.profile,
        digests=digests_of(folder),
        sample=sample,
        draw_seed=seed,
        hashed=dict(sorted(found.hashed.items())),
        rebuilt=found.rebuilt,
        repetitions=tuple(
            Repetition(
                label=one.run.configuration.label,
                seed=one.run.seed,
                run_id=one.run.id,
                compared=one.compared,
                why=one.why,
                recorded=one.recorded,
                repeated=one.repeated,
                allowed=one.allowed,
                agrees=not one.difference,
            )
            for one in found.reruns
        ),
        differences=len(found.differences),
    )
    return save_verified(folder, noted)


# ------------------------------------------------------------------------------------------------------------- hashing


def _verify_datasets(study: Study, found: Verification) -> dict[str, Dataset]:
    """Key → open data set, for the undamaged data sets."""
    from collabench import data

    whole = {}
    configurations = {dataset_key(c.dataset): c for c in study.plan.configurations.values()}
    for key, configuration in configurations.items():
        folder = study.workspace.datasets / key
        try:
            images_at = data.path_of(configuration.dataset, study.workspace.base_of_data)
            dataset = data.load(folder, images_at)
            manifest = read_json(folder / data.MANIFEST, data.Manifest)
            if digest(manifest.identity) != digest(configuration.dataset.pool().identity()):
                raise CollabenchError(f"{folder / data.MANIFEST}: holds another data set than params.yaml asks for")
            # streamed images are outside the files that were hashed so far
            if manifest.streamed and not data.is_pinned_source(configuration.dataset, study.workspace.base_of_data):
                raise CollabenchError(f"{images_at}: its images are not those of the pinned sha256")
            if (manifest.mean, manifest.std) != data.pixel_statistics(dataset.train_images, dataset.train_labels):
                raise CollabenchError(f"{folder / data.MANIFEST}: mean or std are not those of the training images")
            found.hashed["data sets"] += 1
            whole[key] = dataset
        except CollabenchError as error:
            found.differences.append(str(error))
    return whole


def _verify_noise(study: Study, datasets: dict[str, Dataset], found: Verification) -> dict[Path, str]:
    """The undamaged files of static noisy labels that equal what their seeds draw, each with the digest of its
    labels."""
    import torch

    from collabench.data import noise

    whole = {}
    for runs in study.inputs.noise_files().values():
        for run in runs:
            path, config = study.inputs.noise_file(run), run.configuration.noise
            try:
                stored = noise.read_static(path, config, run.data_seed)
                dataset = datasets.get(dataset_key(run.configuration.dataset))
                if dataset is not None:
                    drawn = study.inputs.drawn_noise(run, dataset)
                    if not torch.equal(drawn.noisy, stored.noisy):
                        raise CollabenchError(f"{path}: its labels are not those that its seed draws")
                found.hashed["noise files"] += 1
                whole[path] = noise.labels_digest(stored.noisy)
            except CollabenchError as error:
                found.differences.append(str(error))
    return whole


def _verify_results(
    study: Study, datasets: dict[str, Dataset], noise: dict[Path, str], found: Verification
) -> dict[str, Result]:
    """Run id → result, for the runs whose files are all undamaged."""
    whole: dict[str, Result] = {}
    commits: Counter[str] = Counter()
    unmeasured = recorded = 0
    for run in study.expected:
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
            drawn = noise.get(study.inputs.noise_file(run)) if run.configuration.noise.is_static else None
            if drawn is not None and result.labels not in (None, drawn):
                raise CollabenchError(f"{folder / RESULT}: was trained on other labels than its seed draws")
            found.hashed["results"] += 1
            found.hashed["logits and weights"] += len({LOGITS, WEIGHTS}.intersection(files_of_run(folder)))
            recorded += is_recorded(folder)
            measured = measured_of(study, run)
            if measured is None:
                unmeasured += 1
            else:
                _check_measured(study, run, result, measured)
                found.hashed["measurements"] += 1
                commits[f"commit {measured.commit_text}"] += 1
            whole[run.id] = result
        except CollabenchError as error:
            found.differences.append(f"{error} ({run.configuration.label}, seed {run.seed})")
    found.notes += [f"{counted(count, 'run')} made at {commit}" for commit, count in sorted(commits.items())]
    if recorded:
        found.notes.append(
            f"{counted(recorded, 'run')} came from records, without logits and weights: a run that is trained again is "
            "compared with the checksums in its result"
        )
    if unmeasured:
        found.notes.append(f"{unmeasured} runs have no measured.json here: device and versions unknown")
    return whole


def _trains(run: Run) -> bool:
    from collabench.methods import METHODS

    trains: bool = METHODS[run.configuration.method.method].Method.trains
    return trains


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


def _verify_report(study: Study, found: Verification, log: Log, strict: bool) -> None:
    """Check that every number of the accepted report follows from the hashed files, ``params.yaml`` and ``papers/``."""
    from collabench.report.accepted import compare
    from collabench.report.build import build_report

    workspace = study.workspace
    if not workspace.accepted_report.is_dir():
        found.notes.append(f"{workspace.accepted_report} is not there: no report to compare")
        return
    log("building the report again")
    with temporary_copy(study, ("runs", "measured", "datasets")) as copy:
        try:
            build_report(study.params, study.plan, copy)
            lines = compare(copy)
        except CollabenchError as error:
            where = str(error).replace(str(copy.root), str(workspace.root))
            found.differences.append(f"the report cannot be built: {where}")
            return
        found.hashed["report tables"] += len(list(copy.report.glob("*.csv")))
    numbers = [line for line in lines if line.split(":", 1)[0].endswith(".csv")]
    elsewhere = _made_elsewhere(workspace)
    found.rebuilt = "same"
    if numbers:
        found.rebuilt = "made elsewhere" if elsewhere and not strict else "differs"
    differ = found.differences if strict or not elsewhere else found.notes
    differ += [f"{workspace.accepted_report}: {line}" for line in numbers]
    found.notes += [f"{workspace.accepted_report}: {line}" for line in lines if line not in numbers]
    if numbers and elsewhere and not strict:
        found.notes.append(
            f"these results are whole; they differ from the accepted report, which was made elsewhere: {elsewhere}"
        )


def _made_elsewhere(workspace: Workspace) -> str:
    """How the devices of the accepted report differ from those of the results here. Empty if they do not, or are
    unknown."""
    from collabench.report.comparison import ORIGIN, Origin
    from collabench.report.folders import COSTS

    accepted, here = (folder / ORIGIN for folder in (workspace.accepted_report / COSTS, workspace.costs))
    if not accepted.exists() or not here.exists():
        return ""
    before, after = (read_json(path, Origin).devices for path in (accepted, here))
    return "" if before == after else f"{', '.join(before)} → {', '.join(after)}"
