"""Results as data frames: the numbers of the files, and one line where there is none."""

from __future__ import annotations

import subprocess
import sys

import pandas
import pytest

import collabench
from collabench.config.configuration import Run
from collabench.core.errors import ConfigError, ResultError
from collabench.report.accepted import accept
from collabench.report.build import build_report
from collabench.storage.results import load_result
from collabench.study.study import load_study
from tests.support.project import ROOT, environment
from tests.support.studies import write_params


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


CALL = """
import sys
import collabench
for call in (lambda: collabench.load_runs(sys.argv[1], "small", partial=True),
             lambda: collabench.configuration(sys.argv[1], dataset="few", model="small", recipe="short", method="own")):
    try:
        print(type(call()).__name__)
    except collabench.CollabenchError as error:
        print(error)
"""


@pytest.mark.parametrize(
    "begun",
    ["in another project", *(pytest.param(other, marks=pytest.mark.slow) for other in ("in the project", "elsewhere"))],
)
def test_a_method_of_the_project_is_its_own_wherever_python_begins(tmp_path, begun):
    """Else another project's method of the same name would be trained, or nobody said why there is none."""
    folders = [tmp_path / "mine", tmp_path / "other"]
    for folder in folders:
        write_params(folder)
        path, code = folder / "params.yaml", (ROOT / "src/collabench/study/new_project/mine.py.txt").read_text()
        path.write_text(path.read_text().replace("methods:\n", "methods:\n  own: {method: owned}\n", 1))
        (folder / "collabench_methods").mkdir()
        (folder / "collabench_methods" / "owned.py").write_text(code.replace('Literal["mine"]', 'Literal["owned"]'))
    where = {"in the project": folders[0], "elsewhere": tmp_path, "in another project": folders[1]}[begun]
    done = subprocess.run(
        [sys.executable, "-c", CALL, folders[0]], cwd=where, env=environment(ROOT), text=True, capture_output=True
    )
    file = folders[0] / "collabench_methods" / "owned.py"
    other = folders[1] / "collabench_methods" / "owned.py"
    if begun == "in the project":
        assert done.stdout.split() == ["DataFrame", "Configuration"], done
        return
    said = f"{file}: is not found" + (f": {other} has its name" if begun == "in another project" else "") + ", since"
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith(said), done
    assert first.endswith(f"put {folders[0]} on PYTHONPATH before Python begins")
