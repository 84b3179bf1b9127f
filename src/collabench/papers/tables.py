"""Published tables, figures and quoted numbers as typed data: ``papers/<paper>/<table>.yaml``.

Each folder is a paper. ``paper.yaml`` describes it; every other file is a grid of published values or a list of numbers
that its text quotes. A cell is a number or ``unknown``, has a place in the sources, and names the configuration of
``params.yaml`` that reproduces it, or says why none does. Names are given for the table and changed by column, row and
cell, in this order, so that a file reads like its table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from collabench.config.configuration import PARTS, SECTIONS, Configuration
from collabench.config.params import Params, check_name, refuse_two_precisions
from collabench.config.plan import Cell, KnownToFit, nothing_is_known, resolve
from collabench.config.validation import validate
from collabench.config.yaml_file import Document, KeyPath, read_yaml
from collabench.core.errors import ConfigError
from collabench.papers.schema import (
    About,
    CellChange,
    CellRange,
    File,
    Metric,
    Names,
    Protocol,
    PublishedTable,
    Quote,
    Quotes,
)

PAPER = "paper.yaml"


@dataclass(frozen=True)
class PublishedCell:
    """One published value with all information of the file.

    value: None if unknown. sd: its published spread. names: of ``params.yaml``. configuration: the one that reproduces
    the value; None if ``not_run`` says why there is none, or if the papers were read without definitions.
    """

    paper: str
    table: str
    row: str
    column: str
    metric: Metric
    value: float | None
    source: str
    protocol: Protocol
    names: dict[str, str]
    configuration: Configuration | None
    not_run: str | None
    margin: float | None = None
    sd: float | None = None

    @property
    def place(self) -> str:
        return f"{self.paper}/{self.table}, row {self.row}, column {self.column}"


@dataclass(frozen=True)
class Table:
    """A published table with its cells, by (row, column) in the order of the file."""

    paper: str
    name: str
    content: PublishedTable
    cells: dict[tuple[str, str], PublishedCell]

    @property
    def key(self) -> str:
        """``fang2021-table-1``: the table's name beside a profile's own tables."""
        return f"{self.paper}-{self.name}"


@dataclass(frozen=True)
class Paper:
    """The contents of a paper's folder. quotes: name → number that the text quotes."""

    name: str
    about: About
    tables: dict[str, Table]
    quotes: dict[str, Quote]

    @cached_property
    def cells(self) -> list[PublishedCell]:
        return [cell for table in self.tables.values() for cell in table.cells.values()]

    def range(self, cells: CellRange) -> list[PublishedCell]:
        return [self.tables[cells.table].cells[cells.row, column] for column in cells.columns]


def paper_names(folder: Path) -> list[str]:
    """The papers in the folder ``papers/``: its subfolders with a ``paper.yaml``, in alphabetical order."""
    return sorted(path.parent.name for path in folder.glob(f"*/{PAPER}"))


def papers_not_run(folder: Path) -> dict[str, str]:
    """Papers whose configurations this project cannot run, with the reason."""
    return {name: about.not_run for name, about in read_abouts(folder).items() if about.not_run is not None}


def read_abouts(folder: Path) -> dict[str, About]:
    """``paper.yaml`` of every paper. Raises ConfigError (one line)."""
    documents = {name: read_yaml(folder / name / PAPER) for name in paper_names(folder)}
    return {name: validate(document, About, document.value) for name, document in documents.items()}


def load_papers(
    folder: Path,
    params: Params | None,
    names: tuple[str, ...] | None = None,
    asked: str = "",
    resolved: bool = True,
    known_to_fit: KnownToFit = nothing_is_known,
) -> dict[str, Paper]:
    """The papers (all, in alphabetical order, or those of these names) of the folder ``papers/``.

    params: defines the cells' names. With None the names are neither checked nor resolved. asked: the key that gives
    the papers' names, for messages. resolved: with False the names are checked, which is fast, but cells have no
    configuration. known_to_fit: as in :func:`collabench.config.plan.resolve`. Raises ConfigError (one line) with file,
    line, key and a remedy.
    """
    there = paper_names(folder)
    known: dict[tuple[str, ...], Configuration] | None = {} if resolved else None
    papers = {}
    for name in there if names is None else names:
        if name not in there:
            raise ConfigError(
                f"{asked or folder}: there is no paper {name!r} (a folder of {folder} with {PAPER}); "
                f"papers: {', '.join(there)}"
            )
        papers[name] = _load_paper(folder / name, params, known, known_to_fit)
    return papers


def _load_paper(
    folder: Path,
    params: Params | None,
    known: dict[tuple[str, ...], Configuration] | None,
    known_to_fit: KnownToFit,
) -> Paper:
    document = read_yaml(folder / PAPER)
    about = validate(document, About, document.value)
    if about.not_run is not None:
        params = None
    tables: dict[str, Table] = {}
    quotes: list[tuple[Document, Quotes]] = []
    for path in sorted(folder.glob("*.yaml")):
        if path.name == PAPER:
            continue
        document = read_yaml(path)
        _check_kind(document)
        content = validate(document, File, document.value)
        if isinstance(content, Quotes):
            quotes.append((document, content))
        else:
            _check_sources(document, about, content.model_dump(), ())
            cells = {
                (row, column): _cell(
                    document, folder.name, path.stem, content, row, column, params, known, known_to_fit
                )
                for row in content.rows
                for column in content.columns
            }
            if params is not None:
                recipes = [cell.names["recipe"] for cell in cells.values() if cell.not_run is None]
                refuse_two_precisions(document, ("rows",), params, recipes, "a table")
            if about.not_run is not None:
                cells = {place: replace(cell, not_run=cell.not_run or about.not_run) for place, cell in cells.items()}
            tables[path.stem] = Table(folder.name, path.stem, content, cells)
    kinds = ("table", "figure", "text")
    tables = dict(sorted(tables.items(), key=lambda item: (kinds.index(item[1].content.kind), item[0])))
    for document, content in quotes:
        _check_sources(document, about, content.model_dump(), ())
        _check_quotes(document, content, tables)
    return Paper(folder.name, about, tables, {name: quote for _, file in quotes for name, quote in file.quotes.items()})


def _check_kind(document: Document) -> None:
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if kind not in ("table", "figure", "text", "quotes"):
        raise document.error(("kind",), f"table, figure, text or quotes is needed (it says {kind!r})")


def _check_sources(document: Document, about: About, value: Any, key: KeyPath) -> None:
    """Raise ConfigError if a source names a text that ``paper.yaml`` does not list."""
    if isinstance(value, dict):
        if {"file", "words", "table"} <= value.keys() and value["file"] not in about.sources:
            raise document.error(
                (*key, "file"), f"{value['file']!r} is not listed in {PAPER}; sources: {', '.join(about.sources)}"
            )
        for name, child in value.items():
            _check_sources(document, about, child, (*key, name))
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            _check_sources(document, about, child, (*key, index))


def _check_quotes(document: Document, content: Quotes, tables: dict[str, Table]) -> None:
    for name, quote in content.quotes.items():
        for part in ("before", "after"):
            cells: CellRange | None = getattr(quote, part)
            if cells is None:
                continue
            key: KeyPath = ("quotes", name, part)
            if cells.table not in tables:
                raise document.error((*key, "table"), f"no table {cells.table!r}; tables: {', '.join(tables)}")
            table = tables[cells.table].content
            if cells.row not in table.rows:
                raise document.error((*key, "row"), f"no row {cells.row!r}; rows: {', '.join(table.rows)}")
            for column in cells.columns:
                if column not in table.columns:
                    raise document.error(
                        (*key, "columns"), f"no column {column!r}; columns: {', '.join(table.columns)}"
                    )


def _cell(
    document: Document,
    paper: str,
    table: str,
    content: PublishedTable,
    row: str,
    column: str,
    params: Params | None,
    known: dict[tuple[str, ...], Configuration] | None,
    known_to_fit: KnownToFit,
) -> PublishedCell:
    across, down = content.rows[row], content.columns[column]
    change = across.cells.get(column, CellChange())
    source = change.source or across.source or content.source
    not_run = change.not_run or across.not_run or down.not_run or content.not_run
    places: list[tuple[KeyPath, Names]] = [
        (("configuration",), content.configuration),
        (("columns", column, "configuration"), down.configuration),
        (("rows", row, "configuration"), across.configuration),
        (("rows", row, "cells", column, "configuration"), change.configuration),
    ]
    names: dict[str, str] = {}
    for key, given in places:
        for part, name in given.model_dump(exclude_none=True).items():
            if params is not None:
                check_name(document, (*key, part), params, SECTIONS[part], name)
            names[part] = name
    configuration = None
    if not_run is None:
        absent = [part for part in PARTS if part not in names]
        if absent:
            raise document.error(
                ("rows", row, "values", column),
                f"no {', '.join(absent)} is named for this cell; name it, or say with not_run why no run reproduces it",
            )
        chosen = tuple(names[part] for part in PARTS)
        if params is not None and known is not None and chosen not in known:
            try:
                known[chosen] = resolve(params, **names, known_to_fit=known_to_fit)
            except ConfigError as error:
                raise document.error(("rows", row, "values", column), str(error)) from None
        configuration = None if known is None else known.get(chosen)
    return PublishedCell(
        paper=paper,
        table=table,
        row=row,
        column=column,
        metric=content.metric_of(row, column),
        value=across.values[column],
        source=source.describe(" · ".join(across.labels), down.title),
        protocol=content.protocol,
        names=names,
        configuration=configuration,
        not_run=not_run,
        margin=content.margin,
        sd=across.spreads.get(column),
    )


def plan_cells(papers: dict[str, Paper], seeds: tuple[int, ...], datasets: Collection[str] = ()) -> Iterator[Cell]:
    """The runs that published tables need in a profile: each configuration once per table, with ``seeds``.

    datasets: only cells on these data sets; empty: all.
    """
    for paper in papers.values():
        for table in paper.tables.values():
            seen = set()
            for cell in table.cells.values():
                if datasets and cell.names.get("dataset") not in datasets:
                    continue
                if cell.configuration is not None and cell.configuration.id not in seen:
                    seen.add(cell.configuration.id)
                    yield Cell(table.key, cell.configuration, seeds)
