"""Batches of arrays in memory, against loops over single images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from collabench.config.batch_sizes import batch_sizes, remaining_images
from collabench.config.sections import Augmentation
from collabench.core.distributed import Part
from collabench.core.errors import DataError
from collabench.core.seeding import numpy_generator, torch_generator
from collabench.data import validation_split
from collabench.data.batches import TrainingBatches, random_crop_boxes, test_batches
from collabench.data.splits import rest_of, stratified_subset

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def some_images(count: int = 23, height: int = 7, width: int = 6, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width, channels), generator=generator, dtype=torch.uint8)


def normalised(image: torch.Tensor) -> torch.Tensor:
    """(H, W, C) uint8 → (C, H, W), one channel after the other."""
    planes = []
    for channel in range(image.shape[2]):
        shift = torch.tensor(255 * MEAN[channel], dtype=torch.float32)
        scale = torch.tensor(1 / (255 * STD[channel]), dtype=torch.float32)
        planes.append((image[:, :, channel].float() - shift) * scale)
    return torch.stack(planes)


def reference(images: torch.Tensor, augmentation: Augmentation, seed: int, epoch: int) -> list[torch.Tensor]:
    """The epoch's images one by one: pad, crop, flip."""
    count, height, width = images.shape[:3]
    order = torch.randperm(count, generator=torch_generator(seed, "order", epoch))
    generator = torch_generator(seed, "augmentation", epoch)
    shifts = torch.randint(0, 2 * augmentation.shift + 1, (2, count), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    found = []
    for position, number in enumerate(order.tolist()):
        padded = torch.zeros(height + 2 * augmentation.shift, width + 2 * augmentation.shift, images.shape[3]).byte()
        padded[augmentation.shift :, augmentation.shift :][:height, :width] = images[number]
        top, left = shifts[:, position].tolist()
        crop = padded[top : top + height, left : left + width]
        if augmentation.flip and flips[position]:
            crop = crop.flip(1)
        found.append(normalised(crop))
    return found


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_a_loop_over_images(shift, flip, channels):
    images, augmentation = some_images(channels=channels), Augmentation(shift=shift, flip=flip)
    batches = TrainingBatches(images, MEAN[:channels], STD[:channels], augmentation, 5, seed=3)
    labels = torch.arange(len(images))
    for epoch in (0, 1):
        expected = reference(images, augmentation, 3, epoch)
        seen_images, seen_labels = zip(*batches.epoch(epoch, labels), strict=True)
        assert torch.equal(torch.cat(seen_images), torch.stack(expected))
        order = torch.randperm(len(images), generator=torch_generator(3, "order", epoch))
        assert torch.equal(torch.cat(seen_labels), order)
        assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in seen_images)
        assert all(batch.dtype == torch.float32 for batch in seen_images)


def test_shifts_and_flips_take_all_values():
    image = torch.zeros(1, 5, 5, 1, dtype=torch.uint8)
    image[0, 2, 1, 0] = 255  # off the middle, so that a flip shows
    batches = TrainingBatches(image.repeat(2000, 1, 1, 1), (0.0,), (1.0,), Augmentation(shift=1, flip=True), 500, 0)
    seen = torch.cat([batch for batch, _ in batches.epoch(0, torch.zeros(2000))])[:, 0]
    places = {tuple(place) for place in seen.nonzero()[:, 1:].tolist()}
    assert places == {(y, x) for y in (1, 2, 3) for x in range(5)}
    column = seen.sum(dim=(0, 1))
    assert (column[[0, 4]] - 2000 / 6).abs().max() < 80 and abs(column[2] - 2000 / 3) < 120


@pytest.mark.parametrize(
    "augmentation", [Augmentation(shift=2, flip=True), Augmentation(flip=True, random_resized_crop=8)]
)
def test_resuming_gives_the_same_batches(augmentation):
    batches = TrainingBatches(some_images(), MEAN, STD, augmentation, 4, seed=0)
    labels = torch.arange(23)
    whole = list(batches.epoch(2, labels))
    assert len(whole) == batches.steps == 6
    for first in range(batches.steps + 1):
        rest = list(batches.epoch(2, labels, first))
        assert len(rest) == batches.steps - first
        for (images, targets), (expected, expected_targets) in zip(rest, whole[first:], strict=True):
            assert torch.equal(images, expected) and torch.equal(targets, expected_targets)


def test_epochs_and_seeds_differ():
    images, labels = some_images(), torch.arange(23)
    orders = set()
    for seed in (0, 1):
        batches = TrainingBatches(images, MEAN, STD, Augmentation(), 4, seed)
        for epoch in (0, 1):
            orders.add(tuple(torch.cat([targets for _, targets in batches.epoch(epoch, labels)]).tolist()))
    assert len(orders) == 4


@pytest.mark.parametrize(("count", "steps", "last"), [(20, 4, 5), (21, 4, 5), (22, 5, 2), (4, 1, 4)])
def test_remainder_is_kept_unless_it_is_one_image(count, steps, last):
    batches = TrainingBatches(some_images(count), MEAN, STD, Augmentation(), 5, 0)
    sizes = [len(targets) for _, targets in batches.epoch(0, torch.arange(count))]
    assert (batches.steps, len(sizes), sizes[-1]) == (steps, steps, last)


@pytest.mark.parametrize(
    ("images", "batch_size", "keep", "drop", "spread"),
    [
        (450, 64, [64] * 7 + [2], [64] * 7, [65] * 2 + [64] * 5),
        (500, 64, [64] * 7 + [52], [64] * 7 + [52], [64] * 7 + [52]),  # a batch in its own right
        (160, 32, [32] * 5, [32] * 5, [32] * 5),
        (1437, 64, [64] * 22 + [29], [64] * 22, [66] * 7 + [65] * 15),
        (48, 32, [32, 16], [32, 16], [32, 16]),  # half a batch
        (47, 32, [32, 15], [32], [47]),
        (129, 64, [64, 64], [64, 64], [65, 64]),  # a single image is never a batch
        (5, 2, [2, 2], [2, 2], [3, 2]),
        (7, 64, [7], [7], [7]),  # no full batch
    ],
)
def test_sizes_of_batches(images, batch_size, keep, drop, spread):
    for last_batch, expected in (("keep", keep), ("drop", drop), ("spread", spread)):
        assert batch_sizes(images, batch_size, last_batch) == expected


def test_sizes_of_batches_for_all_numbers():
    """Spread: all images, sizes that differ by at most one and are nearest to the batch's. Drop: equal sizes, or a last
    batch of at least half. Steps with a tiny last batch are those that keep has more."""
    for batch_size in range(2, 12):
        for images in range(2, 60):
            keep, drop, spread = (batch_sizes(images, batch_size, how) for how in ("keep", "drop", "spread"))
            tiny = remaining_images(images, batch_size)
            assert sum(keep) == images - (tiny == 1) and sum(drop) == images - tiny and sum(spread) == images
            assert all(min(sizes) >= 2 for sizes in (keep, drop, spread))
            assert len(keep) - len(drop) == (tiny > 1) and len(drop) == len(spread)
            if tiny:
                assert max(spread) - min(spread) <= 1 and set(drop) == {batch_size} and min(spread) >= batch_size
            elif images >= batch_size:
                assert keep == drop == spread and 2 * keep[-1] >= batch_size
                assert len(spread) == round(images / batch_size + 1e-9)


@pytest.mark.parametrize("last_batch", ["drop", "spread"])
@pytest.mark.parametrize("augmentation", [Augmentation(shift=2, flip=True), Augmentation(random_resized_crop=8)])
def test_other_batches_hold_the_same_images(last_batch, augmentation):
    """Only the borders of the batches move: order, shifts, flips and crops stay. Every part of a batch is there."""
    images, labels = some_images(22), torch.arange(22)
    kept = list(TrainingBatches(images, MEAN, STD, augmentation, 5, 3).epoch(1, labels))
    chosen = TrainingBatches(images, MEAN, STD, augmentation, 5, 3, last_batch=last_batch)
    for first in range(chosen.steps + 1):
        batches = list(chosen.epoch(1, labels, first))
        assert [len(targets) for _, targets in batches] == chosen.sizes[first:]
        done = sum(chosen.sizes[:first])
        for part in (0, 1) if batches else ():
            expected = torch.cat([batch[part] for batch in kept])[done : sum(chosen.sizes)]
            assert torch.equal(torch.cat([batch[part] for batch in batches]), expected)
    halves = [
        list(TrainingBatches(images, MEAN, STD, augmentation, 5, 3, Part(rank, 2), last_batch).epoch(1, labels))
        for rank in range(2)
    ]
    for (whole, _), (left, _), (right, _) in zip(chosen.epoch(1, labels), *halves, strict=True):
        assert torch.equal(torch.cat([left, right]), whole)


def test_dropped_images_are_others_in_every_epoch():
    batches = TrainingBatches(some_images(22), MEAN, STD, Augmentation(), 5, 0, last_batch="drop")
    seen = [
        frozenset(torch.cat([targets for _, targets in batches.epoch(epoch, torch.arange(22))]).tolist())
        for epoch in range(12)
    ]
    assert {len(one) for one in seen} == {20} and len(set(seen)) > 6 and set().union(*seen) == set(range(22))


def test_processes_that_would_have_no_image_of_a_batch_are_refused():
    with pytest.raises(DataError, match=r"smallest batch has 2, fewer than the 3 processes.*last_batch"):
        TrainingBatches(some_images(22), MEAN, STD, Augmentation(), 5, 0, Part(0, 3))
    assert TrainingBatches(some_images(22), MEAN, STD, Augmentation(), 5, 0, Part(0, 3), "spread").steps == 4


def test_source_images_stay_as_they_are():
    images = some_images()
    before = images.clone()
    for batch, _ in TrainingBatches(images, MEAN, STD, Augmentation(flip=True), 5, 0).epoch(0, torch.arange(23)):
        batch.zero_()
    assert torch.equal(images, before)


def test_too_few_images_and_contradictions_are_refused():
    with pytest.raises(DataError, match="two images"):
        TrainingBatches(some_images(1), MEAN, STD, Augmentation(), 5, 0)
    with pytest.raises(ValidationError, match="exclude each other"):
        Augmentation(shift=1, random_resized_crop=8)


def test_random_resized_crop_equals_bilinear_by_hand():
    images, side = some_images(9, 11, 13), 8
    augmentation = Augmentation(flip=True, random_resized_crop=side)
    batches = TrainingBatches(images, MEAN, STD, augmentation, 4, seed=2)
    seen = torch.cat([batch for batch, _ in batches.epoch(1, torch.arange(9))])
    order = torch.randperm(9, generator=torch_generator(2, "order", 1))[: len(seen)]
    generator = torch_generator(2, "augmentation", 1)
    torch.randint(0, 1, (2, 9), generator=generator)
    flips = torch.rand(9, generator=generator) < 0.5
    boxes = random_crop_boxes(9, 11, 13, numpy_generator(2, "augmentation", 1, "crop")).numpy()
    assert flips.any() and not flips.all()
    for position, number in enumerate(order.tolist()):
        plane = normalised(images[number]).numpy()
        top, left, height, width = boxes[position]
        expected = np.empty((3, side, side), dtype=np.float32)
        for row in range(side):
            for column in range(side):
                across = side - 1 - column if flips[position] else column
                y = np.clip(top + (row + 0.5) * height / side - 0.5, 0, 10)
                x = np.clip(left + (across + 0.5) * width / side - 0.5, 0, 12)
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, 10), min(x0 + 1, 12)
                v, u = y - y0, x - x0
                expected[:, row, column] = (1 - v) * ((1 - u) * plane[:, y0, x0] + u * plane[:, y0, x1]) + v * (
                    (1 - u) * plane[:, y1, x0] + u * plane[:, y1, x1]
                )
        assert np.allclose(seen[position].numpy(), expected, atol=1e-4)


def test_crop_boxes_lie_within_and_follow_the_recipe():
    boxes = random_crop_boxes(4000, 60, 80, numpy_generator(0, "augmentation", 0, "crop"))
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 60).all() and (left + width <= 80).all()
    share, ratio = height * width / 4800, width / height
    assert 0.07 < share.min() < 0.1 and share.max() > 0.9
    assert 0.70 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.42
    narrow = random_crop_boxes(50, 10, 100, numpy_generator(0, "augmentation", 0, "crop"))
    assert (narrow[:, 2] <= 10).all() and (narrow[:, 3] <= 14).all()


def test_test_batches_in_order_without_changes():
    images = some_images()
    batches = list(test_batches(images, MEAN, STD, 10, Augmentation(shift=3, flip=True)))
    assert [len(batch) for batch in batches] == [10, 10, 3]
    assert torch.equal(torch.cat(batches), torch.stack([normalised(image) for image in images]))


def test_test_batches_resize_to_eight_sevenths_and_crop_the_middle():
    images = some_images(3, 40, 60)
    (batch,) = test_batches(images, MEAN, STD, 10, Augmentation(random_resized_crop=28))
    resized = F.interpolate(
        torch.stack([normalised(image) for image in images]), (32, 48), mode="bilinear", antialias=True
    )
    assert torch.allclose(batch, resized[:, :, 2:30, 10:38], atol=1e-5)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_stratified_subsets_have_every_class_in_its_share():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[
        torch.randperm(100, generator=torch.Generator().manual_seed(0))
    ]
    for count in (10, 33, 50, 99, 100):
        index = stratified_subset(labels, count, numpy_generator(0, "split"))
        assert len(index) == len(index.unique()) == count and torch.equal(index, index.sort().values)
        shares = torch.bincount(labels[index], minlength=3) - torch.tensor([0.6, 0.3, 0.1]) * count
        assert shares.abs().max() < 1
    with pytest.raises(DataError, match="101 images are asked for and there are only 100"):
        stratified_subset(labels, 101, numpy_generator(0, "split"))


def test_validation_split():
    labels = torch.arange(200) % 4
    train, held_out = validation_split(labels, 0.1, 0)
    assert torch.bincount(labels[held_out]).tolist() == [5, 5, 5, 5]
    assert torch.equal(torch.cat([train, held_out]).sort().values, torch.arange(200))
    assert torch.equal(rest_of(200, held_out), train)
    assert torch.equal(validation_split(labels, 0.1, 0)[1], held_out)
    assert not torch.equal(validation_split(labels, 0.1, 1)[1], held_out)
    with pytest.raises(DataError, match="leaves a split empty"):
        validation_split(labels, 0.001, 0)
