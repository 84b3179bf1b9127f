"""The schema of the files below ``papers/``: published tables, values, quotes and claims."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from collabench.config.fields import Line, Name
from collabench.core.record import NO_REPEATS, Record

#: Printed form of an unknown value.
UNKNOWN = "not in our sources"

Metric = Literal["top1_error", "top5_error", "memory", "training_time", "convergence_speed"]

#: Metric → its printed form, with its unit.
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


class Source(Record):
    """The place of a value.

    file: one of the source texts. table: the first line of a printed table's caption. words: some words of the
    sentence, verbatim but without markup. number: the position of the value among the decimal numbers in these words,
    from 1; None if the words contain no number.
    """

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


class Names(Record):
    """Names of ``params.yaml``. A name that is set replaces the one of the enclosing level."""

    dataset: Name | None = None
    noise: Name | None = None
    model: Name | None = None
    recipe: Name | None = None
    method: Name | None = None


class Protocol(Record):
    """runs: number of training runs whose mean a value is. epoch: the last one, or the one with the lowest error on the
    reported split (optimistic).

    ``unknown`` if the sources do not tell. Comparisons then assume one run and the last epoch.
    """

    runs: Literal["unknown"] | Annotated[int, Field(ge=1)]
    epoch: Literal["last", "best", "unknown"]
    split: Literal["test", "validation", "unknown"] = "test"
    source: Source | None = None


class Column(Record):
    title: Line
    metric: Metric | None = None
    configuration: Names = Names()
    not_run: Line | None = None


class CellChange(Record):
    """The changes of one cell."""

    configuration: Names = Names()
    not_run: Line | None = None
    source: Source | None = None
    metric: Metric | None = None


class Row(Record):
    """One row of a table.

    labels: one for each of the table's ``row_titles``. values: column → number or unknown. spreads: column → sample
    standard deviation over the protocol's runs, if published. not_run: why no configuration reproduces the row.
    """

    labels: Annotated[tuple[Line, ...], Field(min_length=1)]
    values: dict[Name, Value]
    spreads: dict[Name, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    metric: Metric | None = None
    configuration: Names = Names()
    not_run: Line | None = None
    source: Source | None = None
    cells: dict[Name, CellChange] = Field(default_factory=dict)


class Axes(Record):
    """The meaning of a figure's axes. Its series are the rows, its points the columns."""

    x: Line
    y: Line


class PublishedTable(Record):
    """A table or figure of a paper, or a comparison that a text describes.

    chosen_here: parts of the configurations that the sources do not state and this project chose. reported_by: the
    authors of the values, if they are not the paper's. baseline: the column that the others are compared with. margin:
    the largest difference (percentage points) from a published value that counts as agreement, if declared.
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
            raise ValueError(f"baseline: {self.baseline!r} is not a column; columns: {', '.join(self.columns)}")
        for name, row in self.rows.items():
            if len(row.labels) != len(self.row_titles):
                raise ValueError(f"row {name}: one label for each of {', '.join(self.row_titles)} is needed")
            for what, keys in (("values", row.values), ("spreads", row.spreads), ("cells", row.cells)):
                for column in keys:
                    if column not in self.columns:
                        raise ValueError(
                            f"row {name}, {what}: {column!r} is not a column; columns: {', '.join(self.columns)}"
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
                    raise ValueError(f"row {name}, column {column}: {value:g} is not an error in percent")
        return self

    def metric_of(self, row: str, column: str) -> Metric:
        cell = self.rows[row].cells.get(column)
        return (cell and cell.metric) or self.rows[row].metric or self.columns[column].metric or self.metric


class CellRange(Record):
    """Cells of one row; of several columns the lowest value counts."""

    table: Name
    row: Name
    columns: Annotated[tuple[Name, ...], Field(min_length=1), NO_REPEATS]


class Quote(Record):
    """A number that a text quotes, and the cells that it is about.

    relation: ``difference``: before - after, in percentage points. ``ratio``: after / before. ``value``: after itself.
    decimals: number of quoted decimals. The arithmetic agrees if it is within half a unit of the last one.
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


class Quotes(Record):
    """Numbers that a paper's text states about its own tables."""

    kind: Literal["quotes"]
    title: Line
    quotes: Annotated[dict[Name, Quote], Field(min_length=1)]


class About(Record):
    """``paper.yaml``: the paper and its texts.

    not_run: why this project cannot run the paper's configurations. Only the published values and their arithmetic are
    then shown, and the names in its cells and claims are not looked up.
    """

    title: Line
    authors: Line
    published: Line
    sources: dict[str, Line]
    note: Line | None = None
    not_run: Line | None = None


File = Annotated[PublishedTable | Quotes, Field(discriminator="kind")]
