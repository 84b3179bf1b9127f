"""The command ``collabench``. Imports lazily, so that ``--help`` is quick."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from collabench.errors import CollabenchError, StorageError, one_line

if TYPE_CHECKING:
    from collabench.progress import Watcher
    from collabench.spec import Run
    from collabench.study import Outcome, Study

app = typer.Typer(
    help="Re-run three papers on collaborative learning of neural networks and see which of their numbers hold.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: list, prepare, checksum.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Profile = Annotated[str, typer.Option("--profile", "-p", help="A profile of params.yaml.")]
Root = Annotated[Path, typer.Option("--root", help="The project's folder, where params.yaml lies.")]
Cores = Annotated[str | None, typer.Option("--cores", help="Cores to use; default: what this process may use.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="i/k: only part i of k, for k hosts without a cluster; then import.")
]
Gpus = Annotated[str | None, typer.Option("--gpus", help="GPUs to use: 0,1 or none; default: all visible.")]
HERE = Path(".")

#: Why files cannot be written, as a program beneath this one says it in the system's words, and what mends it.
_UNWRITABLE = {
    errno.ENOSPC: "free some space and start again to go on",
    errno.EDQUOT: "free some space and start again to go on",
    errno.EROFS: "the folder must be writable",
    errno.EACCES: "the folder must be writable",
}

#: The exit code of a command that was interrupted: 128 and the number of SIGINT.
_INTERRUPTED = 130


def _study(root: Path, profile: str) -> Study:
    from collabench.papers.claims import check_papers
    from collabench.study import load_study

    study = load_study(root.resolve(), profile)
    check_papers(study.workspace.papers, study.params)  # before anything runs: the report needs them at the end
    return study


@app.command()
def plan(
    profile: Profile = "default",
    root: Root = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Instead: hours, memory and disk, from timing a few steps of each.")
    ] = False,
    budget: Annotated[float | None, typer.Option(help="With --estimate: what so many hours buy.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With --estimate: time also what was timed before on this machine.")
    ] = False,
    cores: Annotated[str | None, typer.Option("--cores", help="With --estimate: as for run.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="With --estimate: as for run.")] = None,
) -> None:
    """What would run, what is done or failed, and why.

    Says for each configuration why it would be run again. Trains nothing. With --estimate it says what the profile will
    cost on this machine, and how far predictions were from what was measured.
    """
    if estimate:
        from collabench.estimate import print_estimate

        print_estimate(root.resolve(), profile, cores, gpus, budget, again, not as_json)
        return
    given = {"--budget": budget is not None, "--again": again, "--cores": bool(cores), "--gpus": bool(gpus)}
    if any(given.values()):
        first = next(name for name, there in given.items() if there)
        raise CollabenchError(f"{first} goes with --estimate; add it, or leave {first} out")
    study = _study(root, profile)
    statuses = study.statuses()
    why = study.explain_missing([s.run for s in statuses if s.state == "todo"])
    rows: dict[str, dict] = {}
    for status in statuses:
        configuration = status.run.configuration
        row = rows.setdefault(
            configuration.id, {"configuration": configuration.id, "label": configuration.label, "seeds": {}, "why": ""}
        )
        row["seeds"].setdefault(status.state, []).append(status.run.seed)
        if status.state in ("failed", "elsewhere"):
            row["why"] = status.why
        elif status.state == "todo" and not row["why"]:
            row["why"] = why.get(configuration.id, "")
    counts = {state: sum(s.state == state for s in statuses) for state in dict.fromkeys(s.state for s in statuses)}
    missing = [*study.missing_datasets().values(), *study.missing_files(study.plan.runs)]
    if as_json:
        content = {"profile": profile, "runs": len(statuses), "states": counts, "missing_data": missing}
        print(json.dumps({**content, "configurations": list(rows.values())}))
        return
    for row in rows.values():
        seeds = ", ".join(f"{len(numbers)} {state}" for state, numbers in row["seeds"].items())
        print(f"{row['label']}: {seeds}{' (' + row['why'] + ')' if row['why'] else ''}  [{row['configuration']}]")
    print("".join(f"missing: {line}\n" for line in missing), end="")
    print(
        f"{len(statuses)} runs in {len(rows)} configurations: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
    )


@app.command()
def run(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    method: Annotated[str | None, typer.Option(help="Only this method of params.yaml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    configuration: Annotated[str | None, typer.Option(help="Only this configuration id (see plan).")] = None,
    shard: ShardOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train runs again that failed.")] = False,
) -> None:
    """Train what is missing, without Snakemake and DVC.

    What the chosen runs require is trained too.
    """
    from collabench import distributed, pool, progress, resources, together
    from collabench.spec import with_required

    study = _study(root, profile)
    shared = distributed.launched_world() > 1  # by torchrun: its processes share every run
    if shared:
        resources.end_with_parent()
    if not distributed.launched_first():
        return together.follow(study, resources.choose(study.profile.device, gpus=gpus))
    named = [
        one
        for one in _part(study, shard)
        if (method is None or one.configuration.names["method"] == method)
        and (seed is None or one.seed == seed)
        and (configuration is None or one.configuration.id == configuration)
    ]
    wanted = {one.id for one in with_required(named)}
    chosen = [one for one in study.plan.runs if one.id in wanted]  # in the study's order
    if not chosen:
        raise CollabenchError(f"no run of profile {profile} fits these options; `collabench plan` lists them")
    available = resources.choose(study.profile.device, cores=cores, gpus=gpus)
    study.check_device(available.device)
    print(together.describe(available) if shared else available.describe(), flush=True)
    study.check_files(chosen)
    possible, lacking = study.without_missing_data(chosen)
    if not possible:
        raise CollabenchError("; ".join(lacking))
    print("".join(f"missing: {line}\n" for line in lacking), end="", file=sys.stderr)
    left_out, chosen = len(chosen) - len(possible), possible
    study.mend()
    study.prepare_for(chosen)
    watcher, count = progress.Watcher(study, 1 if shared else available.workers, chosen), [0]

    def finished(one: Run, state: str) -> None:
        count[0] += 1
        print(
            f"[{count[0]}/{len(chosen)}] {one.configuration.label}, seed {one.seed}: {state} · {watcher.study_line()}",
            flush=True,
        )

    with progress.watching(watcher):
        train = together.train if shared else pool.train
        outcome = train(study, chosen, available, retry_failed=retry_failed, finished=finished)
    _conclude(outcome, left_out, profile)


def _conclude(outcome: Outcome, left_out: int, profile: str) -> None:
    print(f"{len(outcome.trained)} trained, {len(outcome.linked)} linked, {len(outcome.done)} already there, "
          f"{len(outcome.failed)} failed")  # fmt: skip
    for one, reason in outcome.failed:
        print(f"failed: {one.configuration.label}, seed {one.seed}: {reason} [{one.id}]", file=sys.stderr)
    if left_out:
        print(f"{left_out} runs left out: their data sets are missing (see above)", file=sys.stderr)
    if outcome.failed:
        print(f"once mended: collabench run -p {profile} --retry-failed", file=sys.stderr)
    if outcome.failed or left_out:
        raise typer.Exit(1)


@app.command()
def report(
    profile: Profile = "default",
    root: Root = HERE,
    partial: Annotated[
        bool, typer.Option("--partial", help="From the runs that there are; written elsewhere, shows n.")
    ] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Make the new report the one in reports/.")] = False,
) -> None:
    """Build tables and figures from the results and print the tables."""
    from collabench import report as reporting

    if partial and accept:
        raise CollabenchError("--accept is for the report of a finished study; leave --accept or --partial out")
    study = _study(root, profile)
    reporting.build(study.params, study.plan, study.workspace, partial=partial)
    print(reporting.terminal_summary(study.workspace, partial=partial))
    if partial:
        return
    if accept:
        reporting.accept(study.workspace)
    _compare(study)


def _compare(study: Study) -> None:
    """Say where the tables lie; adopt the report if there is none yet, otherwise show how it differs."""
    from collabench import report as reporting

    accepted = study.workspace.accepted_report
    if not accepted.exists():
        reporting.accept(study.workspace)
    differences = reporting.compare(study.workspace)
    if differences:
        print(f"These tables differ from the accepted ones in {accepted}, which stay as they are:")
        print("\n".join(f"  {line}" for line in differences[:40]))
        print(
            f"The new ones lie in {study.workspace.report}; `collabench report -p {study.workspace.profile} --accept` adopts them."
        )
    else:
        print(f"Tables and figures: {accepted / 'README.md'}")


@app.command()
def reproduce(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Send the jobs to a Slurm cluster (profiles/slurm).")] = False,
    shard: ShardOption = None,
) -> None:
    """The whole study through DVC and Snakemake.

    Data, noise, training, report; prints the tables. Trains only what is missing.
    """
    from collabench import progress, resources, shards
    from collabench import report as reporting
    from collabench.locks import holding
    from collabench.surplus import set_aside

    study = _study(root, profile)
    workspace = study.workspace
    wanted = _part(study, shard)
    if slurm:
        os.environ[resources.SCHEDULER] = "slurm"
    if resources.on_cluster():
        os.environ[resources.GPUS] = gpus or os.environ.get(resources.GPUS) or "none"
        available = resources.allocated(study.profile.device)
        print(f"jobs go to Slurm, each with one {'GPU' if available.gpus else 'core'}", flush=True)
        _tell_allocations(study, available.device)
    else:
        available = resources.choose(study.profile.device, cores=cores or None, gpus=gpus or None)
        print(available.describe(), flush=True)
    study.check_device(available.device)
    study.check_files(wanted)
    possible, lacking = study.without_missing_data(wanted)
    if lacking:
        others = f"; what needs other data trains with: collabench run -p {profile}" if possible else ""
        raise CollabenchError("; ".join(lacking) + others)
    environment = os.environ | available.environment() | {resources.ANCESTOR: resources.this_process()}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    log = workspace.state / "logs" / "reproduce.log"
    watcher = progress.Watcher(study, available.workers, wanted, note=lambda: _last_line(log))
    with holding(workspace.reproduce_lock, f"the study in {workspace.root}", partial(print, flush=True)):
        study.mend(partial(print, flush=True))
        set_aside(study)
        log.parent.mkdir(parents=True, exist_ok=True)
        if shard is None:
            program, arguments = "dvc", ["repro", f"report@{profile}"]
        else:  # DVC's stages are of whole studies
            program, arguments = "snakemake", [profile, "train"]
            environment[shards.SHARD] = shard
        command = [sys.executable, "-m", f"pipeline.{program}", *arguments]
        code, said = _watched(command, workspace.root, environment, log, watcher)
    if code:
        for number, remedy in _UNWRITABLE.items():
            line = next((line for line in said if os.strerror(number) in line), None)
            if line is not None:
                raise StorageError(
                    f"{program}: {line.removeprefix('collabench: error: ').strip()[:400]}; {remedy}; log: {log}"
                )
        failures = [status for status in map(study.status, wanted) if status.state == "failed"]
        for status in failures:
            print(f"failed: {status.run.configuration.label}, seed {status.run.seed}: {status.why}", file=sys.stderr)
        if failures:
            print(f"once mended: collabench run -p {profile} --retry-failed; "
                  f"tables of the others: collabench report -p {profile} --partial", file=sys.stderr)  # fmt: skip
        else:
            print("\n".join(said[-25:]), file=sys.stderr)
        print(f"collabench: error: {program} ended with exit code {code}; log: {log}", file=sys.stderr)
        raise typer.Exit(1)
    if shard is not None:
        print(f"part {shard} is done: {len(wanted)} of the study's {len(study.plan.runs)} runs; "
              f"where the tables are to be made: collabench import {workspace.root} -p {profile}")  # fmt: skip
        return
    print(reporting.terminal_summary(workspace))
    _compare(study)


def _watched(
    command: list[str], folder: Path, environment: dict[str, str], log: Path, watcher: Watcher
) -> tuple[int, list[str]]:
    """The exit code and the last lines of a command whose output goes to ``log`` and that ends with this process; meanwhile
    shows progress."""
    from threading import Thread

    from collabench import progress, resources

    with log.open("wb", buffering=0) as file:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=resources.ending_with_parent(),
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
            reader.join(10)  # what the command started may have its output open a moment longer
    return child.returncode, [line.decode(errors="replace").rstrip() for line in last]


def _keep(output: IO[bytes], file: IO[bytes], last: deque[bytes]) -> None:
    """Copy what a command says to a file, and its last lines to ``last``: those are there also where the disk is full."""
    for line in output:
        last.append(line)
        with suppress(OSError):
            file.write(line)


def _part(study: Study, shard: str | None) -> list[Run]:
    """The runs of the part that ``--shard`` names, or all; says how many they are."""
    from collabench import shards

    chosen = shards.parse(shard) if shard is not None else None
    runs = shards.runs_of(study.plan, chosen)
    if chosen is not None:
        configurations = len({run.configuration.id for run in runs})
        print(f"part {chosen}: {len(runs)} of {len(study.plan.runs)} runs, {configurations} configurations")
        if not runs:
            raise CollabenchError(
                f"--shard {chosen}: the study has fewer groups of configurations that belong together than {chosen.count}, "
                "and this part is empty; the other parts are the whole study"
            )
    return runs


def _tell_allocations(study: Study, device_type: str) -> None:
    """Say for how many configurations a cluster's jobs ask for the default time and memory."""
    from collabench.allocation import without_needs

    unknown, every = without_needs(study, device_type), len(study.plan.configurations)
    if unknown:
        print(
            f"{unknown} of {every} configurations have no finished run and no estimate for this type of device: their jobs ask "
            f"for the time and memory of profiles/slurm (first, on a node: collabench plan --estimate -p {study.workspace.profile})",
            flush=True,
        )


def _last_line(log: Path) -> str:
    """What the log's last line says: what is going on while nothing is trained."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "")


@app.command()
def memory(
    configurations: Annotated[
        list[str], typer.Argument(help="DATASET/MODEL/METHOD of params.yaml; the first is 1.00 ×.")
    ],
    recipe: Annotated[str, typer.Option(help="A recipe of params.yaml: its batch size and optimizer.")],
    batch: Annotated[int | None, typer.Option(min=2, help="Images per batch instead of the recipe's.")] = None,
    image: Annotated[str | None, typer.Option(help="CHANNELSxHEIGHTxWIDTH instead of the data set's.")] = None,
    root: Root = HERE,
) -> None:
    """Training memory and arithmetic, counted without GPU or data."""
    from collabench.memory import print_memory

    print_memory(root.resolve() / "params.yaml", configurations, recipe, batch, image)


@app.command()
def share(
    profile: Profile = "default",
    root: Root = HERE,
    part: Annotated[
        bool, typer.Option("--part", help="Only runs and their measurements, of a study that isn't complete here.")
    ] = False,
) -> None:
    """Push a finished study to the DVC remote.

    Measured times included. Commit dvc.lock afterwards: with it, `dvc pull` elsewhere needs no training.
    """
    from collabench import packs

    workspace = _study(root, profile).workspace
    if not (workspace.root / ".dvc").is_dir():
        raise CollabenchError(
            f"{workspace.root}: has no folder .dvc, so DVC knows no remote of it; `dvc init` makes one"
        )
    packs.pack_measured(workspace)
    committed, targets = ["measured"], ["datasets", "noise", "train", "report", "measured"]
    if part:
        packs.pack_runs(workspace)
        committed = targets = ["train", "measured"]
    for arguments in (
        ["commit", "-f", *(f"{name}@{profile}" for name in committed)],
        ["push", *(f"{name}@{profile}" for name in targets)],
    ):
        code = subprocess.run([sys.executable, "-m", "pipeline.dvc", *arguments], cwd=root, check=False).returncode
        if code:
            raise CollabenchError(f"dvc {' '.join(arguments)} ended with exit code {code}")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="The folder of another copy of this project, or a DVC remote: its name or address.")
    ],
    profile: Profile = "default",
    root: Root = HERE,
    lock: Annotated[
        Path | None, typer.Option(help="For a remote: the dvc.lock of the copy that pushed; default: this project's.")
    ] = None,
    allow_versions: Annotated[
        bool, typer.Option("--allow-versions", help="Also runs made with other package versions.")
    ] = False,
    allow_devices: Annotated[
        bool, typer.Option("--allow-devices", help="Also runs made on another kind of device (CPU, GPU).")
    ] = False,
    planned_only: Annotated[
        bool, typer.Option("--planned-only", help="Leave runs out that this project's plan doesn't have.")
    ] = False,
) -> None:
    """Take finished runs of another copy of this project.

    Only if experiment, versions, kind of device, data and checksums are the same; otherwise it takes nothing and says why.
    """
    from contextlib import nullcontext

    from collabench import merge

    study = _study(root, profile)
    folder = Path(source)
    is_copy = "://" not in source and ((folder / "artifacts").is_dir() or (folder / "runs").is_dir())
    lock = lock or study.workspace.root / "dvc.lock"
    with nullcontext(folder) if is_copy else merge.fetched(study.workspace.root, profile, source, lock) as place:
        merged = merge.merge(
            study,
            merge.copy_at(place, profile),
            allow_versions=allow_versions,
            allow_devices=allow_devices,
            planned_only=planned_only,
            tell=lambda line: print(one_line(line), file=sys.stderr),
        )
    for name, values in (("devices", merged.devices), ("commits", merged.commits)):
        if values:
            print(one_line(f"{name}: {', '.join(sorted(values))}"))
    left = sum(status.state != "done" for status in study.statuses())
    print(
        f"{len(merged.imported)} runs imported, {len(merged.already)} already here; "
        + (f"{left} of the study are missing" if left else f"the study is complete: collabench reproduce -p {profile}")
    )


@app.command()
def doctor(root: Root = HERE) -> None:
    """What this machine lacks, in a line each, and how to mend it."""
    from collabench.doctor import examine

    findings = examine(root.resolve())
    for finding in findings:
        print(finding.line())
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def gc(
    profile: Profile = "default",
    root: Root = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """Remove what no table of the profile needs.

    Runs, their measurements and markers, data sets, noisy labels, checkpoints, failures, and what was set aside.
    """
    from collabench import surplus

    study = _study(root, profile)
    found = surplus.surplus(study)
    size = surplus.size_of(found)
    print("".join(f"{path.relative_to(study.workspace.root)}\n" for path in found), end="")
    if not dry_run:
        surplus.remove(study, found)
    print(f"{len(found)} entries, {size / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The folder to write model.safetensors and MODEL_CARD.md to.")],
    configuration: Annotated[str, typer.Option(help="A configuration id (see plan).")],
    profile: Profile = "default",
    seed: Annotated[int | None, typer.Option(help="Of the run; default: the profile's first.")] = None,
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="Of wang2018: the plain network, without its frozen memory.")
    ] = False,
    root: Root = HERE,
) -> None:
    """Write a finished run's network for use elsewhere.

    Its weights as a safetensors file for the plain network, and a model card that says how to load it, how it was trained
    and how well it does.
    """
    from collabench.export import export as write

    if out.is_file() or out.suffix == ".safetensors":
        raise CollabenchError(f"--out {out}: must be a folder; model.safetensors and MODEL_CARD.md are written to it")
    study = _study(root, profile)
    seed = study.profile.first_seed if seed is None else seed
    written = write(study, configuration, seed, out, without_memory=without_memory)
    print(f"{written.model}: test error {written.error:.2f} %; how to load it: {written.card}")


@app.command()
def verify(
    profile: Profile = "default",
    root: Root = HERE,
    sample: Annotated[int, typer.Option(min=0, help="Runs to train again, drawn at random.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Percentage points of test error on another device or other versions.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: as each run was trained.")] = None,
) -> None:
    """Check everything that the report rests on.

    Hashes it again, builds the report again, and repeats a random sample of the runs.
    """
    from collabench.verify import verify as check

    if device not in (None, "cpu", "cuda"):
        raise CollabenchError(f"--device {device}: there are cpu and cuda")
    study = _study(root, profile)
    found = check(
        study, sample=sample, seed=seed, tolerance=tolerance, device=device, tell=lambda line: print(line, flush=True)
    )
    for rerun in found.reruns:
        if not rerun.difference:
            print(f"ok       {rerun.line()}")
    for note in found.notes:
        print(f"note     {note}")
    for difference in found.differences:
        print(f"DIFFERS  {difference}")
    print(f"profile {profile}: " + (f"{len(found.differences)} differences" if found.differences else "verified"))
    if found.differences:
        raise typer.Exit(1)


@app.command()
def explain(
    words: Annotated[list[str], typer.Argument(help="Names that together choose cells: table, method, noise, id …")],
    profile: Profile = "default",
    root: Root = HERE,
) -> None:
    """The way from a number in a table to the runs behind it.

    Their seeds, configuration, versions, device and commit.
    """
    from collabench import report as reporting

    study = _study(root, profile)
    print(reporting.explain(study.plan, study.workspace, " ".join(words)))


@data_app.command("list")
def data_list(root: Root = HERE) -> None:
    """The data sets of params.yaml."""
    from collabench.config import load_params

    for name, dataset in load_params(root / "params.yaml").datasets.items():
        print(f"{name}: {dataset.source}{', ' + dataset.path if dataset.path else ''}")


@data_app.command("prepare")
def data_prepare(profile: Profile = "default", root: Root = HERE) -> None:
    """Prepare the data sets of a profile.

    Downloads, verifies and caches them, and draws their static noisy labels.
    """
    study = _study(root, profile)
    study.prepare_datasets()
    study.prepare_noise()


@data_app.command("digest")
def data_digest(name: Annotated[str, typer.Argument(help="Of a data set in params.yaml.")], root: Root = HERE) -> None:
    """The checksum that pins files which you placed yourself."""
    from collabench import data
    from collabench.config import load_params

    params = load_params(root / "params.yaml")
    if name not in params.datasets:
        raise CollabenchError(f"{name!r} is not a data set of params.yaml; there are {', '.join(params.datasets)}")
    print(f"sha256: {data.source_digest(params.datasets[name], root.resolve())}")


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2; after Ctrl-C, 130."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except (SystemExit, KeyboardInterrupt) as end:
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:  # typer makes this of Ctrl-C, and says nothing
            raise
        print("collabench: interrupted; start again to go on", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except CollabenchError as error:
        print(f"collabench: error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "collabench").partition(".")[0] == "collabench":
            raise
        print(f"collabench: error: the package {error.name} is missing; collabench doctor says more", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that must not be written
        if isinstance(error, BrokenPipeError):  # what reads the output, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        print(f"collabench: error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
