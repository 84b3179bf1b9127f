"""``collabench import --lock``: somebody else's dvc.lock and remote say what is fetched, never where anything is
written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from collabench.core.errors import CollabenchError
from collabench.sharing import dvc_remote
from collabench.sharing.dvc_lock import Lock, read_listing
from tests.support.tiny import PROFILE, tiny_project

RUNS, MEASURED = f"artifacts/{PROFILE}/packed/runs", f"artifacts/{PROFILE}/packed/measured.tar"
MD5 = "0123456789abcdef0123456789abcdef"


def lock(path: Path, runs: dict, measured: dict | None = None, **further: object) -> Path:
    stages = {f"train@{PROFILE}": {"cmd": "touch pwned", "outs": [runs]}, **further}
    if measured is not None:
        stages[f"measured@{PROFILE}"] = {"cmd": "touch pwned", "outs": [measured]}
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return path


def output(path: str = RUNS, md5: str = f"{MD5}.dir", **further: object) -> dict:
    return {"path": path, "hash": "md5", "md5": md5, **further}


class Remote:
    """A DVC remote in a folder, whose objects are written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, content: bytes, suffix: str = "", name: str = "") -> str:
        md5 = name or hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = self.folder / "files" / "md5" / md5[:2] / f"{md5[2:]}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return md5 + suffix

    def list(self, *entries: dict) -> str:
        return self.put(json.dumps(entries).encode(), ".dir")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project, whose temporary files lie beside it: whatever is written outside of them is found there."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    root = tiny_project(tmp_path / "project")
    shutil.copy(Path(__file__).parents[2] / "dvc.yaml", root)
    return root


def fetch(project: Path, remote: Remote, lock_file: Path) -> str:
    """What is said where the remote or the lock is refused."""
    with (
        pytest.raises(CollabenchError) as caught,
        dvc_remote.fetched(project, PROFILE, str(remote.folder), lock_file),
    ):
        pytest.fail("was not refused")
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["files", "listing", "md5"])
def test_nothing_is_written_outside(project, tmp_path, place):
    """``files`` in the lock, a name in the remote's listing, and DVC's name of a content, each with ``..`` in it."""
    remote = Remote(tmp_path / "remote")
    evil = remote.put(b"not theirs to write")
    up = "../" * 12 + str(tmp_path).lstrip("/")
    entry = {"md5": evil, "relpath": f"{up}/outside.txt"}
    if place == "files":
        runs = output(md5=remote.list({"md5": evil, "relpath": "a.tar"}), files=[{**entry, "size": 19}])
    elif place == "listing":
        runs = output(md5=remote.list(entry))
    else:
        remote.put(b"not theirs to write", name=f"{up}/source.txt")
        runs = output(md5=remote.list({"md5": f"{up}/source.txt", "relpath": "a.tar"}))
    before = {path for path in tmp_path.rglob("*") if path.is_relative_to(tmp_path / "remote")}
    said = fetch(project, remote, lock(tmp_path / "their.lock", runs))
    assert "refused" in said and "\n" not in said
    assert not list(tmp_path.rglob("outside.txt")) and not list((tmp_path / "temporary").iterdir())
    assert {path for path in tmp_path.rglob("*") if path.is_relative_to(tmp_path / "remote")} == before


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (output(files=[{"relpath": "../a", "md5": MD5}]), "has 'files'"),
        (output(desc="x"), "has 'desc'"),
        (output(cloud={"url": "https://example.org"}), "has 'cloud'"),
        (output(md5="../../../../etc/passwd.dir"), "32 hexadecimal digits"),
        (output(md5=f"{MD5}.dir\n"), "32 hexadecimal digits"),
        (output(md5=5), "32 hexadecimal digits"),
        (output(hash="sha256"), "hash: md5"),
        (output(path="artifacts/tiny/packed/../../../x"), "0 times"),
        ("artifacts", "0 times"),
    ],
)
def test_a_lock_that_says_more_than_names_and_md5_is_refused(tmp_path, runs, said):
    with pytest.raises(CollabenchError, match=re.escape(said)) as caught:
        Lock(lock(tmp_path / "dvc.lock", runs)).output(f"train@{PROFILE}", RUNS)
    assert str(tmp_path / "dvc.lock") in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"stages: 3",
        b"a: &a [x, x]\nb: &b [*a, *a]\nstages: {c: [" + b"*b, " * 9_000 + b"]}",
        b"stages: !!python/object/apply:os.system ['touch pwned']",
        b"\xff\xfe",
        b"stages: {" + b"a: {" * 5000,
    ],
)
def test_what_is_no_lock_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "dvc.lock").write_bytes(content)
    with pytest.raises(CollabenchError, match=str(tmp_path / "dvc.lock")):
        Lock(tmp_path / "dvc.lock").output(f"train@{PROFILE}", RUNS)


def test_the_lock_of_this_project_is_read():
    root = Path(__file__).parents[2]
    assert Lock(root / "dvc.lock").output("train@default", "artifacts/default/packed/runs").is_folder


@pytest.mark.parametrize(
    "listing",
    [
        [{"relpath": "../a.tar", "md5": MD5}],
        [{"relpath": "/a.tar", "md5": MD5}],
        [{"relpath": "a/b.tar", "md5": MD5}],
        [{"relpath": ".a.tar", "md5": MD5}],
        [{"relpath": "a\n.tar", "md5": MD5}],
        [{"relpath": "a.tar\n", "md5": MD5}],
        [{"relpath": "a.tar", "md5": "../../a"}],
        [{"relpath": "a.tar", "md5": f"{MD5}.dir"}],
        [{"relpath": "a.tar", "md5": MD5}, {"relpath": "a.tar", "md5": MD5}],
        [{"relpath": ["a.tar"], "md5": MD5}],
        [{"md5": MD5}],
        {"relpath": "a.tar"},
        3,
    ],
)
def test_a_listing_that_holds_anything_but_archives_is_refused(listing):
    with pytest.raises(CollabenchError, match="refused"):
        read_listing(json.dumps(listing).encode(), "remote", dvc_remote._ARCHIVE)
    assert read_listing(json.dumps([{"relpath": "a.tar", "md5": MD5}]).encode(), "remote", dvc_remote._ARCHIVE)


def test_a_pipe_in_the_place_of_a_lock_is_not_waited_for(project, tmp_path):
    import os

    os.mkfifo(tmp_path / "their.lock")
    with pytest.raises(CollabenchError, match="is not a regular file"):
        Lock(tmp_path / "their.lock")
