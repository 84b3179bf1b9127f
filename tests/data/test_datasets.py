"""Preparing and loading data sets from generated files in the official formats."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from collabench import data
from collabench.config.data_sections import DatasetConfig
from collabench.config.sections import Augmentation
from collabench.core.errors import DataError
from collabench.core.torchvision_import import import_torchvision
from collabench.data import official
from collabench.data.normalisation import statistics
from collabench.data.official import OFFICIAL
from tests.support import official_formats as formats
from tests.support.project import ROOT

ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"


def prepared(tmp_path: Path, config: DatasetConfig, **options: object) -> data.Dataset:
    data.prepare(config, tmp_path / "downloads", tmp_path / "prepared", **options)
    return data.load(tmp_path / "prepared")


def pinned(tmp_path: Path, **fields: object) -> DatasetConfig:
    config = DatasetConfig(**fields)
    return config.model_copy(update={"sha256": data.source_digest(config)})


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ------------------------------------------------------------------------------------------------------- digits


def test_digits_standard_split(tmp_path):
    dataset = prepared(tmp_path, DatasetConfig(source="digits"))
    assert dataset.train_images.shape == (1437, 8, 8, 1) and dataset.test_images.shape == (360, 8, 8, 1)
    assert dataset.form.shape == (1, 8, 8) and dataset.classes == tuple("0123456789")
    assert dataset.train_images.dtype == torch.uint8 and dataset.train_labels.dtype == torch.int64
    assert dataset.train_images.max() == 255 and dataset.train_images.is_contiguous()
    everything = torch.cat([dataset.train_labels, dataset.test_labels])
    share = torch.bincount(dataset.test_labels) - torch.bincount(everything) * 360 / 1797
    assert share.abs().max() < 1
    from sklearn.datasets import load_digits

    images = torch.cat([dataset.train_images, dataset.test_images]).flatten(1)
    found = {(*image, int(label)) for image, label in zip(images.tolist(), everything.tolist(), strict=True)}
    bunch = load_digits()
    original = {
        (*np.rint(x * 255 / 16).astype(int).tolist(), int(y)) for x, y in zip(bunch.data, bunch.target, strict=True)
    }
    assert found == original


def test_mean_and_std_are_those_of_the_training_split(tmp_path):
    dataset = prepared(tmp_path, DatasetConfig(source="digits", train_images=200))
    values = dataset.train_images.double() / 255
    assert dataset.mean == pytest.approx(values.mean(dim=(0, 1, 2)).tolist(), abs=1e-12)
    assert dataset.std == pytest.approx(values.std(dim=(0, 1, 2), correction=0).tolist(), abs=1e-12)
    assert statistics(torch.full((2, 3, 3, 1), 7, dtype=torch.uint8)) == ((pytest.approx(7 / 255),), (1 / 255,))


def test_subsets_are_fixed_by_the_split_seed(tmp_path):
    config = DatasetConfig(source="digits", train_images=160, test_images=100)
    first = prepared(tmp_path / "a", config)
    assert torch.bincount(first.train_labels).tolist() == [16] * 10 and len(first.test_labels) == 100
    assert prepared(tmp_path / "b", config).digest == first.digest
    assert prepared(tmp_path / "c", config.model_copy(update={"split_seed": 1})).digest != first.digest


def test_test_on_rest_tests_on_every_other_image(tmp_path):
    dataset = prepared(tmp_path, DatasetConfig(source="digits", train_images=500, test_on_rest=True))
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (500, 1297)
    whole = prepared(tmp_path / "whole", DatasetConfig(source="digits"))

    def contents(*parts: torch.Tensor) -> list[list[int]]:
        return sorted(torch.cat(parts).flatten(1).tolist())

    assert contents(dataset.train_images, dataset.test_images) == contents(whole.train_images, whole.test_images)


def test_more_images_than_there_are(tmp_path):
    with pytest.raises(DataError, match=r"digits: train_images or test_images: 1500 images .* only 1437"):
        prepared(tmp_path, DatasetConfig(source="digits", train_images=1500))
    assert files_in(tmp_path / "prepared") == []


# ----------------------------------------------------------------------------------------------- official archives


def test_official_addresses_and_checksums_are_torchvisions():
    datasets = import_torchvision().datasets
    for source, its_class in (
        ("cifar10", datasets.CIFAR10),
        ("cifar100", datasets.CIFAR100),
        ("stl10", datasets.STL10),
    ):
        assert OFFICIAL[source].url == its_class.url
        assert OFFICIAL[source].checksum == f"md5:{its_class.tgz_md5}"
        assert OFFICIAL[source].name == its_class.filename
        assert OFFICIAL[source].folder == its_class.base_folder
        checksums = dict([*its_class.train_list, *its_class.test_list])
        if source == "stl10":
            del checksums["unlabeled_X.bin"]  # is not read
        else:
            checksums[its_class.meta["filename"]] = its_class.meta["md5"]
            assert its_class.meta["key"] == official._CIFAR[source][-1]
        assert OFFICIAL[source].files == {name: f"md5:{md5}" for name, md5 in checksums.items()}
        assert set(official._names(source)) == OFFICIAL[source].files.keys()


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "stl10"])
def test_read_as_torchvision_reads_them(tmp_path, source, monkeypatch):
    official = getattr(formats, f"write_{source}")(tmp_path / "mirror")
    config = DatasetConfig(source=source, path=str(tmp_path / "mirror"))
    dataset = prepared(tmp_path, config, official={source: official})
    its_class = getattr(
        import_torchvision().datasets, {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "stl10": "STL10"}[source]
    )
    with tarfile.open(tmp_path / "mirror" / official.name) as archive:
        archive.extractall(tmp_path / "unpacked")  # made by this test
    monkeypatch.setattr(its_class, "_check_integrity", lambda self: True)
    for module in ("cifar", "stl10"):  # generated files cannot have the official checksums
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *arguments: True)
    for split, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        theirs = (
            its_class(tmp_path / "unpacked", split)
            if source == "stl10"
            else its_class(tmp_path / "unpacked", split == "train")
        )
        assert len(theirs) == len(labels) > 0
        for position in range(0, len(labels), 7):
            image, label = theirs[position]
            assert np.array_equal(np.asarray(image), images[position].numpy()) and label == labels[position]
        assert tuple(theirs.classes) == dataset.classes


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "stl10"])
@pytest.mark.parametrize("within", [False, True])
def test_the_unpacked_files_give_the_same_as_the_archive(tmp_path, source, within):
    official = getattr(formats, f"write_{source}")(tmp_path / "mirror")
    config = DatasetConfig(source=source, path=str(tmp_path / "mirror"))
    packed = prepared(tmp_path / "packed", config, official={source: official})
    with tarfile.open(tmp_path / "mirror" / official.name) as archive:
        archive.extractall(tmp_path / "unpacked")  # made by this test
    path = tmp_path / "unpacked" / (official.folder if within else "")
    config = DatasetConfig(source=source, path=str(path))
    assert prepared(tmp_path, config, official={source: official}).digest == packed.digest
    file = tmp_path / "unpacked" / official.folder / sorted(official.files)[-1]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"{file.name}: damaged or another file .*; unpack it again"):
        prepared(tmp_path / "damaged", config, official={source: official})
    file.unlink()
    with pytest.raises(DataError, match=f"{official.folder}: holds no {file.name}, which belongs to the unpacked"):
        prepared(tmp_path / "missing", config, official={source: official})


@pytest.mark.parametrize(("version", "name"), [("binary", "cifar-10-batches-bin"), ("Matlab", "data_batch_1.mat")])
def test_other_versions_of_cifar_are_refused_with_what_to_do(tmp_path, version, name):
    (tmp_path / "placed" / name).mkdir(parents=True)
    with pytest.raises(
        DataError, match=rf"{name}: the {version} version, .*cifar-10-python\.tar\.gz.*cifar-10-batches-py"
    ):
        prepared(tmp_path, DatasetConfig(source="cifar10", path=str(tmp_path / "placed")))


def test_official_archive_with_other_content_is_refused(tmp_path):
    """An archive whose checksum is the expected one and whose content is not."""
    path = tmp_path / "mirror" / OFFICIAL["cifar10"].name
    formats.write_tar_gz(path, {"cifar-10-batches-py/data_batch_1": b"x"})
    config = DatasetConfig(source="cifar10", path=str(path.parent))
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: holds no cifar-10-batches-py/data_batch_2"):
        prepared(tmp_path, config, official={"cifar10": formats.official_of(path, "cifar10")})
    assert files_in(tmp_path / "prepared") == []


# ------------------------------------------------------------------------------------------------------ ImageNet32


@pytest.mark.parametrize("npz", [True, False])
def test_imagenet32(tmp_path, npz):
    folder = tmp_path / "imagenet32"
    sha256 = formats.write_imagenet32(folder, npz=npz)
    dataset = prepared(tmp_path, DatasetConfig(source="imagenet32", path=str(folder), sha256=sha256))
    assert dataset.train_images.shape == dataset.test_images.shape == (1000, 32, 32, 3)
    assert torch.equal(dataset.train_labels, torch.arange(1000)) and len(dataset.classes) == 1000
    expected = formats.pixels_of(100, 3072, 3).reshape(-1, 3, 32, 32)  # fourth file: images 300 to 399
    assert np.array_equal(dataset.train_images[300:400].permute(0, 3, 1, 2).numpy(), expected)
    small = prepared(
        tmp_path / "small", DatasetConfig(source="imagenet32", path=str(folder), sha256=sha256, train_images=50)
    )
    assert torch.equal(small.train_images, dataset.train_images[small.train_labels])


def test_imagenet32_says_which_files_are_missing(tmp_path):
    config = DatasetConfig(source="imagenet32", path="data/imagenet32")
    with pytest.raises(
        DataError, match=r"train_data_batch_1 … train_data_batch_10 and val_data .*image-net\.org.*account"
    ):
        prepared(tmp_path, config, root=tmp_path)
    folder = tmp_path / "data" / "imagenet32"
    formats.write_imagenet32(folder)
    (folder / "train_data_batch_7.npz").unlink()
    with pytest.raises(DataError, match=r"holds no train_data_batch_7\.npz"):
        prepared(tmp_path, config, root=tmp_path)


@pytest.mark.parametrize("npz", [True, False])
def test_imagenet32_damaged_file_is_named(tmp_path, npz):
    folder = tmp_path / "imagenet32"
    formats.write_imagenet32(folder, npz=npz)
    file = folder / ("val_data.npz" if npz else "val_data")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="val_data"):
        prepared(tmp_path, pinned(tmp_path, source="imagenet32", path=str(folder)))
    assert files_in(tmp_path / "prepared") == []


# ---------------------------------------------------------------------------------------------------- image files


def test_folder_and_archives_give_the_same(tmp_path):
    formats.write_images(tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "plain"), "zip", tmp_path / "pets")
    shutil.make_archive(str(tmp_path / "within"), "xztar", tmp_path, "pets")
    datasets = [
        prepared(tmp_path / str(number), pinned(tmp_path, source="images", path=str(tmp_path / name)))
        for number, name in enumerate(("pets", "plain.zip", "within.tar.xz"))
    ]
    assert len({dataset.digest for dataset in datasets}) == 1
    dataset = datasets[0]
    assert dataset.classes == ("cat", "dog") and dataset.train_labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.form.shape == (3, 10, 12)
    for position, name in enumerate(f"train/{c}/{n:04d}.png" for c in ("cat", "dog") for n in range(4)):
        assert np.array_equal(dataset.train_images[position].numpy(), np.asarray(Image.open(tmp_path / "pets" / name)))


def test_images_must_be_pinned_and_fit_their_pin(tmp_path):
    sha256 = formats.write_images(tmp_path / "pets")
    with pytest.raises(DataError, match=f"not pinned.* sha256: {sha256}$"):
        prepared(tmp_path, DatasetConfig(source="images", path="pets"), root=tmp_path)
    (tmp_path / "pets/train/cat/0000.png").write_bytes((tmp_path / "pets/train/cat/0001.png").read_bytes())
    with pytest.raises(
        DataError, match=f"damaged or another version .*{sha256}.*; if you changed it, write the first one"
    ):
        prepared(tmp_path, DatasetConfig(source="images", path="pets", sha256=sha256), root=tmp_path)
    shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets")
    archive = tmp_path / "pets.zip"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert data.source_digest(DatasetConfig(source="images", path="pets.zip"), tmp_path) == digest
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"pets\.zip: damaged or another version"):
        prepared(tmp_path, DatasetConfig(source="images", path=str(archive), sha256=digest))
    assert files_in(tmp_path / "prepared") == []


def test_mixed_sizes_need_a_resize(tmp_path):
    formats.write_images(tmp_path / "pets", sizes_differ=True)
    with pytest.raises(
        DataError, match=r"train/cat/0001\.png is 15 x 12 pixels, others are 12 x 10; .*: give the data set a resize$"
    ):
        prepared(tmp_path, pinned(tmp_path, source="images", path=str(tmp_path / "pets")))
    assert files_in(tmp_path / "prepared") == []
    dataset = prepared(tmp_path, pinned(tmp_path, source="images", path=str(tmp_path / "pets"), resize=8))
    assert dataset.form.shape == (3, 8, 8)
    image = Image.open(tmp_path / "pets/train/cat/0001.png").resize((10, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.train_images[1].numpy(), np.asarray(image)[:, 1:9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "train/dog/0000.png").write_bytes(b"\x89PNG\r\n\x1a\n junk"),
            r"train/dog/0000\.png: not an image",
        ),
        (
            lambda f: (f / "train/dog/x.png").write_bytes((f / "train/dog/0000.png").read_bytes()[:200]),
            r"x\.png: not an",
        ),
        (lambda f: (f / "train/dog/x.png").write_bytes(b""), r"x\.png: not an image .*\(none of JPEG, PNG"),
        (lambda f: (f / "train/dog/notes.txt").write_text("x"), r"train/dog/notes\.txt is not an image"),
        (
            lambda f: (f / "train/dog/x.png").symlink_to("nowhere"),
            r"train/dog/x\.png is not a readable file .*\(a broken link",
        ),
        (lambda f: (f / "train/dog/more").mkdir(), "train/dog/more/ lies in a folder within its class"),
        (
            lambda f: (f / b"train/dog/\xff.png".decode(errors="surrogateescape")).touch(),
            r"\\udcff\.png' has a name that is not UTF-8",
        ),
        (lambda f: save_deep(f / "train/dog/x.png", np.uint16), r"x\.png: has more than 8 bits a pixel"),
        (lambda f: save_deep(f / "train/dog/x.tif", np.float32), r"x\.tif: has more than 8 bits a pixel"),
        (lambda f: [shutil.rmtree(f / s / "dog") for s in ("train", "test")], r"one class only \('cat'\)"),
        (lambda f: shutil.rmtree(f / "test/dog"), "the class 'dog' has no images in test/"),
        (lambda f: shutil.rmtree(f / "test"), "holds no folder test/"),
        (lambda f: shutil.rmtree(f), "does not exist"),
    ],
)
def test_wrong_folders_are_named(tmp_path, change, message):
    folder = tmp_path / "pets"
    formats.write_images(folder)
    change(folder)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, pinned(tmp_path, source="images", path=str(folder)))
    assert files_in(tmp_path / "prepared") == []


def save_deep(path: Path, kind: type) -> None:
    """An image of formats.write_images' size whose values Pillow would cut off at 255."""
    Image.fromarray(np.arange(120, dtype=kind).reshape(10, 12) * 500).save(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_lies_too_deep_in_an_archive_is_named(tmp_path, kind):
    formats.write_images(tmp_path / "pets")
    (tmp_path / "pets/train/dog/more").mkdir()
    shutil.copy(tmp_path / "pets/train/dog/0000.png", tmp_path / "pets/train/dog/more")
    for archive in (
        shutil.make_archive(str(tmp_path / "plain"), kind, tmp_path / "pets"),
        shutil.make_archive(str(tmp_path / "within"), kind, tmp_path, "pets"),
    ):
        with pytest.raises(DataError, match=r"train/dog/more/0000\.png lies in a folder within its class"):
            prepared(tmp_path, pinned(tmp_path, source="images", path=archive))


@pytest.mark.parametrize("top", ["", "pets/"])
def test_what_a_mac_adds_to_an_archive_is_left_aside(tmp_path, top):
    formats.write_images(tmp_path / "pets")
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for file in sorted((tmp_path / "pets").rglob("*.png")):
            name = file.relative_to(tmp_path / "pets")
            archive.write(file, f"{top}{name}")
            archive.writestr(f"__MACOSX/{top}{name.parent}/._{name.name}", b"attributes")
    config = pinned(tmp_path, source="images", path=str(tmp_path / "mac.zip"))
    assert prepared(tmp_path, config).classes == ("cat", "dog")


def test_subset_of_image_files(tmp_path):
    formats.write_images(tmp_path / "pets", train=10, test=4)
    config = pinned(tmp_path, source="images", path=str(tmp_path / "pets"), train_images=6, test_images=2)
    dataset = prepared(tmp_path, config)
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1] and dataset.test_labels.tolist() == [0, 1]


@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not there")
@pytest.mark.slow
def test_cifar10_jpeg(tmp_path):
    sha256 = "253431182f2f7cdd7415c680005de451e2b357bf6c3ae552ae0c884615f97685"
    config = DatasetConfig(source="images", path=str(ARCHIVE), title="CIFAR-10 (JPEG)", sha256=sha256)
    dataset = prepared(tmp_path, config)
    assert (dataset.title, dataset.classes) == ("CIFAR-10 (JPEG)", formats.CIFAR10_CLASSES)
    assert dataset.train_images.shape == (50_000, 32, 32, 3) and dataset.test_images.shape == (10_000, 32, 32, 3)
    assert torch.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert dataset.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.002)
    best = 1e9
    for _ in range(3):
        begin = time.perf_counter()
        data.load(tmp_path / "prepared")
        best = min(best, time.perf_counter() - begin)
    assert best < 1


# -------------------------------------------------------------------------------------------- the prepared form


@pytest.fixture
def digits(tmp_path) -> Path:
    data.prepare(DatasetConfig(source="digits", train_images=40, test_images=20), tmp_path, tmp_path / "prepared")
    return tmp_path / "prepared"


def prepare_again(folder: Path, **fields: object) -> list[str]:
    lines: list[str] = []
    config = DatasetConfig(source="digits", **{"train_images": 40, "test_images": 20} | fields)
    data.prepare(config, folder.parent, folder, lines.append)
    return lines


def test_prepared_once(digits):
    before = {path.name: path.stat().st_mtime_ns for path in digits.iterdir()}
    assert set(before) == {"arrays.safetensors", "manifest.json"}
    assert prepare_again(digits) == []
    assert {path.name: path.stat().st_mtime_ns for path in digits.iterdir()} == before


def test_the_same_bytes_every_time(digits, tmp_path):
    again = tmp_path / "again"
    data.prepare(DatasetConfig(source="digits", train_images=40, test_images=20), tmp_path, again)
    for name in ("arrays.safetensors", "manifest.json"):
        assert (again / name).read_bytes() == (digits / name).read_bytes()


@pytest.mark.parametrize("name", ["arrays.safetensors", "manifest.json"])
def test_every_damage_is_found_and_mended(digits, name):
    whole = (digits / name).read_bytes()
    positions = [0, 9, 40, len(whole) // 3, len(whole) // 2, len(whole) - 3]
    damaged = [whole[:p] + bytes([whole[p] ^ 4]) + whole[p + 1 :] for p in positions]
    damaged += [whole[:length] for length in (0, 7, len(whole) // 2, len(whole) - 2)]
    for content in damaged:
        (digits / name).write_bytes(content)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            data.load(digits)
    assert any(name in line and "preparing it again" in line for line in prepare_again(digits))
    assert (digits / name).read_bytes() == whole
    (digits / name).unlink()
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        data.load(digits)
    assert any(name in line for line in prepare_again(digits))
    assert (digits / name).read_bytes() == whole


def test_arrays_of_another_data_set_are_found(digits, tmp_path):
    data.prepare(DatasetConfig(source="digits", train_images=50), tmp_path, tmp_path / "other")
    shutil.copy(tmp_path / "other/arrays.safetensors", digits)
    with pytest.raises(DataError, match=r"arrays\.safetensors: does not belong to manifest\.json"):
        data.load(digits)
    shutil.copy(tmp_path / "other/manifest.json", digits)
    assert any("holds another data set" in line for line in prepare_again(digits))
    assert len(data.load(digits).train_labels) == 40


def test_a_new_title_changes_the_title_only(digits):
    digest = data.load(digits).digest
    assert prepare_again(digits, title="Handwriting") == []
    assert (data.load(digits).title, data.load(digits).digest) == ("Handwriting", digest)


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        Path(arguments[1]).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("collabench.data.tensors.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, DatasetConfig(source="digits"))
    assert files_in(tmp_path / "prepared") == []


def test_batches_of_a_data_set(digits):
    dataset = data.load(digits)
    index, held_out = data.validation_split(dataset.train_labels, 0.25, 0)
    batches = data.open_batches(dataset, Augmentation(shift=1), 8, 0, "cpu", index)
    seen = torch.cat([labels for _, labels in batches.epoch(0, dataset.train_labels[index])])
    assert torch.equal(seen.sort().values, dataset.train_labels[index].sort().values)
    (images,) = data.open_evaluation_batches(dataset, "validation", Augmentation(), 50, "cpu", held_out)
    expected = (dataset.train_images[held_out].permute(0, 3, 1, 2) / 255 - dataset.mean[0]) / dataset.std[0]
    assert torch.allclose(images, expected, atol=1e-5)
    assert sum(len(b) for b in data.open_evaluation_batches(dataset, "test", Augmentation(), 6, "cpu")) == 20
