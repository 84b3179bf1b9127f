"""A page for each paper: its tables in its own layout, with each value beside the runs that reproduce it.

If a profile runs none of a paper's configurations, the page says so and shows the published values and whether the
paper's own arithmetic holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.configuration import PARTS
from collabench.core.text import counted, markdown_cell, markdown_text
from collabench.papers.arithmetic import QuoteCheck, check_quotes, repeated, suspects
from collabench.papers.citations import cited, cited_table
from collabench.papers.schema import METRICS, UNKNOWN, About
from collabench.papers.tables import Paper, PublishedCell, Table
from collabench.report import titles
from collabench.report.content import Report
from collabench.report.folders import OVERVIEW
from collabench.report.pages import protocols
from collabench.report.pages import tables as formats
from collabench.report.pages.protocols import MISPRINT
from collabench.report.published import Measured, measure

if TYPE_CHECKING:
    import pandas

    from collabench.report.collect import Collected

#: Methods that papers compare themselves with. A table with no other method does not count as a table on a paper.
COMPARED_WITH = {"individual", "ensemble", "kd"}

LEGEND = f"""\
How to read a cell. First the **published** value. Below it the **measured** one, under the rule that the paper reports
(mean ± sample standard deviation [95 % t interval], n training runs), the **difference** measured minus published in
percentage points, and the **verdict**: *agrees*: the published value lies where one more run of ours would (95 %
prediction interval), *differs*: outside, *cannot tell*: no such interval; beside a published mean ± standard deviation
Welch's test decides, and *agrees* needs a stated margin that two one-sided tests keep. The rule is the last epoch.
Where the paper reports the lowest test error over all epochs, two tables stand in the place of one: an honest one, and
one by the paper's own protocol, which is optimistic. Intervals are over training randomness, with a fixed test set. A
cell with the published value alone is not run in this profile. {MISPRINT}: looks like a misprint, see below; kept as
printed.
"""


def write_papers(folder: Path, papers: dict[str, Paper], report: Report, collected: Collected) -> list[str]:
    """Write ``<paper>.md``, and ``<paper>.csv`` if there are runs. Returns one line per paper for the overview."""
    from collabench.report.formatting import write_csv

    lines = []
    for paper in papers.values():
        measured = measure(paper, collected)
        (folder / f"{paper.name}.md").write_bytes(page(paper, measured, report, collected).encode())
        numbers = ""
        if measured:
            write_csv(folder / f"{paper.name}.csv", frame(paper, measured))
            numbers = f", [{paper.name}.csv]({paper.name}.csv)"
        lines.append(f"- [{paper.name}.md]({paper.name}.md){numbers}: {_in_short(paper, measured)}")
    return lines


def _in_short(paper: Paper, measured: dict[tuple[str, str, str], Measured]) -> str:
    """``32 of 127 cells have runs here: 20 agree, 3 differ``."""
    if not measured:
        return f"{paper.about.authors}; no published value is comparable with a run of this profile"
    verdicts = [m.published.comparison.verdict for m in measured.values() if m.published and m.published.comparison]
    counts = ", ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in dict.fromkeys(sorted(verdicts)))
    done = sum(m.n > 0 for m in measured.values())
    return f"{paper.about.authors}; {done} of {len(paper.cells)} published cells have runs here" + (
        f" ({counts})" if counts else ""
    )


# ---------------------------------------------------------------------------------------------------- the page


def page(paper: Paper, measured: dict[tuple[str, str, str], Measured], report: Report, collected: Collected) -> str:
    """The whole page as markdown."""
    about = paper.about
    lines = [
        f"# {markdown_text(f'{about.authors}: {about.title}')}",
        f"`{paper.name}`, {about.published}. [Overview]({OVERVIEW})" + _csv_link(paper, measured),
    ]
    if report.partial:
        lines.append("**Partial report: some runs are missing; n says how many there are.**")
    if about.note:
        lines.append(about.note)
    marked = {(s.cell.table, s.cell.row, s.cell.column) for s in suspects(paper)}
    quoted: dict[str, list[str]] = {}
    for check in check_quotes(paper):
        if check.computed is None:
            number = _quoted(check.quote.value, check.quote.decimals)
            quoted.setdefault(check.quote.after.table, []).append(f"{check.quote.what}, {number}")
    shown = [table for table in paper.tables.values() if any(key[0] == table.name for key in measured)]
    if not measured:
        lines += _nothing_comparable(paper, report, collected)
    elif shown:
        lines.append(LEGEND.strip())
    for table in shown:
        lines += _table(about, table, measured, marked, quoted)
    rest = [table for table in paper.tables.values() if table not in shown]
    known = [table for table in rest if any(cell.value is not None for cell in table.cells.values())]
    if known:
        lines.append("## As published" + (", not run in this profile" if measured else ""))
        for table in known:
            lines += _table(about, table, {}, marked, quoted, "###")
    if len(rest) > len(known):
        lines.append(f"## Described, with values {UNKNOWN}")
        lines.append("\n".join(_described(about, table) for table in rest if table not in known))
    lines += _arithmetic(paper)
    lines.append("Sources: " + "; ".join(cited(about, file) for file in about.sources) + ".")
    return "\n\n".join(lines) + "\n"


def _csv_link(paper: Paper, measured: dict[tuple[str, str, str], Measured]) -> str:
    return f" · numbers: [{paper.name}.csv]({paper.name}.csv)" if measured else ""


def _nothing_comparable(paper: Paper, report: Report, collected: Collected) -> list[str]:
    methods = {c.configuration.method.method for c in paper.cells if c.configuration is not None} - COMPARED_WITH
    with_method = {cell.table for cell in collected.plan.cells if cell.configuration.method.method in methods}
    links = [f"[{markdown_text(table.title)}]({table.name}.md)" for table in report.tables if table.name in with_method]
    return [
        "No published value of this paper is comparable with a run of this profile: they differ in data set, noise, "
        "backbone or recipe, and a measured value stands beside a published one only where all of these are the same.\n"
        + (
            f"Its methods under this profile's scope: {', '.join(links)}."
            if links
            else "None of its methods is run in this profile."
        )
    ]


def _table(
    about: About,
    table: Table,
    measured: dict[tuple[str, str, str], Measured],
    marked: set[tuple[str, str, str]],
    quoted: dict[str, list[str]],
    heading: str = "##",
) -> list[str]:
    """One table of the page. quoted: table → quoted numbers about unknown values."""
    content = table.content
    lines = [f"{heading} {markdown_text(content.title)}", f"{metrics_of(table)}. {protocol_of(table)}".strip()]
    if content.reported_by:
        lines.append(f"Reported by {content.reported_by}.")
    if content.protocol.epoch == "best" and measured:
        lines += [
            f"{heading}# Honest: mean over all seeds, after the last epoch",
            protocols.honest_note(),
            _grid(table, measured, marked, protocols.honest),
            f"{heading}# The paper's own protocol: {protocols.in_words(content.protocol)}",
            protocols.own_note(measured.values()),
            _grid(table, measured, marked, protocols.own),
        ]
    else:
        lines.append(_grid(table, measured, marked, protocols.plain))
    notes = []
    if content.axes:
        notes.append(f"x: {content.axes.x}; y: {content.axes.y}; a row is a series.")
    if content.note:
        notes.append(content.note)
    if content.chosen_here:
        notes.append(f"Not stated by the sources, chosen here: {content.chosen_here}.")
    notes += _readings(table)
    notes += _not_run(table)
    unrecorded = [cell for cell in table.cells.values() if (m := measured.get(_key(cell))) and m.n and m.error is None]
    if unrecorded:
        notes.append(
            "Where not every epoch was evaluated, or the top-5 error of not every epoch recorded, the last epoch's "
            "stands, without a verdict."
        )
    notes += [f"Quoted: {text}." for text in quoted.get(table.name, ())]
    notes.append(f"Source: {cited_table(about, content.source)}.")
    return [*lines, " ".join(notes)]


def _key(cell: PublishedCell) -> tuple[str, str, str]:
    return cell.table, cell.row, cell.column


def metrics_of(table: Table) -> str:
    metrics = list(dict.fromkeys(cell.metric for cell in table.cells.values()))
    text = ", ".join(METRICS[metric] for metric in metrics)
    return text[0].upper() + text[1:]


def protocol_of(table: Table) -> str:
    protocol = table.content.protocol
    if not any(cell.metric.endswith("_error") for cell in table.cells.values()):
        return ""
    runs = "number of runs not stated (one is assumed)" if protocol.runs == "unknown" else counted(protocol.runs, "run")
    epochs = {
        "best": "lowest test error over all epochs (optimistic)",
        "last": "after the last epoch",
        "unknown": "epoch not stated (the last is assumed)",
    }
    return f"As published: {runs}; {epochs[protocol.epoch]}; {protocol.split} split."


def _readings(table: Table) -> list[str]:
    """How the runs of this project read what the paper leaves open: noise of every epoch, and methods."""
    configurations = [cell.configuration for cell in table.cells.values() if cell.configuration is not None]
    anew = {titles.drawn(c.noise): None for c in configurations if c.noise.is_drawn_anew}
    return [
        *(f"Label noise in our runs: {drawn}." for drawn in anew),
        *formats.told_readings((c.names["method"], c.method.readings()) for c in configurations),
    ]


def _not_run(table: Table) -> list[str]:
    """Why cells have no run, with the cells unless it is the whole table."""
    reasons: dict[str, list[PublishedCell]] = {}
    for cell in table.cells.values():
        if cell.not_run is not None:
            reasons.setdefault(cell.not_run, []).append(cell)
    return [
        f"No run{'' if len(cells) == len(table.cells) else ' of ' + _columns(table, cells)}: {reason}."
        for reason, cells in reasons.items()
    ]


def _columns(table: Table, cells: Iterable[PublishedCell]) -> str:
    return ", ".join(dict.fromkeys(table.content.columns[cell.column].title for cell in cells))


def _grid(
    table: Table,
    measured: dict[tuple[str, str, str], Measured],
    marked: set[tuple[str, str, str]],
    entry: Callable[[PublishedCell, Measured | None, bool], str],
) -> str:
    """The paper's layout: label columns, then its columns. entry: makes a cell's text."""
    content = table.content
    header = [*content.row_titles, *(_escape(column.title) for column in content.columns.values())]
    rows = [header, [":---"] * len(content.row_titles) + ["---:"] * len(content.columns)]
    several = len({cell.metric for cell in table.cells.values()}) > 1
    for name, row in content.rows.items():
        labels = list(map(markdown_cell, row.labels))
        if several and row.metric is not None:
            labels[-1] += f" ({METRICS[row.metric].partition(' (')[0]})"
        cells = [table.cells[name, column] for column in content.columns]
        rows.append([*labels, *(entry(cell, measured.get(_key(cell)), _key(cell) in marked) for cell in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _escape(text: str) -> str:
    return markdown_cell(text.replace("_", r"\_"))


def _described(about: About, table: Table) -> str:
    rows = "; ".join(" · ".join(row.labels) for row in table.content.rows.values())
    columns = "; ".join(column.title for column in table.content.columns.values())
    reason = f" No run: {table.content.not_run}." if table.content.not_run else ""
    metrics = metrics_of(table)
    metrics = metrics[0].lower() + metrics[1:]
    source = cited_table(about, table.content.source)
    title = markdown_text(table.content.title)
    return f"- {title} ({metrics}). Rows: {rows}. Columns: {columns}. Source: {source}.{reason}"


# ---------------------------------------------------------------------------------------------- its arithmetic


def _arithmetic(paper: Paper) -> list[str]:
    checks, found, twice = check_quotes(paper), suspects(paper), repeated(paper)
    if not (checks or found or twice):
        return []
    if not found and not twice and all(check.quote.relation == "value" and check.agrees for check in checks):
        return []  # the list of sources repeats a value, which is not a calculation of the paper
    lines = ["## The paper's own arithmetic"]
    known = [check for check in checks if check.agrees is not None]
    wrong = [check for check in known if not check.agrees]
    if checks:
        text = f"{len(known) - len(wrong)} of {len(checks)} quoted numbers agree with the tables"
        if wrong:
            text += f", {len(wrong)} {'does' if len(wrong) == 1 else 'do'} not: " + "; ".join(
                f"{check.quote.what}, quoted {_quoted(check.quote.value, check.quote.decimals)}, by the tables "
                f"{_quoted(check.computed, check.quote.decimals)} ({check.how})"
                for check in wrong
            )
        if len(checks) > len(known):
            text += f"; {len(checks) - len(known)} cannot be checked, the values are {UNKNOWN}"
        lines += [f"{text}. The data stay as printed.", _checks_table(checks)]
    for suspect in found:
        cell, table = suspect.cell, paper.tables[suspect.cell.table].content
        lines.append(
            f"{MISPRINT} Looks like a misprint: {formats.number(cell.value)} in {table.title.partition('.')[0]}, "
            f"{' · '.join(table.rows[cell.row].labels)}, {table.columns[cell.column].title}. It is "
            f"{formats.number(suspect.change, signed=True)} points from its row's baseline "
            f"({formats.number(suspect.baseline.value)}), while in each of the other {suspect.rows} rows this column "
            f"goes the other way, by at most {formats.number(abs(suspect.largest))} points. Rule: opposite sign to all "
            "other rows of the column, and larger in size than each."
        )
    if twice:
        verb = "is" if len(twice) == 1 else "are"
        text = f"{counted(len(twice), 'configuration')} {verb} printed in more than one table"
        unequal = [entry for entry in twice if not entry.same]
        text += ", with the same value each time." if not unequal else ", not always with the same value: " + "; ".join(
            ", ".join(f"{formats.number(cell.value)} ({cell.table}, {cell.row}, {cell.column})" for cell in entry.cells)
            for entry in unequal
        ) + "."  # fmt: skip
        lines.append(text)
    return lines


def _quoted(value: float | None, decimals: int) -> str:
    return formats.number(value, decimals)


def _checks_table(checks: Iterable[QuoteCheck]) -> str:
    rows = [["Quoted", "Number", "By the tables", "Arithmetic", "Agrees"], [":---", "---:", "---:", ":---", ":---"]]
    for check in checks:
        rows.append(
            [
                check.quote.what.replace("_", r"\_"),
                _quoted(check.quote.value, check.quote.decimals),
                UNKNOWN if check.computed is None else _quoted(check.computed, check.quote.decimals),
                check.how.replace("_", r"\_"),
                "cannot be checked" if check.agrees is None else "yes" if check.agrees else "**no**",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


# ------------------------------------------------------------------------------------------------------- numbers


def frame(paper: Paper, measured: dict[tuple[str, str, str], Measured]) -> pandas.DataFrame:
    """All cells of the paper, one per row; empty if nothing is known or run."""
    import pandas

    return pandas.DataFrame([_numbers(paper, cell, measured.get(_key(cell))) for cell in paper.cells])


def _numbers(paper: Paper, cell: PublishedCell, measured: Measured | None) -> dict[str, object]:
    names = cell.configuration.names if cell.configuration is not None else {}
    content = paper.tables[cell.table].content
    comparison = measured.published.comparison if measured and measured.published else None
    own = measured.own if measured else None
    return {
        "table": cell.table,
        "row": " · ".join(content.rows[cell.row].labels),
        "column": content.columns[cell.column].title,
        **{part: names.get(part) for part in PARTS},
        "configuration_id": cell.configuration.id if cell.configuration is not None else None,
        "metric": cell.metric,
        "published": cell.value,
        "published_known": cell.value is not None,
        "published_sd": cell.sd,
        "published_runs": cell.protocol.runs,
        "published_epoch": cell.protocol.epoch,
        "source": cell.source,
        "not_run": cell.not_run,
        "n": measured.n if measured else 0,
        "n_asked": measured.asked if measured else 0,
        **formats.summary_columns("measured", measured.error if measured else None),
        **formats.summary_columns("measured_last_epoch", measured.last if measured else None),
        "own_protocol_seeds": " ".join(map(str, own.seeds)) if own else None,
        "own_protocol": own.error if own else None,
        "difference": comparison and comparison.difference,
        "prediction_low": comparison and comparison.low if cell.sd is None else None,
        "prediction_high": comparison and comparison.high if cell.sd is None else None,
        "welch_low": comparison and comparison.low if cell.sd is not None else None,
        "welch_high": comparison and comparison.high if cell.sd is not None else None,
        "welch_p": comparison and comparison.p,
        "equivalence_p": comparison and comparison.equivalence_p,
        "verdict": comparison and comparison.verdict,
        "verdict_reason": comparison and comparison.reason,
    }
