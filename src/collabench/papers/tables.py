"""Published tables, figures and quoted numbers as data: ``papers/<paper>/<table>.yaml``, typed and strict.

A folder is a paper: ``paper.yaml`` says which, every other file is a grid of published values or a list of numbers that
its text quotes. A cell is a number or ``unknown``, has a place in the sources, and names the configuration of
``params.yaml`` that reproduces it, or says why none does. Names are given once for the table and changed by column, row
and cell, in this order, so that a file reads like the table that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from collabench.config import Document, KeyPath, Line, Name, Params, check_name, read_yaml, validate
from collabench.errors import ConfigError
from collabench.spec import Cell, Configuration, KnownToFit, nothing_is_known, resolve
from collabench.strict import NO_REPEATS, Strict

#: What an unknown value prints as.
UNKNOWN = "not in our sources"

PAPER = "paper.yaml"
SECTIONS = {"dataset": "datasets", "noise": "noise", "model": "models", "recipe": "recipes", "method": "methods"}

Metric = Literal["top1_error", "top5_error", "memory", "training_time", "convergence_speed"]

#: Metric → how it is written, with its unit.
METRICS: dict[str, str] = {
    "top1_error": "top-1 test error (%)",
    "top5_error": "top-5 test error (%)",
    "memory": "memory in training (GB)",
    "training_time": "training time",
    "convergence_speed": "convergence speed",
}


def _value(value: Any) -> float | None:
    if value == "unknown":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number or the word unknown is needed")
    if value < 0:
        raise ValueError("a published value is not negative")
    return float(value)


Value = Annotated[float | None, PlainValidator(_value)]


class Source(Strict):
    """Where something stands. file: one of the source texts. table: the first line of a printed table's caption.
    words: some words of the sentence, as they stand in the text without its markup. number: which of the decimal
    numbers in these words is the value, counted from 1; None where the words hold no number."""

    file: Line
    table: Line | None = None
    words: Line | None = None
    number: int | None = Field(default=None, ge=1, le=20)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.table is None) == (self.words is None):
            raise ValueError("give the table, or some words of the sentence, and not both")
        if self.number is not None and self.words is None:
            raise ValueError("number counts within words; a table's cell is found by its row and column")
        return self

    def describe(self, row: str = "", column: str = "") -> str:
        """``003….txt, TABLE I, row …, column …`` or ``002….txt, “…”``."""
        if self.table is None:
            return f"{self.file}, “{self.words}”"
        return ", ".join(
            [self.file, self.table, *([f"row {row}"] if row else []), *([f"column {column}"] if column else [])]
        )


class Names(Strict):
    """Names of ``params.yaml``: those that are set change the ones given further out."""

    dataset: Name | None = None
    noise: Name | None = None
    model: Name | None = None
    recipe: Name | None = None
    method: Name | None = None


class Protocol(Strict):
    """runs: how many training runs a value is the mean of. epoch: the last, or the one with the lowest error on the
    split that is reported (optimistic). ``unknown`` where the sources don't say; then one run and the last epoch are
    assumed where runs are compared with it."""

    runs: Literal["unknown"] | Annotated[int, Field(ge=1)]
    epoch: Literal["last", "best", "unknown"]
    split: Literal["test", "validation", "unknown"] = "test"
    source: Source | None = None


class Column(Strict):
    title: Line
    metric: Metric | None = None
    configuration: Names = Names()
    not_run: Line | None = None


class CellChange(Strict):
    """What is particular to one cell."""

    configuration: Names = Names()
    not_run: Line | None = None
    source: Source | None = None
    metric: Metric | None = None


class Row(Strict):
    """labels: one for each of the table's ``row_titles``. values: column → number or unknown. spreads: column → sample
    standard deviation over the protocol's runs, where one is published. not_run: why no configuration reproduces the
    row."""

    labels: Annotated[tuple[Line, ...], Field(min_length=1)]
    values: dict[Name, Value]
    spreads: dict[Name, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    metric: Metric | None = None
    configuration: Names = Names()
    not_run: Line | None = None
    source: Source | None = None
    cells: dict[Name, CellChange] = Field(default_factory=dict)


class Axes(Strict):
    """What a figure's axes show; its series are the rows, its points the columns."""

    x: Line
    y: Line


class PublishedTable(Strict):
    """A table or figure of a paper, or a comparison that a text describes.

    chosen_here: what of the configurations the sources don't state, so that this project chose it. reported_by: who,
    where it is not the paper's authors. baseline: the column that the others are compared with. margin: the largest
    distance (percentage points) from a published value that counts as agreement, where one is declared.
    """

    kind: Literal["table", "figure", "text"]
    title: Line
    metric: Metric
    protocol: Protocol
    source: Source
    row_titles: Annotated[tuple[Line, ...], Field(min_length=1)]
    columns: Annotated[dict[Name, Column], Field(min_length=1)]
    rows: Annotated[dict[Name, Row], Field(min_length=1)]
    configuration: Names = Names()
    baseline: Name | None = None
    axes: Axes | None = None
    chosen_here: Line | None = None
    reported_by: Line | None = None
    not_run: Line | None = None
    note: Line | None = None
    margin: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.axes is not None) != (self.kind == "figure"):
            raise ValueError("axes belong to kind: figure, and a figure has them")
        if self.baseline is not None and self.baseline not in self.columns:
            raise ValueError(f"baseline: {self.baseline!r} is no column; columns: {', '.join(self.columns)}")
        for name, row in self.rows.items():
            if len(row.labels) != len(self.row_titles):
                raise ValueError(f"row {name}: one label for each of {', '.join(self.row_titles)} is needed")
            for what, keys in (("values", row.values), ("spreads", row.spreads), ("cells", row.cells)):
                for column in keys:
                    if column not in self.columns:
                        raise ValueError(
                            f"row {name}, {what}: {column!r} is no column; columns: {', '.join(self.columns)}"
                        )
            if row.spreads and (self.protocol.runs == "unknown" or self.protocol.runs < 2):
                raise ValueError(f"row {name}, spreads: the protocol must say over how many runs, at least 2")
            for column in self.columns:
                if column not in row.values:
                    raise ValueError(f"row {name}: no value for the column {column}; write a number or unknown")
                value, metric = row.values[column], self.metric_of(name, column)
                if value is None and column in row.spreads:
                    raise ValueError(f"row {name}, spreads: the value of the column {column} is unknown")
                if value is not None and value > 100 and metric.endswith("_error"):
                    raise ValueError(f"row {name}, column {column}: {value:g} is no error in percent")
        return self

    def metric_of(self, row: str, column: str) -> Metric:
        cell = self.rows[row].cells.get(column)
        return (cell and cell.metric) or self.rows[row].metric or self.columns[column].metric or self.metric


class CellRange(Strict):
    """Cells of one row; several columns stand for the lowest of their values."""

    table: Name
    row: Name
    columns: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]


class Quote(Strict):
    """A number that a text quotes, and the cells that it is about.

    relation: ``difference``: before - after, in percentage points. ``ratio``: after / before. ``value``: after itself.
    decimals: with how many it is quoted; the arithmetic is right if it agrees to half a unit of the last.
    """

    what: Line
    value: Value
    relation: Literal["difference", "ratio", "value"] = "difference"
    decimals: int = Field(default=2, ge=0, le=6)
    before: CellRange | None = None
    after: CellRange
    sources: Annotated[tuple[Source, ...], Field(min_length=1), NO_REPEATS]

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.before is None) != (self.relation == "value"):
            raise ValueError("a difference and a ratio need before and after, a value only after")
        return self


class Quotes(Strict):
    """Numbers that a paper's text says about its own tables."""

    kind: Literal["quotes"]
    title: Line
    quotes: Annotated[dict[Name, Quote], Field(min_length=1)]


class About(Strict):
    """``paper.yaml``: which paper, and the texts that stand for it here.

    not_run: why this project cannot run the paper's configurations; the published values and their arithmetic are then
    shown alone, and the names of its cells and claims are not looked up.
    """

    title: Line
    authors: Line
    published: Line
    sources: dict[str, Line]
    note: Line | None = None
    not_run: Line | None = None


File = Annotated[PublishedTable | Quotes, Field(discriminator="kind")]


@dataclass(frozen=True)
class PublishedCell:
    """One published value with all that the file says of it. value: None where it is unknown. sd: its published spread.

    names: those of ``params.yaml`` that the file gives for it. configuration: the one that reproduces it; None where
    ``not_run`` says why there is none, and where the papers were read without definitions.
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
        """``fang2021-table-1``: its name beside a profile's own tables."""
        return f"{self.paper}-{self.name}"


@dataclass(frozen=True)
class Paper:
    """All that a folder holds. quotes: name → number that the text quotes."""

    name: str
    about: About
    tables: dict[str, Table]
    quotes: dict[str, Quote]

    @cached_property
    def cells(self) -> list[PublishedCell]:
        return [cell for table in self.tables.values() for cell in table.cells.values()]

    def range(self, cells: CellRange) -> list[PublishedCell]:
        return [self.tables[cells.table].cells[cells.row, column] for column in cells.columns]


def papers_not_run(folder: Path) -> dict[str, str]:
    """Papers of the folder ``papers/`` whose configurations this project cannot run, with the reason."""
    reasons = {}
    for path in sorted(folder.glob(f"*/{PAPER}")):
        document = read_yaml(path)
        about = validate(document, About, document.value)
        if about.not_run is not None:
            reasons[path.parent.name] = about.not_run
    return reasons


def load_papers(
    folder: Path,
    params: Params | None,
    names: tuple[str, ...] | None = None,
    asked: str = "",
    resolved: bool = True,
    known_to_fit: KnownToFit = nothing_is_known,
) -> dict[str, Paper]:
    """The papers (all, in alphabetical order, or those of these names) of the folder ``papers/``.

    params: where the cells' names are defined; with None the names are neither checked nor resolved. asked: the key that
    gives the names, for messages. resolved: without it the names are checked, which is quick, and no cell has a
    configuration. known_to_fit: as for :func:`collabench.spec.resolve`. Raises ConfigError in one line that says file,
    line, key and what would be right.
    """
    there = sorted(path.parent.name for path in folder.glob(f"*/{PAPER}"))
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
    """Raise ConfigError where a source names a text that ``paper.yaml`` does not list."""
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
        absent = [part for part in SECTIONS if part not in names]
        if absent:
            raise document.error(
                ("rows", row, "values", column),
                f"no {', '.join(absent)} is named for this cell; name it, or say with not_run why no run reproduces it",
            )
        chosen = tuple(names[part] for part in SECTIONS)
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


def plan_cells(papers: dict[str, Paper], seeds: tuple[int, ...]) -> Iterator[Cell]:
    """What the published tables ask a profile to run: each configuration once per table, with ``seeds``."""
    for paper in papers.values():
        for table in paper.tables.values():
            seen = set()
            for cell in table.cells.values():
                if cell.configuration is not None and cell.configuration.id not in seen:
                    seen.add(cell.configuration.id)
                    yield Cell(table.key, cell.configuration, seeds)
