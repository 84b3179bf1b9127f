"""The commands ``share``, ``import``, ``fetch``, ``record``, ``export`` and ``verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Profile, Root, app, open_study
from collabench.cli.report import write_pages
from collabench.core.errors import CollabenchError, one_line
from collabench.core.text import counted

if TYPE_CHECKING:
    from collabench.study.study import Study

AllowVersions = Annotated[bool, typer.Option("--allow-versions", help="Also runs made with other package versions.")]
AllowDevices = Annotated[
    bool, typer.Option("--allow-devices", help="Also runs made on another kind of device (CPU, GPU).")
]
PlannedOnly = Annotated[
    bool, typer.Option("--planned-only", help="Leave runs out that this project's plan doesn't have.")
]


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
    from collabench.sharing.share import share as push
    from collabench.study.variants import refuse

    refuse(profile, "share")
    push(open_study(root, profile), part=part, log=lambda line: print(one_line(line), flush=True))


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="The folder of another copy of this project or of records, or a DVC remote: its name or address."
        ),
    ],
    profile: Profile = "default",
    root: Root = HERE,
    lock: Annotated[
        Path | None, typer.Option(help="For a remote: the dvc.lock of the copy that pushed; default: this project's.")
    ] = None,
    allow_versions: AllowVersions = False,
    allow_devices: AllowDevices = False,
    planned_only: PlannedOnly = False,
) -> None:
    """Take finished runs of another copy of this project.

    Only if experiment, versions, kind of device, data and checksums are the same; otherwise it takes nothing and says
    why.
    """
    from contextlib import nullcontext

    from collabench.sharing import dvc_remote
    from collabench.sharing.records import records_at, unpacked_records

    study = open_study(root, profile)
    folder = Path(source)
    recorded = records_at(folder, profile)
    is_copy = "://" not in source and ((folder / "artifacts").is_dir() or (folder / "runs").is_dir())
    if lock is not None and (recorded is not None or is_copy):
        raise CollabenchError(f"--lock {lock}: is for a DVC remote; {source} is a folder of results; leave it out")
    if recorded is not None:
        with unpacked_records(recorded, profile, study.workspace.state / "records") as copy:
            _take(study, copy.root, allow_versions, allow_devices, planned_only)
        print(f"Records hold no data sets and no noisy labels: collabench data prepare -p {profile} makes them, before "
              "a report or verify")  # fmt: skip
        return
    if not is_copy:
        dvc_remote.check_source(study.workspace.root, source, profile)
    lock = lock or study.workspace.root / "dvc.lock"
    with nullcontext(folder) if is_copy else dvc_remote.fetched(study.workspace.root, profile, source, lock) as place:
        _take(study, place, allow_versions, allow_devices, planned_only)


@app.command()
def fetch(
    remote: Annotated[str | None, typer.Argument(help="A remote of params.yaml; default: the only one.")] = None,
    profile: Profile = "default",
    root: Root = HERE,
    allow_versions: AllowVersions = False,
    allow_devices: AllowDevices = False,
    planned_only: PlannedOnly = False,
) -> None:
    """Get finished runs from a remote of params.yaml.

    A clone then has the results without training. Everything is checked as import checks it, and nothing is taken if
    anything differs.
    """
    from collabench.sharing import dvc_remote
    from collabench.sharing import fetch as remotes

    study = open_study(root, profile)
    place = study.workspace.root
    chosen = remotes.remote_of(study.params, remote, study.workspace.params)
    address = remotes.address_of(chosen, place)
    with remotes.lock_of(chosen, place) as lock, dvc_remote.fetched(place, profile, address, lock) as folder:
        _take(study, folder, allow_versions, allow_devices, planned_only)


def _take(study: Study, place: Path, allow_versions: bool, allow_devices: bool, planned_only: bool) -> None:
    """Take the finished runs of a copy of the project, and say what came and what is missing."""
    from collabench.sharing import import_runs

    profile = study.workspace.profile
    merged = import_runs.merge(
        study,
        import_runs.copy_at(place, profile),
        allow_versions=allow_versions,
        allow_devices=allow_devices,
        planned_only=planned_only,
        log=lambda line: print(one_line(line), file=sys.stderr),
    )
    for name, values in (("devices", merged.devices), ("commits", merged.commits)):
        if values:
            print(one_line(f"{name}: {', '.join(sorted(values))}"))
    study = study.grown()
    left = sum(study.status(run).state != "done" for run in study.plan.due)
    ahead = len(study.ahead)
    state = f"still missing: {counted(left, 'run')}" if left else "the study is complete"
    state += f", undecided claims need {ahead} more" if ahead and not left else ""
    print(
        f"{counted(len(merged.imported), 'run')} imported, {len(merged.already)} already here; {state}"
        + ("" if left else f": collabench reproduce -p {profile}")
    )


@app.command()
def record(profile: Profile = "default", root: Root = HERE) -> None:
    """Write the finished runs' records, which git can hold.

    Results and measurements without logits and weights, into records/. `collabench import records` reads them.
    """
    from collabench.sharing.records import write_records
    from collabench.study.variants import refuse

    refuse(profile, "record")
    written = write_records(open_study(root, profile), log=lambda line: print(one_line(line), file=sys.stderr))
    print(
        f"{written.folder}: {counted(written.runs, 'run')}, {written.added} of them new, {written.bytes / 1e6:.1f} MB"
    )


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

    Its weights as a safetensors file for the plain network, and a model card that says how to load it, how it was
    trained and how well it does.
    """
    from collabench.sharing.export import export as write

    if out.is_file() or out.suffix == ".safetensors":
        raise CollabenchError(f"--out {out}: must be a folder; model.safetensors and MODEL_CARD.md are written to it")
    study = open_study(root, profile)
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
    strict: Annotated[
        bool, typer.Option("--strict", help="Differences from an accepted report made on another device count too.")
    ] = False,
) -> None:
    """Check everything that the report rests on.

    Hashes it again, builds the report again, and repeats a random sample of the runs. The page of all profiles then
    shows what was found.
    """
    from collabench.sharing.verify import record
    from collabench.sharing.verify import verify as check

    if device not in (None, "cpu", "cuda"):
        raise CollabenchError(f"--device {device}: there are cpu and cuda")
    study = open_study(root, profile)
    found = check(
        study,
        sample=sample,
        seed=seed,
        tolerance=tolerance,
        device=device,
        strict=strict,
        log=lambda line: print(line, flush=True),
    )
    for rerun in found.reruns:
        if not rerun.difference:
            print(f"ok       {rerun.line()}")
    for note in found.notes:
        print(f"note     {note}")
    for difference in found.differences:
        print(f"DIFFERS  {difference}")
    number = len(found.differences)
    print(f"profile {profile}: " + (counted(number, "difference") if number else "verified"))
    noted = record(study, found, sample=sample, seed=seed)
    if noted is None:
        print(f"No report is accepted, so that no page shows this: collabench report -p {profile} --accept")
    else:
        print(f"Recorded, to be committed with the report: {noted}")
        print("\n".join(write_pages(study.workspace.root, profile)))
    if found.differences:
        raise typer.Exit(1)
