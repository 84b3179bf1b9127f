"""Folders and archives of images as people have them: bad files, names, empty folders, odd sizes, turned images."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from collabench import data
from collabench.config.data_sections import DatasetConfig, NoiseConfig
from collabench.config.sections import Augmentation
from collabench.core.errors import DataError, StorageError
from collabench.data import image_files, images, noise
from collabench.data.image_files import BadFiles
from collabench.data.images import centre_crop
from tests.support import official_formats as formats

LIMITS = {"array": 2**32, "streamed": 100}


def pinned(folder: Path, **fields: object) -> DatasetConfig:
    config = DatasetConfig(**({"source": "images", "path": str(folder)} | fields))
    return config.model_copy(update={"sha256": data.source_digest(config)})


def prepared(tmp_path: Path, config: DatasetConfig, form: str = "array", **options: object) -> data.Dataset:
    data.prepare(config, tmp_path, tmp_path / form, max_array_bytes=LIMITS[form], **options)
    return data.load(tmp_path / form, data.path_of(config, None))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


# ------------------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("form", LIMITS)
def test_all_bad_images_are_named_at_once(tmp_path, form):
    formats.write_images(tmp_path / "pets", train=12, test=3)
    bad = [tmp_path / f"pets/{name}.png" for name in ("test/dog/0002", "train/cat/0003", "train/dog/0007")]
    for path in bad:
        cut(path)
    with pytest.raises(BadFiles) as caught:
        prepared(tmp_path, pinned(tmp_path / "pets", resize=8), form)
    assert len(caught.value.lines) == 3 and "pets: 3 files cannot be used: " in str(caught.value)
    assert all(str(path.relative_to(tmp_path / "pets")) in str(caught.value) for path in bad)
    assert not (tmp_path / form).exists()


@pytest.mark.parametrize("form", LIMITS)
def test_of_many_bad_images_some_are_named_and_all_are_listed_in_a_file(tmp_path, form):
    formats.write_images(tmp_path / "pets", train=12, test=3)
    bad = sorted((tmp_path / "pets/train").glob("*/*.png"))[:-2]
    for path in bad:
        cut(path)
    report = tmp_path / "state/bad-files.txt"
    config = pinned(tmp_path / "pets", resize=8)
    with pytest.raises(DataError, match=f"22 files cannot be used: .*; and 12 more; all of them: {report}"):
        prepared(tmp_path, config, form, bad_files=report)
    assert [line.split(": ")[1] for line in report.read_text().splitlines()] == [
        str(path.relative_to(tmp_path / "pets")) for path in bad
    ]
    formats.write_images(tmp_path / "pets", train=12, test=3)
    prepared(tmp_path, pinned(tmp_path / "pets", resize=8), form, bad_files=report)
    assert not report.exists()


def test_all_files_that_are_no_images_are_named_at_once(tmp_path):
    formats.write_images(tmp_path / "pets")
    for name in ("train/cat/notes.txt", "test/dog/list.csv", "train/dog/a\tb.png"):
        (tmp_path / "pets" / name).touch()
    with pytest.raises(
        BadFiles, match=r"3 files cannot be used: .*notes\.txt is not an image.*'train/dog/a\\tb\.png' has"
    ):
        data.source_digest(DatasetConfig(source="images", path=str(tmp_path / "pets")))


def test_an_image_that_no_run_sees_changes_no_pin(tmp_path):
    """What is hashed: of a subset the files that are chosen, and the names of all classes."""
    formats.write_images(tmp_path / "pets", train=6)
    config = pinned(tmp_path / "pets", train_images=4)
    files = image_files.find_images(tmp_path / "pets", ("train", "test"))
    dataset = prepared(tmp_path, config)
    seen = {path.tobytes() for path in dataset.train_images.numpy()}
    others = [
        tmp_path / "pets" / name
        for name in files.names
        if name.startswith("train") and np.asarray(Image.open(tmp_path / "pets" / name)).tobytes() not in seen
    ]
    assert len(others) == 8
    cut(others[3])
    assert data.source_digest(config) == config.sha256
    assert prepared(tmp_path / "again", config).digest == dataset.digest
    whole = config.model_copy(update={"train_images": None})
    shared = config.model_copy(update={"sha256": data.source_digest(whole)})
    assert prepared(tmp_path / "shared", shared).digest == dataset.digest
    used = next(path for path in (tmp_path / "pets/train/cat").iterdir() if path not in others)
    cut(used)
    assert data.source_digest(config) != config.sha256
    shutil.copytree(tmp_path / "pets/train/cat", tmp_path / "pets/train/ant")
    shutil.copytree(tmp_path / "pets/test/cat", tmp_path / "pets/test/ant")
    assert data.source_digest(config.model_copy(update={"train_images": 2})) != config.sha256


# ------------------------------------------------------------------------------------------------- odd sizes


def test_a_thin_image_is_cropped_within_the_resize(tmp_path):
    """Resized as a whole, 1 x 60,000 pixels would need 12 GB."""
    formats.write_images(tmp_path / "pets")
    thin = np.repeat(np.arange(60_000, dtype=np.uint16) // 235, 1).astype(np.uint8)[:, None]
    Image.fromarray(thin).save(tmp_path / "pets/train/cat/thin.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = prepared(tmp_path, pinned(tmp_path / "pets", resize=224))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kilobytes
    image = dataset.train_images[4]
    assert image.shape == (224, 224, 3) and set(image.unique().tolist()) <= {126, 127, 128}


def test_the_crop_within_the_resize_is_the_crop_after_it(monkeypatch):
    generator = np.random.default_rng(0)
    for height, width, shorter in ((90, 7, 32), (5, 61, 32), (40, 33, 37), (64, 64, 16)):
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        whole = np.asarray(centre_crop(image, shorter, 16)).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(images, "MAX_PIXELS", 1)
            within = np.asarray(centre_crop(image, shorter, 16)).astype(int)
        assert np.abs(whole - within).max() <= 1


@pytest.mark.parametrize("form", LIMITS)
def test_shortage_of_memory_blames_no_image(tmp_path, form, monkeypatch):
    formats.write_images(tmp_path / "pets")
    config = pinned(tmp_path / "pets", resize=8)

    def short(image: Image.Image, *_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", short)
    with pytest.raises(
        StorageError, match=r"short of memory while pets was prepared \(train/cat/0000\.png: does not fit"
    ):
        prepared(tmp_path, config, form)


def test_too_many_pixels_are_refused_by_name(tmp_path):
    formats.write_images(tmp_path / "pets")
    large = io.BytesIO()
    Image.new("1", (20_000, 5_001)).save(large, "PNG")
    (tmp_path / "pets/train/dog/0001.png").write_bytes(large.getvalue())
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(DataError, match=r"train/dog/0001\.png: 20000 x 5001"),
    ):
        prepared(tmp_path, pinned(tmp_path / "pets", resize=8))


# ---------------------------------------------------------------------------------------------- names of classes

NAMES = ("golden retriever", "café", "_bg", "007", "yes", "null", "1e3", "犬", "a|b")


@pytest.mark.parametrize("packed", [False, True])
def test_classes_may_have_any_name(tmp_path, packed):
    formats.write_images(tmp_path / "pets", NAMES, train=2, test=1)
    path = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets") if packed else tmp_path / "pets"
    dataset = prepared(tmp_path, pinned(Path(path)))
    assert dataset.classes == tuple(sorted(NAMES))
    config = NoiseConfig(kind="asymmetric", rate=1.0, pairs=dict(pairwise(NAMES)))
    drawn = noise.draw(config, dataset.train_labels, dataset.classes, 0)
    named = [(dataset.classes[a], dataset.classes[b]) for a, b in zip(drawn.clean, drawn.noisy, strict=True)]
    assert {pair for pair in named if pair[0] != pair[1]} == set(pairwise(NAMES))


def test_names_that_differ_in_their_unicode_form_are_one_class(tmp_path):
    """Train was packed on a Mac, test elsewhere."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    formats.write_images(tmp_path / "pets", (composed, "dog"))
    before = pinned(tmp_path / "pets")
    os.rename(tmp_path / "pets/train" / composed, tmp_path / "pets/train" / decomposed)
    config = pinned(tmp_path / "pets")
    assert config.sha256 == before.sha256
    dataset = prepared(tmp_path, config)
    assert dataset.classes == (composed, "dog") and dataset.train_labels.tolist() == [0] * 4 + [1] * 4
    assert NoiseConfig(kind="asymmetric", rate=0.5, pairs={decomposed: "dog"}).pairs == {composed: "dog"}
    shutil.copytree(tmp_path / "pets/train" / decomposed, tmp_path / "pets/train" / composed)
    with pytest.raises(DataError, match="holds two members whose names differ in their Unicode form only"):
        data.source_digest(config)


@pytest.mark.slow
def test_names_are_the_same_in_every_locale(tmp_path):
    """Python reads the file system's names in the locale's encoding."""
    formats.write_images(tmp_path / "pets", ("café", "犬"))
    for kind in ("zip", "tar"):
        shutil.make_archive(str(tmp_path / "pets"), kind, tmp_path / "pets")
    subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US.ISO-8859-1"],
        capture_output=True,
        check=False,
    )
    program = (
        "import sys, json, pathlib; from collabench.data.image_files import *\n"
        "for name in ('pets', 'pets.zip', 'pets.tar'):\n"
        "    path = pathlib.Path(sys.argv[1]) / name\n"
        "    found = find_images(path, ('train', 'test'))\n"
        "    read = [content[:4].hex() for _, content in found.read(range(2))]\n"
        "    digest = '' if path.is_file() else digest_of_files(path, found.names)\n"
        "    print(json.dumps([sys.getfilesystemencoding(), found.classes, found.names, read, digest]))\n"
    )
    latin = {
        "LOCPATH": str(tmp_path),
        "LC_ALL": "en_US.ISO-8859-1",
        "PYTHONUTF8": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    said = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=os.environ | latin, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if json.loads(said[0])[0] == "utf-8":
        pytest.skip("this system cannot make a locale of another encoding")
    for line in said:
        _, classes, names, read, digest = json.loads(line)
        assert classes == ["café", "犬"] and names[0] == "train/café/0000.png" and read == ["89504e47"] * 2
        assert digest in ("", pinned(tmp_path / "pets").sha256)


# ----------------------------------------------------------------------------------- folders that are not as expected


@pytest.mark.parametrize("kind", ["", "zip", "tar"])
def test_a_class_folder_that_is_empty_in_both_splits_is_refused(tmp_path, kind):
    formats.write_images(tmp_path / "pets")
    for split in ("train", "test"):
        (tmp_path / "pets" / split / "bird").mkdir()
    path = shutil.make_archive(str(tmp_path / "pets"), kind, tmp_path, "pets") if kind else tmp_path / "pets"
    with pytest.raises(DataError, match="the class folder 'bird' is empty in train/ and test/; fill it, or remove it"):
        prepared(tmp_path, pinned(Path(path)))


def test_an_archive_with_the_folders_of_a_mac_has_no_further_classes(tmp_path):
    formats.write_images(tmp_path / "pets")
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for file in sorted((tmp_path / "pets").rglob("*")):
            archive.write(file, f"pets/{file.relative_to(tmp_path / 'pets')}")
        archive.writestr("__MACOSX/pets/train/cat/", b"")
        archive.writestr("__MACOSX/pets/train/cat/._0000.png", b"attributes")
    assert prepared(tmp_path, pinned(tmp_path / "mac.zip")).classes == ("cat", "dog")


@pytest.mark.parametrize("kind", ["", "zip"])
def test_the_flat_validation_folder_of_imagenet_is_refused_with_what_to_do(tmp_path, kind):
    formats.write_imagenet(tmp_path / "imagenet", classes=2)
    for number, file in enumerate(sorted((tmp_path / "imagenet/val").glob("*/*"))):
        file.rename(tmp_path / f"imagenet/val/ILSVRC2012_val_{number:08d}.JPEG")
    path = tmp_path / "imagenet"
    if kind:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:  # in order, whatever the disk's is
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(tmp_path))
        path = tmp_path / "a.zip"
    with pytest.raises(
        DataError,
        match=r"2 images outside of class folders \(.*val/ILSVRC2012_val_00000000\.JPEG, …\).*torchvision\.datasets",
    ):
        prepared(tmp_path, pinned(path, source="imagenet"))


# -------------------------------------------------------------------------------------------------- turned images


@pytest.mark.parametrize("form", LIMITS)
def test_exif_orientation_is_ignored_or_applied_as_the_field_says(tmp_path, form):
    formats.write_images(tmp_path / "pets", size=(12, 12), ending="jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "pets/train/cat/0001.jpg"
    stored = Image.open(path)
    stored.save(path, exif=exif, quality=95)
    stored, upright = Image.open(path), ImageOps.exif_transpose(Image.open(path))
    config = pinned(tmp_path / "pets", resize=12)
    for orientation, expected in (("ignored", stored), ("applied", upright)):
        entry = config.model_copy(update={"exif_orientation": orientation})
        lines: list[str] = []
        dataset = prepared(tmp_path / orientation, entry, form, progress=lines.append)
        assert any(f"1 images have an EXIF orientation, which is {orientation}" in line for line in lines)
        (seen,) = data.open_evaluation_batches(
            dataset, "validation", Augmentation(), 8, "cpu", index=torch.arange(len(dataset.train_labels))
        )
        mean, std = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.std))
        pixels = ((seen[1] * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, np.asarray(expected))
    assert config.identity() == {key: value for key, value in entry.identity().items() if key != "exif_orientation"}
