"""Data sets that stay in files: the same iteration as arrays, decoded on the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from collabench import data
from collabench.config.data_sections import DatasetConfig
from collabench.config.sections import Augmentation
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator
from collabench.data.batches import TrainingBatches, random_crop_boxes
from collabench.data.streaming import StreamedBatches, StreamedImages
from tests.support import official_formats as formats

CROP = Augmentation(flip=True, random_resized_crop=16)


@pytest.fixture
def imagenet(tmp_path) -> data.Dataset:
    sha256 = formats.write_imagenet(tmp_path / "data/imagenet", classes=3, train=5, test=2)
    config = DatasetConfig(source="imagenet", path="data/imagenet", sha256=sha256)
    data.prepare(config, tmp_path / "data", tmp_path / "artifacts/key", root=tmp_path)
    return data.load(tmp_path / "artifacts/key", tmp_path / "data/imagenet")


def pixels(dataset: data.Dataset, batch: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: (B, H, W, C) uint8."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (dataset.mean, dataset.std))
    return ((batch * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def test_imagenet_is_streamed(imagenet, tmp_path):
    assert isinstance(imagenet.train_images, StreamedImages)
    assert (len(imagenet.train_images), len(imagenet.test_images)) == (15, 6)
    assert imagenet.form.shape == (3, 224, 224)
    assert imagenet.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert sum(path.stat().st_size for path in (tmp_path / "artifacts/key").iterdir()) < 10_000
    assert all(0.4 < value < 0.6 for value in imagenet.mean)


def test_training_batches_equal_pillow_by_hand(imagenet, tmp_path):
    batches = data.open_batches(imagenet, CROP, 4, 7, "cpu")
    assert isinstance(batches, StreamedBatches) and batches.steps == 4
    files = sorted((tmp_path / "data/imagenet/train").glob("*/*.JPEG"))
    seen = list(batches.epoch(2, torch.arange(15)))
    assert [len(labels) for _, labels in seen] == [4, 4, 4, 3]
    flipped = 0
    for batch, labels in seen:
        assert batch.is_contiguous(memory_format=torch.channels_last) and batch.dtype == torch.float32
        for image, number in zip(pixels(imagenet, batch), labels.tolist(), strict=True):
            generator = numpy_generator(7, "augmentation", 2, number)
            flip = generator.random(3)[0] < 0.5
            original = Image.open(files[number])
            top, left, height, width = random_crop_boxes(1, original.height, original.width, generator)[0].tolist()
            crop = original.resize((16, 16), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
            flipped += flip
            assert np.array_equal(image, np.asarray(ImageOps.mirror(crop) if flip else crop))
    assert 0 < flipped < 15


def test_resuming_and_subsets(imagenet):
    batches = data.open_batches(imagenet, CROP, 4, 7, "cpu")
    whole = list(batches.epoch(1, torch.arange(15)))
    for first in range(batches.steps + 1):
        for (images, labels), (expected, expected_labels) in zip(
            batches.epoch(1, torch.arange(15), first), whole[first:], strict=True
        ):
            assert torch.equal(images, expected) and torch.equal(labels, expected_labels)
    spread = data.open_batches(imagenet, CROP, 7, 7, "cpu", last_batch="spread")  # 15 images: 8 and 7
    assert [len(labels) for _, labels in spread.epoch(1, torch.arange(15))] == [8, 7]
    together = [torch.cat([batch for batch, _ in one.epoch(1, torch.arange(15))]) for one in (spread, batches)]
    assert torch.equal(*together)
    index = torch.tensor([1, 4, 9])
    subset = data.open_batches(imagenet, CROP, 2, 7, "cpu", index)
    assert {int(label) for _, labels in subset.epoch(0, index) for label in labels} <= {1, 4, 9}


def test_a_split_per_seed_reads_its_own_files(imagenet):
    config = DatasetConfig(source="imagenet", path="there", train_images=6, split="per_seed")
    splits = [data.split_for_seed(imagenet, config, seed) for seed in (0, 1, 0)]
    numbers = [{split.train_images.number(position) for position in range(6)} for split in splits]
    assert numbers[0] == numbers[2] != numbers[1] and all(len(split.train_labels) == 6 for split in splits)
    for split in splits:
        assert len(split.test_images) == len(imagenet.test_images)
        images, labels = next(data.open_batches(split, CROP, 6, 0, "cpu").epoch(0, split.train_labels))
        assert images.shape[0] == 6 and sorted(labels.tolist()) == sorted(split.train_labels.tolist())
        assert split.mean == data.pixel_statistics(split.train_images, split.train_labels)[0]


def test_evaluation_batches_equal_pillow_by_hand(imagenet, tmp_path):
    files = sorted((tmp_path / "data/imagenet/val").glob("*/*.JPEG"))
    batches = list(data.open_evaluation_batches(imagenet, "test", CROP, 4, "cpu"))
    assert [len(batch) for batch in batches] == [4, 2]
    for image, file in zip(np.concatenate([pixels(imagenet, batch) for batch in batches]), files, strict=True):
        original = Image.open(file)
        scale = 18 / min(original.size)  # 8/7 of 16
        size = tuple(round(length * scale) for length in original.size)
        left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
        expected = original.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 16, top + 16))
        assert np.array_equal(image, np.asarray(expected))


def test_large_folders_are_streamed_and_small_ones_are_arrays(tmp_path):
    sha256 = formats.write_images(tmp_path / "pets", train=6, sizes_differ=True)
    config = DatasetConfig(source="images", path=str(tmp_path / "pets"), sha256=sha256, resize=8)
    for folder, limit in (("array", 10**6), ("streamed", 1000)):
        data.prepare(config, tmp_path, tmp_path / folder, max_array_bytes=limit)
    array, streamed = data.load(tmp_path / "array"), data.load(tmp_path / "streamed", tmp_path / "pets")
    assert isinstance(array.train_images, torch.Tensor) and isinstance(streamed.train_images, StreamedImages)
    assert array.form.shape == streamed.form.shape == (3, 8, 8)
    assert array.mean == streamed.mean and array.std == streamed.std
    for split, index in (("test", None), ("validation", torch.tensor([0, 5]))):
        first, second = (
            torch.cat(list(data.open_evaluation_batches(dataset, split, Augmentation(), 5, "cpu", index)))
            for dataset in (array, streamed)
        )
        assert torch.equal(first, second)
    labels = torch.arange(12)
    plain = [data.open_batches(dataset, Augmentation(), 5, 0, "cpu") for dataset in (array, streamed)]
    assert isinstance(plain[0], TrainingBatches)
    for (images, targets), (expected, expected_targets) in zip(*(b.epoch(0, labels) for b in plain), strict=True):
        assert torch.equal(images, expected) and torch.equal(targets, expected_targets)
    shifted = data.open_batches(streamed, Augmentation(shift=1, flip=True), 5, 0, "cpu")
    assert [tuple(images.shape) for images, _ in shifted.epoch(0, labels)] == [(5, 3, 8, 8), (5, 3, 8, 8), (2, 3, 8, 8)]


def test_archives_are_not_streamed(tmp_path):
    formats.write_images(tmp_path / "pets")
    os.system(f"cd {tmp_path} && tar cf pets.tar pets")
    config = DatasetConfig(source="images", path=str(tmp_path / "pets.tar"))
    config = config.model_copy(update={"sha256": data.source_digest(config)})
    with pytest.raises(DataError, match="unpack the archive"):
        data.prepare(config, tmp_path, tmp_path / "prepared", max_array_bytes=100)


def test_a_recipe_without_a_crop_needs_a_resize(imagenet):
    with pytest.raises(DataError, match=r"needs augmentation\.random_resized_crop"):
        data.open_batches(imagenet, Augmentation(), 4, 0, "cpu")


@pytest.mark.parametrize("damage", ["missing", "longer", "garbage"])
def test_files_that_changed_are_named(imagenet, tmp_path, damage):
    file: Path = tmp_path / "data/imagenet/train/n00000001/0002.JPEG"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content + b"x" if damage == "longer" else bytes(len(content)))
    with pytest.raises(DataError, match=r"n00000001/0002\.JPEG: "):
        list(data.open_batches(imagenet, CROP, 4, 0, "cpu").epoch(0, torch.arange(15)))


def test_images_that_moved_are_read_where_the_configuration_says(tmp_path):
    """Another disk, or another machine to which the prepared data set was pulled: what is prepared names no place."""
    sha256 = formats.write_imagenet(tmp_path / "old disk/imagenet", classes=3, train=2, test=1)
    config = DatasetConfig(source="imagenet", path=str(tmp_path / "old disk/imagenet"), sha256=sha256)
    data.prepare(config, tmp_path, tmp_path / "key")
    content = b"".join(path.read_bytes() for path in (tmp_path / "key").iterdir())
    assert b"disk" not in content and str(tmp_path).encode() not in content
    (tmp_path / "old disk").rename(tmp_path / "new disk")
    with pytest.raises(DataError, match=r"old disk/imagenet: does not exist\. Place there"):
        data.prepare(config, tmp_path, tmp_path / "key")
    assert "does not exist" in (data.what_is_missing(config, None, tmp_path / "key") or "")
    moved = config.model_copy(update={"path": str(tmp_path / "new disk/imagenet")})
    lines: list[str] = []
    data.prepare(moved, tmp_path, tmp_path / "key", lines.append)
    dataset = data.load(tmp_path / "key", data.path_of(moved, tmp_path))
    assert lines == [] and data.what_is_missing(moved, None, tmp_path / "key") is None
    assert len(list(data.open_evaluation_batches(dataset, "test", CROP, 4, "cpu"))) == 1
    with pytest.raises(ValueError, match="without the folder"):
        data.load(tmp_path / "key").train_images.open(0)
