"""The comparison of a report with the accepted one: the lines that a person reads."""

from __future__ import annotations

import json
import re

import pytest

from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.report.comparison import compare_reports
from collabench.report.folders import CONTENT
from tests.support import fabricated

TABLE = """\
  small:
    description: two methods against one
    seeds: 6
    tables:
      - {name: graphs, title: Training graphs, datasets: [digits-500], noise: [uniform20], models: [resnet8],
         recipes: [forty], methods: [individual, label-smoothing, simple-2]}
"""
PERCENT = {"individual": 10.0, "label-smoothing": 11.0, "simple-2": 9.0}


def errors(shift: dict[str, float], spread: float = 0.3):
    def of(run):
        method = run.configuration.names["method"]
        return (PERCENT[method] + shift.get(method, 0.0) + spread * (run.seed % 3)) / 100

    return of


@pytest.fixture
def study(tmp_path):
    made = fabricated.make_study(tmp_path, TABLE)
    fabricated.write_results(made, errors=errors({}))
    fabricated.write_measured(made)
    build_report(made.params, made.plan, made.workspace)
    accept(made.workspace)
    return made


def compared(study, of):
    fabricated.write_results(study, errors=of)
    build_report(study.params, study.plan, study.workspace)
    return compare_reports(study.workspace)


def test_equal_runs_are_said_to_be_equal_byte_for_byte(study):
    found = compared(study, errors({}))
    assert found.lines == ("All 18 runs equal the accepted ones, byte for byte.",) and found.same_bytes


def test_other_words_for_the_same_numbers_are_told_from_other_numbers(study):
    page = study.workspace.accepted_report / "README.md"
    page.write_text(page.read_text() + "An older version said this.\n")
    found = compared(study, errors({}))
    assert found.lines == (
        "All numbers of 18 runs equal the accepted ones. Another version wrote the rest: texts differ: README.md.",
    )  # fmt: skip
    assert not found.same_bytes


def test_cells_that_differ_by_luck_agree_and_those_that_differ_by_more_are_named(study):
    def other(run):
        luck = 0.4 * (-1) ** run.seed if run.configuration.names["method"] == "label-smoothing" else 0.0
        worse = 2.0 + 0.01 * run.seed if run.configuration.names["method"] == "simple-2" else 0.0
        return errors({})(run) + (luck + worse) / 100

    found = compared(study, other)
    cells, largest, cause = found.lines[-3:]
    assert cells.startswith("Cells: 1 of 3 have equal errors, 1 agree within the randomness of training")
    assert "1 differ by more" in cells and "simple-2" in cells
    assert largest.startswith("Largest change of a mean: +2.0") and "simple-2" in largest
    assert cause == "Likely cause: unknown: settings, devices, versions and commits are the same."


def test_seeds_that_claims_have_used_since_are_a_cause(study):
    path = study.workspace.accepted_report / CONTENT
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"further_runs": 1200}))
    found = compared(study, errors({"simple-2": 1.0}))
    assert found.lines[-1] == (
        "Likely cause: claims were tested with 0 further runs beside the tables, before with 1,200."
    )
    assert not found.same_bytes and any("error_last" in line for line in found.details)


def test_the_cause_is_taken_from_the_records(study):
    fabricated.write_measured(study, device="another processor")
    found = compared(study, errors({"simple-2": 1.0}))
    assert found.lines[-1].startswith("Likely cause: devices: ") and "another processor (cpu)" in found.lines[-1]


def test_other_settings_are_a_cause(study):
    """As after another file of labels, or another photo, under the same name."""
    path = study.workspace.accepted_report / "runs.csv"
    text = path.read_text()
    (configuration,) = {name for name in re.findall(r",([a-z0-9-]*)-s\d+,", text) if "-song2018-" in name}
    path.write_text(text.replace(configuration, f"{configuration[:-4]}0000"))
    found = compared(study, errors({"simple-2": 1.0}))
    assert found.lines[-1].startswith("Likely cause: other settings of ") and "simple-2" in found.lines[-1]
    assert "individual" not in found.lines[-1]


def changed_in_accepted(study, column: str, change) -> None:
    """Change a number of the first row of the accepted table."""
    path = study.workspace.accepted_report / "graphs.csv"
    head, *rows = path.read_text().splitlines()
    place = head.split(",").index(column)
    cells = rows[0].split(",")
    cells[place] = change(cells[place])
    path.write_text("\n".join([head, ",".join(cells), *rows[1:]]) + "\n")


def test_data_sets_that_are_not_prepared_are_a_cause(study):
    """As in a clone that has fetched the results: intervals over test images need the images' labels."""
    changed_in_accepted(study, "error_low_over_seeds_and_images", lambda empty: empty + "9.5")
    found = compare_reports(study.workspace)
    assert found.lines[-1].startswith(
        "Likely cause: intervals over seeds and test images need the data sets, which are"
    )
    assert found.lines[-1].endswith(f": collabench data prepare -p {study.workspace.profile}.")


def test_rounding_of_likelihoods_is_no_news(study):
    changed_in_accepted(study, "negative_log_likelihood_mean", lambda cell: repr(float(cell) * (1 + 1e-7)))
    (line,) = compare_reports(study.workspace).lines
    assert line.startswith("All 18 runs agree with the accepted ones") and "rounding" in line
