"""Pipes and devices instead of files, other file systems, a dvc.lock cut short, what killed commands left."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

import pipeline.dvc
from collabench.core.errors import ConfigError, DataError, ResultError
from collabench.core.regular import read_file
from collabench.data import archives, image_files
from collabench.data.download import checksum_of
from collabench.data.sources import _imagenet32_batch
from collabench.data.tensors import read_tensors
from collabench.models.pretrained import read_weights
from collabench.storage.archives import pack_runs, unpack
from collabench.storage.files import folder_beside, move
from collabench.storage.temporary import remove_abandoned_temporaries, temporary_folder
from collabench.study.cleanup import set_aside
from collabench.study.study import load_study
from collabench.training import checkpoint
from tests.support.project import contents
from tests.support.tiny import tiny_project, tiny_study, trained

READERS = {
    "archive": lambda path: list(archives.members(path, 1000)),
    "image": lambda path: image_files.read_image_file(path, 5),
    "tensors": read_tensors,
    "weights of a teacher": lambda path: read_weights(path, "0" * 64),
    "checkpoint": lambda path: checkpoint.load(path, torch.device("cpu")),
    "batch": lambda path: _imagenet32_batch(path),
    "batch.npz": lambda path: _imagenet32_batch(path),
    "checksum": lambda path: checksum_of(path, "sha256:"),
    "any": read_file,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_or_a_device_is_not_read(tmp_path, kind, reader):
    path = tmp_path / (reader if reader.endswith(".npz") else "file")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises((DataError, ResultError, ConfigError, OSError), match=str(path)):
        READERS[reader](path)


def test_labels_of_two_dimensions_are_refused(tmp_path):
    import numpy as np

    np.savez(tmp_path / "batch.npz", data=np.zeros((4, 3072), np.uint8), labels=np.ones((2, 2), np.int64))
    with pytest.raises(DataError, match="2 dimensions"):
        _imagenet32_batch(tmp_path / "batch.npz")


def test_a_sector_that_cannot_be_read_is_one_line_with_the_files_name(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")

    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("collabench.core.regular.open_file", lambda path: Broken())
    with pytest.raises(OSError) as caught:
        read_file(tmp_path / "file")
    assert caught.value.filename == str(tmp_path / "file")


# --------------------------------------------------------------------------------------------- other file systems


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another file system."""
    here = os.stat(tmp_path).st_dev
    others = [place for place in ("/dev/shm", tempfile.gettempdir()) if os.path.isdir(place)]
    place = next((other for other in others if os.stat(other).st_dev != here), None)
    if place is None:
        pytest.skip("there is no other file system")
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


def test_a_file_or_folder_moves_to_another_file_system_whole(tmp_path, elsewhere):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    move(tmp_path / "folder", elsewhere / "folder")
    move(elsewhere / "folder" / "file", tmp_path / "file")
    assert contents(tmp_path) == {"file": b"x"} and contents(elsewhere) == {}


def test_what_no_table_needs_is_set_aside_on_another_file_system(tmp_path, elsewhere):
    root = tmp_path / "project"
    study = trained(tiny_study(root, noise="clean", seeds=1))
    shutil.move(study.workspace.state, elsewhere / "state")
    study.workspace.state.symlink_to(elsewhere / "state")
    tiny_project(root, noise="clean", seeds=1, dataset=", split_seed: 1")
    before = contents(study.workspace.runs)
    assert set_aside(load_study(root, "tiny"), print)
    after = contents(elsewhere / "state" / "set-aside" / "runs")
    assert after == {name: content for name, content in before.items() if not name.endswith(".done")}


@pytest.mark.parametrize("linked", ["runs", "state", "state/checkpoints"])
def test_what_a_killed_process_left_behind_a_link_is_cleared(tmp_path, elsewhere, linked):
    study = tiny_study(tmp_path / "project", noise="clean", seeds=1)
    (study.workspace.home / linked).parent.mkdir(parents=True, exist_ok=True)
    (study.workspace.home / linked).symlink_to(elsewhere)
    left, used = (elsewhere / "configuration" / f".{name}.tmp" for name in ("left", "used"))
    left.mkdir(parents=True)
    with folder_beside(used) as living:
        study.mend(print)
        assert not left.exists() and living.exists()


def test_an_archive_is_unpacked_to_a_configuration_on_another_file_system(tmp_path, elsewhere):
    study = trained(tiny_study(tmp_path / "project", noise="clean", seeds=1))
    pack_runs(study.workspace)
    before = contents(study.workspace.runs)
    (configuration,) = (path for path in study.workspace.runs.iterdir() if path.is_dir())
    shutil.rmtree(configuration)
    configuration.symlink_to(elsewhere)
    (study.workspace.state / "unpacked.json").unlink(missing_ok=True)
    unpack(tmp_path / "project")
    found = {f"{configuration.name}/{name}": content for name, content in contents(elsewhere).items()}
    assert found == before


# ------------------------------------------------------------------------------------------------------ dvc.lock


RECORD = {"cmd": "x", "outs": [{"path": "p", "hash": "md5", "md5": "0" * 32, "size": 1}]}


@pytest.fixture
def lock(tmp_path, monkeypatch) -> Path:
    temporary = tmp_path / ".dvc" / "tmp"
    temporary.mkdir(parents=True)
    for name, path in {"ROOT": tmp_path, "TEMPORARY": temporary, "RWLOCK": temporary / "rwlock",
                       "LOCK": tmp_path / "dvc.lock", "KEPT": temporary / "kept"}.items():  # fmt: skip
        monkeypatch.setattr(pipeline.dvc, name, path)
    stages = {"schema": "2.0", "stages": {name: RECORD for name in "abc"}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(stages, sort_keys=False))
    pipeline.dvc.keep()
    return tmp_path / "dvc.lock"


def test_a_lock_that_was_cut_short_and_is_valid_yaml_is_brought_back(lock, capsys):
    whole = lock.read_text()
    cut = 0
    for end in range(0, len(whole), 3):
        lock.write_text(whole[:end])
        try:
            found = yaml.safe_load(whole[:end])
        except yaml.YAMLError:
            continue
        pipeline.dvc.mend()
        stages = yaml.safe_load(whole)["stages"]
        if not isinstance(found, dict) or found.get("stages") != stages:
            assert lock.read_text() == whole, whole[:end]
            cut += 1
    assert cut > 10 and f"{lock}: cut short" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["a stage more", "another content", "one stage less"])
def test_a_lock_that_somebody_changed_stays(lock, change):
    stages = yaml.safe_load(lock.read_text())["stages"]
    if change == "a stage more":
        stages["d"] = RECORD
    elif change == "another content":
        stages["c"] = {**RECORD, "outs": [{**RECORD["outs"][0], "md5": "1" * 32}]}
    else:
        del stages["a"]
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    before = lock.read_bytes()
    pipeline.dvc.mend()
    assert lock.read_bytes() == before


# -------------------------------------------------------------------------------------------- temporary folders


def test_what_a_killed_command_left_goes_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "collabench-of-import-killed"
    (left / ".dvc").mkdir(parents=True)
    (left / ".dvc" / "config.local").write_text("password = secret\n")
    with temporary_folder("verify") as mine:
        assert not left.exists()
        assert mine.stat().st_mode & 0o077 == 0
        assert remove_abandoned_temporaries() == [] and mine.is_dir(), "a living process's folder stays"
        (tmp_path / "collabench-of-x").symlink_to(tmp_path)
        assert remove_abandoned_temporaries() == []
    assert [path.name for path in tmp_path.iterdir()] == ["collabench-of-x"]


def test_the_folder_of_a_living_process_is_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder("verify") as mine:
        handle = os.open(mine, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)


# ---------------------------------------------------------------------------------------- DVC's record of its users


@pytest.mark.parametrize("who", ["another program", "nobody", "this DVC"])
def test_a_record_of_a_dvc_whose_number_belongs_to_another_program_is_cleared(lock, who, monkeypatch, capsys):
    record = pipeline.dvc.RWLOCK
    number = os.getpid() if who != "nobody" else 2**22 - 1
    if who == "this DVC":
        monkeypatch.setattr("psutil.Process.cmdline", lambda self: ["python", "-m", "dvc", "repro"])
    entry = {"pid": number, "cmd": "dvc repro"}
    record.write_text(json.dumps({"write": {"/a": entry}, "read": {"/b": [entry]}}))
    pipeline.dvc.mend()
    kept = who == "this DVC"
    assert json.loads(record.read_text()) == {
        "write": {"/a": entry} if kept else {},
        "read": {"/b": [entry]} if kept else {},
    }
    assert ("held by a DVC that was killed; cleared" in capsys.readouterr().out) != kept
