"""Results as data frames: the numbers of the files, and one line where there is none."""

from __future__ import annotations

import pandas
import pytest

import collabench
from collabench.config.configuration import Run
from collabench.core.errors import ConfigError, ResultError
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.storage.results import load_result
from collabench.study.study import load_study


@pytest.fixture
def reported(finished):
    study = load_study(finished, "small")
    build_report(study.params, study.plan, study.workspace)
    accept(study.workspace)
    return finished


def in_tables(study):
    return [Run(cell.configuration, seed) for cell in study.plan.cells for seed in cell.seeds]


def test_runs_are_those_of_the_results(finished):
    frame = collabench.load_runs(finished, "small")
    study = load_study(finished, "small")
    assert len(frame) == 8 and frame.run_id.is_unique
    for run in in_tables(study):
        (row,) = frame[frame.run_id == run.id].to_dict("records")
        assert row["error_last"] == 100 * load_result(study.workspace.folder(run), run).last.error
        assert (row["seed"], row["method"]) == (run.seed, run.configuration.names["method"])


def test_the_accepted_runs_are_the_same_to_ten_digits(reported):
    here, accepted = (collabench.load_runs(str(reported), "small", accepted=a) for a in (False, True))
    pandas.testing.assert_frame_equal(here, accepted, check_dtype=False, rtol=1e-9)


def test_curves_have_a_row_for_every_epoch(reported):
    frame = collabench.load_curves(reported, "small")
    assert len(frame) == 6 * 2, "two epochs of each run that trains; the ensembles train nothing"
    study = load_study(reported, "small")
    for run in in_tables(study):
        curves = load_result(study.workspace.folder(run), run).curves
        rows = frame[frame.run_id == run.id]
        assert rows.test_error.tolist() == [100 * error for error in curves.test_error]
        assert all(rows[f"loss_{name}"].tolist() == list(values) for name, values in curves.losses.items())
        assert rows.epoch.tolist() == list(range(1, 1 + len(curves.learning_rate)))
    accepted = collabench.load_curves(reported, "small", accepted=True)
    assert sorted(accepted.test_error) == pytest.approx(sorted(frame.test_error), abs=1e-4)


def test_verdicts_of_a_profile_without_claims_are_an_empty_table(reported):
    assert len(collabench.load_verdicts(reported, "small", accepted=True)) == 0


def test_verdicts_of_this_projects_report():
    from tests.support.project import ROOT

    frame = collabench.load_verdicts(ROOT, "default", accepted=True)
    rows = (ROOT / "reports" / "default" / "claims.csv").read_text().count("\n") - 1
    assert (frame.kind == "results").sum() == rows and {"claim", "scope", "verdict", "estimate"} <= set(frame.columns)
    assert set(frame.kind) == {"results", "costs"}


def test_missing_runs_are_an_error_unless_a_part_is_asked_for(finished):
    study = load_study(finished, "small")
    gone = in_tables(study)[0]
    (study.workspace.folder(gone) / "result.json").unlink()
    for load in (collabench.load_runs, collabench.load_curves):
        with pytest.raises(ResultError, match="lacks 1 of 8 runs"):
            load(finished, "small")
        assert gone.id not in set(load(finished, "small", partial=True).run_id)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: collabench.load_runs(root, "smal"), "there is no profile 'smal'"),
        (lambda root: collabench.load_runs(root / "none", "small"), "has no params.yaml; root must be the project's"),
        (lambda root: collabench.load_runs(root, "small", accepted=True), "collabench report --accept adopts a report"),
        (lambda root: collabench.load_curves(root, "small", accepted=True), "cells.json: does not exist"),
        (lambda root: collabench.load_verdicts(root, "small"), "does not exist; collabench report -p small builds it"),
    ],
)
def test_a_mistake_is_one_line(finished, call, message):
    with pytest.raises(collabench.CollabenchError) as error:
        call(finished)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert issubclass(ConfigError, collabench.CollabenchError)
