"""No command says that a study is done without having counted its results."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

from collabench.core.errors import CollabenchError
from collabench.study.study import load_study
from pipeline import plan
from tests.support import warm
from tests.support.running import PROFILE, environment, small_project, with_workflow
from tests.support.tiny import tiny_study, trained

COMMANDS = {
    "a stage": ["-m", "pipeline.snakemake", PROFILE, "train"],
    "snakemake": ["-m", "snakemake", "--config", f"profile={PROFILE}", "--", "train"],
    "a part": ["-c", warm.CODE, "reproduce", "-p", PROFILE, "--shard", "1/1"],
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_between_a_files_end_and_snakemakes_record_of_it_loses_nothing(tmp_path, command):
    """Snakemake takes a data set that is there, and whose job it has not seen end, for half-written: it makes it again,
    and for files of which only their order counts, nothing else."""
    folder = with_workflow(small_project(tmp_path / "project", epochs=2, methods="individual"))
    study = load_study(folder, PROFILE)
    study.inputs.prepare_datasets(lambda line: None)
    (path,) = study.workspace.datasets.glob("*/manifest.json")
    record = folder / ".snakemake" / "incomplete" / base64.b64encode(str(path.relative_to(folder)).encode()).decode()
    record.parent.mkdir(parents=True)
    record.write_text('{"external_jobid": null, "endtime": null}')
    variables = environment(folder)
    done = subprocess.run(warm.command([sys.executable, *COMMANDS[command]], variables), cwd=folder, env=variables,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert [status.state for status in load_study(folder, PROFILE).statuses()] == ["done"], done.stdout[-3000:]


@pytest.mark.parametrize("target", ["datasets", "noise", "train", "report"])
def test_each_target_counts_what_it_stands_for(tmp_path, target):
    study = tiny_study(tmp_path)
    with pytest.raises(CollabenchError, match=f"{target}: nothing failed, but it lacks . file"):
        plan.require_complete(study, [target])
    trained(study)
    if target == "report":
        for folder in (study.workspace.report, study.workspace.costs):
            folder.mkdir()
    plan.require_complete(study, [target, "another"])
