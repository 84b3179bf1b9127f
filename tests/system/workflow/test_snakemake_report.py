"""What `snakemake --report` shows: the files, from a report whose figures are worked out by hand, and a real report of
the study of `test_smoke.py`'s kind in a scratch copy of this project."""

from __future__ import annotations

import base64
import html
import json
import re
import sys

import pytest

from collabench.core.errors import CollabenchError
from collabench.report.build import build_report
from pipeline import plan
from pipeline.shown import files_to_show
from tests.support.declared_claims import claim, declare, study_in
from tests.support.project import call, collabench, copy_project

HOSTILE = "<script>alert(1)</script> & |"
PROFILE = """\
  seen:
    description: two methods, to be shown
    seeds: 2
    tables:
      - {name: few, title: A few, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke],
         methods: [individual, label-smoothing]}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = study_in(tmp_path_factory.mktemp("shown"))
    params = made.workspace.params
    params.write_text(params.read_text().replace("name: all,", f"name: all, title: {json.dumps(HOSTILE)},"))
    from collabench.study.study import load_study

    made = load_study(made.workspace.root, "small")
    declare(made, claim(compare=[{"method": "simple-2", "baseline": "individual"}], statement=HOSTILE))
    build_report(made.params, made.plan, made.workspace)
    return made


def test_a_report_has_the_page_errors_verdicts_figures_and_numbers(study):
    files = files_to_show(study)
    assert all(one.path.is_file() for one in files)
    names = {one.category: [f.path.name for f in files if f.category == one.category] for one in files}
    assert list(names) == ["All profiles on one page", "Claims", "Errors", "Figures", "Numbers (CSV)"]
    assert names["Claims"] == ["verdicts.html", "claims.svg"] and names["Errors"] == ["errors-all.html"]
    assert names["Numbers (CSV)"] == ["all.csv", "claims.csv", "runs.csv"]
    figures = [one.labels for one in files if one.category == "Figures"]
    conditions = {one["condition"] for one in figures}
    assert len(conditions) == 4 and {one["shows"] for one in figures} >= {"training curves", "error against noise"}
    assert sum(one["shows"] == "training curves" for one in figures) == 3


def test_its_tables_have_the_figures_of_the_report_and_names_are_text(study):
    files = {one.path.name: one.path for one in files_to_show(study)}
    text = files["errors-all.html"].read_text()
    under = text[text.index("20 % uniform noise, ResNet") :]
    row = re.search(r"<td>simple-2</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", under)
    assert row and row.groups() == ("10.50 ± 1.05", "−2.00 [−2.94, −1.06] ✱")
    assert html.escape(HOSTILE) in text and "<script" not in text and "**" not in text
    verdicts = files["verdicts.html"].read_text()
    assert "1 test on 1 claim: 1 supported" in verdicts and "<script" not in verdicts
    assert '"name":"small (built here)"' in files["all-profiles.html"].read_text()


def test_without_a_report_there_is_nothing_to_show(tmp_path):
    with pytest.raises(CollabenchError, match="no report to show; first: snakemake --config profile=small"):
        files_to_show(study_in(tmp_path))


def test_a_report_is_asked_for_by_its_option_alone(study):
    assert plan.files_to_show(study, ["snakemake", "--report", "a.html"]) == files_to_show(study)
    assert plan.files_to_show(study, ["--report=a.zip"])
    assert plan.files_to_show(study, ["snakemake", "report", "--report-stylesheet", "a.css"]) == []
    with pytest.raises(CollabenchError, match="run first, then call --report alone"):
        plan.files_to_show(study, ["--report", "a.html", "--report-after-run"])


@pytest.mark.slow
def test_snakemake_makes_a_report_of_a_finished_study_and_runs_nothing(tmp_path):
    copy_project(tmp_path, PROFILE)
    snakemake = [sys.executable, "-m", "snakemake", "--config", "profile=seen", "--cores", "2"]
    early = call(tmp_path, *snakemake, "--report", "early.html", check=False)
    assert early.returncode != 0 and "there is no report to show" in early.stdout
    collabench(tmp_path, "run", "-p", "seen")
    call(tmp_path, *snakemake)
    said = call(tmp_path, *snakemake, "--report", "report.html").stdout
    assert "Report created" in said and "train_job" not in said
    report = (tmp_path / "report.html").read_text()
    for words in ("All profiles on one page", "Errors", "Figures", "training curves", "A few", "Numbers (CSV)"):
        assert words in report
    shown = b"".join(base64.b64decode(part) for part in re.findall(r"data:text/html[^\",]*;base64,([\w+/=]+)", report))
    assert b"label-smoothing" in shown and b"Test error %" in shown
    assert "Nothing to be done" in call(tmp_path, *snakemake, "--dry-run").stdout
