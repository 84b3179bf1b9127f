"""A study whose claims ask for further seeds ends with the same bytes, whatever stops it and whatever schedules it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collabench.storage.files import write_json
from collabench.storage.results import RESULT, Failure, load_measured
from collabench.study.blocks import UNTIL
from collabench.study.growth import round_in_progress
from collabench.study.study import Study, load_study
from tests.support import warm
from tests.support.growing import FIRST_SEED, LOOKS, THREE_LOOKS, growing_project
from tests.support.kills import wait_for_training
from tests.support.project import dvc, stages, use_remote
from tests.support.running import (
    COLLABENCH,
    PROFILE,
    Started,
    command,
    contents,
    differing,
    environment,
    finish,
    home,
    left_over,
    results,
)

pytestmark = pytest.mark.slow

REPRODUCE = ("reproduce", "--cores", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study that nothing has stopped."""
    folder = growing_project(tmp_path_factory.mktemp("whole") / "project", workflow=True)
    finish(folder, *REPRODUCE)
    return folder


def study_in(folder: Path) -> Study:
    return load_study(folder, PROFILE)


def states(study: Study) -> dict[str, tuple]:
    return {state.claim: (state.verdict, state.stopped, state.look, state.seeds) for state in study.claims}


def assert_same(folder: Path, whole: Path) -> None:
    assert differing(contents(folder), contents(whole)) == []
    assert left_over(folder) == []


def seeds_in(folder: Path) -> int:
    return len(list((home(folder) / "runs").glob(f"*/seed-*/{RESULT}")))


# ------------------------------------------------------------------------------------------------------ what grows


def test_only_undecided_claims_get_further_seeds_and_the_tables_show_none_of_them(whole):
    study = study_in(whole)
    seeds = {cell.configuration.names["method"]: cell for cell in study.plan.cells}
    numbers = study.plan.seeds_of()
    assert states(study)["no-gain-of-95"] == ("refuted", False, 1, LOOKS[0])
    assert len(numbers[seeds["mild"].configuration.id]) == LOOKS[0]
    assert len(numbers[seeds["kd"].configuration.id]) > LOOKS[0]
    assert not study.ahead and not any(state.open for state in study.claims)
    report = json.loads((home(whole) / "report" / "report.json").read_text())
    rows = [row for table in report["tables"] for part in table["conditions"] for row in part["rows"]]
    assert {row["error"]["n"] for row in rows} == {LOOKS[0]}
    assert report["further_runs"] == len(study.plan.runs) - len(study.plan.of_tables.runs) > 0
    assert report["open_tests"] == 0


def test_a_second_start_finds_nothing_to_do(whole):
    before, began = contents(whole), time.monotonic()
    output = finish(whole, *REPRODUCE)
    assert time.monotonic() - began < 60 and "round" not in output
    assert contents(whole) == before


def test_checks_cleanup_export_and_sharing_know_the_further_seeds(whole, tmp_path):
    assert "profile small: verified" in finish(whole, "verify", "--sample", "0")
    assert "0 entries" in finish(whole, "gc", "--dry-run")
    kd = next(c for c in study_in(whole).plan.configurations.values() if c.names["method"] == "kd")
    last = max(study_in(whole).plan.seeds_of()[kd.id])
    assert last >= FIRST_SEED + LOOKS[0]
    out = tmp_path / "out"
    finish(whole, "export", "--configuration", kd.id, "--seed", str(last), "--out", str(out))
    assert (out / "model.safetensors").exists()


# ------------------------------------------------------------------------------------------------------ what stops it


def in_round(folder: Path, number: int, started: Started) -> bool:
    """Wait until a round of this number is in progress; False if the study ends first."""
    workspace = study_in(folder).workspace
    while started.process.poll() is None:
        current = round_in_progress(workspace)
        if current is not None and current.number >= number:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("moment", "sent"),  # the other signal at each moment: test_kills.py, by chance
    [
        ("in the first round", signal.SIGKILL),
        ("as the second round begins", signal.SIGTERM),
        ("in the second round", signal.SIGKILL),
    ],
)
def test_a_kill_changes_nothing(whole, tmp_path, moment, sent):
    folder = growing_project(tmp_path / "project", workflow=True)
    started = Started(folder, command(*REPRODUCE))
    try:
        assert in_round(folder, 1 if moment == "in the first round" else 2, started)
        if moment != "as the second round begins":
            wait_for_training(started, folder)
        started.process.send_signal(sent)
        started.wait()
        assert started.wait_for_the_end_of_all(10) == []
    finally:
        started.kill_all()
    assert seeds_in(folder) < seeds_in(whole)
    finish(folder, *REPRODUCE)
    assert_same(folder, whole)
    assert (folder / "dvc.lock").read_bytes() == (whole / "dvc.lock").read_bytes()


def test_a_kill_of_run_in_its_second_round_changes_nothing(whole, tmp_path):
    folder = growing_project(tmp_path / "project")
    started = Started(folder, command("run", "--cores", "2"))
    try:
        while "round 2: " not in started.output:
            assert started.process.poll() is None
            time.sleep(0.05)
        wait_for_training(started, folder)
        started.process.send_signal(signal.SIGKILL)
        started.wait()
        assert started.wait_for_the_end_of_all(10) == []
    finally:
        started.kill_all()
    assert seeds_in(folder) < seeds_in(whole)
    finish(folder, "run", "--cores", "1")
    assert differing(results(folder), results(whole)) == [] and left_over(folder) == []


def test_hours_stop_it_and_it_goes_on(whole, tmp_path):
    folder = growing_project(tmp_path / "project", workflow=True)
    output = finish(folder, *REPRODUCE, **{UNTIL: "1"})
    assert "undecided claims that need more seeds: 2; collabench plan" in output
    study = study_in(folder)
    assert seeds_in(folder) == len(study.plan.of_tables.runs) and len(study.ahead) > 0
    report = json.loads((home(folder) / "report" / "report.json").read_text())
    assert report["open_tests"] == 2 and report["further_runs"] == 0
    assert "stopped before the next look of 2 tests" in (home(folder) / "report" / "README.md").read_text()
    assert "verified" in finish(folder, "verify", "--sample", "0")
    shutil.rmtree(folder / "reports")
    finish(folder, *REPRODUCE)
    assert_same(folder, whole)
    assert (folder / "dvc.lock").read_bytes() == (whole / "dvc.lock").read_bytes()


def test_hours_end_with_the_last_whole_block_that_fits(tmp_path):
    """One claim's runs are measured to take an hour each, the other claim's a second."""
    folder = growing_project(tmp_path / "project")
    finish(folder, "run", "--cores", "1", **{UNTIL: "1"})
    study = study_in(folder)
    for run in study.plan.of_tables.runs:
        path = study.workspace.measured_file(run)
        slow = run.configuration.names["method"] == "smoothed"
        measured = load_measured(path, run)
        write_json(path, measured.model_copy(update={"train_seconds": 3600.0 if slow else 1.0}))
    output = finish(folder, "run", "--cores", "1", "--hours", "0.5")
    numbers = {run.configuration.names["method"]: 0 for run in study.plan.runs}
    for run in study_in(folder).plan.runs:
        numbers[run.configuration.names["method"]] += (study.workspace.folder(run) / RESULT).exists()
    assert numbers["smoothed"] == LOOKS[0] and numbers["kd"] > LOOKS[0]
    assert "undecided claims that need more seeds: 1; no further block of seeds ends within 0.5 hours" in output


def test_hours_that_the_tables_exceed_train_nothing(tmp_path):
    folder = growing_project(tmp_path / "project")
    output = finish(folder, "run", "--hours", "0.0001", expect=2)
    assert "--hours 0.0001: the tables alone need about" in output
    assert seeds_in(folder) == 0
    assert "--hours 0: must be a number of hours above 0" in finish(folder, "run", "--hours", "0", expect=2)


def test_of_tables_that_take_longer_run_trains_the_first_looks_that_fit_and_reproduce_nothing(tmp_path):
    """One claim's configurations are measured to take a second a run, those of the other an hour."""
    folder = growing_project(tmp_path / "project", workflow=True)
    finish(folder, "run", "--cores", "1", "--seed", str(study_in(folder).plan.runs[0].seed), **{UNTIL: "1"})
    study = study_in(folder)
    for run in study.plan.of_tables.runs:
        if (study.workspace.folder(run) / RESULT).exists():
            path = study.workspace.measured_file(run)
            slow = run.configuration.names["method"] == "smoothed"
            measured = load_measured(path, run)
            write_json(path, measured.model_copy(update={"train_seconds": 3600.0 if slow else 1.0}))
    before = seeds_in(folder)
    assert "the tables alone need about" in finish(folder, "reproduce", "--hours", "0.5", expect=2)
    assert seeds_in(folder) == before
    output = finish(folder, "run", "--cores", "1", "--hours", "0.5")
    assert "within 0.5 hours:" in output and "the first looks of 2 tests, the cheapest first: " in output
    assert "to see the missing 2 runs" in output
    numbers = dict.fromkeys((run.configuration.names["method"] for run in study.plan.runs), 0)
    for run in study.plan.runs:
        numbers[run.configuration.names["method"]] += (study.workspace.folder(run) / RESULT).exists()
    assert numbers["kd"] == LOOKS[0] and numbers["smoothed"] == 1


# ------------------------------------------------------------------------------------------------- who schedules it


def call(folder: Path, *arguments: str) -> str:
    variables = environment(folder)
    done = subprocess.run(warm.command([sys.executable, *arguments], variables), cwd=folder, env=variables, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_bare_snakemake_trains_a_round_at_each_start_and_run_trains_them_all(tmp_path):
    """Of a study that grows twice."""
    folder = growing_project(tmp_path / "project", workflow=True, looks=THREE_LOOKS)
    rounds = 0
    while rounds == 0 or study_in(folder).ahead:
        output = call(folder, "-m", "snakemake", "--config", f"profile={PROFILE}")
        rounds += 1
        assert rounds <= len(THREE_LOOKS)
        assert ("start again" in output) == bool(study_in(folder).ahead)
    assert rounds == 3
    other = growing_project(tmp_path / "other", looks=THREE_LOOKS)
    assert "round 3: " in finish(other, "run", "--cores", "1")
    assert differing(results(folder), results(other)) == []
    assert states(study_in(folder)) == states(study_in(other))


def test_plain_dvc_gives_the_same_bytes(whole, tmp_path):
    folder = growing_project(tmp_path / "project", workflow=True)
    call(folder, "-m", "dvc", "repro", f"report@{PROFILE}")
    assert_same(folder, whole)
    assert (folder / "dvc.lock").read_bytes() == (whole / "dvc.lock").read_bytes()


def test_two_hosts_share_it_and_go_on_when_they_have_each_others_results(whole, tmp_path):
    hosts = [growing_project(tmp_path / name, workflow=True) for name in ("one", "two")]
    for _ in LOOKS:
        for number, host in enumerate(hosts, 1):
            finish(host, *REPRODUCE, "--shard", f"{number}/2")
        for host, other in (hosts, reversed(hosts)):
            finish(host, "import", str(other))
    for host in hosts:
        assert states(study_in(host)) == states(study_in(whole))
        finish(host, *REPRODUCE)
        assert_same(host, whole)


def test_an_import_takes_all_seeds(whole, tmp_path):
    folder = growing_project(tmp_path / "project", workflow=True)
    output = finish(folder, "import", str(whole))
    assert f"{seeds_in(whole)} runs imported" in output and "the study is complete" in output
    assert "0 trained" in finish(folder, "run", "--cores", "2")
    finish(folder, *REPRODUCE)
    assert_same(folder, whole)


def test_a_pull_brings_every_seed(whole, tmp_path):
    remote = {"url": str(tmp_path / "remote")}
    shared = shutil.copytree(whole, tmp_path / "shared")
    use_remote(shared, remote)
    finish(shared, "share")
    clone = growing_project(tmp_path / "clone", workflow=True)
    shutil.copy(shared / "dvc.lock", clone / "dvc.lock")
    use_remote(clone, remote)
    dvc(clone, "pull", *stages(PROFILE))
    study = study_in(clone)
    assert states(study) == states(study_in(whole)) and not study.ahead
    finish(clone, *REPRODUCE)
    assert_same(clone, whole)


def test_on_a_cluster_hours_are_refused(tmp_path):
    folder = growing_project(tmp_path / "project", workflow=True)
    output = finish(folder, "reproduce", "--slurm", "--hours", "1", expect=2)
    assert "--hours: on a cluster the queue decides when a job begins; leave it out" in output


def test_a_run_that_fails_holds_up_only_the_claims_that_need_it(tmp_path):
    folder = growing_project(tmp_path / "project", workflow=True)
    study = study_in(folder)
    seed = FIRST_SEED + LOOKS[0]
    runs = [run for run in study.plan.possible if run.seed == seed]
    (smoothed,) = (run for run in runs if run.configuration.names["method"] == "smoothed")
    failure = Failure(run_id=smoothed.id, label="l", reason="diverged", when="2026-01-01T00:00:00+00:00")
    write_json(study.workspace.failure(smoothed.id), failure)
    output = finish(folder, *REPRODUCE, expect=1)
    assert "failed: digits-tiny · uniform20 · resnet8 · short · smoothed" in output
    found = {state.claim: state for state in study_in(folder).claims}
    assert not found["kd-lower"].open and found["kd-lower-than-smoothed"].open


def test_the_help_names_hours():
    for name in ("run", "reproduce"):
        command_line = [*COLLABENCH, name, "--help"]
        done = subprocess.run(command_line, text=True, stdout=subprocess.PIPE, env=environment(Path(".")))
        assert "--hours" in done.stdout
