"""Archives of results that are made to harm, or lie where they don't belong: named, counted as missing, and nobody else
is stopped."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from collabench.storage import archives
from collabench.storage.workspace import Workspace
from collabench.study.study import load_study
from tests.support.project import contents
from tests.support.tiny import PROFILE, tiny_study, trained


@pytest.fixture(scope="module")
def pushed(tmp_path_factory) -> Path:
    """A project whose runs are there, and packed."""
    study = trained(tiny_study(tmp_path_factory.mktemp("pushed"), noise="clean uniform", seeds=1))
    archives.pack_runs(study.workspace)
    archives.pack_measured(study.workspace)
    return study.workspace.root


@pytest.fixture
def pulled(pushed, tmp_path) -> Workspace:
    """A copy that has the archives only."""
    shutil.copytree(pushed, tmp_path / "clone", ignore=shutil.ignore_patterns("state", "measured", "datasets", "noise"))
    shutil.rmtree(tmp_path / "clone" / "artifacts" / PROFILE / "runs")
    shutil.copytree(pushed / "artifacts" / PROFILE / "packed", tmp_path / "clone/artifacts" / PROFILE / "packed",
                    dirs_exist_ok=True)  # fmt: skip
    return Workspace(tmp_path / "clone", PROFILE)


def write(path: Path, *members: tuple[str, bytes], **header: str) -> None:
    """An archive whose digest fits what it holds."""
    digest = archives._digest((name, hashlib.sha256(content).hexdigest()) for name, content in members)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={archives._DIGEST: digest}) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(content), dict(header)
            archive.addfile(info, io.BytesIO(content))


def patch_size(path: Path, field: bytes) -> None:
    """Put a size of one's own into the last member's header, with a checksum that fits."""
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmembers()[-1].offset_data - 512
    content[at + 124 : at + 136] = field
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(content)


def make(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "a name twice":
        write(path, ("seed-0/result.json", b"{}"), ("seed-0/result.json", b"{}"))
    elif kind == "a long name":
        write(path, ("seed-0/" + "a" * 300, b"{}"))
    elif kind == "a and a/b":
        write(path, ("seed-0", b"{}"), ("seed-0/result.json", b"{}"))
    elif kind == "sparse":
        write(path, ("seed-0/result.json", b"0\n"), **{"GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,0"})
    elif kind == "huge":
        write(path, ("seed-0/result.json", b"{}"))
        patch_size(path, b"\x80" + (2**40).to_bytes(11))
    elif kind == "negative":
        write(path, ("seed-0/result.json", b"{}"))
        patch_size(path, (-512).to_bytes(12, signed=True))
    elif kind == "huge header":
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("x")
            info.type = tarfile.XHDTYPE
            archive.addfile(info, io.BytesIO())
        patch_first = bytearray(path.read_bytes())
        patch_first[124:136] = b"\x80" + (2**40).to_bytes(11)
        patch_first[148:156] = b" " * 8
        patch_first[148:156] = b"%06o\0 " % sum(patch_first[:512])
        path.write_bytes(patch_first)
    elif kind == "another kind of file":
        write(path, ("seed-0/evil.py", b"print()"))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.symlink("/dev/zero", path)


KINDS = ["a name twice", "a long name", "a and a/b", "sparse", "huge", "negative", "huge header",
    "another kind of file",
         "folder", "pipe", "device"]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_archive_is_named_and_the_others_go_on(pulled, capsys, kind):
    path, other = sorted(pulled.packed_runs.glob("*.tar"))
    make(path, kind)
    study = load_study(pulled.root, PROFILE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: ") and "what it holds counts as missing" in line
    assert {status.run.configuration.id: status.state for status in study.statuses()} == {
        path.stem: "todo",
        other.stem: "done",
    }
    assert len(archives.damaged(pulled)) == 1
    assert not list(pulled.home.rglob("*.tmp")) and not list(pulled.home.rglob("evil.py"))


@pytest.mark.parametrize("name", ["...tar", ".tar", "a b.tar", "a\n.tar"])
def test_an_archives_name_leads_nowhere_else(pulled, capsys, name):
    path, _ = sorted(pulled.packed_runs.glob("*.tar"))
    shutil.copy(path, pulled.packed_runs / name)
    load_study(pulled.root, PROFILE)
    assert "name is not that of an archive" in capsys.readouterr().err
    assert not (pulled.home / "seed-0").exists() and len(list(pulled.runs.iterdir())) == 2


def test_an_archive_under_anothers_name_is_not_taken_for_it(pulled, capsys):
    one, other = sorted(pulled.packed_runs.glob("*.tar"))
    shutil.copy(one, other)
    study = load_study(pulled.root, PROFILE)
    assert f"{other}: damaged (its seed-0/result.json holds run {one.stem}-s0" in capsys.readouterr().err
    assert sorted(status.state for status in study.statuses()) == ["done", "todo"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_lies_in_a_results_place_stops_only_it(pulled, capsys, kind):
    one, other = sorted(pulled.packed_runs.glob("*.tar"))
    place = pulled.runs / one.stem / "seed-0"
    place.parent.mkdir(parents=True)
    place.write_text("in the way") if kind == "file" else (place / "logits.safetensors").mkdir(parents=True)
    load_study(pulled.root, PROFILE)
    said = capsys.readouterr().err
    assert kind == "folder" or f"{one}: cannot be unpacked" in said
    assert contents(pulled.runs / other.stem)


def test_what_does_not_belong_to_a_run_is_not_packed(pushed, tmp_path):
    copy = shutil.copytree(pushed, tmp_path / "copy")
    workspace = Workspace(copy, PROFILE)
    before = contents(workspace.home / "packed")
    (next(workspace.runs.glob("*/seed-0")) / "notes.txt").write_text("mine")
    archives.pack_runs(workspace)
    assert contents(workspace.home / "packed") == before
