"""Archives and pickles that mean harm, or are damaged."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from collabench.core.errors import DataError
from collabench.data.archives import members, read_pickle
from tests.support.official_formats import python2_pickle

LARGEST = 1_000_000


def read_all(path: Path, largest: int = LARGEST) -> dict[str, bytes]:
    return {name: content() for name, _, content in members(path, largest)}


def write_tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member, content in entries:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_tar_of_every_compression(tmp_path, ending):
    mode = {"tar": "w"}.get(ending, f"w:{ending[4:]}")
    path = write_tar(
        tmp_path / f"a.{ending}",
        (tarfile.TarInfo("./train/a.png"), b"one"),
        (tarfile.TarInfo("x" * 200), b"long name"),
        (tarfile.TarInfo("empty"), b""),
        mode=mode,
    )
    assert read_all(path) == {"train/a.png": b"one", "x" * 200: b"long name", "empty": b""}


def test_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("train")
        archive.writestr("train/a.png", b"one")
    assert read_all(tmp_path / "a.zip") == {"train/a.png": b"one"}


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "C:/out"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_lead_out_are_refused(tmp_path, name, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        write_tar(path, (tarfile.TarInfo(name), b"x"))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    with pytest.raises(DataError, match="leads out of the archive; refused"):
        read_all(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("train/a/link.png")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(DataError, match="link or a device"):
        read_all(write_tar(tmp_path / "a.tar", (member, b"")))


def test_a_sparse_member_and_a_negative_size_are_refused(tmp_path):
    sparse = tarfile.TarInfo("train/a/1.png")
    sparse.pax_headers = {"GNU.sparse.size": "5", "GNU.sparse.map": "0,0"}
    with pytest.raises(DataError, match="has holes"):
        read_all(write_tar(tmp_path / "a.tar", (sparse, b"")))
    path = write_tar(tmp_path / "b.tar", (tarfile.TarInfo("train/a/1.png"), b"x"))
    content = bytearray(path.read_bytes())
    content[124:136] = (-512).to_bytes(12, signed=True)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tar"):
        read_all(path)


def test_links_in_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("train/a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="link or a device"):
        read_all(tmp_path / "a.zip")


def test_members_that_unpack_to_too_much_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", (tarfile.TarInfo("big"), bytes(LARGEST + 1)), mode="w:gz")
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        read_all(path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", bytes(LARGEST + 1))
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        read_all(tmp_path / "a.zip")


def test_a_header_that_unpacks_to_too_much_is_refused(tmp_path):
    """An extended header is read in one piece by tarfile, however long it says it is."""
    member = tarfile.TarInfo("header")
    member.type = tarfile.XHDTYPE
    path = write_tar(tmp_path / "a.tar.gz", (member, bytes(2 * LARGEST)), mode="w:gz")
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        read_all(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_truncated_archives_are_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    content = np.random.default_rng(0).bytes(50_000)
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", content)
    else:
        write_tar(path, (tarfile.TarInfo("a"), content), mode={"tar": "w"}.get(ending, f"w:{ending[4:]}"))
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=rf"a\.{ending}: (damaged|truncated)"):
            read_all(path)


def test_missing_archive(tmp_path):
    with pytest.raises(DataError, match=r"none\.tar: is missing"):
        read_all(tmp_path / "none.tar")


# ------------------------------------------------------------------------------------------------------ pickles


class Evil:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


TRACE = Path("evil-was-here")


@pytest.mark.parametrize(
    "evil",
    [
        Evil(__import__("os").system, f"touch {TRACE}"),
        Evil(eval, f"open('{TRACE}', 'w')"),
        Evil(getattr, {}, "keys"),
        Evil(np.load, "x"),
        Evil(np.ndarray, (10,)),
        Evil(bytearray, 10**9),
    ],
    ids=lambda evil: str(getattr(evil.call[0], "__name__", "")),
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_that_call_something_are_refused(evil, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"batch_1: not a pickle of plain data and arrays .*; refused"):
        read_pickle(pickle.dumps({"data": evil}, protocol=protocol), "batch_1")
    assert not TRACE.exists()


def test_arrays_of_objects_are_refused():
    with pytest.raises(DataError, match="arrays of type 'O8' are not read"):
        read_pickle(pickle.dumps({"data": np.array([{}], dtype=object)}, protocol=3), "batch")


def test_arrays_whose_content_does_not_fit_their_shape_are_refused():
    content = pickle.dumps({"data": np.zeros((2, 3), dtype=np.uint8)}, protocol=3)
    shorter = content.replace(b"K\x02K\x03\x86", b"K\x09K\x09\x86")
    assert shorter != content
    with pytest.raises(DataError, match="batch: not a pickle"):
        read_pickle(shorter, "batch")


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4", "float32", "float64"])
def test_arrays_of_both_pythons_are_read(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for content in (python2_pickle({b"data": array}), pickle.dumps({"data": array}, protocol=3)):
        read = read_pickle(content, "batch")["data"]
        assert read.dtype == array.dtype and np.array_equal(read, array)
    column_major = np.asfortranarray(array)
    assert np.array_equal(read_pickle(pickle.dumps({"data": column_major}, protocol=3), "batch")["data"], array)


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", pickle.dumps([1]), pickle.dumps({"a": 1})[:-3]])
def test_damaged_pickles_are_named(content):
    with pytest.raises(DataError, match="batch: "):
        read_pickle(content, "batch")
