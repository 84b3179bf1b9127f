"""The command ``collabench``. Imports lazily, so that ``--help`` is quick."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.errors import CollabenchError

if TYPE_CHECKING:
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
Gpus = Annotated[str | None, typer.Option("--gpus", help="GPUs to use: 0,1 or none; default: all visible.")]
HERE = Path(".")


def _study(root: Path, profile: str) -> Study:
    from collabench.study import load_study

    return load_study(root.resolve(), profile)


@app.command()
def plan(
    profile: Profile = "default",
    root: Root = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """What would run, what is done, what failed, and why anything would be run again. Trains nothing."""
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
    missing = list(study.missing_datasets().values())
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
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train runs again that failed.")] = False,
) -> None:
    """Train what is missing, without Snakemake and DVC. What the chosen runs require is trained too."""
    from collabench import pool, progress, resources

    study = _study(root, profile)
    chosen = _with_required(
        study,
        [
            r
            for r in study.plan.runs
            if (method is None or r.configuration.names["method"] == method)
            and (seed is None or r.seed == seed)
            and (configuration is None or r.configuration.id == configuration)
        ],
    )
    if not chosen:
        raise CollabenchError(f"no run of profile {profile} fits these options; `collabench plan` lists them")
    available = resources.choose(study.profile.device, cores=cores, gpus=gpus)
    study.check_device(available.device)
    print(available.describe(), flush=True)
    possible, lacking = study.without_missing_data(chosen)
    if not possible:
        raise CollabenchError("; ".join(lacking))
    print("".join(f"missing: {line}\n" for line in lacking), end="", file=sys.stderr)
    left_out, chosen = len(chosen) - len(possible), possible
    study.prepare_for(chosen)
    watcher, count = progress.Watcher(study, available.workers), [0]

    def finished(one: Run, state: str) -> None:
        count[0] += 1
        print(
            f"[{count[0]}/{len(chosen)}] {one.configuration.label}, seed {one.seed}: {state} · {watcher.lines()[0]}",
            flush=True,
        )

    outcome = pool.train(study, chosen, available, retry_failed=retry_failed, finished=finished)
    _conclude(outcome, left_out)


def _with_required(study: Study, runs: list[Run]) -> list[Run]:
    wanted: set[str] = set()

    def add(one: Run) -> None:
        if one.id not in wanted:
            wanted.add(one.id)
            for required in one.requires():
                add(required)

    for one in runs:
        add(one)
    return [one for one in study.plan.runs if one.id in wanted]


def _conclude(outcome: Outcome, left_out: int) -> None:
    print(f"{len(outcome.trained)} trained, {len(outcome.linked)} linked, {len(outcome.done)} already there, "
          f"{len(outcome.failed)} failed")  # fmt: skip
    for one, reason in outcome.failed:
        print(f"failed: {one.configuration.label}, seed {one.seed}: {reason} [{one.id}]", file=sys.stderr)
    if left_out:
        print(f"{left_out} runs left out: their data sets are missing (see above)", file=sys.stderr)
    if outcome.failed:
        print("once mended: collabench run --retry-failed", file=sys.stderr)
    if outcome.failed or left_out:
        raise typer.Exit(1)


@app.command()
def report(
    profile: Profile = "default",
    root: Root = HERE,
    partial: Annotated[bool, typer.Option(help="From the runs that there are; written elsewhere, shows n.")] = False,
    accept: Annotated[bool, typer.Option(help="Make the new report the one in reports/.")] = False,
) -> None:
    """Build tables and figures from the results and print the tables."""
    from collabench import report as reporting

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
) -> None:
    """The whole study through DVC and Snakemake: data, noise, training, report; prints the tables."""
    import os

    from collabench import progress, resources
    from collabench import report as reporting

    study = _study(root, profile)
    workspace = study.workspace
    if slurm:
        os.environ[resources.SCHEDULER] = "slurm"
    if resources.on_cluster():
        os.environ[resources.GPUS] = gpus or os.environ.get(resources.GPUS) or "none"
        available = resources.allocated(study.profile.device)
        print(f"jobs go to Slurm, each with one {'GPU' if available.gpus else 'core'}", flush=True)
    else:
        available = resources.choose(study.profile.device, cores=cores or None, gpus=gpus or None)
        print(available.describe(), flush=True)
    study.check_device(available.device)
    environment = os.environ | available.environment() | {resources.ANCESTOR: resources.this_process()}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    log = workspace.state / "logs" / "reproduce.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    watcher = progress.Watcher(study, available.workers)
    with log.open("w") as file:
        command = [sys.executable, "-m", "dvc", "repro", f"report@{profile}"]
        child = subprocess.Popen(
            command,
            cwd=workspace.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            progress.watch(watcher, lambda: child.poll() is None)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if child.returncode:
        failures = [status for status in study.statuses() if status.state == "failed"]
        for status in failures:
            print(f"failed: {status.run.configuration.label}, seed {status.run.seed}: {status.why}", file=sys.stderr)
        if failures:
            print(f"once mended: collabench run -p {profile} --retry-failed; "
                  f"tables of the others: collabench report -p {profile} --partial", file=sys.stderr)  # fmt: skip
        else:
            print("\n".join(log.read_text().splitlines()[-25:]), file=sys.stderr)
        print(f"collabench: error: dvc repro ended with exit code {child.returncode}; log: {log}", file=sys.stderr)
        raise typer.Exit(1)
    print(reporting.terminal_summary(workspace))
    _compare(study)


@app.command()
def estimate(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    budget: Annotated[float | None, typer.Option(help="Hours: says what they buy.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Time also what was timed before on this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Time, memory and disk that a profile will cost on this machine, and how far predictions were from measurements."""
    from collabench.estimate import print_estimate

    print_estimate(root.resolve(), profile, cores, gpus, budget, again, not as_json)


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
    """Training memory and arithmetic of configurations, counted without a GPU and without data."""
    from collabench.memory import print_memory

    print_memory(root.resolve() / "params.yaml", configurations, recipe, batch, image)


@app.command()
def share(profile: Profile = "default", root: Root = HERE) -> None:
    """Push a finished study to the DVC remote, measured times included. Then commit dvc.lock."""
    stage = f"measured@{profile}"
    targets = [f"{name}@{profile}" for name in ("datasets", "noise", "train", "report", "measured")]
    for arguments in (["commit", "-f", stage], ["push", *targets]):
        code = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, check=False).returncode
        if code:
            raise CollabenchError(f"dvc {' '.join(arguments)} ended with exit code {code}")


@app.command()
def doctor(root: Root = HERE) -> None:
    """What this machine lacks, in a line each, and how to mend it."""
    from collabench.doctor import examine

    findings = examine(root.resolve())
    for finding in findings:
        print(
            f"{'ok     ' if finding.good else 'MISSING' if finding.needed else 'note   '}  {finding.name}: {finding.text}"
        )
    if any(finding.needed and not finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def gc(
    profile: Profile = "default",
    root: Root = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """Remove runs, measurements, checkpoints and failures of the profile that none of its tables needs."""
    study = _study(root, profile)
    workspace = study.workspace
    wanted = {run.id for run in study.plan.runs}
    markers = {job.marker for job in study.jobs()}
    surplus = [
        path
        for folder in (workspace.runs, workspace.measured)
        for path in sorted(folder.glob("*/seed-*"))
        if f"{path.parent.name}-s{path.name.removesuffix('.json').removeprefix('seed-')}" not in wanted
    ]
    surplus += [path for path in sorted(workspace.runs.glob("*/*.done")) if path not in markers]
    for folder in ("checkpoints", "failures"):
        surplus += [path for path in sorted((workspace.state / folder).glob("*")) if path.stem not in wanted]
    size = 0
    for path in surplus:
        size += sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
        print(path.relative_to(workspace.root))
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    print(f"{len(surplus)} entries, {size / 1e6:.1f} MB {'would be' if dry_run else ''} removed".replace("  ", " "))


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    configuration: Annotated[str, typer.Option(help="A configuration id (see plan).")],
    profile: Profile = "default",
    seed: Annotated[int, typer.Option()] = 0,
    root: Root = HERE,
) -> None:
    """Write a finished run's deployed weights as a safetensors file for the plain backbone."""
    from collabench.records import write_atomically
    from collabench.results import WEIGHTS, load_result
    from collabench.spec import Run

    study = _study(root, profile)
    if configuration not in study.plan.configurations:
        raise CollabenchError(f"profile {profile} has no configuration {configuration!r}; `collabench plan` lists them")
    one = Run(study.plan.configurations[configuration], seed)
    folder = study.workspace.run(configuration, seed)
    result = load_result(folder, one)
    if WEIGHTS not in result.files:
        raise CollabenchError(
            f"{one.configuration.label} combines other runs and has no weights of its own; export those"
        )
    write_atomically(out, (folder / WEIGHTS).read_bytes())
    print(f"{out}: {one.configuration.label}, seed {seed}, test error {100 * result.last.error:.2f} %")


@app.command()
def explain(
    words: Annotated[list[str], typer.Argument(help="Names that together choose cells: table, method, noise, id …")],
    profile: Profile = "default",
    root: Root = HERE,
) -> None:
    """The way from a number in a table to its runs: seeds, configuration, versions, device, commit."""
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
    """Download, verify and cache the data sets of a profile, and draw its static noisy labels."""
    study = _study(root, profile)
    study.prepare_datasets()
    study.prepare_noise()


@data_app.command("digest")
def data_digest(name: str, root: Root = HERE) -> None:
    """The checksum line to pin a data set that you placed yourself."""
    from collabench import data
    from collabench.config import load_params

    params = load_params(root / "params.yaml")
    if name not in params.datasets:
        raise CollabenchError(f"{name!r} is not a data set of params.yaml; there are {', '.join(params.datasets)}")
    print(f"sha256: {data.source_digest(params.datasets[name], root.resolve())}")


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2."""
    try:
        app()
    except CollabenchError as error:
        print(f"collabench: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("collabench: interrupted; start again to go on", file=sys.stderr)
        sys.exit(130)
