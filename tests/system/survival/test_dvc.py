"""DVC's own files when DVC is killed: ``dvc.lock`` and the record of who works on what are whole, or cleared at the
next start."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import pipeline.dvc
from tests.support.running import KILLING, PROFILE, Started, left_over, small_project, with_workflow


def dvc(folder: Path, *arguments: str, expect: int = 0, **variables: str) -> str:
    """DVC as ``collabench`` starts it; its output."""
    started = Started(folder, [sys.executable, "-m", "pipeline.dvc", *arguments], prepend_path=KILLING, **variables)
    try:
        assert started.wait() == expect, started.output[-4000:]
        return started.output
    finally:
        started.kill_all()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A project whose first stage is done."""
    folder = with_workflow(small_project(tmp_path_factory.mktemp("prepared") / "project"))
    dvc(folder, "repro", f"datasets@{PROFILE}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rwlock", "dvc.lock"])
def test_a_kill_within_a_write_leaves_the_old_file_and_the_next_start_goes_on(prepared, tmp_path, name):
    folder = shutil.copytree(prepared, tmp_path / "project")
    path = folder / ("dvc.lock" if name == "dvc.lock" else ".dvc/tmp/rwlock")
    before = path.read_bytes()
    plan = {"name": name, "after": 0, "point": "half", "all": True, "count": str(tmp_path / "count")}
    dvc(folder, "repro", f"noise@{PROFILE}", expect=-9, COLLABENCH_TEST_KILL_WRITE=json.dumps(plan))
    assert path.read_bytes() == before and left_over(folder) != []
    dvc(folder, "repro", f"noise@{PROFILE}")
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert stages.keys() == {f"datasets@{PROFILE}", f"noise@{PROFILE}"}
    assert left_over(folder) == []


@pytest.mark.parametrize("content", [b"", b'{"write": {"/a', b"[]", b"\xff", b"{}"])
def test_a_record_that_a_killed_dvc_left_half_written_is_named_and_removed(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "rwlock"
    monkeypatch.setattr(pipeline.dvc, "TEMPORARY", tmp_path)
    monkeypatch.setattr(pipeline.dvc, "RWLOCK", path)
    path.write_bytes(content)
    pipeline.dvc.mend()
    damaged = content != b"{}"
    assert path.exists() != damaged
    assert (f"{path}: half-written by a DVC that was killed; removed" in capsys.readouterr().out) == damaged
