"""Words for people: numbers of things, and other people's text (imported records, class names, titles), escaped for the
place where it is shown."""

from __future__ import annotations

import html
import re
import shutil
import textwrap
import unicodedata
from typing import Any, TextIO

#: Characters with a meaning in markdown, also within a table's cell.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|]")


#: Width of lines that go into a file or a pipe.
WIDTH = 120


def counted(value: float, noun: str, plural: str | None = None) -> str:
    """``1 run``, ``1,200 runs``, ``0.5 hours``. plural: by default the noun and an s."""
    number = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{number} {noun if value == 1 else plural or noun + 's'}"


def counted_of(number: int, total: int, noun: str, state: str) -> str:
    """``1 of 8 runs is missing``, ``2 of 8 runs are missing``."""
    return f"{number:,} of {counted(total, noun)} {'is' if number == 1 else 'are'} {state}"


def printable(text: str) -> str:
    """Return text that cannot control a terminal, for example by escape sequences or changes of the text's direction.

    Each such character is replaced by its Python escape, such as ``\\x1b``. Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def markdown_text(text: str) -> str:
    """Return text as one line of markdown for a heading, a sentence or a table cell.

    Markup, HTML and cell separators are escaped.
    """
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", printable(" ".join(text.split())))


def markdown_cell(text: str) -> str:
    """Return a table cell whose markup stays, while cell separators, line ends and control characters are escaped."""
    return re.sub(r"(?<!\\)\|", r"\\|", printable(" ".join(text.split())))


def html_text(text: str) -> str:
    """Return text that is escaped for an HTML page or a quoted attribute."""
    return html.escape(printable(text))


def terminal_width() -> int:
    """Characters in a line of the terminal; :data:`WIDTH` without one. ``COLUMNS`` in the environment overrides it."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def wrapped(text: str, width: int | None = None) -> str:
    """Return text in lines of this width, by default the terminal's. Words stay whole at their hyphens."""
    return textwrap.fill(text, width or terminal_width(), break_on_hyphens=False)


class PrintableStream:
    """A text stream, such as standard output, that passes everything through :func:`printable`.

    unfiltered: the original stream, for a program's own control sequences.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character that the terminal cannot show must not end the command

    def write(self, text: str) -> int:
        return self.unfiltered.write(printable(text))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)
