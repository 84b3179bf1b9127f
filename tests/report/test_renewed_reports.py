"""Accepted reports whose runs are elsewhere: their words are renewed from their own figures, no number changes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from collabench.papers.tables import read_abouts
from collabench.storage.files import checksum_of_body
from pipeline.renew_reports import cite_in, main

ROOT = Path(__file__).parents[2]
TEXT_FILE = re.compile(r"\d{3}_[0-9a-f]{16}\.txt")


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    shutil.copytree(ROOT / "papers", tmp_path / "papers")
    shutil.copytree(ROOT / "reports/cifar10-jpeg", tmp_path / "reports/cifar10-jpeg")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports/cifar10-jpeg"


def test_a_renewed_report_stays_as_it_is(project):
    before = files_of(project)
    assert main(["cifar10-jpeg"]) == 0
    assert files_of(project) == before


LEAD = re.compile(r"(?s)\n\n\*\*\d.*?\n\n\*Tests of claims[^\n]*")


def test_old_words_are_renewed_and_every_number_stays(project):
    before = files_of(project)
    page, report, claims = (project / name for name in ("README.md", "report.json", "claims.json"))
    without_lead = LEAD.sub("", page.read_text(), count=1)
    assert "- Refuted:" not in without_lead
    page.write_text(without_lead)
    (project / "figures/claims.svg").unlink()
    shutil.rmtree(project / "metrics")
    for path in (claims, project / "fang2021.md"):
        assert "Fang & Lin 2021, " in path.read_text()
        path.write_text(path.read_text().replace("Fang & Lin 2021, ", "003_0fca84f30fd0cf9f.txt, "))
    for path in (report, claims):  # as an older version wrote them: without verdicts, with their own checksums
        body = json.loads(path.read_text())
        body = {key: value for key, value in body.items() if key not in ("checksum", "verdicts")}
        path.write_text(json.dumps(body | {"checksum": checksum_of_body(body)}))
    assert main(["cifar10-jpeg"]) == 0
    assert "- Refuted:" in page.read_text() and LEAD.sub("", page.read_text(), count=1) == without_lead
    after, words = files_of(project), {Path("README.md"), Path("figures/claims.svg")}  # as the claims are declared now
    assert {name: after[name] for name in after.keys() - words} == {
        name: before[name] for name in before.keys() - words
    }
    assert after.keys() == before.keys()


def test_no_accepted_report_cites_a_file_instead_of_a_paper():
    for path in [*(ROOT / "reports").rglob("*.md"), *(ROOT / "reports").rglob("*.csv")]:
        assert not TEXT_FILE.search(path.read_text()), path
    for path in (ROOT / "reports").rglob("claims.json"):
        assert not any(TEXT_FILE.search(claim["source"]) for claim in json.loads(path.read_text())["claims"]), path


def test_links_to_a_file_with_the_name_of_a_source_stay():
    abouts = read_abouts(ROOT / "papers")
    assert any("README.md" in about.sources for about in abouts.values())
    assert cite_in("[Overview](README.md) · x", abouts) == "[Overview](README.md) · x"
    assert cite_in("(004_155e5b2c3c91717d.txt, Summary)", abouts) == "(Wang, Wang & Gao 2018 (abstract), Summary)"


def test_what_cannot_be_read_is_one_line(project, capsys):
    assert main([]) == 2 and "name the profiles" in capsys.readouterr().err
    (project / "report.json").write_text("{}")
    assert main(["cifar10-jpeg"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "report.json" in line
    assert main(["nothing"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "reports/nothing/report.json: cannot be read" in line
