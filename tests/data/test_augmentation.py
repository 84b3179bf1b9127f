"""RandAugment, cutout and mixup, against torchvision's own where it has them."""

from __future__ import annotations

import pytest
import torch

from collabench.config.sections import Augmentation, RandAugment
from collabench.core.distributed import Part
from collabench.core.seeding import torch_generator
from collabench.core.torchvision_import import import_torchvision
from collabench.data.augmentation import EpochChanges, rand_augment, squares
from collabench.data.batches import TrainingBatches
from collabench.data.mixup import mix, mixing_shares

CPU = torch.device("cpu")


def pictures(count: int = 12, channels: int = 3, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, channels), generator=generator, dtype=torch.uint8)


def batches(augmentation: Augmentation, images: torch.Tensor, size: int = 5, **options: object) -> TrainingBatches:
    channels = images.shape[-1]
    return TrainingBatches(images, (0.5,) * channels, (0.25,) * channels, augmentation, size, 3, **options)


def an_epoch(augmentation: Augmentation, images: torch.Tensor, first: int = 0, **options: object) -> torch.Tensor:
    made = batches(augmentation, images, **options)
    return torch.cat([x for x, _ in made.epoch(1, torch.arange(len(images)), first)])


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_is_torchvision_s(channels):
    import_torchvision()
    from torchvision.transforms import v2

    images, settings = pictures(channels=channels), RandAugment(operations=3, magnitude=12)
    found = rand_augment(images, settings, list(range(len(images))))
    before = torch.get_rng_state()
    for seed, (image, changed) in enumerate(zip(images, found, strict=True)):
        torch.manual_seed(seed)
        expected = v2.RandAugment(num_ops=3, magnitude=12)(image.permute(2, 0, 1))
        assert torch.equal(changed.permute(2, 0, 1), expected)
    assert found.dtype == torch.uint8 and (found != images).any()
    torch.set_rng_state(before)


def test_randaugment_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    rand_augment(pictures(2), RandAugment(), [0, 1])
    assert torch.equal(before, torch.get_rng_state())


def test_cutout_makes_a_square_the_mean_colour():
    images = pictures(40)
    plain, cut = an_epoch(Augmentation(), images), an_epoch(Augmentation(cutout=6), images)
    hidden = (cut == 0).all(dim=1)
    assert torch.equal(torch.where(hidden[:, None], plain, cut), plain)  # nothing else is changed
    boxes = squares(40, 16, 16, 6, torch_generator(3, "augmentation", 1, "cutout"))
    for image, (top, bottom, left, right) in zip(hidden, boxes.tolist(), strict=True):
        expected = torch.zeros(16, 16, dtype=torch.bool)
        expected[max(top, 0) : bottom, max(left, 0) : right] = True
        assert torch.equal(image, expected)
    sizes = hidden.sum(dim=(1, 2))
    assert sizes.max() == 36 and sizes.min() >= 9 and sizes.unique().numel() > 1  # cut off at the border


def test_centres_of_squares_are_uniform_over_the_image():
    boxes = squares(20_000, 5, 9, 3, torch.Generator().manual_seed(0))
    rows, columns = boxes[:, 0] + 1, boxes[:, 2] + 1
    assert torch.bincount(rows, minlength=5).float().div(4000).sub(1).abs().max() < 0.06
    assert torch.bincount(columns, minlength=9).float().div(20_000 / 9).sub(1).abs().max() < 0.1


@pytest.mark.parametrize("moved", [{"shift": 2, "flip": True}, {"random_resized_crop": 12}])
def test_processes_and_resumed_epochs_see_the_same_images(moved):
    augmentation = Augmentation(cutout=5, randaugment=RandAugment(operations=1), **moved)
    images = pictures()
    whole = an_epoch(augmentation, images)
    assert torch.equal(an_epoch(augmentation, images, first=1), whole[5:])
    parts = [list(batches(augmentation, images, part=Part(rank, 2)).epoch(1, torch.arange(12))) for rank in (0, 1)]
    assert torch.equal(torch.cat([torch.cat([a, b]) for (a, _), (b, _) in zip(*parts, strict=True)]), whole)


def test_new_changes_leave_the_draws_of_the_others_alone():
    images = pictures()
    moved = Augmentation(shift=2, flip=True)
    with_cutout = an_epoch(moved.model_copy(update={"cutout": 4}), images)
    plain = an_epoch(moved, images)
    assert torch.equal(torch.where(with_cutout == 0, plain, with_cutout), plain)


def test_an_epoch_without_changes_returns_the_same_tensors():
    changes = EpochChanges(Augmentation(), 4, 16, 16, 0, 0, CPU)
    pixels, images = pictures(4), torch.randn(4, 3, 16, 16)
    assert changes.of_pixels(pixels, slice(0, 4)) is pixels and changes.of_normalised(images, slice(0, 4)) is images


def test_mixup_is_torchvision_s(monkeypatch):
    import_torchvision()
    from torchvision.transforms import v2

    images, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 2])
    theirs = v2.MixUp(alpha=0.3, num_classes=4)
    monkeypatch.setattr(theirs, "_dist", type("Fixed", (), {"sample": lambda self, shape: torch.tensor(0.25)})())
    expected_images, expected_labels = theirs(images, labels)
    mixed, targets = mix(images, labels, 0.25, 4)
    assert torch.equal(mixed, expected_images) and torch.equal(targets, expected_labels)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_shares_of_mixup_have_the_beta_distribution_and_depend_on_seed_and_epoch():
    shares = mixing_shares(0.4, 1, 2, 40_000)
    assert shares[:7] == mixing_shares(0.4, 1, 2, 40_000)[:7] != mixing_shares(0.4, 1, 3, 40_000)[:7]
    values = torch.tensor(shares, dtype=torch.float64)
    assert values.mean().item() == pytest.approx(0.5, abs=0.01)
    assert values.var().item() == pytest.approx(0.25 / (2 * 0.4 + 1), rel=0.03)  # 1 / (4 (2 alpha + 1))
