"""Text from other people cannot control a terminal, and cannot end a table cell, a line or an HTML element."""

from __future__ import annotations

import io
import sys

import pandas
import pytest

from collabench.core.text import PrintableStream, counted, html_text, markdown_cell, markdown_text, printable
from collabench.report.formatting import markdown


def test_one_thing_is_not_called_things():
    assert [counted(number, "run") for number in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert [counted(number, "hour") for number in (0.5, 1.0, 1.25)] == ["0.5 hours", "1 hour", "1.25 hours"]
    assert [counted(number, "process", "processes") for number in (1, 2)] == ["1 process", "2 processes"]


EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202eabc\x00\ud800"


def test_nothing_that_a_terminal_obeys_is_left():
    shown = printable(EVIL)
    assert shown.isprintable() and "abc" in shown and "\\x1b" in shown
    assert printable("95\u00a0% ± é 犬\n\tnext") == "95\u00a0% ± é 犬\n\tnext"


def test_a_stream_shows_only_that_and_lacks_no_character():
    raw = io.BytesIO()
    stream = PrintableStream(io.TextIOWrapper(raw, encoding="latin-1"))
    print(f"{EVIL} − 5", file=stream, flush=True)
    assert b"\x1b" not in raw.getvalue() and b"? 5\n" in raw.getvalue()


@pytest.mark.parametrize("text", ["a | b", "a\nb", "`x", "<script>alert(1)</script>", "[x](javascript:y)", EVIL])
def test_a_text_stays_within_its_place(text):
    for shown in (markdown_text(text), markdown_cell(text)):
        assert "\n" not in shown and "\x1b" not in shown and "|" not in shown.replace("\\|", "")
    shown = markdown_text(text)
    assert not any(f" {mark}" in f" {shown}" or shown.startswith(mark) for mark in "`<[")
    assert "<" not in html_text(text) and "\x1b" not in html_text(text)


def test_a_table_keeps_its_columns():
    table = markdown(pandas.DataFrame({"a|b": ["x | y\nz", "**bold** \x1b[2J"], "n": ["1", "2"]}))
    assert len(table.splitlines()) == 4 and "\x1b" not in table and "**bold**" in table
    assert all(line.replace("\\|", "").count("|") == 3 for line in table.splitlines())


def test_the_command_line_prints_through_it(tmp_path, monkeypatch, capsys):
    from collabench import cli

    monkeypatch.setattr(sys, "argv", ["collabench", "plan", "-p", "a\x1b[2Jb", "--root", str(tmp_path)])
    before = sys.stdout
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and sys.stdout is before
