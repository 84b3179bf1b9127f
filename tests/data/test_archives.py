"""Archives that mean harm, are damaged, or are not what their name or their end says."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from collabench.core.errors import DataError
from collabench.data.archives import members

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


# --------------------------------------------------------------------------------------------- what an archive is


def zipped(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"of the zip")
    return content.getvalue()


@pytest.mark.parametrize(
    "last", [zipped("train/x/0.png", "test/x/0.png"), zipped("word/document.xml"), b"PK\x05\x06" + bytes(18)]
)
def test_a_tar_is_a_tar_whatever_its_last_member_is(tmp_path, last):
    path = write_tar(
        tmp_path / "a.zip", (tarfile.TarInfo("train/a.png"), b"one"), (tarfile.TarInfo("notes.docx"), last)
    )
    assert zipfile.is_zipfile(path)
    assert read_all(path) == {"train/a.png": b"one", "notes.docx": last}


def test_a_zip_is_a_zip_under_any_name(tmp_path):
    (tmp_path / "data").write_bytes(zipped("train/a.png"))
    assert read_all(tmp_path / "data") == {"train/a.png": b"of the zip"}
    (tmp_path / "two").write_bytes(zipped("train/a.png") + zipped("train/b.png"))
    with pytest.raises(DataError, match="two: holds other bytes before its first member"):
        read_all(tmp_path / "two")


@pytest.mark.parametrize(
    ("kind", "first"), [("7z", b"7z\xbc\xaf\x27\x1c"), ("rar", b"Rar!\x1a\x07\x01"), ("zstd", b"\x28\xb5\x2f\xfd")]
)
def test_other_archives_are_refused_with_what_to_do(tmp_path, kind, first):
    (tmp_path / "data.tar").write_bytes(first + bytes(600))
    with pytest.raises(
        DataError, match=rf"data\.tar: a {kind} archive, which is not read; pack the files as \.tar\.xz"
    ):
        read_all(tmp_path / "data.tar")


# ----------------------------------------------------------------------------------------- how a zip writes its names


def write_names(path: Path, *members_of: zipfile.ZipInfo, written: dict[bytes, bytes] | None = None) -> Path:
    """A zip of these members. written: names as zipfile would write them → as they are to stand in it, in bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members_of:
            archive.writestr(member, b"x")
    content = path.read_bytes()
    for before, after in (written or {}).items():
        assert len(before) == len(after) and content.count(before) == 2
        content = content.replace(before, after)
    path.write_bytes(content)
    return path


def of_dos(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 0
    return member


def test_backslashes_of_powershell_separate_folders(tmp_path):
    path = write_names(tmp_path / "a.zip", of_dos("pets\\train\\"), of_dos("pets\\train\\cat\\1.png"))
    assert read_all(path) == {"pets/train/cat/1.png": b"x"}
    assert [name for name, _, _ in members(path, LARGEST, folders=True)] == ["pets/train/", "pets/train/cat/1.png"]
    with pytest.raises(DataError, match="leads out of the archive"):
        read_all(write_names(tmp_path / "b.zip", of_dos("a\\..\\..\\out")))


def test_names_in_utf8_are_read_with_and_without_their_flag(tmp_path):
    name = "train/café/1.png"
    plain = {b"train/cafXX/1.png": name.encode()}
    for number, path in enumerate(
        (
            write_names(tmp_path / "a.zip", zipfile.ZipInfo(name)),
            write_names(tmp_path / "b.zip", zipfile.ZipInfo("train/cafXX/1.png"), written=plain),
        )
    ):
        assert read_all(path) == {name: b"x"}, number


def test_the_unicode_path_of_info_zip_is_read(tmp_path):
    member, written = zipfile.ZipInfo("train/cafX/1.png"), "train/café/1.png".encode("cp437")
    field = b"\x01" + zlib.crc32(written).to_bytes(4, "little") + "train/café/1.png".encode()
    member.extra = b"up" + len(field).to_bytes(2, "little") + field
    path = write_names(tmp_path / "a.zip", member, written={b"train/cafX/1.png": written})
    assert read_all(path) == {"train/café/1.png": b"x"}


@pytest.mark.parametrize("code_page", ["cp850", "latin-1", "gbk"])
def test_names_in_a_code_page_are_refused_with_what_to_do(tmp_path, code_page):
    letters = "金毛犬" if code_page == "gbk" else "é"
    written = f"train/{letters}/1.png".encode(code_page)
    plain = b"train/" + b"X" * (len(written) - len(b"train//1.png")) + b"/1.png"
    path = write_names(tmp_path / "a.zip", zipfile.ZipInfo(plain.decode()), written={plain: written})
    with pytest.raises(DataError, match=r"a\.zip: .* not written in UTF-8.*unpack the archive and give the folder"):
        read_all(path)
