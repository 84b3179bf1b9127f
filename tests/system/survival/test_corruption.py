"""A flipped bit and a truncation in every kind of file: named, and made again or refused; never used, never passed
over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from collabench import data
from collabench.config.data_sections import DatasetConfig
from collabench.core.errors import DataError, ResultError
from collabench.data import noise
from collabench.report.build import build_report
from collabench.storage import archives
from collabench.storage.files import read_json, sha256_of, write_json
from collabench.storage.locks import holder, holding
from collabench.storage.results import Failure, InProgress, Measured, Result, load_result, load_weights
from collabench.study.runner import Runner
from collabench.study.study import Study, load_study
from collabench.training import checkpoint
from tests.support import official_formats
from tests.support.running import PROFILE, contents, differing, home, results, small_project


def flip_a_bit(path: Path, at: float = 0.5) -> None:
    """Flip one bit, by default in the middle. A file that is linked elsewhere is copied first: only this one
    changes."""
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 0x10
    path.unlink()
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


DAMAGE = (flip_a_bit, truncate, empty)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project whose runs are all there, with a report, made in this process."""
    folder = small_project(tmp_path_factory.mktemp("finished") / "project", epochs=2, methods="individual kd")
    study = load_study(folder, PROFILE)
    make(study)
    build_report(study.params, study.plan, study.workspace)
    return folder


def make(study: Study, log: Callable[[str], None] = print) -> None:
    """Everything that the plan lacks."""
    study.mend(log)
    study.inputs.prepare_for(study.plan.runs, log)
    for job in study.jobs:
        outcome = Runner(study).train(job.runs, device="cpu", log=log)
        assert not outcome.failed, outcome.failed
        study.jobs.finish(job)


@pytest.fixture
def project(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "project")
    return tmp_path / "project"


def kinds(folder: Path) -> dict[str, Path]:
    """One file of each kind that the library makes again."""
    study = load_study(folder, PROFILE)
    run = study.plan.runs[0]
    place = study.workspace.folder(run)
    return {
        "data set": next(study.workspace.datasets.glob("*/arrays.safetensors")),
        "manifest": next(study.workspace.datasets.glob("*/manifest.json")),
        "noise": next(study.workspace.noise.glob("*/seed-0.safetensors")),
        "result": place / "result.json",
        "logits": place / "logits.safetensors",
        "weights": place / "weights.safetensors",
        "marker": next(study.workspace.runs.glob("*/*.done")),
    }


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["data set", "manifest", "noise", "result", "logits", "weights", "marker"])
def test_the_next_start_names_the_file_and_makes_it_again(project, kind, damage):
    before, path, told = contents(project), kinds(project)[kind], []
    damage(path)
    make(load_study(project, PROFILE), told.append)
    assert any(str(path) in line or (kind == "manifest" and str(path.parent) in line) for line in told), told
    assert differing(contents(project), before) == []


@pytest.mark.parametrize("at", [0.0, 0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("kind", ["data set", "manifest", "noise", "result", "logits", "weights"])
def test_a_bit_anywhere_is_seen_by_the_reader(project, kind, at):
    study, path = load_study(project, PROFILE), kinds(project)[kind]
    original = path.read_bytes()
    flip_a_bit(path, at)
    run = study.plan.runs[0]
    try:
        if kind in ("data set", "manifest"):
            data.load(path.parent)
        elif kind == "noise":
            noise.read_static(path)
        else:
            load_result(path.parent, run)
    except (DataError, ResultError) as error:
        assert str(path) in str(error) or str(path.parent) in str(error)
        assert "\n" not in str(error)
    else:
        # A letter's case in an escape, say: what is read must then be what was written.
        pytest.fail(f"bit at {at:.1%} of {path.name} ({original[:1]!r}…) was not seen")


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["result", "logits", "weights"])
def test_a_report_refuses_damaged_results_by_name(project, kind, damage):
    path = kinds(project)[kind]
    damage(path)
    study = load_study(project, PROFILE)
    with pytest.raises(ResultError) as caught:
        build_report(study.params, study.plan, study.workspace)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_measurement_is_named_and_what_to_do_is_said(project, damage):
    study = load_study(project, PROFILE)
    path = next(study.workspace.measured.rglob("seed-0.json"))
    damage(path)
    with pytest.raises(ResultError, match="counts as not measured") as caught:
        build_report(study.params, study.plan, study.workspace)
    assert str(path) in str(caught.value)
    path.unlink()
    build_report(study.params, study.plan, study.workspace)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_in_another_profile_is_not_linked(project, damage):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text + text[text.index("  small:") :].replace("  small:", "  other:", 1))
    path, told = kinds(project)["weights"], []
    damage(path)
    study = load_study(project, "other")
    study.inputs.prepare_for(study.plan.runs, told.append)
    first, *others = study.plan.runs
    assert Runner(study).train([first], device="cpu", log=told.append).trained == [first]
    assert any(str(path) in line and "not used" in line for line in told), told
    assert Runner(study).train(others, device="cpu", log=told.append).linked == others
    original = study.workspace.folder(first) / "weights.safetensors"
    assert original.read_bytes() != path.read_bytes()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["runs", "measured"])
def test_a_damaged_archive_of_results_is_named_and_its_runs_are_made_again(project, tmp_path, capsys, kind, damage):
    origin, clone = load_study(project, PROFILE).workspace, tmp_path / "clone"
    archives.pack_runs(origin)
    archives.pack_measured(origin)
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("runs", "measured", "state"))
    shutil.copytree(origin.packed_runs, home(clone) / "packed" / "runs")  # what `dvc pull` brings
    path = home(clone) / "packed" / "measured.tar"
    if kind == "runs":
        path = next((home(clone) / "packed" / "runs").glob("*individual*.tar"))
    damage(path)
    study = load_study(clone, PROFILE)
    assert f"{path}: damaged (" in capsys.readouterr().err
    states = {status.run.configuration.names["method"]: status.state for status in study.statuses()}
    assert states == {"individual": "todo" if kind == "runs" else "done", "kd": "done"}
    assert kind == "runs" or not any((home(clone) / "measured").rglob("*.json")), "nothing of it is used"
    make(study)
    assert differing(results(clone), results(project)) == []
    if kind == "runs":
        archives.pack_runs(study.workspace)
        assert f"{path}: damaged" in capsys.readouterr().err
        assert path.read_bytes() == (origin.packed_runs / path.name).read_bytes()


# ------------------------------------------------------------------------------------------------- checkpoints


@contextmanager
def interrupted_after(checkpoints: int, monkeypatch):
    save, count = checkpoint.save, [0]

    def counting(*arguments):
        save(*arguments)
        count[0] += 1
        if count[0] == checkpoints:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", counting)
        patch.setenv("COLLABENCH_CHECKPOINT_SECONDS", "0")
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("damage", [*DAMAGE, None])
def test_a_damaged_checkpoint_is_named_and_the_run_starts_from_its_beginning(project, damage, monkeypatch):
    study, before, told = load_study(project, PROFILE), results(project), []
    run = study.plan.runs[0]
    shutil.rmtree(study.workspace.folder(run))
    with interrupted_after(3, monkeypatch):
        Runner(study).train([run], device="cpu")
    path = study.workspace.checkpoint(run.id)
    if damage is not None:
        damage(path)
    Runner(study).train([run], device="cpu", log=told.append)
    resumed = read_json(study.workspace.measured_file(run), Measured).resumed
    assert resumed == (0 if damage else 1)
    assert any(str(path) in line and "from its beginning" in line for line in told) == bool(damage), told
    assert differing(results(project), before) == []
    assert not path.exists()


def test_another_runs_checkpoint_is_named_and_not_used(project, monkeypatch):
    study, before, told = load_study(project, PROFILE), results(project), []
    run, other = study.plan.runs[:2]
    for one in (run, other):
        shutil.rmtree(study.workspace.folder(one))
    with interrupted_after(3, monkeypatch):
        Runner(study).train([run], device="cpu")
    shutil.move(study.workspace.checkpoint(run.id), study.workspace.checkpoint(other.id))
    Runner(study).train([run, other], device="cpu", log=told.append)
    assert any(str(study.workspace.checkpoint(other.id)) in line and run.id in line for line in told), told
    assert differing(results(project), before) == []


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, {"path": Path("/")})  # an object that weights_only does not load
    with pytest.raises(ResultError, match="not a checkpoint that this version reads") as caught:
        checkpoint.load(path, torch.device("cpu"))
    assert str(path) in str(caught.value)


# -------------------------------------------------------------------------------------------- the small files


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_failure_record_is_named_and_its_run_trained_again(project, damage, monkeypatch):
    study, before, told = load_study(project, PROFILE), results(project), []
    run = study.plan.runs[0]
    shutil.rmtree(study.workspace.folder(run))
    with monkeypatch.context() as patch:
        patch.setattr("collabench.training.train_run", _raise)
        assert Runner(study).train([run], device="cpu", log=told.append).failed == [(run, "KeyError: 'broken'")]
    path = study.workspace.failure(run.id)
    assert read_json(path, Failure).reason == "KeyError: 'broken'"
    assert Runner(study).train([run], device="cpu").failed == [(run, "KeyError: 'broken'")], (
        "a failure stays until a retry"
    )
    damage(path)
    assert "reason unknown" in study.status(run).why and str(path) in study.status(run).why
    assert Runner(study).train([run], device="cpu", log=told.append).trained == [run]
    assert any(str(path) in line for line in told), told
    assert not path.exists() and differing(results(project), before) == []


def _raise(*arguments, **options):
    raise KeyError("broken")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_of_a_locks_holder_never_decides(tmp_path, damage):
    path, told = tmp_path / "run.lock", []
    with holding(path, "the run", told.append):
        assert f"process {os.getpid()}" in holder(path)
        damage(path.with_name("run.lock.holder"))
        assert holder(path) == "another process"
    with holding(path, "the run", told.append):
        pass
    assert told == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_progress_harms_nobody(project, damage):
    from collabench.study.progress import Watcher

    study = load_study(project, PROFILE)
    run = study.plan.runs[0]
    shutil.rmtree(study.workspace.folder(run))
    path = study.workspace.progress(run.id)
    numbers = {"epoch": 1, "epochs": 2, "error": 0.5, "images_per_second": 1.0, "seconds_left": 1.0, "pid": 1}
    with holding(study.workspace.lock(run.id), run.id, print):
        for position in range(0, 10):
            write_json(path, InProgress(run_id=run.id, label="label", seed=0, **numbers))
            assert any("label" in line for line in Watcher(study, 1).lines())
            flip_a_bit(path, position / 10) if damage is flip_a_bit else damage(path)
            assert not any("label" in line for line in Watcher(study, 1).lines())


# ----------------------------------------------------------------------------------------------- streamed images


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_streamed_image_that_changed_is_refused_by_name(tmp_path, at):
    sha256 = official_formats.write_imagenet(tmp_path / "data/imagenet", classes=2, train=2, test=1)
    config = DatasetConfig(source="imagenet", path="data/imagenet", sha256=sha256)
    data.prepare(config, tmp_path / "data", tmp_path / "artifacts/key", root=tmp_path)
    dataset = data.load(tmp_path / "artifacts/key", tmp_path / "data/imagenet")
    path = sorted((tmp_path / "data/imagenet/train").glob("*/*.JPEG"))[1]
    size = path.stat().st_size
    flip_a_bit(path, at)
    assert path.stat().st_size == size
    with pytest.raises(DataError) as caught:
        dataset.train_images.open(1)
    assert str(path) in str(caught.value)
    assert dataset.train_images.open(0).width
    truncate(path)
    with pytest.raises(DataError, match="bytes") as caught:
        dataset.train_images.open(1)
    assert str(path) in str(caught.value)


def test_a_downloaded_archive_that_changed_is_never_prepared(tmp_path):
    sha256 = official_formats.write_imagenet(tmp_path / "data/imagenet", classes=2, train=2, test=1)
    path = next((tmp_path / "data/imagenet").rglob("*.JPEG"))
    flip_a_bit(path)
    config = DatasetConfig(source="imagenet", path="data/imagenet", sha256=sha256)
    with pytest.raises(DataError, match="damaged or another version"):
        data.prepare(config, tmp_path / "data", tmp_path / "artifacts/key", root=tmp_path)
    assert not (tmp_path / "artifacts/key").exists()


def test_temporary_files_of_a_killed_process_are_cleared_and_those_of_a_living_one_are_not(project):
    from collabench.storage.files import folder_beside

    abandoned = home(project) / "runs" / ".result.json.abcd1234.tmp"
    abandoned.mkdir()
    (abandoned / "result.json").write_text("half")
    with folder_beside(home(project) / "runs" / "weights.safetensors") as living:
        load_study(project, PROFILE).mend()
        assert living.is_dir() and not abandoned.exists()
    assert not living.exists()


def test_what_a_kill_leaves_between_the_result_and_the_end_is_cleared(project):
    study = load_study(project, PROFILE)
    run, workspace = study.plan.runs[0], study.workspace
    left = [workspace.checkpoint(run.id), workspace.progress(run.id), workspace.failure(run.id)]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    assert Runner(study).train([run], device="cpu").done == [run]
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["data set", "manifest"])
def test_a_report_refuses_a_damaged_data_set_by_name(project, kind, damage):
    path = kinds(project)[kind]
    damage(path)
    study = load_study(project, PROFILE)
    with pytest.raises(DataError) as caught:
        build_report(study.params, study.plan, study.workspace)
    assert str(path) in str(caught.value)


def test_a_report_uses_no_label_that_changed(project):
    study, path = load_study(project, PROFILE), kinds(project)["data set"]
    header = int.from_bytes(path.read_bytes()[:8], "little")
    offsets = json.loads(path.read_bytes()[8 : 8 + header])["test_labels"]["data_offsets"]
    flip_a_bit(path, (8 + header + offsets[0]) / path.stat().st_size)
    with pytest.raises(DataError, match="checksum differs"):
        build_report(study.params, study.plan, study.workspace)


@pytest.mark.parametrize("content", [b"", b"no tensors", (2**62).to_bytes(8, "little") + b"{}"])
@pytest.mark.parametrize("kind", ["logits", "weights"])
def test_a_file_that_holds_no_tensors_is_named_although_its_checksum_fits(project, kind, content):
    path, study = kinds(project)[kind], load_study(project, PROFILE)
    path.write_bytes(content)
    _sign(path)
    with pytest.raises(ResultError) as caught:
        build_report(study.params, study.plan, study.workspace) if kind == "logits" else load_weights(path.parent)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_logits_of_another_shape_are_named_although_their_checksum_fits(project):
    path, study = kinds(project)["logits"], load_study(project, PROFILE)
    save_file({"deployed": torch.zeros(3, 2).half()}, path)
    _sign(path)
    with pytest.raises(ResultError, match="holds predictions for 3 test images, there are") as caught:
        build_report(study.params, study.plan, study.workspace)
    assert str(path) in str(caught.value)


def _sign(path: Path) -> None:
    """Let the result beside a file name the checksum that it has now."""
    result = read_json(path.with_name("result.json"), Result)
    write_json(
        path.with_name("result.json"), result.model_copy(update={"files": result.files | {path.name: sha256_of(path)}})
    )
