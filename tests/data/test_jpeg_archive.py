"""An archive of JPEG files from the official CIFAR-10: read by the suite as a folder of images, and close to it."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import jpeg_archive
from collabench.config.data_sections import DatasetConfig
from collabench.data import sources
from tests.support.official_formats import write_cifar10


@pytest.fixture
def official(tmp_path, monkeypatch):
    """CIFAR-10 of six batches of twenty images, smooth ones: noise has nothing that JPEG keeps."""
    made = write_cifar10(tmp_path)
    source = sources.open_source(DatasetConfig(source="cifar10"), tmp_path, None, print, {"cifar10": made})
    read = source.read

    def smooth(train, test):
        across = torch.arange(32).repeat(32, 1)
        plane = torch.stack([across * 4, across.T * 4, across + across.T], dim=-1)
        return tuple((plane + indices[:, None, None, None] % 50).to(torch.uint8) for indices in (train, test))

    assert read(torch.arange(2), torch.arange(2))[0].shape == (2, 32, 32, 3)
    object.__setattr__(source, "read", smooth)
    monkeypatch.setattr(jpeg_archive, "open_source", lambda *_: source)
    return source


def write(monkeypatch, capsys, target):
    monkeypatch.setattr(sys, "argv", ["jpeg_archive", str(target)])
    return jpeg_archive.main(), capsys.readouterr()


def test_the_suite_reads_the_archive_as_the_same_images_in_the_same_order(official, tmp_path, monkeypatch, capsys):
    target = tmp_path / "made" / "jpeg.tar.xz"
    code, said = write(monkeypatch, capsys, target)
    assert code == 0 and f"path: {target}" in said.out
    digest = said.out.split("sha256: ")[1].strip()
    config = DatasetConfig(source="images", path=str(target), sha256=digest)
    archive = sources.open_source(config, tmp_path, target, print)
    assert archive.classes == tuple(sorted(official.classes))
    for split, labels, wanted in ((0, archive.train_labels, official.train_labels),
                                  (1, archive.test_labels, official.test_labels)):  # fmt: skip
        assert labels.bincount().tolist() == wanted.bincount().tolist()
        for label, name in enumerate(archive.classes):
            here = (labels == label).nonzero()[:, 0]
            there = (wanted == official.classes.index(name)).nonzero()[:, 0]
            none = torch.arange(0)
            ours = archive.read(*((here, none) if split == 0 else (none, here)))[split].float()
            theirs = official.read(*((there, none) if split == 0 else (none, there)))[split].float()
            assert (ours - theirs).abs().mean() < 6  # lossy, and close


def test_the_same_images_give_the_same_bytes(official, tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    for target in (first, second):
        assert write(monkeypatch, capsys, target)[0] == 0
    assert first.read_bytes() == second.read_bytes()


def test_an_archive_that_is_there_is_not_written_over(official, tmp_path, monkeypatch, capsys):
    target = tmp_path / "a.tar.xz"
    target.write_bytes(b"mine")
    code, said = write(monkeypatch, capsys, target)
    assert code == 2 and "exists already" in said.err and target.read_bytes() == b"mine"


def test_without_the_official_files_one_line_says_so(tmp_path, monkeypatch, capsys):
    missing = tmp_path / "nothing.tar.gz"
    monkeypatch.setattr(sys, "argv", ["jpeg_archive", str(tmp_path / "a.tar.xz"), "--path", str(missing)])
    assert jpeg_archive.main() == 2
    said = capsys.readouterr().err
    assert str(missing) in said and said.count("\n") == 1 and not list(tmp_path.glob("a.tar*"))
