"""Published tables: one-line errors, runs derived from cells and cells that have runs, sources, arithmetic."""

from __future__ import annotations

import shutil

import pytest

from collabench.config.configuration import Run
from collabench.core.errors import ConfigError
from collabench.papers.arithmetic import check_quotes, repeated, suspects
from collabench.papers.check import check_sources, main, printed_table
from collabench.papers.tables import load_papers
from collabench.study.study import load_study
from tests.support.project import ROOT
from tests.support.published_paper import QUOTES, TABLE, TEXT, loaded, project_in
from tests.support.real import real_params, real_study


@pytest.fixture
def project(tmp_path):
    return project_in(tmp_path)


TEXTS = ROOT.parent / "shared" / "papers"


needs_texts = pytest.mark.skipif(not TEXTS.is_dir(), reason=f"the source texts are not in {TEXTS}")


@pytest.mark.parametrize(
    "old,new,where,what",
    [
        ("metric: top1_error", "metric: accuracy", "one.yaml:3: metric", "'top1_error'"),
        ("title: Table", "titel: Table", "one.yaml:2: titel", "keys that would be right: kind, title"),
        ("kind: table", "kind: tabel", "one.yaml:1: kind", "table, figure, text or quotes is needed (it says 'tabel')"),
        ("plain: 11.50", "plain: eleven", "one.yaml:13: rows.noisy.values.plain", "a number or the word unknown"),
        ("plain: 11.50", "plain: -1", "one.yaml:13: rows.noisy.values.plain", "not negative"),
        ("plain: 11.50", "plain: 1150", "one.yaml:", "row noisy, column plain: 1150 is not an error in percent"),
        (", tree: unknown", "", "one.yaml:", "row clean: no value for the column tree; write a number or unknown"),
        ("tree: unknown", "tree: 1, three: 2", "one.yaml:", "'three' is not a column; columns: plain, tree"),
        ("labels: [clean]", "labels: [a, b]", "one.yaml:", "row clean: one label for each of Noise"),
        ("method: simple-2", "method: simple-9", "one.yaml:10: columns.tree.configuration.method", "'simple-9' is not"),
        (", model: resnet8", "", "one.yaml:13: rows.noisy.values.plain", "no model is named for this cell; name it"),
        ("baseline: plain", "baseline: none", "one.yaml:", "'none' is not a column"),
        ("file: text.txt", "file: tex.txt", "one.yaml:5: source.file", "not listed in paper.yaml; sources: text.txt"),
        ("table: TABLE I", "table: T, words: w", "one.yaml:5: source", "and not both"),
        ("baseline: plain", "axes: {x: a, y: b}", "one.yaml:", "axes belong to kind: figure"),
        ("epoch: best", "epoch: first", "one.yaml:4: protocol.epoch", "'last', 'best' or 'unknown'"),
        ("labels: [noisy],", "labels: [noisy], spreads: {plain: 0.5},", "one.yaml:",
         "row noisy, spreads: the protocol must"),
        ("labels: [noisy],", "labels: [noisy], spreads: {three: 0.5},", "one.yaml:",
         "row noisy, spreads: 'three' is not a column"),
        ("labels: [noisy],", "labels: [noisy], spreads: {plain: -1},", "one.yaml:13: rows.noisy.spreads.plain",
         "must be at least 0 (it says -1)"),
        ("tree: unknown}", "tree: unknown}, cells: {tree: {configuration: {recipe: song2018-resnet-bf16}}}",
         "one.yaml:12: rows", "forty has float32 and song2018-resnet-bf16 has bfloat16: a table has one precision"),
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


def reached(runs: dict[str, Run], run: Run) -> None:
    runs[run.id] = run
    for required in run.requires():
        reached(runs, required)


@pytest.mark.slow
def test_no_cell_lacks_its_runs_and_no_run_lacks_a_reason():
    study = real_study("paper")
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
    papers = load_papers(ROOT / "papers", real_params())
    assert set(real_study("paper").profile.papers) == set(papers) == {"fang2021", "song2018", "wang2018"}


def test_cells_of_a_table_become_runs_once(project):
    study = load_study(project, "small")
    cells = [cell for cell in study.plan.cells if cell.table == "paper-one"]
    assert [cell.configuration.names["noise"] for cell in cells] == ["uniform20", "uniform20", "clean", "clean"]
    assert all(cell.seeds == (0, 1, 2, 3, 4) for cell in cells)
    # Of five configurations one is in the paper's table and in the profile's own.
    assert len(study.plan.runs) == 5 * 5


def test_missing_data_sets_are_said_and_stop_nothing_else():
    study = real_study("paper")
    missing = study.inputs.missing_datasets()
    for key, line in missing.items():
        assert key.startswith("imagenet") and "\n" not in line and ("Place there" in line or "not pinned" in line)
    possible, lacking = study.inputs.without_missing_data(study.plan.runs)
    assert lacking == [missing[key] for key in sorted(missing)]
    assert {run.configuration.dataset.source for run in possible} >= {"cifar10", "cifar100"}
    assert len(possible) == sum(
        not any(key.startswith(f"{run.configuration.dataset.source}-") for key in missing) for run in study.plan.runs
    )


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
