"""Two copies of the project with a part of a study each: what one has pushed, the other takes from the DVC remote."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from collabench.study import shards
from collabench.study.study import load_study
from tests.support.project import collabench, copy_project, dvc
from tests.support.shared_study import PROFILE, assert_done, fabricate

PARAMS = """
  fabricated:
    description: a study of which each host has a part
    seeds: 3
    tables:
      - {name: t, datasets: [digits-tiny], noise: [uniform20], models: [resnet8], recipes: [smoke],
          methods: [individual, label-smoothing, ensemble-2, dml]}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hosts(tmp_path_factory) -> list[Path]:
    """Two copies; the first has pushed its part to a folder beside them."""
    folder = tmp_path_factory.mktemp("hosts")
    found = []
    for number in (1, 2):
        root = folder / f"host-{number}"
        copy_project(root, PARAMS)
        study = fabricate(root)
        mine = {run.id for run in shards.runs_of(study.plan, shards.Shard(number, 2))}
        for run in study.plan.runs:
            if run.id not in mine:
                shutil.rmtree(study.workspace.folder(run))
                study.workspace.measured_file(run).unlink()
        study.jobs.drop_stale_markers()
        shutil.rmtree(study.workspace.home / "packed")
        found.append(root)
    dvc(found[0], "remote", "modify", "--local", "local", "url", str(folder / "remote"))
    collabench(found[0], "share", "-p", PROFILE, "--part")
    return found


def test_a_part_comes_from_the_remote_of_another_copy(hosts, tmp_path):
    first, second = hosts
    shutil.copy(first / "dvc.lock", tmp_path / "their.lock")
    before = len(list((second / "artifacts" / PROFILE / "runs").glob("*/seed-*")))
    plan = load_study(second, PROFILE).plan
    assert 0 < before < len(plan.runs)
    done = collabench(
        second, "import", str(first.parent / "remote"), "-p", PROFILE, "--lock", str(tmp_path / "their.lock")
    )
    assert f"{len(plan.runs) - before} runs imported, 0 already here; the study is complete" in done.stdout
    assert_done(second, len(plan.runs))
    for name in ("result.json", "logits.safetensors", "weights.safetensors"):
        for path in (first / "artifacts" / PROFILE / "runs").glob(f"*/seed-*/{name}"):
            assert (second / path.relative_to(first)).read_bytes() == path.read_bytes()


def test_a_remote_by_its_name_and_the_lock_that_git_has_brought(hosts, tmp_path):
    first, second = hosts
    clone = tmp_path / "clone"
    shutil.copytree(second, clone, ignore=shutil.ignore_patterns("artifacts", "cache"))
    shutil.copy(first / "dvc.lock", clone / "dvc.lock")
    dvc(clone, "remote", "modify", "--local", "local", "url", "../remote")
    assert "url = ../../remote" in (clone / ".dvc" / "config.local").read_text()  # DVC writes it as seen from there
    (tmp_path / "remote").symlink_to(first.parent / "remote")
    # The fabricated measurements name versions that are not those installed here.
    done = collabench(clone, "import", "local", "-p", PROFILE, "--allow-versions")
    count = len(list((first / "artifacts" / PROFILE / "runs").glob("*/seed-*")))
    assert f"{count} runs imported" in done.stdout


def test_a_remote_that_lacks_the_runs_or_a_lock_without_them_is_one_line(hosts, tmp_path):
    first, second = hosts
    (tmp_path / "bare").mkdir()
    done = collabench(second, "import", str(tmp_path / "bare"), "-p", PROFILE, check=False)
    assert done.returncode == 2 and "bare: holds no results: neither artifacts/ of a copy" in done.stdout
    (tmp_path / "nothing" / "files" / "md5").mkdir(parents=True)
    done = collabench(
        second, "import", str(tmp_path / "nothing"), "-p", PROFILE, "--lock", str(first / "dvc.lock"), check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stdout and "nothing: does not hold the list" in done.stdout
    (tmp_path / "empty.lock").write_text("schema: '2.0'\nstages: {}\n")
    (tmp_path / "other.lock").write_bytes(b"\xff\xfe\x00")
    locks = {"empty.lock": "does not contain train@", "none.lock": "is missing", "other.lock": "not UTF-8 text"}
    for lock, what in locks.items():
        done = collabench(second, "import", "local", "-p", PROFILE, "--lock", str(tmp_path / lock), check=False)
        assert done.returncode == 2 and what in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize(
    "name", ["../../../../../outside.txt", "/OUTSIDE/outside.txt", "a/../../../../../../outside.txt"]
)
def test_a_remote_cannot_write_outside(hosts, tmp_path, monkeypatch, name):
    """DVC writes the files of a folder wherever the folder's listing on the remote says."""
    first, second = hosts
    remote, lock = tmp_path / "remote", tmp_path / "their.lock"
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the files are fetched to

    def put(content: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = remote / "files" / "md5" / md5[:2] / f"{md5[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5

    file = put(b"not theirs to write")
    entry = {"md5": file, "relpath": name.replace("/OUTSIDE", str(tmp_path))}
    listing = put(json.dumps([entry]).encode(), ".dir")
    lock.write_text(re.sub(r"md5: \w+\.dir", f"md5: {listing}.dir", (first / "dvc.lock").read_text()))
    done = collabench(second, "import", str(remote), "-p", PROFILE, "--lock", str(lock), check=False)
    assert done.returncode == 2 and "leads out of its folder" in done.stdout, done.stdout
    assert not list(tmp_path.rglob("outside.txt"))
