"""The papers on the page: their tables in their own layout, with each value beside the runs that reproduce it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collabench.config.configuration import READINGS
from collabench.papers.arithmetic import check_quotes, repeated, suspects
from collabench.papers.citations import citation, cited, cited_table
from collabench.papers.schema import METRICS
from collabench.papers.tables import Paper, PublishedCell, Table
from collabench.report.gather import Gathered
from collabench.report.pages.papers import metrics_of, protocol_of

#: (table, row's labels, column's title) → profile → the row of that profile's CSV file.
Measured = Mapping[tuple[str, str, str], Mapping[str, Mapping[str, str]]]


def papers_data(papers: Mapping[str, Paper], reports: Sequence[Gathered]) -> list[dict[str, Any]]:
    """Every paper, as plain data."""
    return [_paper(paper, reports) for paper in papers.values()]


def _paper(paper: Paper, reports: Sequence[Gathered]) -> dict[str, Any]:
    about = paper.about
    measured: dict[tuple[str, str, str], dict[str, Mapping[str, str]]] = {}
    for report in reports:
        for row in report.published.get(paper.name, ()):
            if row.get("n", "0") not in ("", "0"):
                key = row.get("table", ""), row.get("row", ""), row.get("column", "")
                measured.setdefault(key, {})[report.name] = row
    misprints = {_key(one.cell) for one in suspects(paper)}
    tables = [_table(paper, table, measured, misprints) for table in paper.tables.values()]
    return {
        "name": paper.name,
        "cite": citation(about),
        "title": about.title,
        "authors": about.authors,
        "published": about.published,
        "note": about.note,
        "not_run": about.not_run,
        "reading": READINGS.get(paper.name),
        "sources": [cited(about, file) for file in about.sources],
        "tables": tables,
        "has_runs": any(cell["runs"] for table in tables for row in table["rows"] for cell in row["cells"]),
        "quotes": [
            {
                "what": check.quote.what,
                "quoted": check.quote.value,
                "decimals": check.quote.decimals,
                "computed": check.computed,
                "agrees": check.agrees,
                "how": check.how,
            }
            for check in check_quotes(paper)
        ],
        "misprints": [_misprint(paper, one) for one in suspects(paper)],
        "repeated": {
            "count": len(twice := repeated(paper)),
            "unequal": [[_place(paper, cell) for cell in one.cells] for one in twice if not one.same],
        },
    }


def _key(cell: PublishedCell) -> tuple[str, str, str]:
    return cell.table, cell.row, cell.column


def _place(paper: Paper, cell: PublishedCell) -> dict[str, Any]:
    content = paper.tables[cell.table].content
    return {
        "table": content.title.partition(".")[0],
        "row": " · ".join(content.rows[cell.row].labels),
        "column": content.columns[cell.column].title,
        "value": cell.value,
    }


def _misprint(paper: Paper, one: Any) -> dict[str, Any]:
    return _place(paper, one.cell) | {
        "change": one.change,
        "baseline": one.baseline.value,
        "rows": one.rows,
        "largest": abs(one.largest),
    }


def _table(paper: Paper, table: Table, measured: Measured, misprints: set[tuple[str, str, str]]) -> dict[str, Any]:
    content = table.content
    reasons: dict[str, int] = {}
    for cell in table.cells.values():
        if cell.not_run is not None:
            reasons[cell.not_run] = reasons.get(cell.not_run, 0) + 1
    several = len({row.metric for row in content.rows.values()}) > 1
    notes = [
        f"{metrics_of(table)}. {protocol_of(table)}".strip(),
        content.reported_by and f"Reported by {content.reported_by}.",
        content.axes and f"x: {content.axes.x}; y: {content.axes.y}; a row is a series.",
        content.note,
        content.chosen_here and f"Not stated by the sources, chosen here: {content.chosen_here}.",
        *(
            f"No run{'' if n == len(table.cells) else f' of {n} of {len(table.cells)} cells'}: {reason}."
            for reason, n in reasons.items()
        ),
        f"Source: {cited_table(paper.about, content.source)}.",
    ]
    return {
        "title": content.title,
        "notes": [note for note in notes if note],
        "is_known": any(cell.value is not None for cell in table.cells.values()),
        "row_titles": list(content.row_titles),
        "columns": [column.title for column in content.columns.values()],
        "rows": [
            {
                "labels": list(row.labels),
                "metric": METRICS[row.metric] if row.metric and several else None,
                "cells": [_cell(table.cells[name, column], content, measured, misprints) for column in content.columns],
            }
            for name, row in content.rows.items()
        ],
    }


def _cell(
    cell: PublishedCell, content: Any, measured: Measured, misprints: set[tuple[str, str, str]]
) -> dict[str, Any]:
    place = cell.table, " · ".join(content.rows[cell.row].labels), content.columns[cell.column].title
    found = {
        profile: {
            "n": int(row["n"]),
            "mean": _float(row.get("measured_mean") or row.get("measured_last_epoch_mean")),
            "sd": _float(row.get("measured_sd") or row.get("measured_last_epoch_sd")),
            "last_epoch": not row.get("measured_mean"),
            "difference": _float(row.get("difference")),
            "verdict": row.get("verdict") or None,
        }
        for profile, row in measured.get(place, {}).items()
    }
    return {"value": cell.value, "sd": cell.sd, "runs": found, "misprint": _key(cell) in misprints}


def _float(text: str | None) -> float | None:
    return float(text) if text else None
