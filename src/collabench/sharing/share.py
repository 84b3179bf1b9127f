"""Pushing a study to the DVC remote: ``collabench share``.

All files are read and hashed before they are packed, so that nothing damaged is pushed. Files that are missing or
damaged in DVC's cache are restored from the project's own files. Afterwards the remote is asked for every object. Any
problem ends the command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from collabench.core.errors import CollabenchError, Log, ResultError, one_line
from collabench.core.regular import read_file
from collabench.core.text import counted_of
from collabench.sharing.dvc_lock import Lock, read_listing
from collabench.sharing.dvc_remote import address_of, dvc
from collabench.storage import archives
from collabench.storage.dvc_objects import listing_of, md5_of, name_of_listing, place_of
from collabench.storage.files import read_json, sha256_of, write_atomically
from collabench.storage.locks import holding
from collabench.storage.results import RESULT, Result, load_measured, load_result
from collabench.storage.temporary import temporary_folder
from collabench.study.study import Study

#: Number of problems that are listed one by one.
_SHOWN = 20

#: A valid path of a file within a folder that is an output of DVC.
_WITHIN = re.compile(r"(?!/)(?!(?:.*/)?\.\.?(?:/|$))[^\0\\]+")


@dataclass(frozen=True)
class _Object:
    """An object in DVC's cache.

    md5: its name there. file: the project's file with the same content; None for a listing.
    within: the listing that names the file; None if no listing does.
    """

    md5: str
    file: Path | None
    listing: bytes = b""
    within: str | None = None

    @property
    def remedy(self) -> str:
        """What a user can do if the remote lacks the object."""
        if self.within is None:
            return "share again"
        # DVC does not look for a folder's files if the remote has the folder's listing.
        return f"remove files/md5/{self.within[:2]}/{self.within[2:]} there and share again"


def share(study: Study, *, part: bool, log: Log = print) -> None:
    """Push the study to the DVC remote, or with ``part`` only its runs and their measurements.

    Raises CollabenchError, after ``log`` received each problem, if anything is missing or damaged, here or on the
    remote. If another process is sharing the study, this call waits for it.
    """
    workspace = study.workspace
    if not (workspace.root / ".dvc").is_dir():
        raise CollabenchError(
            f"{workspace.root}: has no folder .dvc, so DVC knows no remote of it; `dvc init` makes one"
        )
    with holding(workspace.reproduce_lock, f"the study in {workspace.root}", log):
        _refuse(f"profile {workspace.profile}: nothing was pushed", _problems(study, part), log)
        profile = workspace.profile
        archives.pack_runs(workspace)
        archives.pack_measured(workspace)
        committed, pushed = ["measured"], ["datasets", "noise", "train", "report", "measured"]
        if part:
            committed = pushed = ["train", "measured"]
        with temporary_folder("share") as folder:
            # DVC remembers which objects a remote has, and they may be gone. With an empty memory it asks the remote.
            environment = os.environ | {"DVC_SITE_CACHE_DIR": str(folder)}
            environment.pop("PYTHONSAFEPATH", None)  # the package ``pipeline`` is imported from the project's folder
            _run(workspace.root, environment, ["commit", "-f", *(f"{name}@{profile}" for name in committed)])
            objects, problems = _objects(workspace.root, profile, pushed)
            problems += _restore(workspace.root, objects, log)
            _refuse(f"profile {profile}: nothing was pushed", problems, log)
            _run(workspace.root, environment, ["push", *(f"{name}@{profile}" for name in pushed)])
        _refuse("the remote does not hold what was pushed", _remote_problems(workspace.root, objects), log)
        log(f"profile {profile}: {len(objects)} objects are on the remote; commit dvc.lock")


def _refuse(what: str, problems: Sequence[str], log: Log) -> None:
    if problems:
        for line in problems[:_SHOWN]:
            log(one_line(line))
        further = f", {len(problems) - _SHOWN} more not listed" if len(problems) > _SHOWN else ""
        raise CollabenchError(f"{what}; problems found: {len(problems)} (above{further})")


def _run(root: Path, environment: dict[str, str], arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pipeline.dvc", *arguments]
    code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
    if code:
        raise CollabenchError(f"dvc {' '.join(arguments)} ended with exit code {code}")


# ------------------------------------------------------------------------------------------------------------- here


def _problems(study: Study, part: bool) -> list[str]:
    """Return one line for each thing that is to be pushed and is damaged or missing here."""
    workspace, lines, missing = study.workspace, [], 0
    planned = {workspace.folder(run): run for run in study.plan.runs}
    for folder, run in planned.items():
        if not (folder / RESULT).exists():
            missing += run.id not in study.plan.ahead  # a study may be shared while claims are undecided
            continue
        try:
            load_result(folder, run)
            if workspace.measured_file(run).exists():
                load_measured(workspace.measured_file(run), run)
        except ResultError as error:
            lines.append(str(error))
    for folder in sorted(workspace.runs.glob("*/seed-*")):
        if folder not in planned and (folder / RESULT).exists():
            lines += _damage(folder)
    if missing and not part:
        lines.append(
            f"{counted_of(missing, len(study.plan.due), 'run', 'missing')}; --part pushes the runs that are there"
        )
    if not part:
        lines += _damaged_inputs(study)
    return lines


def _damage(folder: Path) -> list[str]:
    try:
        result = read_json(folder / RESULT, Result)
        for name, expected in result.files.items():
            if sha256_of(folder / name) != expected:
                raise ResultError(f"{folder / name}: damaged (checksum differs)")
    except (OSError, ResultError) as error:
        return [str(error)]
    return []


def _damaged_inputs(study: Study) -> Iterator[str]:
    from collabench import data
    from collabench.core.errors import DataError
    from collabench.data import noise

    for key in study.inputs.dataset_keys():
        try:
            data.load(study.workspace.datasets / key)
        except DataError as error:
            yield str(error)
    for runs in study.inputs.noise_files().values():
        for run in runs:
            try:
                noise.read_static(study.inputs.noise_file(run), run.configuration.noise, run.data_seed)
            except DataError as error:
                yield str(error)


def _objects(root: Path, profile: str, stages: Sequence[str]) -> tuple[list[_Object], list[str]]:
    """Return the objects of these stages' outputs, and one line for each file that differs from ``dvc.lock``."""
    outputs = {"train": "packed/runs", "measured": "packed/measured.tar"}
    lock, objects, lines = Lock(root / "dvc.lock"), [], []
    for stage in stages:
        output = lock.output(f"{stage}@{profile}", f"artifacts/{profile}/{outputs.get(stage, stage)}")
        place = root / output.path
        if not output.is_folder:
            files, within = {place: output.md5}, None
        else:
            within = output.md5
            listing = _listing_of(root, place, output.md5)
            if listing is None:
                lines.append(f"{place}: is not what dvc.lock records; `collabench reproduce -p {profile}` records it")
                continue
            objects.append(_Object(output.md5, None, listing))
            names = read_listing(listing, f"dvc's listing of {place}", _WITHIN)
            files = {place / name: md5 for name, md5 in names.items()}
            further = sorted({path.name for path in place.glob("*.tar")} - names.keys()) if stage == "train" else []
            records = f"dvc.lock does not record it; `collabench reproduce -p {profile}` does"
            lines += [f"{place / name}: {records}" for name in further]
        for path, md5 in files.items():
            if md5_of(path) != md5:
                lines.append(
                    f"{path}: is missing, or not what dvc.lock records; `collabench reproduce -p {profile}` mends it"
                )
            objects.append(_Object(md5, path, within=within))
    return objects, lines


def _listing_of(root: Path, folder: Path, md5: str) -> bytes | None:
    """Return DVC's listing of a folder, from its cache, or made again from the files in the folder."""
    with suppress(OSError):
        content = read_file(_place_in_cache(root, md5))
        if name_of_listing(content) == md5:
            return content
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = listing_of({path.relative_to(folder).as_posix(): md5_of(path) for path in files})
    return content if name_of_listing(content) == md5 else None


@cache
def _cache_of(root: Path) -> Path:
    return root / dvc(root, "cache", "dir").strip() / "files" / "md5"


def _place_in_cache(root: Path, md5: str) -> Path:
    return place_of(_cache_of(root), md5)


def _restore(root: Path, objects: Sequence[_Object], log: Log) -> list[str]:
    """Restore missing and damaged objects in DVC's cache. Returns one line for each that cannot be restored."""
    lines = []
    for one in objects:
        place = _place_in_cache(root, one.md5)
        if one.file is None:
            whole = place.is_file() and name_of_listing(place.read_bytes()) == one.md5
        else:
            whole = md5_of(place) == one.md5
        if whole:
            continue
        if one.file is not None and md5_of(one.file) != one.md5:
            lines.append(f"{place}: missing or damaged in DVC's cache, and {one.file} has not its content")
            continue
        log(f"{place}: missing or damaged in DVC's cache; written again")
        write_atomically(place, one.listing if one.file is None else read_file(one.file))
        place.chmod(0o444)
    return lines


# ------------------------------------------------------------------------------------------------------------ there


def _remote_problems(root: Path, objects: Sequence[_Object]) -> list[str]:
    """Return one line for each object that the remote lacks, and, if it is a folder, for each damaged object."""
    remote = dvc(root, "config", "core.remote").strip()
    address = address_of(root, remote)
    if address is not None and "://" not in address:
        there = (root / address / "files" / "md5").resolve()
        return [line for one in objects if (line := _problem_at(place_of(there, one.md5), one))]
    listed = {line.split()[-1] for line in dvc(root, "list-url", "-R", f"remote://{remote}/files/md5").splitlines()}
    return [
        f"{remote}: lacks files/md5/{one.md5[:2]}/{one.md5[2:]}{f' ({one.file})' if one.file else ''}; {one.remedy}"
        for one in objects
        if f"{one.md5[:2]}/{one.md5[2:]}" not in listed
    ]


def _problem_at(path: Path, one: _Object) -> str:
    if not path.exists():
        return f"{path}: is missing; {one.remedy}"
    if md5_of(path) != one.md5.removesuffix(".dir"):
        return f"{path}: is damaged; remove it, and then {one.remedy}"
    return ""
