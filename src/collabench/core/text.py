"""Text that others wrote (records of another copy, names of classes, titles), made safe for the place where it is
shown."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Any, TextIO

#: What begins something else than text in markdown, also within a table's cell.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|]")


def printable(text: str) -> str:
    """Text without anything that a terminal would obey, such as escape sequences and changes of direction: each such
    character is written as Python writes it. Line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def markdown_text(text: str) -> str:
    """Text as one line of markdown, in a heading, a sentence or a cell: no markup, no HTML, no end of the cell."""
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", printable(" ".join(text.split())))


def markdown_cell(text: str) -> str:
    """A cell that may hold markup of its own, but no end of the cell, of the line, or of what a terminal shows."""
    return re.sub(r"(?<!\\)\|", r"\\|", printable(" ".join(text.split())))


def html_text(text: str) -> str:
    """Text within an HTML page or an attribute in quotes."""
    return html.escape(printable(text))


class PrintableStream:
    """A stream for text, such as standard output, that shows only what :func:`printable` leaves. ``unfiltered``: the
    stream itself, for a program's own control of the terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal may lack characters; the command goes on

    def write(self, text: str) -> int:
        return self.unfiltered.write(printable(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)
