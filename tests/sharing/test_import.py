"""``collabench import``: runs of another copy come whole and checked, or none does; a study of two parts becomes
one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from collabench.sharing import import_runs
from collabench.storage.files import read_json, write_json
from collabench.storage.locks import holding
from collabench.storage.results import LOGITS, RESULT, WEIGHTS, Measured, Result, load_result
from collabench.study import shards
from collabench.study.study import load_study
from tests.support.studies import study_in, write_params

PROFILE = "small"


def contents(root: Path, *folders: str) -> dict[str, bytes]:
    home = root / "artifacts" / PROFILE
    paths = [path for folder in folders for path in sorted((home / folder).rglob("*"))]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def empty(tmp_path) -> Path:
    """A copy of the project that has trained nothing."""
    root = tmp_path / "empty"
    write_params(root)
    return root


def result_files(root: Path) -> list[Path]:
    return sorted((root / "artifacts" / PROFILE / "runs").glob(f"*/seed-*/{RESULT}"))


def measured_of(result: Path) -> Path:
    seed = result.parent
    return seed.parents[2] / "measured" / seed.parent.name / f"{seed.name}.json"


def rewrite(path: Path, kind, **values) -> None:
    write_json(path, read_json(path, kind).model_copy(update=values))


def refused(collabench, target: Path, source: Path, *options: str) -> str:
    """What the command says when it takes nothing; the target's files are the same afterwards."""
    before = contents(target, "runs", "measured")
    called = collabench("import", source, "-p", PROFILE, "--root", target, *options)
    assert called.code == 2, called
    assert contents(target, "runs", "measured") == before
    assert not list((target / "artifacts" / PROFILE).rglob("*.tmp"))
    return called.err


def test_all_runs_come_with_the_same_bytes_and_need_no_training(collabench, finished, empty):
    called = collabench("import", finished, "-p", PROFILE, "--root", empty)
    count = len(result_files(finished))
    assert called.code == 0 and f"{count} runs imported, 0 already here; the study is complete" in called.out
    assert contents(empty, "runs", "measured") == contents(finished, "runs", "measured")  # markers included
    states = json.loads(collabench("plan", "-p", PROFILE, "--json", "--root", empty).out)["states"]
    assert states == {"done": count}


def test_a_second_time_changes_nothing(collabench, finished, empty):
    collabench("import", finished, "-p", PROFILE, "--root", empty)
    before = contents(empty, "runs", "measured")
    times = [path.stat().st_mtime_ns for path in result_files(empty)]
    called = collabench("import", finished / "artifacts" / PROFILE, "-p", PROFILE, "--root", empty)
    assert called.code == 0 and f"0 runs imported, {len(times)} already here" in called.out
    assert contents(empty, "runs", "measured") == before
    assert [path.stat().st_mtime_ns for path in result_files(empty)] == times


@pytest.mark.slow
def test_two_hosts_train_a_part_each_and_one_gets_all(collabench, finished, tmp_path):
    hosts = [tmp_path / "first", tmp_path / "second"]
    for number, root in enumerate(hosts, 1):
        study = study_in(root)
        called = collabench("run", "-p", PROFILE, "--root", root, "--cores", "1", "--shard", f"{number}/2")
        part = shards.runs_of(study.plan, shards.Shard(number, 2))
        assert called.code == 0 and f"part {number}/2: {len(part)} of {len(study.plan.runs)} runs" in called.out
        states = [study.status(run).state for run in part]
        assert states == ["done"] * len(part) and len(result_files(root)) == len(part)
    called = collabench("import", hosts[1], "-p", PROFILE, "--root", hosts[0])
    assert called.code == 0 and "the study is complete" in called.out
    assert contents(hosts[0], "runs") == contents(finished, "runs")


@pytest.mark.parametrize("name", [RESULT, "logits.safetensors", "weights.safetensors"])
def test_a_flipped_bit_is_named_and_nothing_is_taken(collabench, finished, empty, name):
    path = next(path for path in sorted((finished / "artifacts").rglob(name)))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert str(path) in refused(collabench, empty, finished)


def test_a_missing_file_is_named(collabench, finished, empty):
    path = next((finished / "artifacts").rglob("logits.safetensors"))
    path.unlink()
    assert str(path) in refused(collabench, empty, finished)


def test_the_same_run_with_other_bytes_is_a_conflict(collabench, finished, tmp_path):
    target = tmp_path / "target"
    shutil.copytree(finished, target)
    shutil.rmtree(result_files(target)[0].parent)  # one could be taken, and isn't
    conflicting = result_files(finished)[-1]
    rewrite(conflicting, Result, best_epoch=0, best_error=0.5)
    said = refused(collabench, target, finished)
    assert "conflict" in said and str(conflicting.parent) in said


def test_other_versions_are_refused_or_mixed_with_a_statement(collabench, finished, empty):
    for path in result_files(finished):
        versions = read_json(measured_of(path), Measured).versions
        rewrite(measured_of(path), Measured, versions=versions | {"torch": "1.0.0"})
    assert "torch" in (said := refused(collabench, empty, finished)) and "1.0.0 there" in said
    called = collabench("import", finished, "-p", PROFILE, "--root", empty, "--allow-versions")
    assert called.code == 0 and "mixed" in called.err and "1.0.0 there" in called.err
    assert contents(empty, "runs") == contents(finished, "runs")


def half_of(finished: Path, target: Path) -> list[Path]:
    """A copy that lacks every second run; those of ``finished`` that it lacks."""
    shutil.copytree(finished, target)
    for path in result_files(target)[::2]:
        shutil.rmtree(path.parent)
    return result_files(finished)[::2]


def test_another_kind_of_device_is_refused_or_mixed_with_a_statement(collabench, finished, tmp_path):
    for path in half_of(finished, tmp_path / "target"):
        rewrite(measured_of(path), Measured, device_type="cuda", device="a GPU")
    said = refused(collabench, tmp_path / "target", finished)
    assert "different kinds of device: cpu here, cpu and cuda there; --allow-devices mixes them" in said
    called = collabench("import", finished, "-p", PROFILE, "--root", tmp_path / "target", "--allow-devices")
    assert called.code == 0 and "they are mixed since --allow-devices says so" in called.err
    assert contents(tmp_path / "target", "runs") == contents(finished, "runs")


def test_another_model_of_the_device_and_another_commit_are_told_and_taken(collabench, finished, tmp_path):
    for path in half_of(finished, tmp_path / "target"):
        rewrite(measured_of(path), Measured, device="another processor", commit="0123456789abcdef", dirty=True)
    called = collabench("import", finished, "-p", PROFILE, "--root", tmp_path / "target")
    assert called.code == 0 and contents(tmp_path / "target", "runs") == contents(finished, "runs")
    (devices,) = (line for line in called.err.splitlines() if line.startswith("different devices"))
    assert ", another processor there;" in devices and "other runs agree to rounding" in devices
    (commits,) = (line for line in called.err.splitlines() if line.startswith("different commits"))
    assert ", 0123456789ab with changes there; taken" in commits


def test_runs_without_versions_are_refused(collabench, finished, empty):
    shutil.rmtree(finished / "artifacts" / PROFILE / "measured")
    assert "versions and devices are unknown; --allow-versions" in refused(collabench, empty, finished)
    called = collabench("import", finished, "-p", PROFILE, "--root", empty, "--allow-versions")
    assert called.code == 0 and contents(empty, "runs") == contents(finished, "runs")


def test_other_data_are_refused(collabench, finished, empty):
    collabench("data", "prepare", "-p", PROFILE, "--root", empty)
    path = result_files(finished)[0]
    rewrite(path, Result, dataset_digest="0" * 64)
    rewrite(measured_of(path), Measured, dataset="0" * 64)
    assert "data set" in (said := refused(collabench, empty, finished)) and "not the same" in said


def test_other_noisy_labels_are_refused(collabench, finished, empty):
    collabench("data", "prepare", "-p", PROFILE, "--root", empty)
    path = sorted((finished / "artifacts" / PROFILE / "noise").rglob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes() + b" ")
    assert f"noisy labels are not the same: {path}" in refused(collabench, empty, finished)


def test_another_experiment_says_in_what_it_differs(collabench, finished, tmp_path):
    target = tmp_path / "target"
    write_params(target, ("short: {epochs: 2,", "short: {epochs: 3,"))
    said = refused(collabench, target, finished)
    assert "recipe.epochs: 2 → 3" in said and "--planned-only" in said


def test_runs_that_the_plan_lacks_are_left_out_on_request(collabench, finished, tmp_path):
    target = tmp_path / "target"
    write_params(target, ("seeds: 2\n", "seeds: 1\n"))
    assert "not the seed" in refused(collabench, target, finished)
    called = collabench("import", finished, "-p", PROFILE, "--root", target, "--planned-only")
    wanted = load_study(target, PROFILE).plan.runs
    assert called.code == 0 and f"{len(wanted)} runs imported" in called.out and "left out" in called.err
    assert len(result_files(target)) == len(wanted)


def test_a_result_cannot_name_a_file_elsewhere(collabench, finished, empty, tmp_path):
    path = result_files(finished)[0]
    outside = tmp_path / "outside"
    outside.write_text("not a run's")
    rewrite(path, Result, files=read_json(path, Result).files | {"../../../../../outside": "0" * 64})
    assert "names other files" in refused(collabench, empty, finished)


def test_a_result_under_another_run_s_name_is_refused(collabench, finished, empty):
    first, second = (path.parent for path in result_files(finished)[:2])
    shutil.rmtree(second)
    shutil.copytree(first, second)
    assert "expected" in refused(collabench, empty, finished)


def test_a_failed_run_is_told_and_a_damaged_one_here_is_replaced(collabench, finished, tmp_path):
    target = tmp_path / "target"
    shutil.copytree(finished, target)
    damaged = result_files(target)[0].parent / "logits.safetensors"
    damaged.write_bytes(b"damaged")
    called = collabench("import", finished, "-p", PROFILE, "--root", target)
    assert called.code == 0 and "1 run imported" in called.out
    assert contents(target, "runs", "measured") == contents(finished, "runs", "measured")


def test_a_disk_that_fills_up_leaves_nothing(collabench, finished, empty, monkeypatch):
    copied, copy = [], import_runs._copy

    def full(source: Path, target: Path) -> None:
        if len(copied) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copied.append(source)
        copy(source, target)

    monkeypatch.setattr(import_runs, "_copy", full)
    assert "No space left" in refused(collabench, empty, finished)


def test_an_end_in_the_middle_leaves_whole_runs_and_the_next_import_takes_the_rest(
    collabench, finished, empty, monkeypatch
):
    move = os.replace

    def ends(source: Path, target: Path) -> None:
        if Path(target).name == WEIGHTS and len(list(Path(target).parents[2].rglob(WEIGHTS))) == 1:
            raise KeyboardInterrupt  # this run's logits are there, its weights aren't
        move(source, target)

    monkeypatch.setattr(os, "replace", ends)
    assert collabench("import", finished, "-p", PROFILE, "--root", empty).code == 130
    study = load_study(empty, PROFILE)
    whole = [status.run for status in study.statuses() if status.state == "done"]
    begun = list((empty / "artifacts" / PROFILE / "runs").rglob(LOGITS))
    assert 0 < len(whole) == len(begun) - 1 < len(result_files(finished)) - 1
    for run in whole:
        load_result(study.workspace.folder(run), run)
    monkeypatch.undo()
    called = collabench("import", finished, "-p", PROFILE, "--root", empty)
    assert called.code == 0 and f"{len(whole)} already here; the study is complete" in called.out
    assert contents(empty, "runs", "measured") == contents(finished, "runs", "measured")


def test_a_run_that_is_being_trained_here_is_not_replaced(collabench, finished, empty):
    study = load_study(empty, PROFILE)
    run = study.plan.runs[0]
    with holding(study.workspace.lock(run.id), run.id, print):
        assert f"{run.id}: is being trained here" in refused(collabench, empty, finished)


@pytest.mark.parametrize("place", ["nothing-here", "."])
def test_a_place_without_a_study_is_one_line(collabench, empty, tmp_path, place):
    said = refused(collabench, empty, tmp_path / place)
    assert said.startswith("collabench: error:") and len(said.splitlines()) == 1


def test_a_copy_of_itself_is_refused(collabench, finished):
    assert "is this study itself" in refused(collabench, finished, finished)


def test_a_part_that_is_none_is_refused(collabench, empty):
    called = collabench("run", "-p", PROFILE, "--root", empty, "--shard", "3/2")
    assert called.code == 2 and "write i/k" in called.err
    called = collabench("run", "-p", PROFILE, "--root", empty, "--shard", "9/9")
    assert called.code == 2 and "empty" in called.err
    assert not (empty / "artifacts").exists()


def test_numbers_that_are_not_finite_are_refused_before_anything_is_written(collabench, finished, empty):
    path = result_files(finished)[0]
    body = json.loads(path.read_bytes())
    del body["checksum"]
    body["last"]["negative_log_likelihood"] = float("nan")
    body["checksum"] = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(body))
    said = refused(collabench, empty, finished)
    assert str(path) in said and "negative_log_likelihood" in said and not (empty / "artifacts").exists()


@pytest.mark.parametrize("name", ["seed-00", "seed-\N{ARABIC-INDIC DIGIT ZERO}", "seed-x"])
def test_a_run_has_one_name(collabench, finished, empty, name):
    folder = result_files(finished)[0].parent
    shutil.copytree(folder, folder.with_name(name))
    assert name in refused(collabench, empty, finished)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(collabench, finished, empty):
    path = result_files(finished)[0]
    for place in (path, path.with_name(LOGITS), measured_of(path)):
        content = place.read_bytes()
        place.unlink()
        os.mkfifo(place)
        assert f"{place}: cannot be read (is not a regular file)" in refused(collabench, empty, finished)
        place.unlink()
        place.write_bytes(content)


def test_what_another_copy_says_cannot_write_to_the_terminal(collabench, finished, empty):
    path = measured_of(result_files(finished)[0])
    rewrite(path, Measured, versions={"torch\x1b[2J\ninnocent line": "1"})
    said = refused(collabench, empty, finished)
    assert "\x1b" not in said and "\ninnocent" not in said and r"\x1b[2J" in said


def test_a_package_that_only_some_runs_need_is_compared_with_the_installed_one(collabench, finished, empty):
    """Portable runs name the compiler of their loops, which native runs and a copy without runs do not."""
    some = measured_of(result_files(finished)[0])
    versions = read_json(some, Measured).versions
    rewrite(some, Measured, versions=versions | {"llvmlite": metadata.version("llvmlite")})
    assert collabench("import", finished, "-p", PROFILE, "--root", empty).code == 0
    shutil.rmtree(empty / "artifacts")
    rewrite(some, Measured, versions=versions | {"llvmlite": "0.1"})
    assert f"llvmlite {metadata.version('llvmlite')} here, 0.1 there" in refused(collabench, empty, finished)
