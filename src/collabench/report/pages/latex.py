"""Every table of a report as LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collabench.report.content import Condition, Report
from collabench.report.folders import CONTENT, whole_folder
from collabench.report.formatting import Frame
from collabench.report.pages import tables
from collabench.report.pages.overview import SHORT
from collabench.storage.files import read_json

#: Characters of the tables that LaTeX's fonts lack or that are no text there.
_SYMBOLS = {
    "−": "$-$", "±": r"$\pm$", "–": "--", tables.MARK: "*", "×": r"$\times$", "\u00a0": "~", "“": "``", "”": "''",
    "†": r"$\dagger$", "·": r"$\cdot$", "→": r"$\rightarrow$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip

#: A cell with more characters makes its column one of paragraphs.
_LONG = 50
_PARAGRAPH = r"p{.4\linewidth}"

_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_HEADING = re.compile(r"(#+) (.*)")
_ESCAPED = re.compile(r"\\([\\`*\[\]<>|_])")
_HELD = 0xE000  # escaped characters wait in Unicode's private area while markup is removed


@dataclass(frozen=True)
class PageTable:
    """A table of a page in markdown. headings: those that it stands under. rows: the first is the header.
    right: of each column, whether it is aligned to the right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]


def write_latex(report_folder: Path, costs: Path, target: Path) -> list[Path]:
    """Write every table of the report's pages into a new folder ``target``. Returns the files.

    ``<table>-<condition>.tex`` is a condition's short table; ``<page>-<number>.tex`` any other one, with the headings
    that it stands under as a comment. A file is a ``tabular`` to be read in with ``\\input``; the preamble needs
    ``\\usepackage{booktabs}``. costs: the folder of costs, outside the report or in it. Raises ResultError if there is
    no report, StorageError if the files cannot be written.
    """
    report = read_json(report_folder / CONTENT, Report)
    texts = {
        f"{table.name}-{condition.key}.tex": latex(condition)
        for table in report.tables
        for condition in table.conditions
    }
    pages = {path.stem: path for path in sorted(report_folder.glob("*.md"))}
    pages |= {f"costs-{path.stem}": path for path in sorted(costs.glob("*.md"))}
    for name, path in pages.items():
        found = (table for table in page_tables(path.read_text(encoding="utf-8")) if table.headings[-1:] != (SHORT,))
        for number, table in enumerate(found, 1):
            texts[f"{name}-{number:02d}.tex"] = _latex_of_page(name, table)
    with whole_folder(target) as folder:
        for name, text in texts.items():
            (folder / name).write_bytes(text.encode())
    return [target / name for name in texts]


def latex(condition: Condition) -> str:
    """The condition's short table, with its title as a comment above it."""
    frame: Frame = tables.short_table(condition)
    return _tabular(condition.title, frame.map(lambda text: text.replace("**", "")), "lrrr")


def page_tables(text: str) -> Iterator[PageTable]:
    """The tables of a page in markdown, in the page's order."""
    headings: list[tuple[int, str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if heading := _HEADING.fullmatch(line):
            level = len(heading[1])
            headings = [*(one for one in headings if one[0] < level), (level, _plain(heading[2]))]
        if number and line.startswith("|") and _RULE.fullmatch(line):
            end = next((at for at in range(number, len(lines)) if not lines[at].startswith("|")), len(lines))
            rows = tuple(map(_cells, (lines[number - 1], *lines[number + 1 : end])))
            right = tuple(rule.strip().endswith("-:") for rule in line.strip("|").split("|"))
            yield PageTable(tuple(words for _, words in headings), rows, right)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(map(_plain, re.split(r"(?<!\\)\|", line.strip()[1:-1])))


def _plain(cell: str) -> str:
    """The text of a cell without markup."""
    held = _ESCAPED.sub(lambda match: chr(_HELD + ord(match[1])), cell.strip())
    held = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", held).replace("<br>", "; ")
    held = re.sub(r"\*\*|[*`]", "", held)
    return "".join(chr(ord(c) - _HELD) if _HELD <= ord(c) < _HELD + 128 else c for c in held)


def _latex_of_page(name: str, table: PageTable) -> str:
    header: list[str] = []
    for title in table.rows[0]:
        while title in header:  # a frame's columns have names of their own
            title += " "
        header.append(title)
    columns = list(zip(*table.rows[1:], strict=True)) or [() for _ in header]
    form = "".join(
        _PARAGRAPH if max(map(len, column), default=0) > _LONG else "r" if right else "l"
        for column, right in zip(columns, table.right, strict=True)
    )
    return _tabular(": ".join((name, *table.headings)), Frame(table.rows[1:], columns=header), form)


def _tabular(title: str, frame: Frame, form: str) -> str:
    body = frame.to_latex(index=False, escape=True, column_format=form)
    for character, symbol in _SYMBOLS.items():
        body = body.replace(character, symbol)
    return f"% {' '.join(title.split())}\n{body}"
