"""MNIST, Fashion-MNIST, KMNIST, SVHN, Imagenette, Tiny-ImageNet and MedMNIST, from generated files in their formats."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from collabench import data
from collabench.config.data_sections import DatasetConfig
from collabench.config.known_datasets import KNOWN
from collabench.core.errors import DataError
from collabench.core.torchvision_import import import_torchvision
from collabench.data.official import OFFICIAL
from collabench.data.official_files import OFFICIAL_FILES
from tests.support import official_formats as formats

CLASSES_OF = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


def prepared(tmp_path: Path, config: DatasetConfig, **options: object) -> data.Dataset:
    data.prepare(config, tmp_path / "downloads", tmp_path / "prepared", **options)
    return data.load(tmp_path / "prepared")


def pinned(**fields: object) -> DatasetConfig:
    config = DatasetConfig(**fields)
    return config.model_copy(update={"sha256": data.source_digest(config)})


# --------------------------------------------------------------------------------------------------- downloaded


def test_addresses_and_checksums_are_torchvisions():
    datasets = import_torchvision().datasets
    for source, name in CLASSES_OF.items():
        its_class = getattr(datasets, name)
        assert [(file.name, file.checksum) for file in OFFICIAL_FILES[source]] == [
            (name, f"md5:{md5}") for name, md5 in its_class.resources
        ]
        addresses = {mirror.rstrip("/") for mirror in its_class.mirrors}
        assert {file.url.rpartition("/")[0] for file in OFFICIAL_FILES[source]} <= addresses
    assert [(f.url, f.name, f.checksum) for f in OFFICIAL_FILES["svhn"]] == [
        (url, name, f"md5:{md5}") for url, name, md5 in (datasets.SVHN.split_list[split] for split in ("train", "test"))
    ]
    url, md5 = datasets.Imagenette._ARCHIVES["160px"]
    assert (OFFICIAL["imagenette"].url, OFFICIAL["imagenette"].checksum) == (url, f"md5:{md5}")


def test_names_of_classes_are_torchvisions():
    datasets = import_torchvision().datasets
    assert list(KNOWN["fashion_mnist"].class_names) == datasets.FashionMNIST.classes
    assert list(KNOWN["kmnist"].class_names) == datasets.KMNIST.classes
    named = datasets.Imagenette._WNID_TO_CLASS
    assert tuple(sorted(named)) == formats.IMAGENETTE
    assert tuple(named[wnid][0] for wnid in sorted(named)) == KNOWN["imagenette"].class_names


@pytest.mark.parametrize("source", CLASSES_OF)
def test_idx_files(tmp_path, source):
    files = formats.write_mnist(tmp_path / "placed", source)
    config = DatasetConfig(source=source, path=str(tmp_path / "placed"))
    dataset = prepared(tmp_path, config, official={source: files})
    assert dataset.form.shape == KNOWN[source].shape and dataset.classes == KNOWN[source].class_names
    assert (dataset.train_images[..., 0].numpy() == formats.pixels_of(30, 784, 0).reshape(-1, 28, 28)).all()
    assert (dataset.test_images[..., 0].numpy() == formats.pixels_of(20, 784, 1).reshape(-1, 28, 28)).all()
    assert dataset.train_labels.tolist() == formats.labels_of(30, 10).tolist()


def test_files_of_the_same_name_are_downloaded_to_folders_of_their_own(tmp_path):
    """Those of the MNIST family all have the same names."""
    for number, source in enumerate(CLASSES_OF):
        folder = tmp_path / "downloads" / source
        files = formats.write_mnist(folder, source, train_images=30 + number)
        config = DatasetConfig(source=source)
        data.prepare(config, tmp_path / "downloads", tmp_path / source, official={source: files})
        assert len(data.load(tmp_path / source).train_labels) == 30 + number


def test_svhn(tmp_path):
    files = formats.write_svhn(tmp_path / "placed")
    config = DatasetConfig(source="svhn", path=str(tmp_path / "placed"))
    dataset = prepared(tmp_path, config, official={"svhn": files})
    assert dataset.form.shape == (3, 32, 32) and dataset.test_images.is_contiguous()
    assert (dataset.train_images.numpy() == formats.pixels_of(30, 3072, 0).reshape(-1, 32, 32, 3)).all()
    assert dataset.train_labels.tolist() == formats.labels_of(30, 10).tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-20], "not a gzip file"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-5]), r"holds 23,515 bytes, its head says \(30, 28"),
        (lambda content: gzip.compress(b"\0\0\x0d" + gzip.decompress(content)[3:]), "not an IDX file of bytes"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, monkeypatch, change, said):
    monkeypatch.setattr("collabench.data.download.WAIT_SECONDS", 0)
    first, *others = formats.write_mnist(tmp_path / "placed")
    file = tmp_path / "placed" / first.name
    file.write_bytes(change(file.read_bytes()))
    config = DatasetConfig(source="mnist", path=str(tmp_path / "placed"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: .*" + said):
        changed = type(first)(first.url, formats.md5(file.read_bytes()))
        prepared(tmp_path, config, official={"mnist": (changed, *others)})
    unreachable = tuple(type(file)("http://127.0.0.1:9/" + file.name, file.checksum) for file in (first, *others))
    with pytest.raises(DataError, match="damaged or another file"):
        prepared(tmp_path, config, official={"mnist": unreachable})
    assert not (tmp_path / "prepared").exists()


def test_imagenette(tmp_path):
    known = formats.write_imagenette(tmp_path)
    config = DatasetConfig(source="imagenette", path=str(tmp_path), resize=12)
    dataset = prepared(tmp_path, config, official={"imagenette": known})
    assert dataset.form.shape == (3, 12, 12) and dataset.classes == KNOWN["imagenette"].class_names
    assert torch.bincount(dataset.train_labels).tolist() == [3] * 10 and len(dataset.test_labels) == 20
    with pytest.raises(ValidationError, match="add a resize"):
        DatasetConfig(source="imagenette")


# ------------------------------------------------------------------------------------------------------- placed


@pytest.mark.parametrize("form", ["outer", "inner", "zip"])
def test_tiny_imagenet(tmp_path, form):
    formats.write_tiny_imagenet(tmp_path / "in", classes=6)
    path = {"outer": tmp_path / "in", "inner": tmp_path / "in/tiny-imagenet-200"}.get(form)
    path = path or Path(shutil.make_archive(str(tmp_path / "tiny-imagenet-200"), "zip", tmp_path / "in"))
    config = pinned(source="tiny_imagenet", path=str(path))
    dataset = prepared(tmp_path, config)
    assert dataset.form.shape == (3, 64, 64) and len(dataset.classes) == 6
    assert torch.bincount(dataset.train_labels).tolist() == [2] * 6
    # the table gives the validation image n the class 5 - n, whatever the order of its files
    pixels = [
        np.asarray(formats.Image.open(formats.io.BytesIO(formats._jpeg(64, 64, n, turned=False)))) for n in range(6)
    ]
    for image, label in zip(dataset.test_images.numpy(), dataset.test_labels.tolist(), strict=True):
        assert (image == pixels[5 - label]).all()


def test_tiny_imagenets_table_of_labels_is_pinned_and_complete(tmp_path):
    formats.write_tiny_imagenet(tmp_path, classes=4)
    config = pinned(source="tiny_imagenet", path=str(tmp_path))
    table = tmp_path / "tiny-imagenet-200/val/val_annotations.txt"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(reversed(lines)))
    with pytest.raises(DataError, match="another version"):
        prepared(tmp_path, config)
    table.write_text("".join(lines[1:]))
    with pytest.raises(DataError, match=r"does not say the class of val_0\.JPEG"):
        prepared(tmp_path, config)
    with pytest.raises(DataError, match="holds no val/val_annotations"):
        data.source_digest(DatasetConfig(source="tiny_imagenet", path=str(tmp_path / "tiny-imagenet-200/train")))
    missing = DatasetConfig(source="tiny_imagenet", path=str(tmp_path / "nowhere"))
    assert "Place there tiny-imagenet-200.zip" in data.what_is_missing(missing)


@pytest.mark.parametrize("channels", [1, 3])
def test_medmnist(tmp_path, channels):
    path = tmp_path / "pathmnist.npz"
    formats.write_medmnist(path, channels=channels)
    dataset = prepared(tmp_path, pinned(source="medmnist", path=str(path)))
    assert dataset.form.shape == (channels, 28, 28) and dataset.classes == tuple("012345678")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (40, 20)
    assert dataset.test_labels.tolist() == formats.labels_of(20, 9).tolist()


def test_files_of_medmnist_that_are_no_images_with_one_label_are_refused(tmp_path):
    path = tmp_path / "chestmnist.npz"
    formats.write_medmnist(path, labels=14)
    with pytest.raises(DataError, match="has 14 labels for every image"):
        prepared(tmp_path, pinned(source="medmnist", path=str(path)))
    volumes = np.zeros((4, 8, 8, 8), dtype=np.uint8)
    np.savez(path, train_images=volumes, train_labels=np.zeros((4, 1)), test_images=volumes, test_labels=volumes[:, 0])
    with pytest.raises(DataError, match=r"shape \(4, 8, 8, 8\)"):
        prepared(tmp_path, pinned(source="medmnist", path=str(path)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="damaged or not an"):
        prepared(tmp_path, pinned(source="medmnist", path=str(path)))
    np.savez(path, images=volumes)
    with pytest.raises(DataError, match="not a file of MedMNIST"):
        prepared(tmp_path, pinned(source="medmnist", path=str(path)))
    with pytest.raises(DataError, match="is a folder; name the"):
        data.source_digest(DatasetConfig(source="medmnist", path=str(tmp_path)))
