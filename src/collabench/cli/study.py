"""The commands ``plan``, ``run`` and ``gc``."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Cores, Gpus, Hours, Profile, Root, Set, ShardOption, app, check_hours, open_study
from collabench.cli.claims import claims_of, line_of, summary_of
from collabench.core.errors import CollabenchError
from collabench.core.text import counted

if TYPE_CHECKING:
    from collabench.config.configuration import Run
    from collabench.core.resources import Resources
    from collabench.study.other_code import OtherCode
    from collabench.study.progress import Watcher
    from collabench.study.runner import Outcome
    from collabench.study.study import Study


@app.command()
def plan(
    profile: Profile = "default",
    root: Root = HERE,
    settings: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    accept_code: Annotated[
        bool, typer.Option("--accept-code", help="Record that the present code computes what the runs' code computed.")
    ] = False,
    totals: Annotated[
        bool, typer.Option("--totals", help="Only the sums of all trainings, by data set: runs, FLOPs, memory, disk.")
    ] = False,
) -> None:
    """What would run, what is done or failed, and why.

    Says for each configuration why it would be run again, and of each claim what its next look costs. Trains nothing.
    --totals counts arithmetic and memory without GPU or data, some seconds of a core for each configuration.
    """
    if totals:
        return print_totals(open_study(root, profile, settings))
    from collabench.storage.workspace import Workspace
    from collabench.study import memo

    said = (
        None
        if accept_code or settings
        else memo.recall(Workspace(root.resolve(), profile), "plan_json" if as_json else "plan")
    )
    if said is not None:
        print(said)
        return
    from collabench.study import other_code, variants

    study = open_study(root, profile, settings)
    profile = study.workspace.profile
    if accept_code:
        for other in other_code.accept_code(study):
            print(f"accepted: {other.line}")
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
    missing = [*study.inputs.missing_datasets().values(), *study.missing_files(study.plan.runs)]
    others = other_code.runs_of_other_code(study)
    notes = [*study.inputs.tiny_last_batches(), *study.inputs.noisy_tests()]
    content = {"profile": profile, "runs": len(statuses), "states": counts, "missing_data": missing, "notes": notes}
    stale = {"other_code": [other.line for other in others]} if others else {}
    lines = [
        f"{row['label']}: {', '.join(f'{len(numbers)} {state}' for state, numbers in row['seeds'].items())}"
        f"{' (' + row['why'] + ')' if row['why'] else ''}  [{row['configuration']}]"
        for row in rows.values()
    ]
    lines += [f"note: {line}" for line in notes]
    claims = claims_of(study)
    lines += [f"claim {line_of(claim)}" for claim in claims]
    lines += [f"missing: {line}" for line in missing] + lines_on_other_code(others, profile)
    total = ", ".join(f"{n} {state}" for state, n in counts.items())
    several = "runs" if len(statuses) != 1 else "run", "configurations" if len(rows) != 1 else "configuration"
    lines.append(f"{len(statuses)} {several[0]} in {len(rows)} {several[1]}: {total}")
    lines += [summary_of(claims)] if claims else []
    if counts.get("todo") and not missing:
        alone = variants.is_variant(profile)  # whose name is known here once it has been run
        lines.append(
            "Next: collabench run with the same profile and settings"
            if alone
            else f"Next: collabench reproduce -p {profile}, or collabench run -p {profile} without Snakemake and DVC"
        )
    forms = {
        "plan": "\n".join(lines),
        "plan_json": json.dumps(
            {**content, **stale, **({"claims": claims} if claims else {}), "configurations": list(rows.values())}
        ),
    }
    print(forms["plan_json" if as_json else "plan"])
    if counts.keys() == {"done"} and not missing and not others:
        memo.remember(study.workspace, other_code.files_of_the_user(study), **forms)


def print_totals(study: Study) -> None:
    """Print what the trainings of a study add up to, for each data set and together."""
    from collabench.core.resources import available_cores
    from collabench.study.totals import totals

    found = totals(study, available_cores()[0])
    if len(found.datasets) > 1:
        for dataset in found.datasets:
            print(f"{dataset}: {found.on(dataset).line}")
    print(f"{found.profile}: {found.line}")


def lines_on_other_code(others: list[OtherCode], profile: str) -> list[str]:
    """One line for each configuration with runs that other code computed, and a last line with the remedy."""
    from collabench.study.other_code import what_to_do

    return [f"other code: {other.line}" for other in others] + ([what_to_do(others, profile)] if others else [])


@app.command()
def run(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    hours: Hours = None,
    method: Annotated[str | None, typer.Option(help="Only this method of params.yaml.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    configuration: Annotated[str | None, typer.Option(help="Only this configuration id (see plan).")] = None,
    shard: ShardOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train runs again that failed.")] = False,
    settings: Set = None,
) -> None:
    """Train what is missing, without Snakemake and DVC.

    What the chosen runs require is trained too. With --set the runs have ids and a folder of their own, and no table
    of the profile shows them.
    """
    from collabench.config.plan import with_required
    from collabench.core import distributed, processes, resources
    from collabench.study import torchrun, variants

    check_hours(hours)
    study = open_study(root, profile, settings)
    shared = distributed.launched_world() > 1  # started by torchrun: its processes share every run
    if shared:
        processes.end_with_parent()
    if not distributed.launched_first():
        return torchrun.follow(study, resources.choose(study.profile.device, gpus=gpus, own=torchrun.own_place()))
    part = {one.configuration.id for one in part_of(study, shard)}

    def choose(now: Study) -> list[Run]:
        named = [
            one
            for one in now.plan.runs
            if one.configuration.id in part
            and (method is None or one.configuration.names["method"] == method)
            and (seed is None or one.seed == seed)
            and (configuration is None or one.configuration.id == configuration)
        ]
        wanted = {one.id for one in with_required(named)}
        return [one for one in now.plan.runs if one.id in wanted]  # in the study's order

    chosen = choose(study)
    if not chosen:
        given = {"--method": method, "--seed": seed, "--configuration": configuration, "--shard": shard}
        named = " ".join(f"{option} {value}" for option, value in given.items() if value is not None)
        raise CollabenchError(f"no run of profile {profile} fits {named}; `collabench plan -p {profile}` lists them")
    own = torchrun.own_place() if shared else None
    available = resources.choose(study.profile.device, cores=cores, gpus=gpus, own=own)
    study.check_device(available.device)
    print(torchrun.describe(available) if shared else available.describe(), flush=True)
    study.check_files(chosen)
    possible, lacking = study.inputs.without_missing_data(chosen)
    if not possible:
        raise CollabenchError("; ".join(lacking))
    print("".join(f"missing: {line}\n" for line in lacking), end="", file=sys.stderr)
    others = study.plan.configurations.keys() - part
    fitting = {one.id for one in limit_hours(study, possible, available, hours, some=True, elsewhere=others)}
    left_for_later = {one.id for one in possible} - fitting
    possible = [one for one in possible if one.id in fitting]
    if settings:
        variant = variants.find(study.workspace.root, profile, settings)
        variants.keep(study.workspace, variant)
        profile = variant.name
        print(f"{variant.described}, as -p {profile}", flush=True)
    study.mend()
    study.inputs.prepare_for(possible)
    outcome, open_claims = _train_in_rounds(
        study, lambda now: [one for one in choose(now) if one.id not in left_for_later], available, shared, retry_failed
    )
    _conclude(outcome, len(chosen) - len(possible) - len(left_for_later), profile)
    print_open_claims(open_claims, hours)
    left = sum(study.status(one).state != "done" for one in study.plan.due)
    command = f"plan -p {profile}, to see the missing {counted(left, 'run')}" if left else f"report -p {profile}"
    print(f"Next: collabench {command}")


def _train_in_rounds(
    study: Study, choose: Callable[[Study], list[Run]], available: Resources, shared: bool, retry_failed: bool
) -> tuple[Outcome, int]:
    """Train the runs that ``choose`` names, and those that undecided claims need by the results; what became of them,
    and the number of claims that are undecided and need more."""
    from collabench.study import blocks, growth, pool, progress, torchrun
    from collabench.study.runner import Outcome

    train = torchrun.train if shared else pool.train
    outcome, begun, number = Outcome(), set[str](), 0
    while True:
        number += 1
        study = study.grown()
        found = blocks.blocks_of_round(study, available, {one.configuration.id for one in choose(study)})
        now = study.with_growth(growth.only(study.plan.growth, [block.numbers for block in found]))
        runs = [one for one in now.inputs.without_missing_data(choose(now))[0] if one.id not in begun]
        # torchrun's processes part after one round
        if number > 1 and (shared or all(now.status(one).state == "done" for one in runs)):
            break
        begun |= {one.id for one in runs}
        if number > 1:
            print(f"round {number}: {blocks.describe(found)}", flush=True)
            now.inputs.prepare_for(runs)
        watcher = progress.Watcher(now, 1 if shared else available.workers, runs)
        with progress.watching(watcher), growth.given_to_children(now.workspace.profile, now.plan.growth):
            report = _reporter(watcher, len(runs))
            outcome.extend(train(now, runs, available, retry_failed=retry_failed, finished=report))
    return outcome, sum(state.open for state in study.claims)


def _reporter(watcher: Watcher, runs: int) -> Callable[[Run, str], None]:
    """Prints a line for each run that became available. Those that were there are counted only."""
    numbers = itertools.count(1)

    def finished(one: Run, state: str) -> None:
        number = next(numbers)
        if state == "done":
            return
        print(
            f"[{number}/{runs}] {one.configuration.label}, seed {one.seed}: {state} · {watcher.study_line()}",
            flush=True,
        )

    return finished


def limit_hours(
    study: Study,
    wanted: Sequence[Run],
    available: Resources,
    hours: float | None,
    *,
    some: bool = False,
    elsewhere: Iterable[str] = (),
) -> list[Run]:
    """Have this process and its children stop extending claims in so many hours; None: do nothing. Return the runs.

    some: if the runs that tables need take longer, return those of the claims' first looks that fit, where there are
    some. elsewhere: ids of configurations that another part of the study trains, which takes no time here.
    Raises CollabenchError if nothing fits.
    """
    from collabench.storage.results import RESULT
    from collabench.study import blocks

    if hours is None:
        return list(wanted)
    os.environ.update(blocks.until_in(hours))
    due = [run for run in wanted if run.id not in study.plan.ahead]
    due = [run for run in due if not (study.workspace.folder(run) / RESULT).exists()]
    if not due:
        return list(wanted)
    print(
        f"how long {counted(len(due), 'run')} of the tables will take: measured or timed before, else timed now",
        flush=True,
    )
    seconds = blocks.timed_seconds_of(study, available, due)
    needed = blocks.clock_seconds(due, seconds, available.workers)
    if needed <= 3600 * hours:
        return list(wanted)
    tables = (
        f"the tables alone need about {counted(math.ceil(needed / 36) / 100, 'hour')} on "
        f"{counted(available.workers, 'process', 'processes')}, for {counted(len(due), 'run')}"
    )
    all_seconds = seconds | dict.fromkeys(elsewhere, 0.0)
    found = blocks.first_looks_within(study, due, all_seconds, available.workers, 3600 * hours) if some else []
    if not found:
        why = (
            "no first look of a claim ends within these hours" if some else "claims are extended in the time after that"
        )
        raise CollabenchError(f"--hours {hours:g}: {tables}; {why}")
    chosen = {run.id for block in found for run in block.runs}
    print(f"{tables}; within {counted(float(hours), 'hour')}: {counted(len(chosen), 'run')}, the first looks of "
          f"{counted(len(found), 'test')}, the cheapest first: "
          f"{', '.join(f'{block.claim.claim} in {block.claim.scope}' for block in found)}", flush=True)  # fmt: skip
    return [run for run in wanted if run.id in chosen]


def print_open_claims(count: int, hours: float | None) -> None:
    """Say how many claims are undecided and need more seeds."""
    if count:
        why = f"; no further block of seeds ends within {counted(float(hours), 'hour')}" if hours is not None else ""
        print(f"undecided claims that need more seeds: {count}{why}; collabench plan says which")


def _conclude(outcome: Outcome, left_out: int, profile: str) -> None:
    print(f"{len(outcome.trained)} trained, {len(outcome.linked)} linked, {len(outcome.done)} already there, "
          f"{len(outcome.failed)} failed")  # fmt: skip
    for one, reason in outcome.failed:
        print(f"failed: {one.configuration.label}, seed {one.seed}: {reason} [{one.id}]", file=sys.stderr)
    if left_out:
        print(f"left out, because data sets are missing (see above): {counted(left_out, 'run')}", file=sys.stderr)
    if outcome.failed:
        print(f"once mended: collabench run -p {profile} --retry-failed", file=sys.stderr)
    if outcome.failed or left_out:
        raise typer.Exit(1)


def part_of(study: Study, shard: str | None) -> list[Run]:
    """The runs of the part that ``--shard`` names, or all runs. Prints their number."""
    from collabench.study import shards

    chosen = shards.parse(shard) if shard is not None else None
    runs = shards.runs_of(study.plan, chosen)
    if chosen is not None:
        configurations = counted(len({run.configuration.id for run in runs}), "configuration")
        print(f"part {chosen}: {len(runs)} of {counted(len(study.plan.runs), 'run')}, {configurations}")
        if not runs:
            raise CollabenchError(
                f"--shard {chosen}: the study has fewer groups of configurations that belong together than "
                f"{chosen.count}, and this part is empty; the other parts are the whole study"
            )
    return runs


@app.command()
def gc(
    profile: Profile = "default",
    root: Root = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """Remove what no table of the profile needs.

    Runs, their measurements and markers, data sets, noisy labels, checkpoints, failures, and what was set aside.
    """
    from collabench.study import cleanup

    study = open_study(root, profile)
    found = cleanup.surplus(study)
    size = cleanup.size_of(found)
    print("".join(f"{path.relative_to(study.workspace.root)}\n" for path in found), end="")
    if not dry_run:
        cleanup.remove(study, found)
    print(
        f"{counted(len(found), 'entry', 'entries')}, {size / 1e6:.1f} MB {'would be removed' if dry_run else 'removed'}"
    )
