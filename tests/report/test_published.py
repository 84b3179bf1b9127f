"""Published values beside measured ones: pages, comparisons, what is not run."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats

from collabench.papers.tables import load_papers
from collabench.report.analyse import analyse
from collabench.report.build import build_report
from collabench.report.collect import collect
from collabench.report.explain import explain_cells
from collabench.report.pages.papers import write_papers
from collabench.report.published import measure
from collabench.storage.files import write_json
from collabench.storage.results import RESULT
from collabench.study.study import load_study
from tests.support import fabricated
from tests.support.published_paper import TABLE, project_in


@pytest.fixture
def project(tmp_path):
    return project_in(tmp_path)


#: Errors after the last epoch by seed; the fabricated best epoch is one point lower.
PERCENT = {"individual": (12, 13, 11, 12, 12), "simple-2": (10, 11, 9, 10, 10), "label-smoothing": (12, 12, 12, 12, 13)}


def fill(study) -> None:
    for run in fabricated.cell_runs(study):
        error = PERCENT.get(run.configuration.names["method"], (20,) * 5)[run.seed] / 100
        write_json(study.workspace.folder(run) / RESULT, fabricated.result_of(run, error))


def test_the_page_shows_published_and_measured_side_by_side(project):
    study = load_study(project, "small")
    fill(study)
    built = build_report(study.params, study.plan, study.workspace)
    page = (built.folder / "paper.md").read_text()
    # Best epochs 11, 12, 10, 11, 11: mean 11, sd √0.5; t(4) = 2.776: ± 0.878. Published 11.50, inside 11 ± 2.15.
    assert "| **11.50**<br>11.00 ± 0.71 [10.12, 11.88], n 5<br>−0.50, agrees<br>last epoch 12.00 ± 0.71 |" in page
    assert "**30.00**<br>9.00 ± 0.71 [8.12, 9.88], n 5<br>−21.00, differs" in page
    assert "not in our sources<br>9.00 ± 0.71" in page
    assert "0 of 1 quoted numbers agree with the tables, 1 does not: the gain, quoted 2.50, by the tables 0.00" in page
    assert "As published: 1 run; lowest test error over all epochs (optimistic); test split." in page
    with (built.folder / "paper.csv").open(newline="") as file:
        rows = {(row["row"], row["column"]): row for row in csv.DictReader(file)}
    first = rows["noisy", "plain"]
    assert (first["published"], first["measured_mean"], first["difference"], first["verdict"]) == (
        "11.5", "11", "-0.5", "agrees",
    )  # fmt: skip
    assert rows["clean", "L_tree"]["published"] == "" and rows["clean", "L_tree"]["published_known"] == "False"
    overview = (built.folder / "README.md").read_text()
    assert "[paper.md](paper.md), [paper.csv](paper.csv): Somebody; 4 of 4 published cells have runs here" in overview
    before = {path.name: path.read_bytes() for path in built.folder.glob("paper*")}
    build_report(study.params, study.plan, study.workspace)
    assert {path.name: path.read_bytes() for path in built.folder.glob("paper*")} == before


@pytest.mark.parametrize("margin,verdict", [(None, "cannot tell"), (2, "agrees")])
def test_a_published_mean_and_spread_is_compared_by_welchs_test(project, margin, verdict):
    """Best epochs of ours: mean 11, sd √0.5, n 5. Published 11.50 ± 0.60, n 3: difference −0.5, t −1.06; and 30 ±
    1.5."""
    text = TABLE.replace("runs: 1", "runs: 3").replace("[noisy],", "[noisy], spreads: {plain: 0.6, tree: 1.5},")
    text += "" if margin is None else f"margin: {margin}\n"
    (project / "papers" / "paper" / "one.yaml").write_text(text)
    study = load_study(project, "small")
    fill(study)
    collected = collect(study.plan, study.workspace)
    found = measure(load_papers(project / "papers", study.params)["paper"], collected)
    plain = found["one", "noisy", "plain"].published.comparison
    test = scipy.stats.ttest_ind_from_stats(11, 0.5**0.5, 5, 11.5, 0.6, 3, equal_var=False)
    assert (plain.difference, plain.p) == (pytest.approx(-0.5), pytest.approx(test.pvalue)) and plain.verdict == verdict
    assert found["one", "noisy", "tree"].published.comparison.verdict == "differs"
    page = paper_page(project, study, collected)
    assert f"| **11.50 ± 0.60**<br>11.00 ± 0.71 [10.12, 11.88], n 5<br>−0.50, {verdict}<br>" in page


def paper_page(project, study, collected) -> str:
    """The paper's page, written alone."""
    content = analyse(study.params, collected)
    write_papers(project, load_papers(project / "papers", study.params), content, collected)
    return (project / "paper.md").read_text()


def test_explain_says_what_is_published_of_a_cell_and_where(project):
    study = load_study(project, "small")
    fill(study)
    text = explain_cells(study.plan, study.workspace, "paper-one uniform20 individual")
    assert "\npublished: 11.50 (top-1 test error (%); text.txt, TABLE I, row noisy, column plain)\n" in text
    assert "\ntest error after the last epoch: 12.00 ± 0.71 [11.12, 12.88] %, n 5\n" in text
    unknown = explain_cells(study.plan, study.workspace, "paper-one clean simple-2")
    assert "\npublished: not in our sources (top-1 test error (%); text.txt" in unknown


def test_a_profile_of_other_scopes_says_so_and_points_at_its_tables(project):
    study = load_study(project, "other")
    for run in fabricated.cell_runs(study):
        write_json(study.workspace.folder(run) / RESULT, fabricated.result_of(run, 0.1))
    built = build_report(study.params, study.plan, study.workspace)
    page = (built.folder / "paper.md").read_text()
    assert "No published value of this paper is comparable with a run of this profile" in page
    assert "Its methods under this profile's scope: [Trees](trees.md)." in page
    assert "| noisy | 11.50 | 30.00 |" in page and "<br>" not in page and not (built.folder / "paper.csv").exists()


def test_a_partial_report_says_what_is_not_run_yet(project):
    study = load_study(project, "small")
    fill(study)
    gone = next(r for r in fabricated.cell_runs(study) if r.configuration.noise.kind == "none" and r.seed == 0)
    for seed in range(5):
        (study.workspace.runs / gone.configuration.id / f"seed-{seed}" / RESULT).unlink()
    built = build_report(study.params, study.plan, study.workspace, partial=True)
    assert "**6.00**<br>no run yet (0 of 5)" in (built.folder / "paper.md").read_text()
    assert f"(`{gone.configuration.id}`), seeds 0, 1, 2, 3, 4: not run" in (built.folder / "README.md").read_text()


PARTLY = """\
  partly:
    description: one data set that is there and one that the user has yet to place
    seeds: 1
    tables:
      - {name: both, datasets: [digits-tiny, imagenet32], models: [resnet8], recipes: [smoke], methods: [individual]}
"""


def collabench(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from collabench.cli import main; main()", *arguments, "--root", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)


@pytest.mark.slow
def test_runs_whose_data_set_is_missing_are_left_out_and_the_others_run(tmp_path):
    fabricated.make_study(tmp_path, PARTLY)
    told = collabench(tmp_path, "plan", "-p", "partly").stdout.splitlines()
    assert sum(line.startswith("missing: data set imagenet32: ") for line in told) == 1
    done = collabench(tmp_path, "run", "-p", "partly", "--cores", "1")
    assert done.returncode == 1 and "1 trained, 0 linked" in done.stdout
    assert "missing: data set imagenet32: " in done.stderr and "1 runs left out" in done.stderr
    (tmp_path / "params.yaml").write_text((tmp_path / "params.yaml").read_text().replace("[digits-tiny, ", "["))
    done = collabench(tmp_path, "run", "-p", "partly", "--cores", "1")
    assert done.returncode == 2 and done.stderr.startswith("collabench: error: data set imagenet32: ")
    assert done.stderr.count("\n") == 1
