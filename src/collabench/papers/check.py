r"""Compare every number under ``papers/`` with the text that it comes from::

    python -m collabench.papers.check ../shared/papers papers

(the folder of the source texts, then that of the data). Printed tables are found by their caption, read cell by
cell, and compared with the rows, columns and values of the file; a quoted number is found in the named words. The other
way round, every decimal number of the texts that is followed by % or GB must be in the data.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collabench.core.errors import CollabenchError, ConfigError
from collabench.papers.schema import PublishedTable, Source
from collabench.papers.tables import Paper, load_papers

NUMBER = re.compile(r"\d+\.\d+")
VALUE = re.compile(r"(\d+\.\d+)(?:\s*±\s*(\d+\.\d+))?")
MEASURE = re.compile(r"(\d+\.\d+)\s*(?:%|GB)")
CHECK_MARK = "✓"


@dataclass(frozen=True)
class Printed:
    """A table as printed in the text. headings: of the columns with numbers. labels and values: by row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def plain(text: str) -> str:
    r"""Text without its markup: ``**``, ``$``, ``\mathcal{L}_{out}`` → ``L_out``, ``9.28\%`` → ``9.28%``, ``\pm`` →
    ±."""
    text = re.sub(r"\\mathcal\{(\w)\}", r"\1", text)
    text = re.sub(r"_\{([\w-]+)\}", r"_\1", text)
    return text.replace("**", "").replace("$", "").replace("\\pm", "±").replace("\\", "")


def check_sources(papers: dict[str, Paper], texts: Path) -> list[str]:
    """The differences between the data and the texts, one line each; empty if every number is in the text.

    Raises ConfigError if a text is missing.
    """
    problems: list[str] = []
    found: dict[str, set[int]] = {}
    for paper in papers.values():
        for file in paper.about.sources:
            _read(texts, file)
        for table in paper.tables.values():
            where = f"{paper.name}/{table.name}"
            if table.content.source.table is not None:
                problems += [f"{where}: {text}" for text in _compare_table(table.content, texts)]
            for source, value, place in _quoted_values(table.content):
                problems += [f"{where}, {place}: {text}" for text in _compare_quoted(source, value, texts, found)]
        for name, quote in paper.quotes.items():
            for source in quote.sources:
                where = f"{paper.name}, quote {name}"
                problems += [f"{where}: {text}" for text in _compare_quoted(source, quote.value, texts, found)]
    return [*problems, *_left_out(papers, texts, found)]


def _read(texts: Path, file: str) -> str:
    try:
        return (texts / file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{texts / file}: cannot be read ({error.strerror})") from None


# ------------------------------------------------------------------------------------------------ printed tables


def printed_table(text: str, caption: str) -> Printed:
    """The table whose caption begins with the line ``caption``. Raises ConfigError unless there is exactly one.

    Cells are separated by tabs. Either the first line contains the headings, or lines of check marks say which of the
    named parts a column combines. A missing row label is the one above.
    """
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.strip() == caption]
    if len(starts) != 1:
        raise ConfigError(f"{caption!r} begins {len(starts)} tables of the text; one is needed")
    body: list[list[str]] = []
    for line in lines[starts[0] + 1 :]:
        if "\t" in line:
            body.append([plain(cell).strip() for cell in line.split("\t")])
        elif body:
            break
    numeric = [row for row in body if VALUE.fullmatch(row[-1])]
    heads = [row for row in body if row not in numeric]
    labels = next(i for i, cell in enumerate(numeric[0]) if VALUE.fullmatch(cell))
    width = len(numeric[0]) - labels
    if all(cell in ("", CHECK_MARK) for row in heads for cell in row[1:]):
        parts = [[row[0] if cell else "" for cell in (row[1:] + [""] * width)[:width]] for row in heads]
        headings = tuple(" + ".join(part for part in column if part) for column in zip(*parts, strict=True))
    else:
        headings = tuple(heads[0][labels:])
    rows, above = [], [""] * labels
    for row in numeric:
        above = [cell or above[i] for i, cell in enumerate(row[:labels])]
        rows.append((tuple(above), tuple(row[labels:])))
    return Printed(headings, tuple(rows))


def _compare_table(table: PublishedTable, texts: Path) -> Iterator[str]:
    source = table.source
    assert source.table is not None
    printed = printed_table(_read(texts, source.file), source.table)
    ours = tuple(column.title for column in table.columns.values())
    if ours != printed.headings:
        yield f"the columns are {'; '.join(ours)}, {source.table} prints {'; '.join(printed.headings)}"
    labels = tuple(row.labels for row in table.rows.values())
    if labels != tuple(row for row, _ in printed.rows):
        yield f"the rows are {labels}, {source.table} prints {tuple(row for row, _ in printed.rows)}"
        return
    for (name, row), (_, values) in zip(table.rows.items(), printed.rows, strict=True):
        if len(values) != len(row.values):
            yield f"row {name}: {len(row.values)} values, {source.table} prints {len(values)}"
            continue
        for column, value in zip(table.columns, values, strict=True):
            noted = row.values[column], row.spreads.get(column)
            if noted != _numbers_of(value):
                shown = "unknown" if noted[0] is None else f"{noted[0]:g}"
                shown += "" if noted[1] is None else f" ± {noted[1]:g}"
                yield f"row {name}, column {column}: {shown}, {source.table} prints {value}"


def _numbers_of(text: str) -> tuple[float | None, float | None]:
    """``7.51 ± 0.21`` as value and spread; None for a number that is missing."""
    found = VALUE.fullmatch(text)
    value, spread = (None, None) if found is None else found.groups()
    return float(value) if value else None, float(spread) if spread else None


# -------------------------------------------------------------------------------------------------- quoted numbers


def _quoted_values(table: PublishedTable) -> Iterator[tuple[Source, float | None, str]]:
    """The sources in words of a table, with the value that each should contain."""
    if table.protocol.source is not None:
        yield table.protocol.source, None, "protocol"
    if table.source.words is not None and table.source.number is None:
        yield table.source, None, "source"
    for name, row in table.rows.items():
        for column, value in row.values.items():
            change = row.cells.get(column)
            source = (change and change.source) or row.source or table.source
            own = source is not table.source or source.number is not None
            if source.words is not None and (value is not None or own):
                yield source, value, f"row {name}, column {column}"


def _compare_quoted(source: Source, value: float | None, texts: Path, found: dict[str, set[int]]) -> Iterator[str]:
    """Compare, and add the position of the number in the plain text to ``found``."""
    assert source.words is not None
    text = plain(_read(texts, source.file))
    words = [match.start() for match in re.finditer(re.escape(source.words), text)]
    if len(words) != 1:
        yield f"“{source.words}” stands {len(words)} times in {source.file}; once is needed"
        return
    if value is None:
        if source.number is not None:
            yield f"unknown, although its source says that “{source.words}” holds it"
        return
    numbers = list(NUMBER.finditer(source.words))
    if source.number is None or source.number > len(numbers):
        yield f"the source does not say which number of “{source.words}” is {value:g}"
        return
    number = numbers[source.number - 1]
    if float(number[0]) != value:
        yield f"{value:g}, {source.file} says {number[0]} (“{source.words}”)"
    found.setdefault(source.file, set()).add(words[0] + number.start())


def _left_out(papers: dict[str, Paper], texts: Path, found: dict[str, set[int]]) -> Iterator[str]:
    for file in sorted({file for paper in papers.values() for file in paper.about.sources}):
        text = plain(_read(texts, file))
        for match in MEASURE.finditer(text):
            if match.start(1) not in found.get(file, set()):
                around = " ".join(text[max(0, match.start() - 60) : match.end() + 20].split())
                yield f"{file}: {match[0]} is in no data file (“…{around}…”)"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m collabench.papers.check <folder of the source texts> <folder papers>", file=sys.stderr)
        return 2
    texts, data = map(Path, arguments)
    try:
        papers = load_papers(data, None)
        problems = check_sources(papers, texts)
    except CollabenchError as error:
        print(f"collabench: error: {error}", file=sys.stderr)
        return 2
    numbers = sum(cell.value is not None for paper in papers.values() for cell in paper.cells)
    quotes = sum(len(quote.sources) for paper in papers.values() for quote in paper.quotes.values())
    print("\n".join(problems) or f"{numbers} values and {quotes} quotations are those of the source texts")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
