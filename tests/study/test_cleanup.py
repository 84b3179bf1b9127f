"""What no table needs is listed and removed, or set aside before DVC records it; and nothing else."""

from __future__ import annotations

import os

import pytest

from collabench.storage.files import write_json
from collabench.storage.locks import holding
from collabench.storage.results import Failure
from collabench.study import cleanup
from collabench.study.runner import Runner
from collabench.study.study import load_study
from tests.support.studies import CLEAN_TABLE, write_params

WITHOUT_SMOOTHED = ("methods: [individual, smoothed, ensemble-2]", "methods: [individual, ensemble-2]")
ONE_SEED = ("seeds: 2\n    seeds_per_job", "seeds: 1\n    seeds_per_job")
WITHOUT_CLEAN = (CLEAN_TABLE, "")


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def changed(root, *changes):
    write_params(root, *changes)
    return load_study(root, "small")


def test_of_a_finished_study_everything_is_needed(finished, collabench):
    before = contents(finished)
    assert cleanup.surplus(load_study(finished, "small")) == []
    called = collabench("gc", "-p", "small", "--root", finished)
    assert (called.code, called.out, called.err) == (0, "0 entries, 0.0 MB removed\n", "")
    assert contents(finished) == before


def test_a_dry_run_lists_and_removes_nothing(finished, collabench):
    before = contents(finished)
    study = changed(finished, WITHOUT_SMOOTHED)
    before["params.yaml"] = (finished / "params.yaml").read_bytes()
    called = collabench("gc", "-p", "small", "--root", finished, "--dry-run")
    *listed, last = called.out.splitlines()
    assert called.code == 0 and contents(finished) == before
    assert last.startswith(f"{len(listed)} entries, ") and last.endswith(" MB would be removed")
    dropped = {path.parent.name for path in map(finished.joinpath, listed)}
    (name,) = dropped
    assert name not in study.plan.configurations and "individual" in name
    assert sum("/runs/" in line and "/seed-" in line for line in listed) == 2
    assert sum("/measured/" in line for line in listed) == 2
    assert sum(line.endswith(".done") for line in listed) == 1


def test_what_a_dropped_configuration_left_is_removed_and_the_others_stay(finished, collabench):
    before = contents(finished / "artifacts")
    study = changed(finished, WITHOUT_SMOOTHED)
    listed = collabench("gc", "-p", "small", "--root", finished, "--dry-run").out.splitlines()[:-1]
    removed = collabench("gc", "-p", "small", "--root", finished)
    assert removed.out.splitlines()[:-1] == listed
    after = contents(finished / "artifacts")
    assert after.items() < before.items()
    gone = {name.split("/")[2] for name in before.keys() - after.keys()}
    assert len(gone) == 1 and not gone & study.plan.configurations.keys()
    assert not (study.workspace.runs / gone.pop()).exists(), "no empty folder is left"
    assert {status.state for status in study.statuses()} == {"done"}
    assert collabench("gc", "-p", "small", "--root", finished).out == "0 entries, 0.0 MB removed\n"


def test_fewer_seeds_leave_runs_measurements_noise_and_a_marker(finished):
    study = changed(finished, ONE_SEED)
    found = cleanup.surplus(study)
    needed = {run.id for run in study.plan.runs}
    runs = [path for path in found if path.parent.parent == study.workspace.runs and path.is_dir()]
    assert runs and all(path.name in ("seed-1", "seed-100001") for path in runs)
    assert not {f"{path.parent.name}-s{path.name[5:]}" for path in runs} & needed
    assert any(path.suffix == ".done" for path in found), "a marker of other seeds is none of the plan's"
    assert {path.name for path in found if study.workspace.noise in path.parents} == {"seed-1.safetensors"}
    cleanup.remove(study, found)
    assert {status.state for status in study.statuses()} == {"done"}


def test_a_data_set_that_no_table_uses_any_longer_is_found(finished):
    study = changed(finished, WITHOUT_CLEAN)
    folders = [path for path in cleanup.surplus(study) if path.parent == study.workspace.datasets]
    assert len(folders) == 1 and folders[0].name not in study.inputs.dataset_keys()


def test_checkpoints_failures_and_estimates_of_dropped_runs_are_found_and_needed_ones_stay(finished):
    study = changed(finished, WITHOUT_SMOOTHED)
    workspace, needed = study.workspace, study.plan.runs[0].id
    for run_id in ("digits-gone-0123456789ab-s0", needed):
        workspace.checkpoint(run_id).parent.mkdir(parents=True, exist_ok=True)
        workspace.checkpoint(run_id).write_bytes(b"checkpoint")
        write_json(workspace.failure(run_id), Failure(run_id=run_id, label="x", reason="y", when="z"))
    estimates = workspace.state / "estimates"
    estimates.mkdir()
    for name in ("digits-gone-0123456789ab", study.plan.runs[0].configuration.id):
        (estimates / f"{name}.json").write_text("{}")
    state = [path.relative_to(workspace.state) for path in cleanup.surplus(study) if workspace.state in path.parents]
    assert sorted(map(str, state)) == [
        "checkpoints/digits-gone-0123456789ab-s0.ckpt",
        "estimates/digits-gone-0123456789ab.json",
        "failures/digits-gone-0123456789ab-s0.json",
    ]


def test_what_is_being_trained_just_now_is_left_alone(finished):
    study = changed(finished, WITHOUT_SMOOTHED)
    found = cleanup.surplus(study)
    run = next(path for path in found if path.name == "seed-0")
    with holding(study.workspace.lock(f"{run.parent.name}-s0"), "a run", lambda line: None):
        assert set(found) - set(cleanup.surplus(study)) == {
            run, study.workspace.measured / run.parent.name / "seed-0.json",
        }  # fmt: skip


def test_what_another_profile_has_linked_frees_nothing(finished):
    study = changed(finished, WITHOUT_SMOOTHED)
    found = cleanup.surplus(study)
    size = cleanup.size_of(found)
    assert size == sum(len(content) for path in found for content in _bytes(path))
    file = next(path for path in found if path.is_dir()) / "result.json"
    os.link(file, finished / "elsewhere")
    assert cleanup.size_of(found) == size - file.stat().st_size


def _bytes(path) -> list[bytes]:
    return list(contents(path).values()) if path.is_dir() else [path.read_bytes()]


# ------------------------------------------------------------------------------------------------------ set aside


def tracked_by_dvc(study) -> dict[str, bytes]:
    workspace = study.workspace
    folders = (workspace.datasets, workspace.noise, workspace.runs, workspace.measured)
    return {f"{folder.name}/{name}": data for folder in folders for name, data in contents(folder).items()}


@pytest.mark.parametrize("change", [WITHOUT_SMOOTHED, ONE_SEED, WITHOUT_CLEAN])
def test_what_dvc_records_is_what_the_tables_need(finished, change):
    study = changed(finished, change)
    before = tracked_by_dvc(study)
    told: list[str] = []
    moved = cleanup.set_aside(study, told.append)
    (line,) = told
    assert line.startswith(f"set aside in {study.workspace.aside.home}: {len(moved)} entries (")
    assert cleanup.tracked(study) == [] and cleanup.set_aside(study, told.append) == [] and len(told) == 1
    after = tracked_by_dvc(study)
    assert after.items() < before.items()
    assert {status.state for status in study.statuses()} == {"done"}
    assert study.jobs.drop_stale_markers(told.append) == []


def test_what_was_set_aside_is_linked_when_it_is_wanted_again(finished):
    before = tracked_by_dvc(load_study(finished, "small"))
    cleanup.set_aside(changed(finished, WITHOUT_SMOOTHED), lambda line: None)
    study = changed(finished)
    wanted = [status for status in study.statuses() if status.state != "done"]
    assert {(status.state, status.why) for status in wanted} == {("elsewhere", "what profile small set aside has it")}
    outcome = Runner(study).train([status.run for status in wanted], device="cpu", log=lambda line: None)
    assert len(outcome.linked) == len(wanted) == 2 and not outcome.trained
    for job in study.jobs:
        study.jobs.finish(job)
    assert tracked_by_dvc(study) == before


def test_gc_removes_what_was_set_aside(finished, collabench):
    study = changed(finished, WITHOUT_SMOOTHED)
    cleanup.set_aside(study, lambda line: None)
    assert study.workspace.aside.home.is_dir()
    listed = collabench("gc", "-p", "small", "--root", finished).out
    assert "state/set-aside/runs/" in listed and "state/set-aside/measured/" in listed
    assert not study.workspace.aside.home.exists()


def test_plan_says_what_differs_from_what_was_set_aside(finished, collabench):
    cleanup.set_aside(changed(finished, WITHOUT_SMOOTHED), lambda line: None)
    write_params(finished, ("label_smoothing: 0.1", "label_smoothing: 0.2"))
    out = collabench("plan", "-p", "small", "--root", finished).out
    assert "smoothed: 2 todo (changed: method.label_smoothing: 0.1 → 0.2)  [" in out
