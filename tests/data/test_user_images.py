"""A folder or archive of class folders that is not divided: by a fraction, by a table, or by another folder of test
images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from collabench import data
from collabench.config.data_sections import DatasetConfig
from collabench.core.errors import DataError

COUNTS = {"cat": 20, "dog": 10, "elk": 10}


def write_classes(folder: Path, counts: dict[str, int] = COUNTS, first: int = 0, size: int = 6) -> Path:
    """``<class>/NNNN.png``; every pixel of an image is its number, so that an image can be told from its pixels."""
    number = first
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((size, size, 3), number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:04d}.png")
            number += 1
    return folder


def pinned(folder: Path, **fields: object) -> DatasetConfig:
    config = DatasetConfig(source="images", path=str(folder), **fields)
    return config.model_copy(update={"sha256": data.source_digest(config)})


def prepared(tmp_path: Path, config: DatasetConfig, name: str = "prepared", **options: object) -> data.Dataset:
    data.prepare(config, tmp_path, tmp_path / name, **options)
    return data.load(tmp_path / name, data.path_of(config, None))


def numbers(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_a_fraction_of_every_class_is_for_testing(tmp_path):
    folder = write_classes(tmp_path / "pets")
    dataset = prepared(tmp_path, pinned(folder, test_fraction=0.2))
    assert torch.bincount(dataset.test_labels).tolist() == [4, 2, 2]
    assert torch.bincount(dataset.train_labels).tolist() == [16, 8, 8]
    assert sorted(numbers(dataset.train_images) + numbers(dataset.test_images)) == list(range(40))
    label_of = [0] * 20 + [1] * 10 + [2] * 10
    assert [label_of[number] for number in numbers(dataset.test_images)] == dataset.test_labels.tolist()


def test_the_split_seed_says_which_and_the_same_one_gives_the_same(tmp_path):
    folder = write_classes(tmp_path / "pets")
    config = pinned(folder, test_fraction=0.25)
    first = prepared(tmp_path, config, "a")
    assert numbers(prepared(tmp_path, config, "b").test_images) == numbers(first.test_images)
    other = config.model_copy(update={"split_seed": 1})
    assert numbers(prepared(tmp_path, other, "c").test_images) != numbers(first.test_images)
    assert config.identity() != other.identity()


@pytest.mark.parametrize("top", ["", "photos/"])
def test_an_archive_of_class_folders_is_divided_like_the_folder(tmp_path, top):
    write_classes(tmp_path / "in" / (top or "."))
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "in"))
    packed = prepared(tmp_path, pinned(archive, test_fraction=0.2), "packed")
    folder = prepared(tmp_path, pinned(tmp_path / "in" / (top or "."), test_fraction=0.2), "folder")
    assert packed.digest == folder.digest


def test_images_that_are_streamed_are_divided_in_the_same_way(tmp_path):
    config = pinned(write_classes(tmp_path / "pets"), test_fraction=0.2, resize=6)
    whole = prepared(tmp_path, config, "array")
    streamed = prepared(tmp_path, config, "streamed", max_array_bytes=10)
    assert len(streamed.test_images) == 8 and torch.equal(streamed.test_labels, whole.test_labels)
    for index in range(8):
        assert np.asarray(streamed.test_images.open(index))[0, 0, 0] == numbers(whole.test_images)[index]


def test_a_class_too_small_for_the_fraction_is_named(tmp_path):
    folder = write_classes(tmp_path / "pets", {"cat": 20, "dog": 2})
    with pytest.raises(DataError, match=r"test_fraction 0\.1 of the 2 images of the class 'dog' leaves no test image"):
        prepared(tmp_path, pinned(folder, test_fraction=0.1))
    assert not (tmp_path / "prepared").exists()


def test_a_folder_without_a_split_is_told_which_lines_to_add(tmp_path):
    folder = write_classes(tmp_path / "pets")
    with pytest.raises(DataError, match=r"holds no folder train/; .* add two lines to its entry: ") as caught:
        pinned(folder)
    fraction, seed = re.findall("`([a-z_]+: [0-9.]+)`", str(caught.value))
    fields = dict(line.split(": ") for line in (fraction, seed))
    found = prepared(tmp_path, pinned(folder, test_fraction=float(fields["test_fraction"]),
                                      split_seed=int(fields["split_seed"])))  # fmt: skip
    assert len(found.test_labels) == 8
    archive = Path(shutil.make_archive(str(tmp_path / "pets"), "tar", tmp_path / "pets"))
    with pytest.raises(DataError, match=r"holds no images at train/<class>/<image>; .*add two lines"):
        prepared(tmp_path, pinned(archive))
    (tmp_path / "half").mkdir()
    folder.rename(tmp_path / "half" / "train")
    with pytest.raises(DataError, match=f"holds no folder test/; .*and name {tmp_path}/half/train as path: `test_f"):
        pinned(tmp_path / "half")


def test_a_divided_folder_is_not_divided_again(tmp_path):
    for split in ("train", "test"):
        write_classes(tmp_path / "pets" / split)
    with pytest.raises(DataError, match="holds train/ and test/: it is divided already; remove test_fraction"):
        pinned(tmp_path / "pets", test_fraction=0.2)


# --------------------------------------------------------------------------------------------------- a table


def write_table(path: Path, tested: set[str], folder: Path, change: str = "") -> Path:
    lines = ["file,split"]
    for image in sorted(folder.glob("*/*.png")):
        name = f"{image.parent.name}/{image.name}"
        lines.append(f"{name},{'test' if name in tested else 'train'}")
    path.write_text("\n".join(lines) + "\n" + change)
    return path


TESTED = {"cat/0003.png", "dog/0001.png", "elk/0009.png"}


def test_a_table_says_which_images_are_for_testing(tmp_path):
    folder = write_classes(tmp_path / "pets")
    table = write_table(tmp_path / "split.csv", TESTED, folder)
    config = pinned(folder, split_file=str(table))
    dataset = prepared(tmp_path, config)
    assert numbers(dataset.test_images) == [3, 21, 39] and len(dataset.train_labels) == 37
    write_table(table, TESTED | {"cat/0004.png"}, folder)
    assert data.source_digest(config) != config.sha256
    with pytest.raises(DataError, match="another version"):
        prepared(tmp_path, config, "again")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cat/9999.png,test\n", r"line 42: 'cat/9999\.png' is no image of"),
        ("cat/0000.png,test\n", r"line 42: 'cat/0000\.png' is listed twice"),
        ("cat/0000.png,val\n", r"<class>/<image>,test \(it says 'cat/0000\.png,val'\)"),
        ("cat/0000.png\n", "line 42: expected"),
    ],
)
def test_a_wrong_line_of_the_table_is_named(tmp_path, change, said):
    folder = write_classes(tmp_path / "pets")
    table = write_table(tmp_path / "split.csv", TESTED, folder, change)
    with pytest.raises(DataError, match=said):
        pinned(folder, split_file=str(table))


def test_what_the_table_leaves_out_is_named(tmp_path):
    folder = write_classes(tmp_path / "pets")
    table = write_table(tmp_path / "split.csv", TESTED, folder)
    text = table.read_text()
    table.write_text(text.replace("cat/0005.png,train\n", ""))
    with pytest.raises(DataError, match=r"does not list cat/0005\.png; list every image"):
        pinned(folder, split_file=str(table))
    table.write_text(text.replace("0009.png,test", "0009.png,train"))
    with pytest.raises(DataError, match="gives the class 'elk' no image for test"):
        pinned(folder, split_file=str(table))
    table.write_text(text.replace("file,split", "image,split"))
    with pytest.raises(DataError, match="its first line must be file,split"):
        pinned(folder, split_file=str(table))
    table.unlink()
    with pytest.raises(DataError, match="does not exist; split_file names a table"):
        pinned(folder, split_file=str(table))


# ------------------------------------------------------------------------------ another folder of test images


def test_the_test_images_may_lie_in_another_folder(tmp_path):
    folder = write_classes(tmp_path / "pets")
    checked = write_classes(tmp_path / "checked", {"cat": 3, "dog": 2, "elk": 1}, first=100)
    config = pinned(folder, test_path=str(checked))
    dataset = prepared(tmp_path, config)
    assert numbers(dataset.train_images) == list(range(40))
    assert numbers(dataset.test_images) == list(range(100, 106))
    assert dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 2]
    (checked / "cat" / "0000.png").unlink()
    assert data.source_digest(config) != config.sha256


def test_relative_paths_begin_at_the_projects_folder(tmp_path):
    write_classes(tmp_path / "pets")
    write_classes(tmp_path / "checked", first=100)
    config = DatasetConfig(source="images", path="pets", test_path="checked")
    config = config.model_copy(update={"sha256": data.source_digest(config, tmp_path)})
    data.prepare(config, tmp_path, tmp_path / "prepared", root=tmp_path)
    assert len(data.load(tmp_path / "prepared").test_labels) == 40
    shutil.rmtree(tmp_path / "checked")
    assert "checked: does not exist" in data.what_is_missing(config, tmp_path)


def test_other_classes_or_sizes_of_the_test_images_are_refused(tmp_path):
    folder = write_classes(tmp_path / "pets")
    write_classes(tmp_path / "fewer", {"cat": 3, "dog": 2})
    with pytest.raises(DataError, match=r"fewer: has no images of the class 'elk', which .*pets has"):
        pinned(folder, test_path=str(tmp_path / "fewer"))
    write_classes(tmp_path / "more", COUNTS | {"fox": 1})
    with pytest.raises(DataError, match=r"pets: has no images of the class 'fox'"):
        pinned(folder, test_path=str(tmp_path / "more"))
    write_classes(tmp_path / "large", size=9)
    with pytest.raises(DataError, match=r"its images are 9 x 9 pixels, those of .*pets are 6 x 6; .*resize"):
        prepared(tmp_path, pinned(folder, test_path=str(tmp_path / "large")))
    config = pinned(folder, test_path=str(tmp_path / "large"), resize=6)
    assert len(prepared(tmp_path, config).test_labels) == 40
    with pytest.raises(DataError, match="test_path is for images that fit in an array"):
        prepared(tmp_path, config, "streamed", max_array_bytes=10)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"source": "digits", "test_fraction": 0.2}, "test_fraction is for source: images"),
        ({"source": "images", "path": "a", "test_fraction": 0.2, "split_file": "b"}, "both say which images"),
        ({"source": "images", "path": "a", "test_fraction": 1.0}, "less than 1"),
        ({"source": "images", "path": "a", "split_seed": 2}, "belongs to train_images, test_images or test_fraction"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        DatasetConfig(**fields)


def test_the_training_photos_are_no_test_photos(tmp_path):
    """Every test image would be trained on, and the error would be near zero."""
    folder = write_classes(tmp_path / "pets")
    (tmp_path / "link").symlink_to(folder)
    for same in (folder, folder / "cat" / "..", tmp_path / "link"):
        with pytest.raises(DataError, match="pets: path and test_path are the same: every test image would be trained"):
            pinned(folder, test_path=str(same))


# ----------------------------------------------------------------------------------------- what else lies in a folder


def test_files_beside_class_folders_and_hidden_ones_are_left_aside(tmp_path):
    folder = write_classes(tmp_path / "pets")
    config = pinned(folder, test_fraction=0.2)
    for name in ("readme.txt", ".DS_Store", "cat/.hidden.png"):
        (folder / name).touch()
    assert data.source_digest(config) == config.sha256


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loose.png", r"holds 1 images outside of class folders \(loose\.png, …\); expected <class>/<image>"),
        ("cat/inner/a.png", "lies in a folder within its class; expected <class>/<image>"),
        ("cat/notes.txt", "is not an image"),
    ],
)
def test_what_does_not_belong_is_named(tmp_path, name, said):
    folder = write_classes(tmp_path / "pets")
    (folder / name).parent.mkdir(exist_ok=True)
    shutil.copy(folder / "cat/0000.png", folder / name)
    with pytest.raises(DataError, match=said):
        pinned(folder, test_fraction=0.2)


def test_an_empty_class_and_a_single_one_are_refused(tmp_path):
    folder = write_classes(tmp_path / "pets")
    (folder / "fox").mkdir()
    with pytest.raises(DataError, match="the class folder 'fox' is empty; fill it"):
        pinned(folder, test_fraction=0.2)
    write_classes(tmp_path / "one", {"cat": 5})
    with pytest.raises(DataError, match=r"holds one class only \('cat'\)"):
        pinned(tmp_path / "one", test_fraction=0.2)
