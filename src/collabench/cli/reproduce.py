"""The command ``reproduce``: the whole study through DVC and Snakemake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Cores, Exact, Gpus, Hours, Profile, Root, ShardOption, app, check_hours, open_study
from collabench.cli.report import comparison_with_accepted
from collabench.cli.study import limit_hours, part_of, print_open_claims
from collabench.core.errors import CollabenchError, StorageError
from collabench.core.text import counted, counted_of

if TYPE_CHECKING:
    from collabench.storage.workspace import Workspace
    from collabench.study.progress import Watcher
    from collabench.study.study import Study


@app.command()
def reproduce(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    hours: Hours = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Send the jobs to a Slurm cluster (profiles/slurm).")] = False,
    executor: Annotated[
        str | None, typer.Option("--executor", help="Send the jobs by this executor plugin (profiles/NAME).")
    ] = None,
    shard: ShardOption = None,
    exact: Exact = False,
) -> None:
    """The whole study through DVC and Snakemake.

    Data, noise, training, report; prints the tables. Trains only what is missing: the seeds of the tables, then what
    undecided claims need.
    """
    check_hours(hours)
    if slurm and executor not in (None, "slurm"):
        raise CollabenchError(f"--executor {executor}: --slurm names another; leave one of them out")
    executor = "slurm" if slurm else executor
    from collabench.storage.workspace import Workspace
    from collabench.study import finished

    usual = (not cores or (cores.isdigit() and int(cores) > 0)) and gpus in (None, "", "none")
    if usual and not (shard or executor or exact):
        unchanged = finished.said_before(Workspace(root.resolve(), profile))
        if unchanged is not None:
            print(unchanged)
            return
    from collabench.study import variants  # imports torch, as most of what follows does

    variants.refuse(profile, "reproduce")
    settings = finished.settings_of(Workspace(root.resolve(), profile))
    from collabench.core import processes, resources
    from collabench.core.server import SERVER, dismiss, serve
    from collabench.report.pages.terminal import terminal_summary
    from collabench.storage.files import UNWRITABLE
    from collabench.storage.locks import holding
    from collabench.storage.temporary import remove_abandoned_temporaries
    from collabench.study import progress, shards
    from collabench.study.cleanup import set_aside
    from collabench.study.executors import check_shares_folders
    from collabench.study.other_code import files_of_the_user, runs_of_other_code

    study = open_study(root, profile)
    workspace = study.workspace
    wanted = part_of(study, shard)
    if executor:
        os.environ[resources.SCHEDULER] = executor
    if resources.on_cluster():
        check_shares_folders(resources.executor_profile(workspace.root).name)
        if hours is not None:
            raise CollabenchError("--hours: on a cluster the queue decides when a job begins; leave it out")
        os.environ[resources.GPUS] = gpus or os.environ.get(resources.GPUS) or "none"
        available = resources.allocated(study.profile.device)
        where = os.environ[resources.SCHEDULER]
        where = "Slurm" if where == "slurm" else f"the executor {where}"
        print(f"jobs go to {where}, each with one {'GPU' if available.gpus else 'core'}", flush=True)
        _tell_allocations(study, available.device)
    else:
        available = resources.choose(study.profile.device, cores=cores or None, gpus=gpus or None)
        print(available.describe(), flush=True)
    study.check_device(available.device)
    study.check_files(wanted)
    possible, lacking = study.inputs.without_missing_data(wanted)
    if lacking:
        others = f"; what needs other data trains with: collabench run -p {profile}" if possible else ""
        raise CollabenchError("; ".join(lacking) + others)
    if shard is None:
        _refuse_what_dvc_cannot(workspace)
    limit_hours(study, wanted, available, hours)
    environment = os.environ | available.environment() | {processes.ANCESTOR: processes.this_process()}
    environment.pop("PYTHONSAFEPATH", None)  # the workflow lies in the project's folder, not among the packages
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    log_file = workspace.state / "logs" / "reproduce.log"
    runs_of_part = partial(shards.runs_of, shard=shards.parse(shard) if shard is not None else None)
    watcher = progress.Watcher(
        study,
        available.workers,
        wanted,
        note=lambda: doing(log_file),
        rounds=progress.rounds_of(study, lambda now: runs_of_part(now.plan)),
    )
    with holding(workspace.reproduce_lock, f"the study in {workspace.root}", partial(print, flush=True)):
        study.mend(partial(print, flush=True))
        set_aside(study)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        if shard is None:
            # DVC takes a study whose claims wait for more seeds for finished: it has seen no file change.
            program, arguments = "dvc", ["repro", *(["--force"] if study.ahead else []), f"report@{profile}"]
        else:  # DVC's stages cover whole studies
            program, arguments = "snakemake", [profile, "train"]
            environment[shards.SHARD] = shard
        command = [sys.executable, "-m", f"pipeline.{program}", *arguments]
        remove_abandoned_temporaries()
        served = None if available.gpus or resources.on_cluster() else serve()
        try:
            environment |= {name: value for name, value in os.environ.items() if name == SERVER}
            code, said = _watched(command, workspace.root, environment, log_file, watcher)
        finally:
            dismiss(served)
    if code:
        # the programs that were called report it in the operating system's words
        for number, remedy in UNWRITABLE.items():
            line = next((line for line in said if os.strerror(number) in line), None)
            if line is not None:
                raise StorageError(
                    f"{program}: {line.removeprefix('collabench: error: ').strip()[:400]}; {remedy}; log: {log_file}"
                )
        wanted = runs_of_part(study.grown().plan)
        failures = [status for status in map(study.status, wanted) if status.state == "failed"]
        for status in failures:
            print(f"failed: {status.run.configuration.label}, seed {status.run.seed}: {status.why}", file=sys.stderr)
        if failures:
            print(f"once mended: collabench run -p {profile} --retry-failed; "
                  f"tables of the others: collabench report -p {profile} --partial", file=sys.stderr)  # fmt: skip
        else:
            print("".join(f"{line}\n" for line in reasons(said)), end="", file=sys.stderr)
        print(f"collabench: error: {program} ended with exit code {code}; log: {log_file}", file=sys.stderr)
        raise typer.Exit(1)
    study = study.grown()
    wanted = runs_of_part(study.plan)
    left = [status for status in map(study.status, wanted) if status.state != "done"]
    left = [status for status in left if status.run.id not in study.plan.ahead]
    if left:
        first = f"{left[0].run.configuration.label}, seed {left[0].run.seed}"
        print(
            f"collabench: error: {program} ended without an error, but "
            f"{counted_of(len(left), len(wanted), 'run', 'missing')}, the first: {first}; start again; log: {log_file}",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    waiting = sum(state.open for state in study.claims)
    if shard is not None:
        print(f"part {shard} is done: {len(wanted)} of the study's {counted(len(study.plan.runs), 'run')}; "
              f"where the tables are to be made: collabench import {workspace.root} -p {profile}")  # fmt: skip
        print_open_claims(waiting, hours)
        return
    accepted = workspace.accepted_report.exists()
    text, same = comparison_with_accepted(study)
    tables = terminal_summary(workspace)
    print(f"{tables}\n{text}")
    print_open_claims(waiting, hours)
    if not waiting and not runs_of_other_code(study):
        if not accepted:  # from now on the report is compared with the one that has just been accepted
            text, _ = comparison_with_accepted(study)
        finished.remember(workspace, f"{tables}\n{text}", files_of_the_user(study), settings)
    if exact and not same:
        raise typer.Exit(1)


def _refuse_what_dvc_cannot(workspace: Workspace) -> None:
    """Raise CollabenchError, before anything runs, for a project in which DVC would end with a message of its own."""
    alternative = (
        f"`collabench run -p {workspace.profile}` and `collabench report -p {workspace.profile}` do without DVC"
    )
    for folder in (workspace.root / "artifacts", workspace.home):
        if folder.is_symlink():
            raise CollabenchError(
                f"{folder}: is a symbolic link, which DVC does not follow; {alternative}, or move the whole project"
            )
    inside = any((folder / ".git").exists() for folder in (workspace.root, *workspace.root.parents))
    config = workspace.root / ".dvc" / "config"
    alone = config.exists() and "no_scm" in config.read_text("utf-8", errors="replace")
    if not inside and not alone:
        raise CollabenchError(
            f"{workspace.root}: is not a git repository, which DVC needs: `git init {workspace.root}`; {alternative}"
        )


def _watched(
    command: list[str], folder: Path, environment: dict[str, str], log_file: Path, watcher: Watcher
) -> tuple[int, list[str]]:
    """Run a command that writes to ``log_file``, and show progress meanwhile. Returns its exit code and last lines.

    The command ends together with this process.
    """
    from threading import Thread

    from collabench.core import processes
    from collabench.study import progress

    with log_file.open("wb", buffering=0) as file:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.ending_with_parent(),
        )
        assert child.stdout is not None
        last: deque[bytes] = deque(maxlen=1000)
        reader = Thread(target=_keep, args=(child.stdout, file, last), name="log", daemon=True)
        reader.start()
        try:
            progress.watch(watcher, lambda: child.poll() is None)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
            reader.join(10)  # processes that the command started may keep its output open a moment longer
    return child.returncode, [line.decode(errors="replace").rstrip() for line in last]


def _keep(output: IO[bytes], file: IO[bytes], last: deque[bytes]) -> None:
    """Copy a command's output to a file, and keep its last lines in ``last``, which also works with a full disk."""
    for line in output:
        last.append(line)
        with suppress(OSError):
            file.write(line)


def _tell_allocations(study: Study, device_type: str) -> None:
    """Print for how many configurations a cluster's jobs ask for the default time and memory."""
    from collabench.core.resources import SCHEDULER
    from collabench.study.allocation import without_needs

    unknown, every = without_needs(study, device_type), len(study.plan.configurations)
    if unknown:
        print(
            f"{unknown} of {every} configurations have no finished run and no estimate for this type of device: their "
            f"jobs ask for the time and memory of profiles/{os.environ[SCHEDULER]} (first, on a node: collabench "
            f"estimate -p {study.workspace.profile})",
            flush=True,
        )


#: Stage of DVC's → what it does, for a person who waits.
_STAGES = {
    "datasets": "preparing data sets",
    "noise": "drawing noisy labels",
    "train": "looking for runs to train",
    "report": "building tables and figures",
}
_OWN = "collabench: "

#: Number of lines that say why a program ended; the log has all.
_LINES = 15


def doing(log_file: Path) -> str:
    """What is being done while nothing is trained: the last line of collabench's own in the log, or the stage that has
    begun since. What DVC and Snakemake say stays in the log."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - 65536))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    for line in reversed(lines):
        if line.startswith(_OWN):
            return line.removeprefix(_OWN).strip()[:100]
        if begun := re.match(r"Running stage '(\w+)@", line):
            return _STAGES.get(begun[1], "")
    return ""


def reasons(said: Sequence[str]) -> list[str]:
    """Why a program ended, from its last lines: what collabench says itself, else DVC's error, else Snakemake's, else
    the end."""
    own = [line for line in said if line.startswith(f"{_OWN}error: ")]
    theirs = [line for line in said if line.startswith("ERROR: ")]
    named = [number for number, line in enumerate(said) if re.match(r"\w*(Error|Exception)\b", line)]
    tail = list(said[named[0] :] if named else said[-_LINES:])
    return list(dict.fromkeys(own or (tail if named else theirs) or tail))[:_LINES]
