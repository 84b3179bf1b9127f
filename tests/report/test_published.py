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
    honest, own = halves(page)
    # Last epochs 12, 13, 11, 12, 12: mean 12, sd √0.5; t(4) = 2.776: ± 0.878.
    assert "| **11.50**<br>12.00 ± 0.71 [11.12, 12.88], n 5<br>+0.50 |" in honest
    # Best epochs 11, 12, 10, 11, 11. Published 11.50, inside 11 ± 2.15.
    assert "<br>all seeds: 11.00 ± 0.71 [10.12, 11.88], n 5<br>−0.50, agrees |" in own
    assert "<br>all seeds: 9.00 ± 0.71 [8.12, 9.88], n 5<br>−21.00, differs" in own
    assert "not in our sources<br>10.00 ± 0.71" in honest and "not in our sources<br>9.00<br>all seeds: 9.00" in own
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
    # the best epochs of the first three seeds, 11, 12 and 10, then of all five
    shown = f"11.00<br>−0.50<br>all seeds: 11.00 ± 0.71 [10.12, 11.88], n 5<br>−0.50, {verdict} |"
    assert f"| **11.50 ± 0.60**<br>{shown}" in halves(page)[1]
    assert (
        "The paper's own protocol: mean of 3 runs, their best epochs" in page and "the seeds 0 1 2, the first" in page
    )


def halves(page: str) -> tuple[str, str]:
    """The honest table, and that of the paper's own protocol."""
    _, both = page.split("### Honest: mean over all seeds, after the last epoch")
    honest, own = both.split("### The paper's own protocol: ")
    return honest, own.partition("\n## ")[0]


def replace_result(study, seed: int, error: float, **changes: object) -> None:
    """Another result of the plain network with noisy labels."""
    runs = fabricated.cell_runs(study)
    run = next(
        one for one in runs
        if one.seed == seed and one.configuration.noise.rate and one.configuration.names["method"] == "individual"
    )  # fmt: skip
    write_json(study.workspace.folder(run) / RESULT, fabricated.result_of(run, error, **changes))


def test_a_papers_own_protocol_is_a_table_of_its_own_of_the_first_seed_whatever_its_result(project):
    study = load_study(project, "small")
    fill(study)
    replace_result(study, 0, 0.17)
    built = build_report(study.params, study.plan, study.workspace)
    honest, own = halves((built.folder / "paper.md").read_text())
    assert "| **11.50**<br>13.00 ± 2.35 [10.09, 15.91], n 5<br>+1.50 |" in honest
    assert own.startswith("one run, its best epoch\n\n**Optimistic: the epoch is chosen on test data.**")
    assert "seed 0, the first of this profile, whatever its result" in own
    assert "| **11.50**<br>16.00<br>+4.50<br>all seeds: 12.00 ± 2.35 [" in own
    with (built.folder / "paper.csv").open(newline="") as file:
        first = next(row for row in csv.DictReader(file) if (row["row"], row["column"]) == ("noisy", "plain"))
    assert (first["own_protocol_seeds"], first["own_protocol"], first["measured_last_epoch_mean"]) == ("0", "16", "13")


def test_a_papers_own_protocol_needs_its_run_and_the_runs_best_epoch(project):
    study = load_study(project, "small")
    fill(study)
    replace_result(study, 0, 0.12, best_error=None, best_epoch=None)
    collected = collect(study.plan, study.workspace)
    honest, own = halves(paper_page(project, study, collected))
    assert "| **11.50**<br>12.00 ± 0.71" in honest and "| **11.50**<br>best epoch not recorded |" in own
    replace_result(study, 0, 0.12)
    for path in study.workspace.runs.glob("*/seed-0"):
        (path / RESULT).unlink()
    honest, own = halves(paper_page(project, study, collect(study.plan, study.workspace, partial=True)))
    assert "| **11.50**<br>no run yet<br>all seeds: 11.00 ± 0.82" in own and "n 4 of 5<br>" in own
    assert "| **11.50**<br>12.00 ± 0.82" in honest


def test_a_paper_that_reports_the_last_epoch_has_one_table(project):
    path = project / "papers" / "paper" / "one.yaml"
    path.write_text(path.read_text().replace("epoch: best", "epoch: last"))
    study = load_study(project, "small")
    fill(study)
    page = paper_page(project, study, collect(study.plan, study.workspace))
    assert "own protocol:" not in page and "### Honest" not in page
    assert "| **11.50**<br>12.00 ± 0.71 [11.12, 12.88], n 5<br>+0.50, agrees |" in page


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
    assert "missing: data set imagenet32: " in done.stderr and "(see above): 1 run\n" in done.stderr
    (tmp_path / "params.yaml").write_text((tmp_path / "params.yaml").read_text().replace("[digits-tiny, ", "["))
    done = collabench(tmp_path, "run", "-p", "partly", "--cores", "1")
    assert done.returncode == 2 and done.stderr.startswith("collabench: error: data set imagenet32: ")
    assert done.stderr.count("\n") == 1
