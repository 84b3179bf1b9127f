"""Import of finished runs from another copy of the project: ``collabench import``.

Everything is checked before anything is written: the runs belong to this study, every file matches its checksum,
versions, kind of device and data are the same in both copies, and no run exists here with other bytes. The files are
then copied next to their destination, checked again, and moved into place, each run's result last. Runs that were
already imported stay unchanged.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from collabench.config.configuration import Run, dataset_key, differences, digest
from collabench.core.errors import CollabenchError, Log, ResultError
from collabench.core.text import counted
from collabench.storage.files import folder_beside, move, read_json, sha256_of, unwritable
from collabench.storage.locks import holding, is_held
from collabench.storage.results import (
    LOGITS,
    RECORD,
    RESULT,
    Failure,
    Measured,
    Result,
    files_of_run,
    is_recorded,
    load_measured,
    load_result,
)
from collabench.storage.workspace import Workspace
from collabench.study.study import Study

#: Number of problems that are listed one by one; the rest is counted.
_SHOWN = 20


@dataclass
class Merged:
    """The result of an import: the runs that were taken, and those that were here already with the same bytes.

    devices, commits: of the runs that were taken.
    """

    imported: list[Run] = field(default_factory=list)
    already: list[Run] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Found:
    """A run of the other copy: its folder, its result and its measurements (None if there are none)."""

    run: Run
    folder: Path
    result: Result
    measured_file: Path
    measured: Measured | None


def copy_at(folder: Path, profile: str) -> Workspace:
    """The other copy's profile, in a project's folder or in its ``artifacts/<profile>``.

    Raises CollabenchError if there is none.
    """
    folder = folder.resolve()
    for home in (folder / "artifacts" / profile, folder):
        if home.name == profile and home.parent.name == "artifacts" and (home / "runs").is_dir():
            return Workspace(home.parent.parent, profile)
        if (home / "packed").is_dir():
            raise CollabenchError(f"{home}: its results are packed; there, `collabench plan -p {profile}` unpacks them")
    raise CollabenchError(f"{folder}: has no artifacts/{profile}/runs; name the folder of a copy of this project")


def merge(
    study: Study,
    source: Workspace,
    *,
    allow_versions: bool = False,
    allow_devices: bool = False,
    planned_only: bool = False,
    log: Log = print,
) -> Merged:
    """Take the finished runs of ``source`` that this study lacks.

    allow_versions: also take runs of other package versions.
    allow_devices: also take runs of another kind of device (CPU, CUDA).
    planned_only: ignore runs that this study's plan does not contain.

    Differences of the device's model and of the commit are only reported, because identities and checksums decide
    whether a run belongs to this study. Raises CollabenchError, after ``log`` received every problem; nothing is
    written then.
    """
    if source.home.resolve() == study.workspace.home.resolve():
        raise CollabenchError(f"{source.home}: is this study itself")
    problems: list[str] = []
    found = list(_read(study, source, planned_only, problems, log))
    problems += [*_data_problems(study, found), *_noise_problems(study, source)]
    here, there = _measured_here(study), [one.measured for one in found if one.measured is not None]
    for line, option, allowed in (
        (_version_problem(here, there, len(found)), "--allow-versions", allow_versions),
        (_device_problem(here, there), "--allow-devices", allow_devices),
    ):
        if line and allowed:
            log(
                f"{line}; they are mixed since {option} says so: a table then holds runs that no single machine "
                "repeats to the byte. measured/ says of each run where and with what it was made"
            )
        elif line:
            problems.append(f"{line}; {option} mixes them")
    merged, missing = Merged(), []
    for one in found:
        if is_held(study.workspace.lock(one.run.id)):
            problems.append(f"{one.run.id}: is being trained here; wait for its end")
            continue
        try:
            same = _same_here(study, one)
        except ResultError as error:
            problems.append(str(error))
            continue
        (merged.already if same else merged.imported).append(one.run)
        if not same:
            missing.append(one)
    if problems:
        for line in problems[:_SHOWN]:
            log(line)
        further = f", {len(problems) - _SHOWN} more not listed" if len(problems) > _SHOWN else ""
        raise CollabenchError(f"{source.home}: nothing was imported; problems found: {len(problems)} (above{further})")
    with holding(study.workspace.lock("import"), "importing", log):
        _take(study, missing, log)
    taken = [one.measured for one in missing if one.measured is not None]
    merged.devices = {one.device for one in taken}
    merged.commits = {one.commit_text for one in taken}
    _tell_origins(here, taken, log)
    _tell_failures(study, source, log)
    return merged


# ------------------------------------------------------------------------------------------------------- checking


def _read(study: Study, source: Workspace, planned_only: bool, problems: list[str], log: Log) -> Iterator[_Found]:
    """The other copy's finished runs of the plan. The files of each are checked."""
    planned = {(run.configuration.id, f"seed-{run.seed}"): run for run in study.plan.possible}
    others: list[Path] = []
    folders = [path.parent for path in sorted(source.runs.glob(f"*/seed-*/{RESULT}"))]
    if not folders:
        raise CollabenchError(f"{source.runs}: holds no finished run")
    for folder in folders:
        run = planned.get((folder.parent.name, folder.name))
        if run is None:
            others.append(folder)
            continue
        try:
            yield _checked(source, folder, run)
        except CollabenchError as error:
            problems.append(str(error))
    if others and planned_only:
        log(f"left out, because this study's plan lacks them: {counted(len(others), 'run')}")
    elif others:
        problems += [f"{folder}: {_why_not_planned(study, folder)}" for folder in others]
        problems.append(
            f"not of this study: {counted(len(others), 'run')}; make params.yaml and papers/ the same, or leave them "
            "out with --planned-only"
        )


def _checked(source: Workspace, folder: Path, run: Run) -> _Found:
    result = load_result(folder, run)
    if LOGITS not in result.files:
        raise ResultError(f"{folder / RESULT}: names no {LOGITS}")
    if digest(result.identity) != digest(run.configuration.identity()) or result.seed != run.seed:
        raise ResultError(f"{folder / RESULT}: its identity is not that of {run.id}")
    measured_file = source.measured_file(run)
    measured = load_measured(measured_file, run) if measured_file.exists() else None
    if measured is not None and measured.dataset not in (None, result.dataset_digest):
        raise ResultError(f"{measured_file}: names other data than {folder / RESULT}")
    return _Found(run, folder, result, measured_file, measured)


def _why_not_planned(study: Study, folder: Path) -> str:
    """The plan's nearest configuration, and how it differs."""
    if folder.parent.name in study.plan.configurations:
        return "this study has the configuration but not the seed"
    try:
        theirs = read_json(folder / RESULT, Result).identity
    except ResultError as error:
        return str(error)
    candidates = [(list(differences(theirs, ours.identity())), ours) for ours in study.plan.configurations.values()]
    nearest, ours = min(candidates, key=lambda candidate: len(candidate[0]))
    if len(nearest) > 4:
        return "this study has no such configuration"
    return f"this study has {ours.label} instead: {'; '.join(nearest) or 'the folder has not its name'}"


def _data_problems(study: Study, found: Iterable[_Found]) -> list[str]:
    """One line for every data set whose content differs between the runs, or from this copy's prepared data set."""
    from collabench.data.manifest import MANIFEST, Manifest

    seen: dict[str, dict[str, str]] = {}  # data set → digest → where it was first seen
    for run in study.plan.runs:
        key = dataset_key(run.configuration.dataset)
        manifest = study.workspace.datasets / key / MANIFEST
        if key not in seen:
            seen[key] = {}
            if manifest.exists():
                seen[key][read_json(manifest, Manifest).digest] = str(manifest)
        result = study.workspace.folder(run) / RESULT
        if result.exists():
            try:
                seen[key].setdefault(read_json(result, Result).dataset_digest, str(result))
            except ResultError:
                continue  # damaged here: it will be prepared again, or taken from the other copy
    for one in found:
        seen[dataset_key(one.run.configuration.dataset)].setdefault(one.result.dataset_digest, str(one.folder / RESULT))
    return [
        f"data set {key} is not the same: "
        + "; ".join(f"{where} has {content[:12]}…" for content, where in places.items())
        for key, places in seen.items()
        if len(places) > 1
    ]


def _noise_problems(study: Study, source: Workspace) -> list[str]:
    """One line for every file of static noisy labels that differs between the copies."""
    lines = []
    for key, runs in study.inputs.noise_files().items():
        for run in runs:
            here = study.inputs.noise_file(run)
            there = source.noise / key / here.name
            if here.exists() and there.exists() and sha256_of(here) != sha256_of(there):
                lines.append(f"noisy labels are not the same: {there} and {here}")
    return lines


def _measured_here(study: Study) -> list[Measured]:
    """The undamaged measurements of this copy's finished runs."""
    found = []
    for run in study.plan.runs:
        path = study.workspace.measured_file(run)
        if path.exists() and (study.workspace.folder(run) / RESULT).exists():
            with suppress(ResultError):
                found.append(load_measured(path, run))
    return found


def _sides(here: Iterable[str], there: Iterable[str]) -> str | None:
    """``a here, b and c there``; None if all are the same."""
    sides = {"here": sorted(set(here)), "there": sorted(set(there))}
    if len({*sides["here"], *sides["there"]}) < 2:
        return None
    return ", ".join(f"{' and '.join(values)} {side}" for side, values in sides.items() if values)


def _version_problem(here: Sequence[Measured], there: Sequence[Measured], runs: int) -> str | None:
    """How the versions differ that runs were made with. A package that no run here names, such as the compiler of
    portable loops, is compared with the one that is installed.

    runs: number of the other copy's runs, measured or not.
    """
    from collabench.training.device import versions

    if len(there) < runs:
        return f"{runs - len(there)} runs there have no file under measured/: their versions and devices are unknown"
    installed = versions(portable=True, families=("timm",))
    lines = []
    for name in sorted({name for one in there for name in one.versions}):
        theirs = [one.versions[name] for one in there if name in one.versions]
        ours = [one.versions[name] for one in here if name in one.versions]
        if differing := _sides(ours or [installed.get(name, "none")], theirs):
            lines.append(f"{name} {differing}")
    return f"runs were made with different versions: {'; '.join(lines)}" if lines else None


def _device_problem(here: Sequence[Measured], there: Sequence[Measured]) -> str | None:
    """The kinds of device of the runs, unless all runs were made on the same kind."""
    kinds = _sides((one.device_type for one in here), (one.device_type for one in there))
    return f"runs were made on different kinds of device: {kinds}" if kinds else None


def _tell_origins(here: Sequence[Measured], taken: Sequence[Measured], log: Log) -> None:
    """Log further differences between the imported runs and those here. They are not part of identities and are
    accepted."""
    devices = _sides((one.device for one in here), (one.device for one in taken))
    if here and devices:
        same = "portable runs are the same bytes on all x86-64 processors, other runs agree to rounding"
        log(f"different devices: {devices}; {same}")
    commits = _sides((one.commit_text for one in here), (one.commit_text for one in taken))
    if here and commits:
        log(f"different commits: {commits}; taken, since a change of what is computed is another identity")


def _same_here(study: Study, one: _Found) -> bool:
    """Whether this copy has the run with the same bytes. False if it is missing or damaged here, or if only its record
    is here and the other copy has logits and weights.

    Raises ResultError if this copy has it with other bytes.
    """
    folder = study.workspace.folder(one.run)
    if not (folder / RESULT).exists():
        return False
    try:
        load_result(folder, one.run)
    except ResultError:
        return False
    if (folder / RESULT).read_bytes() == (one.folder / RESULT).read_bytes():
        return is_recorded(one.folder) or not is_recorded(folder)  # logits and weights complete a record
    raise ResultError(f"{one.run.id}: conflict: {one.folder} and {folder} hold different bytes")


# ------------------------------------------------------------------------------------------------------- taking


def _take(study: Study, found: list[_Found], log: Log) -> None:
    workspace = study.workspace
    try:
        workspace.state.mkdir(parents=True, exist_ok=True)
        with folder_beside(workspace.state / "import") as waiting:
            for number, one in enumerate(found):
                copy = waiting / str(number)
                copy.mkdir()
                for name in files_of_run(one.folder):
                    _copy(one.folder / name, copy / name)
                if one.measured is not None:
                    _copy(one.measured_file, copy / one.measured_file.name)
                if load_result(copy, one.run) != one.result:
                    raise ResultError(f"{one.folder}: changed while it was read; nothing was imported")
            for number, one in enumerate(found):
                with holding(workspace.lock(one.run.id), one.run.id, log):
                    # checked again, because another process may have trained it meanwhile
                    if not _same_here(study, one):
                        _move(study, one, waiting / str(number))
    except OSError as error:
        raise unwritable(Path(error.filename or workspace.home), error) from None
    # otherwise Snakemake would start a process for each job, to find that nothing is left to train
    jobs = study.grown().jobs
    for job in jobs:
        complete = all((workspace.folder(run) / RESULT).exists() for run in job.runs)
        if complete and not job.marker.exists():
            jobs.finish(job)


def _copy(source: Path, target: Path) -> None:
    # Not synchronised to disk: checksums find what a power failure damages, and the source still has it.
    shutil.copyfile(source, target)


def _move(study: Study, one: _Found, copy: Path) -> None:
    """Move the files of a run into place. The result is last, because its existence means that the run is finished."""
    workspace, run = study.workspace, one.run
    target = workspace.folder(run)
    target.mkdir(parents=True, exist_ok=True)
    (target / RESULT).unlink(missing_ok=True)  # a damaged one
    if one.measured is not None:
        measured = workspace.measured_file(run)
        measured.parent.mkdir(parents=True, exist_ok=True)
        move(copy / one.measured_file.name, measured)
    (target / RECORD).unlink(missing_ok=True)
    for name in files_of_run(copy):
        move(copy / name, target / name)
    workspace.failure(run.id).unlink(missing_ok=True)
    workspace.checkpoint(run.id).unlink(missing_ok=True)


def _tell_failures(study: Study, source: Workspace, log: Log) -> None:
    """Log which runs failed in the other copy. Failures are not imported."""
    for run in study.plan.runs:
        if source.failure(run.id).exists() and not (study.workspace.folder(run) / RESULT).exists():
            try:
                reason = read_json(source.failure(run.id), Failure).reason
            except ResultError as error:
                reason = str(error)
            log(f"failed there, not imported: {run.configuration.label}, seed {run.seed}: {reason}")
