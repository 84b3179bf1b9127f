"""Every accepted report whose records are in git follows from them: made again, it has the same bytes. In the tables of
all of them columns of words are aligned to the left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from collabench.core.errors import DataError
from collabench.report.accepted import compare
from collabench.report.build import build_report
from collabench.sharing.records import SUFFIX, unpacked_records
from collabench.storage.workspace import Workspace
from collabench.study.study import load_study
from tests.support.project import ROOT

WITH_RECORDS = sorted({path.parent.name for path in (ROOT / "records").glob(f"*/*{SUFFIX}")})


@pytest.mark.slow
@pytest.mark.parametrize("profile", WITH_RECORDS or ["none"])
def test_an_accepted_report_follows_from_its_records(profile, tmp_path):
    if profile not in WITH_RECORDS:
        pytest.skip("no records are committed")
    if not Workspace(ROOT, profile).accepted_report.exists():
        pytest.skip("no report of the profile is accepted: its records are those of pilots, or of a study in progress")
    root = tmp_path / "project"
    root.mkdir()
    for name in ("params.yaml", "papers", "reports"):
        (root / name).symlink_to(ROOT / name)
    if (ROOT.parent / "shared").exists():  # images beside the project
        (tmp_path / "shared").symlink_to(ROOT.parent / "shared")
    with unpacked_records(ROOT / "records" / profile, profile, tmp_path / "unpacking") as copy:
        shutil.move(copy.home, Workspace(root, profile).home)
    study = load_study(root, profile)
    missing = [run for run in study.expected if study.status(run).state != "done"]
    if missing:
        pytest.skip(f"the study is in progress: {len(missing)} of its {len(study.expected)} runs have no record yet")
    try:
        study.inputs.prepare_datasets(lambda line: None)
    except DataError as error:
        pytest.skip(f"needs the images: {error}")
    build_report(study.params, study.plan, study.workspace)
    assert compare(study.workspace) == []


def tables_of(text: str) -> Iterator[list[list[str]]]:
    """The tables of a markdown page: cells of the heading, of the line of alignments, and of each row."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        if len(rows) > 2 and all(re.fullmatch(r":?-+:?", cell) for cell in rows[1]):
            yield rows


def misaligned(page: str, text: str) -> Iterator[str]:
    """The columns of words, without a digit, that are aligned to the right as numbers are."""
    for heading, alignment, *rows in tables_of(text):
        for place, (name, how) in enumerate(zip(heading, alignment, strict=True)):
            cells = [row[place] for row in rows]
            if how.endswith("-:") and all(re.search("[a-z]{3}", cell) and not re.search(r"\d", cell) for cell in cells):
                yield f"{page}: {name}"


def test_columns_of_words_are_aligned_to_the_left():
    pages = {path: path.read_text() for path in sorted((ROOT / "reports").rglob("*.md"))}
    assert sum(len(list(tables_of(text))) for text in pages.values()) > 100
    found = [line for path, text in pages.items() for line in misaligned(str(path.relative_to(ROOT)), text)]
    assert found == []
    assert list(misaligned("a", "| n | State |\n|--:|------:|\n| 1 | open |\n")) == ["a: State"]
