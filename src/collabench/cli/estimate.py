"""The command ``estimate``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from collabench.cli.app import HERE, Cores, Gpus, Profile, Root, Set, app
from collabench.core.errors import CollabenchError
from collabench.core.text import counted

if TYPE_CHECKING:
    from collabench.study.estimate import Estimate


def describe_estimate(found: Estimate, budget_hours: float | None = None) -> str:
    """The estimate as text: per configuration, per table and in total, and the error of the predictions."""
    from tabulate import tabulate

    from collabench.stats.power import detectable_effect

    rows = [
        [
            cost.configuration.label,
            cost.runs,
            _number(cost.predicted.flops / 1e6, 1),
            _number(cost.predicted.seconds, 1),
            _number(cost.measured_seconds, 1),
            "–" if cost.error is None else f"{cost.error:+.0%}",
            _number(cost.predicted.memory_bytes / 1e6, 0),
            _number(None if cost.measured_memory is None else cost.measured_memory / 1e6, 0),
        ]
        for cost in found.costs.values()
    ]
    head = [
        "configuration", "runs", "MFLOP an image", "predicted, s", "measured, s", "error", "memory, MB", "measured, MB",
    ]  # fmt: skip
    text = [tabulate(rows, head, disable_numparse=True)]
    tables = [*dict.fromkeys(cell.table for cell in found.study.plan.cells)]
    parts = {table: found.table_runs(table) for table in tables} | {"all, shared runs once": found.study.plan.runs}
    if found.study.plan.growth is not None:
        parts["all looks of every claim, at most"] = found.study.plan.possible
    text.append(
        tabulate(
            [
                [
                    name,
                    len(runs),
                    _hours(seconds),
                    _hours(found.clock_seconds(runs)),
                    f"{m / 1e6:,.0f}",
                    f"{d / 1e6:,.1f}",
                ]
                for name, runs in parts.items()
                for seconds, m, d in [found.of_runs(runs)]
            ],
            ["table", "runs", "process hours", f"hours on {found.workers}", "peak memory, MB", "disk, MB"],
            disable_numparse=True,
        )
    )
    error = found.error()
    if error is not None:
        count = sum(cost.measured_runs for cost in found.costs.values())
        text.append(f"All {count} measured runs together: predicted {error:+.1%} of what was measured.")
    if budget_hours is not None:
        hours = counted(float(budget_hours), "hour")
        lines = [f"What {hours} on {counted(found.workers, 'process', 'processes')} can train, by table:"]
        for table, seeds in found.seeds_within(budget_hours).items():
            wanted = max(len(cell.seeds) for cell in found.study.plan.cells if cell.table == table)
            effect = (
                f"differences of {detectable_effect(seeds):.1f} standard deviations or more are found with 80 % power"
                if seeds > 1
                else "no comparison is possible"
            )
            lines.append(f"  {table}: {seeds} of {counted(wanted, 'seed')}: {effect}")
        text.append("\n".join(lines))
    return "\n\n".join(text)


def _as_json(found: Estimate) -> str:
    """The estimate as JSON."""
    rows = [
        {
            "configuration": name,
            "runs": cost.runs,
            "predicted": json.loads(cost.predicted.model_dump_json()),
            "measured_runs": cost.measured_runs,
            "measured_seconds": cost.measured_seconds,
        }
        for name, cost in found.costs.items()
    ]
    return json.dumps({"workers": found.workers, "process_seconds": found.seconds, "configurations": rows})


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.2f}"


@app.command("estimate")
def estimate(
    profile: Profile = "default",
    root: Root = HERE,
    cores: Cores = None,
    gpus: Gpus = None,
    budget: Annotated[float | None, typer.Option(help="Hours: say what they buy.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Time again what was timed on this machine before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    settings: Set = None,
) -> None:
    """What the profile will cost on this machine.

    Hours, memory and disk. Times a few training steps of each configuration. Says how far predictions were from what
    was measured. Trains nothing.
    """
    from collabench.core import resources
    from collabench.study.estimate import estimate as predict
    from collabench.study.study import load_study

    if budget is not None and not budget > 0:
        raise CollabenchError(f"--budget {budget:g}: a budget is a positive number of hours")
    study = load_study(root.resolve(), profile, settings=settings or ())
    available = resources.choose(study.profile.device, cores=cores, gpus=gpus)
    found = predict(study, available, again=again)
    print(_as_json(found) if as_json else describe_estimate(found, budget))
