"""A paper is a folder of files: one more of them is seen everywhere, and no code names the papers that there are."""

from __future__ import annotations

import ast
import shutil

import pytest

from collabench.core.errors import ConfigError
from collabench.papers.claims import CLAIMS, load_claims
from collabench.papers.tables import paper_names
from collabench.report.build import build_report
from collabench.storage.files import write_json
from collabench.storage.results import RESULT
from collabench.study.study import Study, load_study
from tests.support import fabricated
from tests.support.project import ROOT

NAME = "fourth2030"
ABOUT = "{title: Two heads are better, authors: Fourth & Paper, published: nowhere, sources: {text.txt: all of it}}\n"
TABLE = """\
kind: table
title: Table I. Errors of two heads
metric: top1_error
protocol: {runs: 1, epoch: last}
source: {file: text.txt, table: TABLE I}
configuration: {dataset: digits-500, noise: uniform20, model: resnet8, recipe: digits}
columns:
  plain: {title: plain, configuration: {method: individual}}
  heads: {title: two heads, configuration: {method: simple-2}}
row_titles: [Noise]
rows:
  noisy: {labels: [20 %], values: {plain: 11.50, heads: 10.5}}
"""
CLAIM = """
  - {id: fourth-heads, paper: fourth2030, statement: Two heads have lower error than one., quantity: error,
      hypothesis: lower,
     source: {file: 000_1e20208135b2abb2.txt, place: abstract, words: two heads}, smallest_effect: 0.1,
     compare: [{method: simple-2, baseline: individual}], scopes: [fourth-noise]}
"""
PROFILE = """
  fourth:
    description: the fourth paper
    seeds: 5
    papers: [fourth2030]
"""


@pytest.fixture
def study(tmp_path) -> Study:
    """The project's own definitions and papers, and one paper more; every run of that one is there."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text() + PROFILE)
    shutil.copytree(ROOT / "papers", tmp_path / "papers")
    folder = tmp_path / "papers" / NAME
    folder.mkdir()
    (folder / "paper.yaml").write_text(ABOUT)
    (folder / "table-1.yaml").write_text(TABLE)
    claims = (ROOT / "papers" / CLAIMS).read_text()
    scope = (
        "  fourth-noise: {profile: fourth, dataset: digits-500, noise: [uniform20], model: resnet8, recipe: digits}\n"
    )
    claims = claims.replace("\nscopes:\n", f"\nscopes:\n{scope}", 1).replace("\nclaims:\n", f"\nclaims:{CLAIM}", 1)
    (tmp_path / "papers" / CLAIMS).write_text(claims)
    made = load_study(tmp_path, "fourth")
    for run in fabricated.cell_runs(made):
        error = (0.12 if run.configuration.names["method"] == "individual" else 0.10) + 0.001 * (run.seed % 2)
        write_json(made.workspace.folder(run) / RESULT, fabricated.result_of(run, error))
    return made


def test_its_table_is_planned(study):
    assert {cell.table for cell in study.plan.cells} == {f"{NAME}-table-1"}
    assert {cell.configuration.names["method"] for cell in study.plan.cells} == {"individual", "simple-2"}
    assert paper_names(study.workspace.papers) == sorted([*paper_names(ROOT / "papers"), NAME])


def test_it_is_in_every_page_of_the_report(study):
    built = build_report(study.params, study.plan, study.workspace)
    page = (built.folder / f"{NAME}.md").read_text()
    assert page.startswith("# Fourth & Paper: Two heads are better\n") and "**11.50**<br>12.0" in page
    overview = (built.folder / "README.md").read_text()
    assert f"[{NAME}.md]({NAME}.md)" in overview and "2 of 2 published cells have runs here" in overview
    for paper in paper_names(ROOT / "papers"):
        assert (built.folder / f"{paper}.md").exists() and f"[{paper}.md]" in overview
    claims = (built.folder / "claims.md").read_text()
    assert f"## {NAME}\n" in claims and "Two heads have lower error than one." in claims
    assert f"the size of each paper's family: {NAME}: 1" in claims


def test_a_claim_of_a_paper_without_a_folder_is_refused(study):
    shutil.rmtree(study.workspace.papers / NAME)
    with pytest.raises(ConfigError, match=rf"claims\.yaml:\d+: claims\[?.*paper: there is no paper '{NAME}'"):
        load_claims(study.workspace.papers, study.params)


def test_no_code_decides_by_the_name_of_a_paper():
    """A paper's name may also be that of its method, which stands in the method's own file, and in the list of the
    methods that a GPU is examined with."""
    names, package = set(paper_names(ROOT / "papers")), ROOT / "src" / "collabench"
    places = {
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert places == {"study/gpu_check/cases.py", *(f"methods/{name}.py" for name in names)}
