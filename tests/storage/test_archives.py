"""Archives of results: the same files give the same bytes, unpacking restores them and overwrites nothing, damage is
reported."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from collabench.cli.app import app
from collabench.core.errors import ResultError
from collabench.storage import archives
from collabench.storage.workspace import Workspace
from tests.support import trained_study
from tests.support.project import contents


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Two configurations with two runs each, packed."""
    found = Workspace(tmp_path / "project", "study")
    for configuration in ("one", "two"):
        for seed in (0, 1):
            write(
                found.runs / configuration / f"seed-{seed}",
                result_json=f"{configuration} {seed}",
                weights_safetensors="w" * 999,
            )
            path = found.measured / configuration / f"seed-{seed}.json"
            write(path.parent, **{path.name.replace(".", "_"): f"{configuration} {seed} took long"})
        write(found.runs / configuration, **{"seeds-0-1_done": ""})
    archives.pack_runs(found)
    archives.pack_measured(found)
    return found


def pulled(workspace: Workspace, root: Path) -> Workspace:
    """Another root that has the archives only."""
    there = Workspace(root, workspace.profile)
    for name, content in contents(workspace.home / "packed").items():
        target = there.home / "packed" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return there


def test_one_archive_for_each_configuration_restores_every_file(workspace, tmp_path):
    assert sorted(path.name for path in workspace.packed_runs.iterdir()) == ["one.tar", "two.tar"]
    there = pulled(workspace, tmp_path / "clone")
    archives.unpack(there.root)
    assert contents(there.runs) == contents(workspace.runs) != {}
    assert contents(there.measured) == contents(workspace.measured) != {}
    assert not list(there.home.rglob("*.tmp"))


def test_plain_tar_reads_an_archive(workspace, tmp_path):
    with tarfile.open(workspace.packed_runs / "one.tar") as archive:
        archive.extractall(tmp_path / "out")  # made by this test
    assert contents(tmp_path / "out") == contents(workspace.runs / "one")


def test_the_same_files_give_the_same_bytes_whatever_their_times(workspace):
    before = contents(workspace.home / "packed")
    for path in workspace.home.rglob("*"):
        os.utime(path, (1, 1))
    for path in workspace.packed_runs.iterdir():
        path.unlink()
    archives.pack_runs(workspace)
    assert contents(workspace.home / "packed") == before


def test_packing_again_writes_only_what_changed_and_drops_what_is_gone(workspace):
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in workspace.packed_runs.iterdir()}

    before = stamps()
    archives.pack_runs(workspace)
    assert stamps() == before
    write(workspace.runs / "one" / "seed-2", result_json="one 2")
    for path in sorted((workspace.runs / "two").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    write(workspace.runs / "three" / "seed-0", result_json="three 0")
    archives.pack_runs(workspace)
    assert set(stamps()) == {"one.tar", "three.tar"} and stamps()["one.tar"] != before["one.tar"]


def test_what_is_packed_here_or_was_unpacked_once_is_not_unpacked_again(workspace, tmp_path):
    there = pulled(workspace, tmp_path / "clone")
    archives.unpack(there.root)
    for known in (workspace, there):
        ((known.runs / "one" / "seed-0") / "result.json").unlink()  # by `collabench gc`, or because it was damaged
        archives.unpack(known.root)
        assert not ((known.runs / "one" / "seed-0") / "result.json").exists()


def test_a_result_that_is_there_stays_and_a_run_that_was_not_finished_is_completed(workspace, tmp_path):
    there, told = pulled(workspace, tmp_path / "clone"), []
    write(there.runs / "one" / "seed-0", result_json="found here")
    write(there.runs / "one" / "seed-1", weights_safetensors="w" * 999)
    archives.unpack(there.root, told.append)
    assert contents(there.runs / "one" / "seed-0") == {"result.json": b"found here"}
    assert contents(there.runs / "one" / "seed-1") == contents(workspace.runs / "one" / "seed-1")
    (line,) = told
    assert str(there.runs / "one" / "seed-0" / "result.json") in line and "stays" in line


@pytest.mark.parametrize("damage", ["content", "name", "truncated", "empty", "no tar"])
def test_a_damaged_archive_is_told_by_name_and_the_others_are_unpacked(workspace, tmp_path, damage):
    there, told = pulled(workspace, tmp_path / "clone"), []
    path = there.packed_runs / "one.tar"
    content = bytearray(path.read_bytes())
    if damage == "content":
        content[content.index(b"www") + 1] ^= 1
    elif damage == "name":
        position = content.rindex(b"seed-1/weights")
        content[position + 5] ^= 1
    elif damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content = bytearray(b"" if damage == "empty" else b"no tar" * 500)
    path.write_bytes(content)
    archives.unpack(there.root, told.append)
    (line,) = told
    assert line.startswith(f"{path}: damaged (") and "`dvc pull --force` brings it again" in line
    assert not (there.runs / "one").exists() or not contents(there.runs / "one")
    assert contents(there.runs / "two") == contents(workspace.runs / "two")
    path.write_bytes((workspace.packed_runs / "one.tar").read_bytes())
    archives.unpack(there.root, told.append)
    assert contents(there.runs) == contents(workspace.runs) and len(told) == 1


@pytest.mark.parametrize("part", range(8))
def test_a_bit_anywhere_is_seen(workspace, part):
    path = workspace.packed_runs / "one.tar"
    whole = path.read_bytes()
    for position in range(part * 37, len(whole), 8 * 37):  # headers, contents, padding and end
        content = bytearray(whole)
        content[position] ^= 0x10
        path.write_bytes(content)
        assert [line.partition(": ")[0] for line in archives.damaged(workspace)] == [str(path)], f"byte {position}"
    path.write_bytes(whole + b"\0")
    assert len(archives.damaged(workspace)) == 1
    path.write_bytes(whole)
    assert archives.damaged(workspace) == []


def test_a_damaged_archive_is_named_and_written_again_where_its_runs_are(workspace, capsys):
    before = contents(workspace.home / "packed")
    for path, damage in ((workspace.packed_runs / "one.tar", 1700), (workspace.packed_measured, -1)):
        content = bytearray(path.read_bytes())
        content[damage] ^= 1
        path.write_bytes(content)
    archives.pack_runs(workspace)
    archives.pack_measured(workspace)
    assert contents(workspace.home / "packed") == before
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": damaged (")[0] for line in lines] == [
        str(workspace.packed_runs / "one.tar"),
        str(workspace.packed_measured),
    ]
    assert all(line.endswith("written again") for line in lines)


@pytest.mark.parametrize("name", ["../outside", "/outside", "seed-0/../../outside", "a/b/c"])
def test_an_archive_cannot_write_outside_of_its_configuration(workspace, tmp_path, name):
    there, told = pulled(workspace, tmp_path / "clone"), []
    path, evil = there.packed_runs / "one.tar", b"evil"
    digest = archives._digest([(name, hashlib.sha256(evil).hexdigest())])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={archives._DIGEST: digest}) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(evil)
        archive.addfile(info, io.BytesIO(evil))
    archives.unpack(there.root, told.append)
    assert len(told) == 1 and "which is not a file of a result" in told[0]
    assert not any(
        path.read_bytes() == evil for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".tar"
    )


def test_a_link_in_an_archive_is_refused(workspace, tmp_path):
    there, told = pulled(workspace, tmp_path / "clone"), []
    with tarfile.open(there.packed_runs / "one.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("seed-0/result.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    archives.unpack(there.root, told.append)
    assert len(told) == 1 and not (there.runs / "one" / "seed-0" / "result.json").exists()


def test_without_measurements_there_is_nothing_to_pack(tmp_path):
    workspace = Workspace(tmp_path, "study")
    with pytest.raises(ResultError, match="no run was measured"):
        archives.pack_measured(workspace)
    archives.unpack(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_of_what_was_unpacked_is_made_again(workspace):
    workspace.unpacked.write_text("{")
    archives.unpack(workspace.root)
    assert set(json.loads(workspace.unpacked.read_text())) == {"one.tar", "two.tar", "measured.tar"}


def test_sharing_where_dvc_is_not_set_up_is_refused_before_anything_is_written(tmp_path):
    trained_study.write_params(tmp_path)
    done = CliRunner().invoke(app, ["share", "-p", "small", "--root", str(tmp_path)])
    assert "has no folder .dvc" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    "header", [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.size": "x"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}]
)
def test_an_archive_with_headers_made_to_harm_is_told_by_name(workspace, tmp_path, header):
    """tarfile raises other errors than its own where it reads numbers of extended headers."""
    path, told = workspace.packed_runs / "one.tar", []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("seed-0/result.json")
        member.size, member.pax_headers = 2, header
        archive.addfile(member, io.BytesIO(b"{}"))
    there = pulled(workspace, tmp_path / "clone")
    archives.unpack(there.root, told.append)
    assert len(told) == 1 and f"{there.packed_runs / 'one.tar'}: damaged" in told[0]
    assert contents(there.runs / "one") == {} and contents(there.runs / "two") != {}
    assert len(archives.damaged(workspace)) == 1
