"""Published tables: one-line errors, runs derived from cells and cells that have runs, sources, arithmetic, pages."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats

from collabench.config.configuration import Run
from collabench.config.params import load_params
from collabench.core.errors import ConfigError
from collabench.papers.arithmetic import check_quotes, repeated, suspects
from collabench.papers.check import check_sources, main, printed_table
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
from tests.support.project import ROOT

TEXTS = ROOT.parent / "shared" / "papers"
needs_texts = pytest.mark.skipif(not TEXTS.is_dir(), reason=f"the source texts are not in {TEXTS}")

PAPER = "{title: A paper, authors: Somebody, published: somewhere, sources: {text.txt: all of it}}\n"
TABLE = """\
kind: table
title: Table I. Errors
metric: top1_error
protocol: {runs: 1, epoch: best}
source: {file: text.txt, table: TABLE I}
baseline: plain
configuration: {dataset: digits-500, noise: uniform20, model: resnet8, recipe: forty}
columns:
  plain: {title: plain, configuration: {method: individual}}
  tree: {title: L_tree, configuration: {method: simple-2}}
row_titles: [Noise]
rows:
  noisy: {labels: [noisy], values: {plain: 11.50, tree: 30.0}}
  clean: {labels: [clean], values: {plain: 6.0, tree: unknown}, configuration: {noise: clean}}
"""
QUOTES = """\
kind: quotes
title: Quotes
quotes:
  gain:
    what: the gain
    value: 2.5
    before: {table: one, row: noisy, columns: [plain]}
    after: {table: one, row: noisy, columns: [plain, tree]}
    sources: [{file: text.txt, words: a gain of 2.5%, number: 1}]
"""
TEXT = "It has a gain of **2.5%**.\n\nTABLE I\nERRORS.\n\nNoise\tplain\t$\\mathcal{L}_{tree}$\nnoisy\t11.50\t30.00\n"
PROFILE = """\
  small:
    description: one paper
    seeds: 5
    papers: [paper]
    tables:
      - {name: own, title: Our own, datasets: [digits-500], noise: [uniform20], models: [resnet8], recipes: [forty],
         methods: [individual, label-smoothing]}
  other:
    description: nothing of the paper
    seeds: 2
    tables:
      - {name: trees, title: Trees, datasets: [digits], models: [resnet8], recipes: [forty],
          methods: [individual, simple-4]}
"""


@pytest.fixture
def project(tmp_path):
    """A project with one small paper of its own."""
    fabricated.make_study(tmp_path, PROFILE.replace("[paper]", "[]"))
    (tmp_path / "params.yaml").write_text(
        (tmp_path / "params.yaml").read_text().replace("papers: []", "papers: [paper]")
    )
    folder = tmp_path / "papers" / "paper"
    folder.mkdir(parents=True)
    (folder / "paper.yaml").write_text(PAPER)
    (folder / "one.yaml").write_text(TABLE)
    (folder / "quotes.yaml").write_text(QUOTES)
    return tmp_path


def loaded(project: Path):
    return load_papers(project / "papers", load_params(project / "params.yaml"))["paper"]


# ------------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    "old,new,where,what",
    [
        ("metric: top1_error", "metric: accuracy", "one.yaml:3: metric", "'top1_error'"),
        ("title: Table", "titel: Table", "one.yaml:2: titel", "keys that would be right: kind, title"),
        ("kind: table", "kind: tabel", "one.yaml:1: kind", "table, figure, text or quotes is needed (it says 'tabel')"),
        ("plain: 11.50", "plain: eleven", "one.yaml:13: rows.noisy.values.plain", "a number or the word unknown"),
        ("plain: 11.50", "plain: -1", "one.yaml:13: rows.noisy.values.plain", "not negative"),
        ("plain: 11.50", "plain: 1150", "one.yaml:", "row noisy, column plain: 1150 is no error in percent"),
        (", tree: unknown", "", "one.yaml:", "row clean: no value for the column tree; write a number or unknown"),
        ("tree: unknown", "tree: 1, three: 2", "one.yaml:", "'three' is no column; columns: plain, tree"),
        ("labels: [clean]", "labels: [a, b]", "one.yaml:", "row clean: one label for each of Noise"),
        ("method: simple-2", "method: simple-9", "one.yaml:10: columns.tree.configuration.method", "'simple-9' is not"),
        (", model: resnet8", "", "one.yaml:13: rows.noisy.values.plain", "no model is named for this cell; name it"),
        ("baseline: plain", "baseline: none", "one.yaml:", "'none' is no column"),
        ("file: text.txt", "file: tex.txt", "one.yaml:5: source.file", "not listed in paper.yaml; sources: text.txt"),
        ("table: TABLE I", "table: T, words: w", "one.yaml:5: source", "and not both"),
        ("baseline: plain", "axes: {x: a, y: b}", "one.yaml:", "axes belong to kind: figure"),
        ("epoch: best", "epoch: first", "one.yaml:4: protocol.epoch", "'last', 'best' or 'unknown'"),
        ("labels: [noisy],", "labels: [noisy], spreads: {plain: 0.5},", "one.yaml:",
         "row noisy, spreads: the protocol must"),
        ("labels: [noisy],", "labels: [noisy], spreads: {three: 0.5},", "one.yaml:",
         "row noisy, spreads: 'three' is no column"),
        ("labels: [noisy],", "labels: [noisy], spreads: {plain: -1},", "one.yaml:13: rows.noisy.spreads.plain",
         "greater than"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_one_line(project, old, new, where, what):
    assert TABLE.count(old) == 1
    (project / "papers" / "paper" / "one.yaml").write_text(TABLE.replace(old, new))
    with pytest.raises(ConfigError) as error:
        loaded(project)
    message = str(error.value)
    assert "\n" not in message and where in message and what in message


@pytest.mark.parametrize(
    "old,new,what",
    [
        ("table: one, row: noisy, columns: [plain]}", "table: two, row: noisy, columns: [plain]}",
         "no table 'two'; tables: one"),
        ("row: noisy, columns: [plain]}", "row: nosy, columns: [plain]}", "no row 'nosy'; rows: noisy, clean"),
        ("columns: [plain, tree]", "columns: [plain, three]", "no column 'three'; columns: plain, tree"),
        ("    before: {table: one, row: noisy, columns: [plain]}\n", "",
         "a difference and a ratio need before and after"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_quote_is_one_line(project, old, new, what):
    (project / "papers" / "paper" / "quotes.yaml").write_text(QUOTES.replace(old, new))
    with pytest.raises(ConfigError) as error:
        loaded(project)
    assert "\n" not in str(error.value) and "quotes.yaml:" in str(error.value) and what in str(error.value)


def test_an_unknown_paper_of_a_profile_is_one_line(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("papers: [paper]", "papers: [papre]"))
    with pytest.raises(ConfigError, match=r"there is no paper 'papre'.*papers: paper$"):
        load_study(project, "small")


# ------------------------------------------------------------------------------------------------ cells and runs


def reached(runs: dict[str, Run], run: Run) -> None:
    runs[run.id] = run
    for required in run.requires():
        reached(runs, required)


def test_no_cell_lacks_its_runs_and_no_run_lacks_a_reason():
    study = load_study(ROOT, "paper")
    papers = load_papers(ROOT / "papers", study.params, study.profile.papers)
    assert study.profile.seeds == 5
    reasons: dict[str, Run] = {}
    for paper in papers.values():
        for cell in paper.cells:
            assert (cell.configuration is None) == (cell.not_run is not None), cell.place
            for seed in range(5) if cell.configuration is not None else ():
                reached(reasons, Run(cell.configuration, seed))
    planned = {run.id for run in study.plan.runs}
    assert reasons.keys() <= planned  # every cell has its runs
    own = {table.name for table in study.profile.tables}
    for cell in study.plan.cells:
        if cell.table in own:
            for seed in cell.seeds:
                reached(reasons, Run(cell.configuration, seed))
    assert planned == reasons.keys()  # every run is a cell's, a declared table's, or required by one


def test_the_profile_paper_holds_every_paper():
    papers = load_papers(ROOT / "papers", load_params(ROOT / "params.yaml"))
    assert set(load_study(ROOT, "paper").profile.papers) == set(papers) == {"fang2021", "song2018", "wang2018"}


def test_cells_of_a_table_become_runs_once(project):
    study = load_study(project, "small")
    cells = [cell for cell in study.plan.cells if cell.table == "paper-one"]
    assert [cell.configuration.names["noise"] for cell in cells] == ["uniform20", "uniform20", "clean", "clean"]
    assert all(cell.seeds == (0, 1, 2, 3, 4) for cell in cells)
    # Of five configurations one is in the paper's table and in the profile's own.
    assert len(study.plan.runs) == 5 * 5


def test_missing_data_sets_are_said_and_stop_nothing_else():
    study = load_study(ROOT, "paper")
    missing = study.inputs.missing_datasets()
    for key, line in missing.items():
        assert key.startswith("imagenet") and "\n" not in line and ("Place there" in line or "not pinned" in line)
    possible, lacking = study.inputs.without_missing_data(study.plan.runs)
    assert lacking == [missing[key] for key in sorted(missing)]
    assert {run.configuration.dataset.source for run in possible} >= {"cifar10", "cifar100"}
    assert len(possible) == sum(
        not any(key.startswith(f"{run.configuration.dataset.source}-") for key in missing) for run in study.plan.runs
    )


# -------------------------------------------------------------------------------------------- sources, arithmetic


@needs_texts
def test_every_number_is_the_texts():
    papers = load_papers(ROOT / "papers", None)
    assert check_sources(papers, TEXTS) == []
    cells = papers["fang2021"].tables
    assert [sum(c.value is not None for c in cells[f"table-{n}"].cells.values()) for n in (1, 2, 3)] == [32, 32, 30]


@needs_texts
@pytest.mark.parametrize(
    "file,old,new,expected",
    [
        ("table-1", "pull-push: 26.03,", "pull-push: 26.30,",
         "row cifar100-vgg16, column pull-push: 26.3, TABLE I prints 26.03"),
        ("table-3", "mid-kernel: 24.81,", "mid-kernel: 24.67,",
         "row vgg16, column mid-kernel: 24.67, TABLE III prints 24.81"),
        ("table-3", "{title: L_mid + L_kernel,", "{title: L_out + L_kernel,", "the columns are"),
        ("table-2", "labels: [STL-10, VGG-16]", "labels: [STL-10, ResNet-18]", "the rows are"),
        ("memory", "tree: 13.16,", "tree: 13.61,",
         "row resnet101, column tree: 13.61, 003_0fca84f30fd0cf9f.txt says 13.16"),
        ("quotes", "    value: 3.53", "    value: 3.35", "quote noise-50: 3.35, 003_0fca84f30fd0cf9f.txt says 3.53"),
        ("quotes", "words: has 3.53% higher", "words: has 3.53% lower", "stands 0 times in"),
    ],
)  # fmt: skip
def test_a_changed_number_is_caught(tmp_path, file, old, new, expected):
    shutil.copytree(ROOT / "papers", tmp_path / "papers")
    path = tmp_path / "papers" / "fang2021" / f"{file}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert any(expected in problem for problem in check_sources(load_papers(tmp_path / "papers", None), TEXTS))


def test_a_number_that_no_file_has_is_found(project, tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.mkdir()
    one = project / "papers" / "paper" / "one.yaml"
    one.write_text(TABLE.replace("  clean: {labels", "  # clean: {labels"))
    (texts / "text.txt").write_text(TEXT)
    assert main([str(texts), str(project / "papers")]) == 0
    assert "2 values and 1 quotations" in capsys.readouterr().out
    (texts / "text.txt").write_text(TEXT + "And also 7.25 % elsewhere.\n")
    assert main([str(texts), str(project / "papers")]) == 1
    assert "text.txt: 7.25 % is in no data file" in capsys.readouterr().out
    (texts / "text.txt").unlink()
    assert main([str(texts), str(project / "papers")]) == 2


def test_a_published_spread_is_compared_with_the_text(project, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT.replace("11.50\t30.00", "$11.50 \\pm 0.25$\t30.00"))
    one = project / "papers" / "paper" / "one.yaml"
    several = TABLE.replace("runs: 1", "runs: 3").replace("  clean: {labels", "  # clean: {labels")
    for spreads, problems in (
        ("", ["paper/one: row noisy, column plain: 11.5, TABLE I prints 11.50 ± 0.25"]),
        ("spreads: {plain: 0.52}, ", ["paper/one: row noisy, column plain: 11.5 ± 0.52, TABLE I prints 11.50 ± 0.25"]),
        ("spreads: {plain: 0.25}, ", []),
    ):
        one.write_text(several.replace("labels: [noisy], ", f"labels: [noisy], {spreads}"))
        assert check_sources(load_papers(project / "papers", None), tmp_path) == problems


def test_check_marks_are_the_headings_of_their_columns():
    text = "TABLE X\nA\n\n\\mathcal{L}_{a}\t✓\t\t✓\n$\\mathcal{L}_{b}$\t\t✓\t✓\nnet\t1.0\t2.0\t3.0\n\nrest\n"
    printed = printed_table(text, "TABLE X")
    assert printed.headings == ("L_a", "L_b", "L_a + L_b")
    assert printed.rows == ((("net",), ("1.0", "2.0", "3.0")),)
    with pytest.raises(ConfigError, match="begins 0 tables"):
        printed_table(text, "TABLE Y")


def test_the_papers_arithmetic_is_checked_and_its_misprint_found():
    fang = load_papers(ROOT / "papers", None)["fang2021"]
    checks = {check.name: check for check in check_quotes(fang)}
    wrong = {name: check.computed for name, check in checks.items() if check.agrees is False}
    assert wrong == {
        "imagenet32-resnet18-one-loss": pytest.approx(24.10 - 22.01),  # quoted 2.19
        "cifar10-resnet18-over-one-loss": pytest.approx(4.45 - 4.31),  # quoted 0.16
    }
    assert "against L_mid (4.47) it would be 0.16" in checks["cifar10-resnet18-over-one-loss"].how
    assert [name for name, check in checks.items() if check.agrees is None] == ["noise-50"]
    (suspect,) = suspects(fang)
    assert suspect.cell.value == 39.70 and (suspect.cell.row, suspect.cell.column) == ("stl10-vgg16", "baseline-2x")
    assert suspect.change == pytest.approx(9.45) and suspect.largest == pytest.approx(-3.02) and suspect.rows == 7
    # Of Table III's columns six are in Table I too, for both networks.
    assert len(repeated(fang)) == 12 and all(entry.same for entry in repeated(fang))


# -------------------------------------------------------------------------------------------------------- pages

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


# -------------------------------------------------------------------------------------------------- missing data

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
