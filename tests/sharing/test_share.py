"""``collabench share`` pushes nothing damaged, loses no good copy, succeeds only if the remote holds everything."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import pytest

from collabench.core.errors import CollabenchError
from collabench.sharing import share as module
from collabench.sharing.share import share
from collabench.storage.locks import holding
from collabench.study.study import load_study
from tests.support.project import contents
from tests.support.running import with_workflow
from tests.support.tiny import PROFILE, tiny_study, trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "project"
    trained(tiny_study(root))
    shutil.rmtree(root / "papers")
    with_workflow(root)
    (root / ".dvc" / "config").write_text(
        "[core]\n    analytics = false\n    no_scm = true\n    remote = there\n"
        "['remote \"there\"']\n    url = ../../remote\n"
    )
    return root


@pytest.fixture
def project(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "project")


def shared(project: Path) -> list[str]:
    told: list[str] = []
    share(load_study(project, PROFILE), part=True, log=told.append)
    return told


def refused(project: Path) -> str:
    told: list[str] = []
    with pytest.raises(CollabenchError) as caught:
        share(load_study(project, PROFILE), part=True, log=told.append)
    return "\n".join([*told, str(caught.value)])


@pytest.mark.parametrize("kind", ["weights.safetensors", "result.json", "measured"])
def test_nothing_damaged_is_packed_or_pushed(project, tmp_path, kind):
    study = load_study(project, PROFILE)
    run = study.plan.runs[0]
    path = study.workspace.measured_file(run) if kind == "measured" else study.workspace.folder(run) / kind
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    before = contents(project / "artifacts")
    said = refused(project)
    assert str(path) in said and "nothing was pushed" in said
    assert not (tmp_path / "remote").exists()
    assert {k: v for k, v in contents(project / "artifacts").items() if "lock" not in k} == {
        k: v for k, v in before.items() if "lock" not in k
    }


@pytest.mark.slow
def test_a_lost_or_damaged_cache_is_restored_and_a_damaged_remote_named(project, tmp_path):
    assert "objects are on the remote" in shared(project)[-1]
    whole = contents(tmp_path / "remote")
    assert len(whole) == 3, "a listing, an archive of results, one of measurements"
    cache = sorted(path for path in (project / ".dvc" / "cache").rglob("*") if path.is_file())
    cached = contents(project / ".dvc" / "cache")
    cache[0].unlink()
    cache[1].chmod(0o644)
    cache[1].write_bytes(b"damaged")
    objects, problems = module._objects(project, PROFILE, ["train", "measured"])
    assert problems == [] and module._restore(project, objects, (told := []).append) == []
    assert contents(project / ".dvc" / "cache") == cached and len(told) == 2
    shutil.rmtree(tmp_path / "remote")
    shared(project)
    assert contents(tmp_path / "remote") == whole
    path = max((tmp_path / "remote").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: is damaged" in refused(project)
    path.unlink()
    said = refused(project)
    (listing,) = re.findall(f"{path}: is missing; remove (files/md5/[0-9a-f/]+.dir) there and share again", said)
    (tmp_path / "remote" / listing).unlink()
    shared(project)
    assert contents(tmp_path / "remote") == whole


@pytest.mark.slow
def test_a_study_that_is_not_complete_is_shared_as_a_part_only(project):
    study = load_study(project, PROFILE)
    shutil.rmtree(study.workspace.folder(study.plan.runs[0]))
    with pytest.raises(CollabenchError):
        share(study, part=False, log=(told := []).append)
    assert re.match("1 of 2 runs is missing; --part", told[0])
    shared(project)


def test_of_several_at_once_one_shares_and_the_others_wait(project, monkeypatch):
    study = load_study(project, PROFILE)
    monkeypatch.setattr("collabench.sharing.share._problems", lambda *_: ["reached"])
    told: list[str] = []

    def sharing() -> None:
        with pytest.raises(CollabenchError):
            share(study, part=True, log=told.append)

    with holding(study.workspace.reproduce_lock, "another", told.append):
        waiting = threading.Thread(target=sharing)
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive() and "waiting for it to end" in told[0] and "reached" not in told
    waiting.join(20)
    assert told[-1] == "reached"
