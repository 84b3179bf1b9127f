"""The cost of the runs: time, memory and device from ``measured.json``. No result depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas

from collabench.config.configuration import PARTS, Run
from collabench.config.plan import Cell
from collabench.core.text import counted, markdown_text
from collabench.report.collect import Collected, training_seconds
from collabench.report.content import Condition, Report
from collabench.report.folders import OVERVIEW
from collabench.report.formatting import NOTHING, markdown, number, write_csv
from collabench.report.pages import figures
from collabench.report.pages.overview import reading_note
from collabench.stats import Paired

NOT_MEASURED = "not measured here"

_NOTE = """\
Means over the runs that were measured, as `measured.json` says. Training time includes the runs that a method needs
first (a teacher, an ensemble's members), which other rows may use as well; it is the time as it was, on a machine that
may have done other work at the same time. Memory: peak of the training process (on a GPU: of its allocator).
“×”: multiples of the baseline's. Nothing in this folder enters the tables of errors.
"""


def write_costs(folder: Path, report: Report, collected: Collected) -> None:
    """Fill an empty folder with the tables and figures of cost."""
    (folder / "figures").mkdir()
    lines = [f"# What the runs of `{report.profile}` cost", _NOTE.strip(), *_machines(collected)]
    frames, drawings = [], []
    for table in report.tables:
        lines += [f"## {markdown_text(table.title)}", *reading_note(table)]
        for condition in table.conditions:
            cells = collected.conditions[(table.name, *condition.names.values())]
            costs = pandas.DataFrame([_cost(collected, cell) for cell in cells])
            reference = costs[costs["method"] == condition.baseline]
            for column in ("train_seconds", "images_per_second", "peak_memory_bytes"):
                costs[f"{column}_relative"] = np.nan if reference.empty else costs[column] / reference[column].iloc[0]
            frames.append(costs.assign(**condition.names, table=table.name))
            lines += [f"### {markdown_text(condition.title)}", markdown(_readable(costs), words=["Device"])]
            points = _points(condition, costs)
            if points:
                name = figures.file_name(table.name, condition.key, "gain-against-cost")
                arguments = (points, condition.baseline or "")
                drawings.append(figures.Task(folder / "figures" / name, figures.gain_against_cost, arguments))
                caption = markdown_text(f"Difference in test error against training time: {condition.title}")
                lines.append(f"![{caption}](figures/{name})\n\n*{caption}*")
    figures.draw(drawings)
    every = pandas.concat(frames)
    first = ["table", *PARTS]
    write_csv(folder / "costs.csv", every[[*first, *(column for column in every if column not in first)]])
    (folder / OVERVIEW).write_bytes(("\n\n".join(lines) + "\n").encode())


def _machines(collected: Collected) -> list[str]:
    measured = list(collected.measured.values())
    if not measured:
        return [f"No run was {NOT_MEASURED.removeprefix('not ')}."]
    devices = sorted({f"{m.device} ({m.device_type}, {counted(m.threads, 'thread')})" for m in measured})
    versions = sorted({f"{name} {version}" for m in measured for name, version in m.versions.items()})
    commits = sorted({m.commit_text for m in measured})
    hours = sum(m.train_seconds + m.evaluate_seconds for m in measured) / 3600
    finished = [m.finished for m in measured]
    facts = [
        f"Measured runs: {len(measured)}, {hours:.2f} hours of training and evaluation in total",
        f"Devices: {'; '.join(devices)}",
        f"Versions: {', '.join(versions)}",
        f"Commits: {', '.join(commits)}",
        f"Finished: {min(finished)} to {max(finished)}",
    ]
    return ["\n".join(f"- {fact}" for fact in facts)]


def _cost(collected: Collected, cell: Cell) -> dict[str, object]:
    runs = [Run(cell.configuration, seed) for seed in cell.seeds]
    own = [collected.measured[run.id] for run in runs if run.id in collected.measured]
    seconds = [total for run in runs if (total := training_seconds(collected, run)) is not None]
    memory = [measured.peak_memory_bytes for measured in own if measured.peak_memory_bytes is not None]
    speed = [measured.images_per_second for measured in own if measured.images_per_second > 0]
    return {
        "method": cell.configuration.names["method"],
        "runs_measured": len(own),
        "train_seconds": _mean(seconds),
        "train_seconds_sd": float(np.std(seconds, ddof=1)) if len(seconds) > 1 else np.nan,
        "evaluate_seconds": _mean([measured.evaluate_seconds for measured in own]),
        "images_per_second": _mean(speed),
        "peak_memory_bytes": _mean(memory),
        "devices": "; ".join(sorted({measured.device for measured in own})),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _readable(costs: pandas.DataFrame) -> pandas.DataFrame:
    def cells(row: pandas.Series) -> dict[str, str]:
        if not row["runs_measured"]:
            return {"Method": row["method"], "Training time, s": NOT_MEASURED}
        return {
            "Method": row["method"],
            "Training time, s": _with_sd(row["train_seconds"], row["train_seconds_sd"]) or NOT_MEASURED,
            "Time ×": _times(row["train_seconds_relative"]),
            "Evaluation, s": _or_nothing(row["evaluate_seconds"], 1),
            "Images/s": _or_nothing(row["images_per_second"], 0),
            "Images/s ×": _times(row["images_per_second_relative"]),
            "Peak memory, MB": _or_nothing(row["peak_memory_bytes"] / 1e6, 0),
            "Memory ×": _times(row["peak_memory_bytes_relative"]),
            "Runs": str(row["runs_measured"]),
            "Device": row["devices"],
        }

    return pandas.DataFrame([cells(row) for _, row in costs.iterrows()]).fillna(NOTHING)


def _with_sd(mean: float, sd: float) -> str:
    if np.isnan(mean):
        return ""
    return number(mean, 1) + ("" if np.isnan(sd) else f" ± {number(sd, 1)}")


def _times(ratio: float) -> str:
    return _or_nothing(ratio, 2)


def _or_nothing(value: float, decimals: int) -> str:
    return NOTHING if np.isnan(value) else number(value, decimals)


def _points(condition: Condition, costs: pandas.DataFrame) -> list[tuple[str, float, Paired]]:
    """(method, relative training time, difference) for the rows in which both are known."""
    relative = dict(zip(costs["method"], costs["train_seconds_relative"], strict=True))
    return [
        (row.method, relative[row.method], row.difference)
        for row in condition.rows
        if row.difference is not None and not np.isnan(relative[row.method])
    ]
