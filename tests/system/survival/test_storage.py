"""A full disk, a folder that must not be written, and a clock that jumps: one clear line, no torn file, nothing
lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from collabench.core.errors import DataError, StorageError
from collabench.data.tensors import read_tensors, write_tensors
from collabench.report.build import build_report
from collabench.storage.files import write_atomically
from collabench.study.runner import Runner
from collabench.study.study import load_study
from collabench.training import checkpoint, loop
from tests.support.kills import assert_whole
from tests.support.running import (
    PROFILE,
    Started,
    command,
    contents,
    differing,
    finish,
    home,
    left_over,
    results,
    small_project,
    with_workflow,
)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """The files of a study that nothing disturbed, made in this process."""
    folder = small_project(tmp_path_factory.mktemp("expected") / "project")
    study = load_study(folder, PROFILE)
    study.inputs.prepare_for(study.plan.runs)
    assert not Runner(study).train(study.plan.runs, device="cpu").failed
    return contents(folder)


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(["mount", "-o", options, "-t", "tmpfs", "none", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def tmpfs(tmp_path) -> Iterator[Path]:
    """An empty file system of 64 MB in memory; ``resize`` changes what it can hold."""
    if shutil.which("mount") is None:
        pytest.skip("a tmpfs cannot be mounted here: no mount command")
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    mount(folder, "size=64m")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, free: int) -> None:
    """Leave about so many bytes free (whole pages)."""
    status = os.statvfs(folder)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    mount(folder, f"remount,rw,size={(used + free + 4095) // 4096 * 4}k")


def one_line(output: str, *words: str) -> None:
    """The error is one line that holds these words, and there is no traceback."""
    assert "Traceback" not in output, output[-3000:]
    errors = [line for line in output.splitlines() if line.startswith("collabench: error:")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), output[-3000:]


# ----------------------------------------------------------------------------------------------------- full disk

WRITERS: dict[str, Callable[[Path, int], object]] = {
    "bytes": lambda path, value: write_atomically(path, bytes([value]) * 200_000),
    "tensors": lambda path, value: write_tensors(path, {"a": torch.full((50_000,), value)}, {"value": value}),
    "checkpoint": lambda path, value: checkpoint.save(path, {"a": torch.full((50_000,), value)}),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("free", [0, 4096, 100_000])
def test_a_full_disk_leaves_the_old_file_and_no_other(tmpfs, writer, free):
    path = tmpfs / "file"
    WRITERS[writer](path, 1)
    before = path.read_bytes()
    resize(tmpfs, free)
    with pytest.raises(StorageError, match="cannot be written") as caught:
        WRITERS[writer](path, 2)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert [one.name for one in tmpfs.iterdir()] == ["file"] and path.read_bytes() == before
    resize(tmpfs, 4_000_000)
    WRITERS[writer](path, 2)
    assert path.read_bytes() != before
    if writer == "tensors":
        assert read_tensors(path)[1] == {"value": 2}


@pytest.mark.slow
def test_a_study_on_a_full_disk_says_so_and_goes_on_when_there_is_room(tmpfs, expected):
    folder = small_project(tmpfs / "project")
    for free in (16_000, 90_000, 60_000):  # within the data; within training; within the results
        resize(tmpfs, free)
        output = finish(folder, "run", "--cores", "1", expect=2)
        one_line(output, str(folder), "cannot be written", "No space left on device", "free some space")
        resize(tmpfs, 1_000_000)
        assert_whole(folder)
        assert not list((home(folder) / "state" / "failures").glob("*")), "a full disk is no run's fault"
        assert not list(folder.rglob("*.tmp"))
    finish(folder, "run", "--cores", "1")
    assert differing(contents(folder), expected) == []
    assert left_over(folder) == []


@pytest.mark.slow
def test_a_full_disk_beneath_dvc_and_snakemake_is_one_line_too(tmpfs):
    folder = with_workflow(small_project(tmpfs / "project", epochs=2, methods="individual"))
    for free in (0, 150_000):  # not even room for the log; within the data or the training
        resize(tmpfs, free)
        one_line(finish(folder, "reproduce", "--cores", "1", expect=2), str(folder), "No space left on device")
        resize(tmpfs, 4_000_000)
        assert_whole(folder)
        assert not [path for path in (folder / "artifacts").rglob("*.tmp")]
    finish(folder, "reproduce", "--cores", "1")


@pytest.mark.slow
def test_a_report_on_a_full_disk_keeps_the_old_one(tmpfs, expected):
    folder = small_project(tmpfs / "project")
    finish(folder, "run", "--cores", "1")
    finish(folder, "report")
    before = {path.name: path.read_bytes() for path in home(folder).joinpath("report").rglob("*") if path.is_file()}
    resize(tmpfs, 8_000)
    one_line(finish(folder, "report", expect=2), str(home(folder) / "report"), "No space left on device")
    after = {path.name: path.read_bytes() for path in home(folder).joinpath("report").rglob("*") if path.is_file()}
    assert after == before and not list(folder.rglob("*.tmp"))


# ------------------------------------------------------------------------------------ read-only, no permission


@pytest.mark.slow
def test_a_read_only_folder_is_named_and_left_alone(tmpfs, expected):
    folder = with_workflow(small_project(tmpfs / "project"))
    study = load_study(folder, PROFILE)
    study.inputs.prepare_for(study.plan.runs)
    first, *_ = study.plan.runs
    Runner(study).train([first], device="cpu")
    before = contents(folder)
    mount(tmpfs, "remount,ro")
    one_line(finish(folder, "run", "--cores", "1", expect=2), str(folder), "Read-only file system")
    one_line(finish(folder, "reproduce", "--cores", "1", expect=2), str(folder), "Read-only file system")
    assert "1 done" in finish(folder, "plan"), "looking needs no writing"
    assert contents(folder) == before
    mount(tmpfs, "remount,rw")
    finish(folder, "run", "--cores", "1")
    assert differing(contents(folder), expected) == []


@pytest.fixture
def without_privilege() -> list[str]:
    """What to start a program with so that permissions bind it, whoever runs the tests."""
    if os.geteuid() != 0:
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("permissions don't bind root, and setpriv cannot take that privilege away here")
    return prefix


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["artifacts", "runs", "state"])
def test_a_folder_without_permission_is_named(tmp_path, expected, without_privilege, closed):
    folder = small_project(tmp_path / "project")
    study = load_study(folder, PROFILE)
    study.inputs.prepare_for(study.plan.runs)
    place = folder / "artifacts" if closed == "artifacts" else home(folder) / closed
    shutil.rmtree(place) if place.exists() else None
    place.mkdir(exist_ok=True)
    place.chmod(0o555)
    started = Started(folder, [*without_privilege, *command("run", "--cores", "1")])
    try:
        assert started.wait() == 2, started.output
        one_line(started.output, str(place), "Permission denied", "must be writable")
    finally:
        started.kill_all()
        place.chmod(0o755)
    finish(folder, "run", "--cores", "1")
    assert differing(contents(folder), expected) == []


@pytest.mark.slow
def test_a_folder_without_permission_beneath_dvc_and_snakemake_is_one_line_too(tmp_path, without_privilege):
    folder = with_workflow(small_project(tmp_path / "project", epochs=2, methods="individual"))
    place = home(folder) / "runs"
    place.mkdir(parents=True)
    place.chmod(0o555)
    started = Started(folder, [*without_privilege, *command("reproduce", "--cores", "1")])
    try:
        assert started.wait() == 2, started.output
        one_line(started.output, str(folder), "Permission denied", "must be writable")
    finally:
        started.kill_all()
        place.chmod(0o755)


def test_an_array_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {})

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("collabench.data.tensors.open_file", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        read_tensors(path)


# ------------------------------------------------------------------------------------------------- clock jumps


def set_clock_of(folder: Path, days: int) -> None:
    """Let every file of the artifacts be of another day."""
    moment = (datetime.now() + timedelta(days=days)).timestamp()
    for path in (folder / "artifacts").rglob("*"):
        os.utime(path, (moment, moment))


class Backwards:
    """A clock that goes back by a day whenever somebody looks."""

    looked = 0

    @classmethod
    def now(cls, zone):
        cls.looked += 1
        return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=cls.looked)


@pytest.mark.slow
def test_a_clock_that_jumps_during_training_changes_nothing(tmp_path, expected, monkeypatch):
    folder = small_project(tmp_path / "project")
    study = load_study(folder, PROFILE)
    study.inputs.prepare_for(study.plan.runs)
    run = study.plan.runs[0]

    def interrupt(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    save = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(loop, "datetime", Backwards)
        patch.setattr("time.time", lambda: -1e9 * Backwards.looked)
        patch.setenv("COLLABENCH_CHECKPOINT_SECONDS", "0")
        patch.setattr(checkpoint, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Runner(study).train([run], device="cpu")
        patch.setattr(checkpoint, "save", save)
        for days in (3650, -3650):
            set_clock_of(folder, days)
            assert study.status(run).state == "todo"
        assert Runner(study).train([run], device="cpu").trained == [run]
        for one in study.plan.runs[1:]:
            assert Runner(study).train([one], device="cpu").trained == [one]
    assert Backwards.looked
    assert differing(contents(folder), expected) == []
    build_report(study.params, study.plan, study.workspace)


@pytest.mark.slow
def test_a_clock_that_jumps_between_two_starts_trains_nothing_again(tmp_path, expected):
    folder = with_workflow(small_project(tmp_path / "project"))
    finish(folder, "reproduce", "--cores", "2")
    before = contents(folder)
    assert differing(results(folder), {n: c for n, c in expected.items() if "/seed-" in n and "runs/" in n}) == []
    measured = {path: path.read_bytes() for path in (home(folder) / "measured").rglob("*.json")}
    for days in (400, -400):
        set_clock_of(folder, days)
        assert "Tables and figures" in finish(folder, "reproduce", "--cores", "2")
        assert "0 trained" in finish(folder, "run", "--cores", "1")
        assert {path: path.read_bytes() for path in (home(folder) / "measured").rglob("*.json")} == measured
        assert differing(contents(folder), before) == []
