"""``CONTRIBUTING.md`` is short, and what each of its four questions asks for lies in the file that answers it."""

from __future__ import annotations

import re

from tests.support.project import ROOT

#: Words of a question → what the files of its answer define, in their order.
DEFINED = {
    "the loss of Fang & Lin": ["def terms("],
    "the atomic write of a file": ["def write_atomically("],
    "the Holm correction": ["def holm"],
    "the command `import`": ["def merge(", '@app.command("import")'],
}


def test_it_is_read_in_two_minutes():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 30


def test_each_answer_names_the_file_that_has_it():
    rows = re.findall(
        r"^\| (?:Where does|…) (.*?)(?: live)?\? \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M
    )
    assert [question for question, _ in rows] == list(DEFINED)
    for question, answer in rows:
        files = re.findall(r"\]\((src/[^)]*)\)", answer)
        assert len(files) == len(DEFINED[question])
        for file, definition in zip(files, DEFINED[question], strict=True):
            assert definition in (ROOT / file).read_text(), f"{question}: {file} has no {definition}"
