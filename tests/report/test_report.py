"""The report's numbers, its refusals, and its files."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from collabench.config.configuration import member_seed
from collabench.config.data_sections import NoiseConfig
from collabench.config.plan import resolve
from collabench.core.errors import ConfigError, ResultError
from collabench.report import titles
from collabench.report.accepted import accept, compare
from collabench.report.build import build_report
from collabench.report.content import Condition, Noise, Report
from collabench.report.explain import explain_cells
from collabench.report.folders import whole_folder
from collabench.report.pages import overview, tables
from collabench.report.pages.terminal import terminal_summary
from collabench.report.published import PublishedValue, stand_beside
from collabench.storage.files import read_json, write_json
from collabench.storage.results import RESULT
from tests.support import fabricated
from tests.support.declared_claims import claim, declare, study_in

ONE_TABLE = """\
  small:
    description: two methods against one
    seeds: 6
    tables:
      - {name: graphs, title: Training graphs, datasets: [digits-500], noise: [uniform20], models: [resnet8],
         recipes: [forty], methods: [individual, label-smoothing, simple-2]}
"""

#: Errors in percent by seed: the differences are (-1 -2 -3 -1 -2 -3) and (+1 -1 +1 -1 +1 +1).
PERCENT = {
    "individual": (10, 12, 14, 11, 13, 15),
    "simple-2": (9, 10, 11, 10, 11, 12),
    "label-smoothing": (11, 11, 15, 10, 14, 16),
}
T5 = 2.5705818366  # 97.5 % quantile of Student's t with 5 degrees of freedom


def by_hand(run):
    return PERCENT[run.configuration.names["method"]][run.seed] / 100


def build(study, **options):
    return build_report(study.params, study.plan, study.workspace, **options)


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def csv_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_of(built):
    return {row.method: row for row in built.report.tables[0].conditions[0].rows}


@pytest.fixture
def study(tmp_path):
    made = fabricated.make_study(tmp_path, ONE_TABLE)
    fabricated.write_results(made, errors=by_hand)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The report of :func:`study`, for tests that only read it."""
    made = fabricated.make_study(tmp_path_factory.mktemp("built"), ONE_TABLE)
    fabricated.write_results(made, errors=by_hand)
    return build(made)


# ------------------------------------------------------------------------------------------------------ numbers


def test_errors_and_paired_differences_are_those_worked_out_by_hand(built):
    rows = rows_of(built)
    individual, simple, smoothing = rows["individual"], rows["simple-2"], rows["label-smoothing"]
    sd = 3.5**0.5  # deviations ±2.5, ±1.5, ±0.5: 17.5 / 5
    assert individual.error.mean == pytest.approx(12.5)
    assert individual.error.sd == pytest.approx(sd)
    assert individual.error.high == pytest.approx(12.5 + T5 * sd / 6**0.5)
    assert individual.difference is None and individual.holm_p is None

    spread = 0.8**0.5  # differences -1 -2 -3 -1 -2 -3: mean -2, squares 4 / 5
    assert simple.difference.difference == pytest.approx(-2)
    assert simple.difference.low == pytest.approx(-2 - T5 * spread / 6**0.5)
    assert simple.difference.t == pytest.approx(-2 / (spread / 6**0.5))
    assert simple.difference.sign_flip_p == pytest.approx(2 / 64)
    assert smoothing.difference.difference == pytest.approx(1 / 3)
    # 64 assignments of signs to six ones: |sum| >= 2 fails only where it is 0, in C(6, 3) = 20 of them.
    assert smoothing.difference.sign_flip_p == pytest.approx(44 / 64)
    # Holm with two hypotheses: the smaller p is doubled, the larger stays.
    assert simple.holm_p == pytest.approx(2 * simple.difference.p)
    assert smoothing.holm_p == pytest.approx(smoothing.difference.p)


def test_best_epoch_and_heads_are_those_worked_out_by_hand(built):
    row = rows_of(built)["simple-2"]
    # The fabricated curve is one point better in the last epoch but one.
    assert row.best.error.mean == pytest.approx(10.5 - 1)
    assert row.best.optimism.mean == pytest.approx(1)
    assert row.best.epoch == 39
    # Its second head is 0.2 points better than the first, its averaged heads 0.4 points.
    assert row.heads.count == 2
    assert row.heads.mean.mean == pytest.approx(10.5 - 0.1)
    assert row.heads.spread == pytest.approx(0.2 / 2**0.5)
    assert row.heads.averaged.mean == pytest.approx(10.5 - 0.4)
    assert row.heads.gain.difference == pytest.approx(-0.4)
    assert rows_of(built)["individual"].heads is None


def test_validation_selected_errors_have_columns_of_their_own(study):
    for run in fabricated.cell_runs(study):
        figures = fabricated.metrics(by_hand(run) + 0.005)
        changed = fabricated.result_of(run, by_hand(run), selected=figures, selected_epoch=4)
        write_json(study.workspace.folder(run) / RESULT, changed)
    built = build(study)
    row = rows_of(built)["individual"]
    assert row.selected.error.mean == pytest.approx(13) and row.selected.epoch == 5
    frame = tables.best_epoch_table(built.report.tables[0].conditions[0])
    assert frame["Selected on validation %"][0].startswith("13.00")
    assert "Selected on validation %" in (built.folder / "graphs.md").read_text()


def test_the_page_shows_percent_with_two_decimals_scope_noise_and_rules(built):
    page = (built.folder / "graphs.md").read_text()
    assert (
        "digits, 500 training images, split drawn per seed, 20 % uniform noise, ResNet-8 (width 16), 40 epochs" in page
    )
    for section in page.split("\n### ")[1:-1]:  # every table says which epoch it shows
        assert "Rule: " in section or "after the last epoch" in section, section.splitlines()[0]
    assert (
        "asked for: 20 % of the labels are drawn anew over all classes" in page
        and "18.00 % of the training labels are wrong" in page
    )
    short, line = [line for line in page.splitlines() if line.startswith("| simple-2") and "10.50" in line][:2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:7] == ["simple-2", "10.50 ± 1.05", "[9.40, 11.60]", "6", "−2.00", "[−2.94, −1.06]", "0.003"]
    cells = [cell.strip() for cell in short.strip("|").replace("\u00a0", "~").split("|")]
    assert cells == ["simple-2", "10.50~±~1.05", "**−2.00~[−2.94,~−1.06]**~✱", "**0.006**"]
    assert page.index("| simple-2") < page.index("| individual") < page.index("<details>") < page.index("</details>")
    assert "unadjusted" in page and "optimistic" in page and "over splits of the pool and training randomness" in page
    assert "Rule: last epoch" in page and "within the family `graphs` (2 comparisons)" in page


def test_with_five_pairs_the_sign_flip_column_is_replaced_by_the_reason(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE.replace("seeds: 6", "seeds: 5"))
    fabricated.write_results(study, errors=by_hand)
    page = (build(study).folder / "graphs.md").read_text()
    assert "Sign-flip p |" not in page and "with 5 pairs it cannot fall below 0.0625" in page


def test_a_family_spans_tables_and_counts_a_shared_comparison_once(tmp_path):
    row = "datasets: [digits-500], models: [resnet8], recipes: [forty], family: all"
    study = fabricated.make_study(
        tmp_path,
        f"""\
  small:
    description: one family
    seeds: 6
    tables:
      - {{name: first, {row}, noise: [uniform20], methods: [individual, simple-2]}}
      - {{name: second, {row}, noise: [clean, uniform20], methods: [individual, simple-2, label-smoothing]}}
""",
    )
    fabricated.write_results(study)
    built = build(study)
    assert built.report.runs == 36  # the runs that two tables share are one
    conditions = [condition for table in built.report.tables for condition in table.conditions]
    assert [condition.family_size for condition in conditions] == [4, 4, 4]  # not 5
    found = [row for condition in conditions for row in condition.rows if row.difference]
    smallest = min(found, key=lambda row: row.difference.p)
    assert smallest.holm_p == pytest.approx(min(1, 4 * smallest.difference.p))


ORDER = {"individual": 0.02, "label-smoothing": 0.01, "simple-2": 0.0}


def ordered(run):
    """The methods in one order everywhere, more apart with noise."""
    return 0.1 + run.configuration.noise.rate + ORDER[run.configuration.names["method"]]


@pytest.mark.slow
def test_conditions_on_the_same_images_are_one_block_of_friedmans_test(tmp_path):
    profile = ONE_TABLE.replace("[uniform20]", "[clean, uniform10, uniform20, uniform30, uniform40, uniform50]")
    study = fabricated.make_study(tmp_path, profile.replace("datasets: [digits-500]", "datasets: [digits-500, digits]"))
    fabricated.write_results(study, errors=ordered)
    built = build(study)
    (ranks,) = built.report.tables[0].ranks
    assert (ranks.friedman.blocks, ranks.friedman.p) == (1, None)  # twelve conditions, one set of images
    page = (built.folder / "graphs.md").read_text()
    assert "not computed (1 of at least 6 blocks). A block is a data set." in page
    assert not (built.folder / "figures" / "graphs-ranks-1.svg").exists()
    assert (built.folder / "figures" / "graphs-error-against-noise-1.svg").exists()


@pytest.mark.slow
def test_ranks_need_six_data_sets(tmp_path):
    sets = "[digits-500, cifar10, cifar100, stl10, imagenet32, cifar10-jpeg]"
    profile = ONE_TABLE.replace("[digits-500]", sets).replace("[uniform20]", "[clean, uniform20]")
    study = fabricated.make_study(tmp_path, profile)
    fabricated.write_results(study, errors=ordered)
    built = build(study)
    (ranks,) = built.report.tables[0].ranks
    assert (ranks.friedman.blocks, ranks.friedman.average_ranks) == (6, (3, 2, 1))
    assert ranks.friedman.statistic == pytest.approx(12)  # 12 N / (k (k+1)) * sum (R - 2)^2 = 12*6/12*2
    assert (built.folder / "figures" / "graphs-ranks-1.svg").exists()


def test_one_condition_has_no_ranks(built):
    assert built.report.tables[0].ranks[0].friedman.p is None
    assert "not computed (1 of at least 6 blocks" in (built.folder / "graphs.md").read_text()


def test_methods_without_spread_get_no_interval_and_no_p(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE)
    fabricated.write_results(study, errors=lambda run: 0.1)
    built = build(study)
    assert rows_of(built)["simple-2"].holm_p is None
    page = (built.folder / "graphs.md").read_text()
    short, line = [line for line in page.splitlines() if line.startswith("| simple-2") and "10.00" in line][:2]
    assert [cell.strip() for cell in short.strip("|").split("|")][2:] == ["0.00", "–"]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:8] == ["10.00 ± 0.00", "–", "6", "0.00", "–", "–", "1.000"]
    assert "nan" not in page.lower()


# -------------------------------------------------------------------------------------------- CSV, JSON, terminal


def test_csv_holds_the_unrounded_numbers_and_every_run(built):
    folder = built.folder
    row = next(row for row in csv_rows(folder / "graphs.csv") if row["method"] == "label-smoothing")
    assert float(row["difference"]) == pytest.approx(1 / 3, abs=1e-9)
    assert (row["dataset"], row["noise"], row["n"], row["holm_family_size"]) == ("digits-500", "uniform20", "6", "2")
    runs = csv_rows(folder / "runs.csv")
    assert len(runs) == 18
    one = next(row for row in runs if row["method"] == "simple-2" and row["seed"] == "4")
    assert float(one["error_last"]) == pytest.approx(11) and float(one["error_best_epoch"]) == pytest.approx(10)
    assert [float(error) for error in one["error_of_heads"].split()] == pytest.approx([11, 10.8])


def test_report_json_is_the_report(built):
    assert read_json(built.folder / "report.json", Report) == built.report


def test_the_terminal_shows_every_row_and_where_the_rest_lies(study):
    with pytest.raises(ResultError, match="no report of 'small' yet"):
        terminal_summary(study.workspace)
    built = build(study)
    text = terminal_summary(study.workspace)
    assert (
        "digits, 500 training images, split drawn per seed, 20 % uniform noise" in text
        and str(built.folder / "README.md") in text
    )
    line = next(line for line in text.splitlines() if line.startswith("simple-2"))
    assert line.split() == [
        "simple-2",
        "10.50",
        "±",
        "1.05",
        "[9.40,",
        "11.60]",
        "6",
        "−2.00",
        "[−2.94,",
        "−1.06]",
        "0.006",
    ]
    assert max(map(len, text.splitlines())) <= 120 + len(str(built.folder))


@pytest.mark.slow
def test_the_terminal_fits_its_width(tmp_path, monkeypatch):
    study = study_in(tmp_path)
    declare(study, claim(statement="Collaborative learning is better than individual learning of the same network.",
                         compare=[{"method": "simple-2", "baseline": "individual"}]))  # fmt: skip
    build(study)
    said = "supported Collaborative learning is better than individual learning of the same network. [song2018]"
    for width in (60, 80, 120):
        text = terminal_summary(study.workspace, width=width)
        lines = [line for line in text.splitlines() if not line.startswith("The whole report: ")]
        assert max(map(len, lines)) <= width
        assert said in " ".join(text.split())
        row = next(index for index, line in enumerate(lines) if line.startswith("simple-2") and "10.50" in line)
        assert "−2.00" in lines[row] and "[−2.94, −1.06]" in lines[row] + lines[row + 1]
        monkeypatch.setenv("COLUMNS", str(width))
        assert terminal_summary(study.workspace) == text


def test_the_overview_crosses_methods_and_conditions_and_its_links_lead_somewhere(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE.replace("[uniform20]", "[clean, uniform20]"))
    fabricated.write_results(study, errors=by_hand)
    fabricated.write_measured(study)
    build(study)
    accept(study.workspace)
    text = (study.workspace.accepted_report / "README.md").read_text()
    grid, folded = text.split("## Training graphs")[1].split("<details>")
    rows = [line.replace("\u00a0", " ").split("|")[1:-1] for line in grid.splitlines() if line.startswith("| ")]
    cells = {name.strip(): [cell.strip() for cell in row] for name, *row in rows}
    assert cells["simple-2"] == ["**10.50 (−2.00)** ✱", "**10.50 (−2.00)** ✱"]
    assert next(iter(cells)) == "Method" and list(cells)[1:] == ["simple-2", "individual (baseline)", "label-smoothing"]
    short = [line for line in folded.replace("\u00a0", "~").splitlines() if line.startswith("| simple-2")]
    assert len(short) == 2 and "**−2.00~[−2.94,~−1.06]**~✱" in short[0] and "**clean labels**" in folded
    for page in study.workspace.accepted_report.rglob("*.md"):
        links = [part.split(")")[0] for part in page.read_text().split("](")[1:]]
        assert links or page.parent.name == "costs"
        for link in links:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


# ------------------------------------------------------------------------------------------------------ refusals


def test_missing_failed_and_damaged_runs_are_named_and_nothing_is_written(study):
    runs = fabricated.cell_runs(study)
    gone, failed, damaged = runs[0], runs[7], runs[13]
    for run in (gone, failed):
        (study.workspace.folder(run) / RESULT).unlink()
    fabricated.write_failure(study, failed, "the loss 'hard' is not finite in epoch 3")
    path = study.workspace.folder(damaged) / RESULT
    path.write_text(path.read_text().replace('"parameters": 77000', '"parameters": 77001'))
    with pytest.raises(ResultError) as caught:
        build(study)
    first, missing = str(caught.value).split(". Missing: ")
    assert "lacks 3 of 18 runs" in first
    assert missing.startswith(f"{gone.configuration.label}, seed {gone.seed} ({gone.id}): not run; ")
    assert f"({failed.id}): failed: the loss 'hard' is not finite in epoch 3" in str(caught.value)
    assert f"({damaged.id}): " in str(caught.value) and "checksum differs" in str(caught.value)
    assert not study.workspace.report.exists() and not study.workspace.costs.exists()


def test_many_missing_runs_are_counted(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE)
    with pytest.raises(ResultError) as caught:
        build(study)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.count(": not run") == 10 and message.endswith("; and 8 more")


def test_a_partial_report_goes_elsewhere_shows_n_and_pairs_the_seeds_that_both_have(study):
    runs = [run for run in fabricated.cell_runs(study) if (run.configuration.names["method"], run.seed) in
            {("individual", 0), ("simple-2", 1)}]  # fmt: skip
    for run in runs:
        (study.workspace.folder(run) / RESULT).unlink()
    built = build(study, partial=True)
    assert built.folder == study.workspace.home / "partial-report" and not study.workspace.report.exists()
    row = rows_of(built)["simple-2"]
    assert row.seeds == (0, 2, 3, 4, 5) and row.missing == 1
    assert row.difference.n == 4 and row.difference.difference == pytest.approx(-(3 + 1 + 2 + 3) / 4)
    page = (built.folder / "graphs.md").read_text()
    assert "5 of 6" in page and "artial" in page
    overview = (built.folder / "README.md").read_text()
    assert "2 of 18 runs are missing" in overview
    assert f"(`{runs[0].configuration.id}`), seed {runs[0].seed}: not run" in overview
    assert "5 of 6" in page and "(partial)" in terminal_summary(study.workspace, partial=True)


def test_a_partial_report_of_nothing_is_possible(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE.replace("[uniform20]", "[clean, uniform20]"))
    assert "18" in (build(study, partial=True).folder / "README.md").read_text()


def test_runs_that_the_plan_does_not_ask_for_are_never_read(study):
    (study.workspace.runs / "left-over" / "seed-0").mkdir(parents=True)
    (study.workspace.runs / "left-over" / "seed-0" / RESULT).write_text("not a result")
    assert build(study).report.runs == 18


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset_digest": "b" * 64}, "data set"),
        ({"test_images": 360}, "number of test images"),
        ({"noise": fabricated.NoiseRealised(kind="uniform", rate=0.2, corruption=0.17)}, "share of wrong labels"),
    ],
)
def test_runs_on_other_images_or_labels_are_not_compared(study, changes, named):
    run = fabricated.cell_runs(study)[8]
    path = study.workspace.folder(run) / RESULT
    write_json(path, fabricated.result_of(run, by_hand(run), **changes))
    with pytest.raises(ResultError, match=f"table 'graphs'.*{named}.*{run.id}"):
        build(study)


def test_runs_on_different_devices_are_not_compared(study):
    runs = fabricated.cell_runs(study)
    fabricated.write_measured(study, runs[:9])
    build(study)
    fabricated.write_measured(study, runs[9:10], device_type="cuda", device="a GPU")
    with pytest.raises(ResultError, match=f"device type differs: cpu in .*, cuda in {runs[9].id}"):
        build(study)
    with pytest.raises(ResultError, match="device type differs"):
        build(study, partial=True)


# --------------------------------------------------------------------------------------------------------- files


def test_the_same_results_give_the_same_bytes_and_another_result_other_ones(study):
    fabricated.write_measured(study)
    built = build(study)
    before = files_of(built.folder) | {f"costs/{name}": data for name, data in files_of(built.costs).items()}
    assert {"README.md", "graphs.md", "graphs.csv", "runs.csv", "report.json", "costs/costs.csv"} <= before.keys()
    kinds = {name.rsplit("-", 1)[-1] for name in before if name.startswith("figures/")}
    assert kinds == {"curves.svg", "differences.svg", "heads.svg"}
    built = build(study)
    after = files_of(built.folder) | {f"costs/{name}": data for name, data in files_of(built.costs).items()}
    assert before == after
    fabricated.write_results(study, fabricated.cell_runs(study)[:1], errors=lambda run: 0.2)
    changed = files_of(build(study).folder)
    assert [name for name in changed if name.endswith("md") and changed[name] != before[name]]


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_process(study):
    import subprocess

    before = files_of(build(study).folder)
    code = (
        "from pathlib import Path; from collabench.study.study import load_study; from collabench.report.build import "
        "build_report; "
        f"s = load_study(Path({str(study.workspace.root)!r}), 'small'); build_report(s.params, s.plan, s.workspace)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"})
    assert files_of(study.workspace.report) == before


def test_the_report_does_not_depend_on_what_was_measured(study):
    before = files_of(build(study).folder)
    fabricated.write_measured(study)
    assert files_of(build(study).folder) == before


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    target = tmp_path / "report"
    for content in ("old", "new"):
        with whole_folder(target) as folder:
            (folder / "page.md").write_text(content)
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "page.md").write_text("half")
        raise RuntimeError
    assert files_of(tmp_path) == {"report/page.md": b"new"}


def test_compare_names_table_row_column_and_both_values_and_accept_ends_it(study):
    with pytest.raises(ResultError, match="no report"):
        accept(study.workspace)
    fabricated.write_measured(study)
    build(study)
    assert compare(study.workspace) == ["reports/small: nothing is accepted yet"]
    accept(study.workspace)
    assert compare(study.workspace) == []
    accepted = files_of(study.workspace.accepted_report)
    assert (
        "costs/README.md" in accepted and accepted["graphs.md"] == (study.workspace.report / "graphs.md").read_bytes()
    )

    changed = next(
        run for run in fabricated.cell_runs(study) if run.id.endswith("s5") and fabricated.heads_of(run) == 2
    )
    fabricated.write_results(study, [changed], errors=lambda run: 0.18)
    build(study)
    lines = compare(study.workspace)
    where = "digits-500 · uniform20 · resnet8 · forty · simple-2"
    assert f"graphs.csv: {where}: error_last_mean: 10.5 → 11.5" in lines
    assert f"runs.csv: {where} · seed 5: error_last: 12 → 18" in lines
    assert files_of(study.workspace.accepted_report) == accepted  # comparing changes nothing
    accept(study.workspace)
    assert compare(study.workspace) == []


def test_compare_leaves_the_costs_out_and_sees_new_rows_files_and_figures(study):
    fabricated.write_measured(study)
    build(study)
    accept(study.workspace)
    fabricated.write_measured(study, train_seconds=999.0)
    build(study)
    assert compare(study.workspace) == []
    accepted = study.workspace.accepted_report
    text = (accepted / "graphs.csv").read_text()
    (accepted / "graphs.csv").write_text(
        "\n".join(line for line in text.splitlines() if ",simple-2," not in line) + "\n"
    )
    figure = next((accepted / "figures").iterdir())
    figure.write_text(figure.read_text() + "<!-- -->")
    (accepted / "dropped.md").write_text("")
    lines = compare(study.workspace)
    assert "graphs.csv: digits-500 · uniform20 · resnet8 · forty · simple-2: row is new" in lines
    assert "dropped.md: only in the accepted report" in lines
    assert any(line.startswith("figures: 1 are drawn differently") for line in lines)


# --------------------------------------------------------------------------------------------------------- costs


def test_costs_are_relative_to_the_baseline_and_an_ensemble_pays_for_its_members(tmp_path):
    study = fabricated.make_study(tmp_path, ONE_TABLE.replace("label-smoothing", "ensemble-2"))
    fabricated.write_results(study)
    fabricated.write_measured(study)
    rows = {row["method"]: row for row in csv_rows(build(study).costs / "costs.csv")}
    # Seeds 0 to 5 take 10 to 15 s a head; an ensemble's second member, seed 100000 + s, takes 10 + s as well.
    assert float(rows["individual"]["train_seconds"]) == pytest.approx(12.5)
    assert float(rows["simple-2"]["train_seconds_relative"]) == pytest.approx(2)
    assert float(rows["ensemble-2"]["train_seconds_relative"]) == pytest.approx(2)
    assert float(rows["simple-2"]["images_per_second_relative"]) == pytest.approx(0.5)
    assert float(rows["simple-2"]["peak_memory_bytes_relative"]) == pytest.approx(500 / 450)


def test_costs_say_what_was_not_measured_here(study):
    measured = [run for run in fabricated.cell_runs(study) if fabricated.heads_of(run) == 1]
    fabricated.write_measured(study, measured)
    page = (build(study).costs / "README.md").read_text()
    assert "not measured here" in next(line for line in page.splitlines() if line.startswith("| simple-2"))
    assert "a processor" in page and "torch 2.13.0" in page


# ------------------------------------------------------------------------------------------------ published values


def test_a_measured_value_stands_beside_a_published_one_only_of_its_own_configuration(study):
    names = {"dataset": "digits-500", "noise": "uniform20", "model": "resnet8", "recipe": "forty"}
    same = resolve(study.params, **names, method="simple-2")
    others = [
        resolve(study.params, **{**names, part: other}, method="simple-2")
        for part, other in (("dataset", "digits"), ("noise", "uniform20-per-epoch"), ("recipe", "smoke"))
    ]
    values = [PublishedValue(same, 10.6, "Table I")]
    values += [PublishedValue(other, 99.0, "elsewhere") for other in others]
    built = build(study, published=values)
    (published,) = rows_of(built)["simple-2"].published
    assert published.comparison.verdict == "agrees" and published.comparison.difference == pytest.approx(-0.1)
    page = (built.folder / "graphs.md").read_text()
    assert "10.60 (Table I): agrees" in page and "elsewhere" not in page
    result = fabricated.result_of(fabricated.cell_runs(study)[0], 0.1)
    with pytest.raises(ValueError, match="is not a run of"):
        stand_beside(values[0], [result])


def test_a_published_best_epoch_is_compared_with_the_best_epoch_and_an_unknown_value_with_nothing(study):
    simple = next(run.configuration for run in fabricated.cell_runs(study) if fabricated.heads_of(run) == 2)
    values = [
        PublishedValue(simple, 9.5, "Table I", protocol="best"),
        PublishedValue(simple, None, "Figure 2"),
    ]
    best, unknown = rows_of(build(study, published=values))["simple-2"].published
    assert best.comparison.difference == pytest.approx(0)
    assert unknown.comparison is None
    assert "not in our sources (Figure 2)" in (study.workspace.report / "graphs.md").read_text()


# --------------------------------------------------------------------------------------------------------- titles


def test_titles_name_the_scope(study):
    def title(**changes):
        names = {"dataset": "digits", "noise": "clean", "model": "resnet8", "recipe": "smoke", **changes}
        return ", ".join(titles.scope(resolve(study.params, **names, method="individual")))

    assert title() == "digits, clean labels, ResNet-8 (width 16), 2 epochs, portable arithmetic"
    assert title(dataset="cifar10-jpeg-5000").startswith("CIFAR-10 (JPEG), 5,000 training images")
    assert "ResNet-18 (width 64)" in title(dataset="cifar10-jpeg-5000", model="resnet18")
    assert "VGG-16 (width 128)" in title(dataset="cifar10-jpeg-5000", model="vgg16-2x")
    assert "vgg16-small (width 16)" in title(model="vgg16-small")
    assert "30 % uniform noise, images and labels drawn anew every epoch" in title(noise="uniform30-per-epoch")
    fixed = "50 % uniform noise, labels drawn anew every epoch, always for the same images"
    assert fixed in title(noise="uniform50-per-epoch-fixed")
    assert "40 % asymmetric noise, ResNet" in title(noise="asymmetric40")  # every class flips
    assert "40 % asymmetric noise of the 5 classes that flip" in title(noise="asymmetric40", dataset="cifar10")
    folder = title(noise="asymmetric40", dataset="cifar10-jpeg-5000")  # whose files name the classes
    assert "40 % asymmetric noise of the classes that flip" in folder
    assert "labels of CIFAR-10_human.pt (worse_label), ResNet" in title(noise="cifar10n-worst", dataset="cifar10")


def test_pages_say_what_the_rate_of_asymmetric_noise_counts():
    realised = {"corruption": 20.0, "corruption_low": 20.0, "corruption_high": 20.0}
    noise = Noise(
        kind="asymmetric", when="static", drawn=titles.drawn(NoiseConfig(kind="asymmetric", rate=0.4)), rate=40.0,
        flips={"a|b": "cat"}, classes=4, **realised,
    )  # fmt: skip
    condition = Condition(
        title="t", scope=("d", "n", "m", "r"), names={}, baseline=None, family="f", family_size=0, train_images=None,
        test_images=None, noise=noise, rows=(),
    )  # fmt: skip
    assert overview._noise(condition) == (
        "Label noise: asymmetric, drawn once for each seed; asked for: 40 % of the images of the 1 of 4 classes that "
        "flip (a\\|b → cat); realised: 20.00 % of the training labels are wrong (mean over runs; 20.00 to 20.00 %)."
    )


def test_readings_stand_beneath_every_table(built):
    page = (built.folder / "graphs.md").read_text()
    assert "simple-2: the consensus is a constant; the available texts do not say whether gradients flow" in page
    shown = [("b", ("one",)), ("a", ("one", "two")), ("b", ("one",))]
    assert tables.told_readings(shown) == ["b, a: one.", "a: two."]


def test_numbers_are_formatted_without_a_negative_zero():
    assert [tables.number(-0.001), tables.number(-1.005), tables.number(None)] == ["0.00", "−1.00", "–"]
    assert tables.number(2.5, signed=True) == "+2.50"
    assert [tables.p_value(0.0004), tables.p_value(0.0312), tables.p_value(None)] == ["< 0.001", "0.031", "–"]


def test_report_json_is_plain_json_with_ten_digits(built):
    body = json.loads((built.folder / "report.json").read_text())
    value = body["tables"][0]["conditions"][0]["rows"][1]["difference"]["difference"]
    assert value == 0.3333333333


# ---------------------------------------------------------------------------------------------------- provenance


def test_explain_leads_from_a_cell_to_its_runs(study):
    runs = fabricated.cell_runs(study)
    fabricated.write_measured(study, [run for run in runs if run.seed != 3])
    gone = next(run for run in runs if run.configuration.names["method"] == "simple-2" and run.seed == 5)
    (study.workspace.runs / gone.configuration.id / "seed-5" / RESULT).unlink()
    fabricated.write_failure(study, gone, "the loss is not finite")
    for words in ("graphs simple-2", "digits-500/uniform20/simple-2", gone.configuration.id):
        short = explain_cells(study.plan, study.workspace, words)
        text = explain_cells(study.plan, study.workspace, words, runs=True)
        assert text.count("configuration digits-") == 1 and gone.configuration.id in text
    lines = text.splitlines()
    *cell, last = short.splitlines()
    assert lines[: len(cell)] == cell and "commit" not in "".join(cell)
    assert cell[2] == "by seed: 0: 9.00, 1: 10.00, 2: 11.00, 3: 10.00, 4: 11.00"
    assert last == "6 runs, 1 of them missing; files, versions, device and commit of each: --runs"
    assert "  seed 5: failed: the loss is not finite" in lines
    assert sum(line.startswith("test error after the last epoch: ") and line.endswith(" %, n 5") for line in lines) == 1
    assert not any(line.startswith("published") for line in lines)  # no paper's table
    assert any(
        line.startswith("  seed 2: last epoch 11.00 %, best epoch 10.00 % (optimistic); artifacts/") for line in lines
    )
    assert sum("a processor (cpu); python 3.12.3, torch 2.13.0; commit 0123456789ab" in line for line in lines) == 4
    assert lines.count("    not measured here") == 1
    assert any('"epochs": 40' in line for line in lines)
    with pytest.raises(ConfigError, match=r"no cell of 'small' has all of 'simple-9'; names: .*simple-2"):
        explain_cells(study.plan, study.workspace, "simple-9")


def test_explain_names_the_runs_that_an_ensemble_rests_on(tmp_path):
    made = fabricated.make_study(tmp_path, ONE_TABLE.replace("label-smoothing, simple-2", "ensemble-2"))
    fabricated.write_results(made, errors=lambda run: (5 + run.data_seed) / 100)
    lines = explain_cells(made.plan, made.workspace, "ensemble-2", runs=True).splitlines()
    found = [line.strip() for line in lines if line.startswith("    rests on seed ")]
    member = next(
        cell.configuration.id for cell in made.plan.cells if cell.configuration.names["method"] == "individual"
    )
    assert found == [
        f"rests on seed {seed}: artifacts/small/runs/{member}/seed-{seed}/result.json"
        + ("" if (made.workspace.runs / member / f"seed-{seed}" / RESULT).exists() else " (not here)")
        for one in range(6)
        for seed in (one, member_seed(one, 1))
    ]
