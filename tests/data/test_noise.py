"""Label noise: rates, transition matrices, keys, files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from collabench.config.data_sections import NoiseConfig
from collabench.core.errors import DataError
from collabench.data import noise

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LETTERS = ("a", "b", "c", "d")


def labels_of(count: int, classes: int) -> torch.Tensor:
    return torch.arange(count) % classes


def empirical(drawn: noise.NoisyLabels, classes: int) -> torch.Tensor:
    counts = torch.zeros(classes, classes, dtype=torch.float64)
    counts.index_put_((drawn.clean, drawn.noisy), torch.ones(len(drawn.clean), dtype=torch.float64), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", ["uniform", "symmetric", "asymmetric", "pair"])
@pytest.mark.parametrize("classes", [CIFAR10, LETTERS])
@pytest.mark.parametrize("count", ["exact", "bernoulli"])
@pytest.mark.parametrize("epoch", [None, 3])
def test_realised_frequencies_are_the_transition_matrix(kind, classes, count, epoch):
    config = NoiseConfig(kind=kind, rate=0.4, count=count, when="static" if epoch is None else "per_epoch")
    drawn = noise.draw(config, labels_of(200_000, len(classes)), classes, 1, epoch)
    assert torch.allclose(drawn.transition.sum(dim=1), torch.ones(len(classes), dtype=torch.float64))
    # Standard error of a frequency over 20,000 images is at most 0.0035.
    assert (empirical(drawn, len(classes)) - drawn.transition).abs().max() < 0.018


def test_transition_matrices_by_hand():
    matrix = noise.transition_matrix(NoiseConfig(kind="uniform", rate=0.4), LETTERS)
    assert torch.allclose(matrix, 0.6 * torch.eye(4, dtype=torch.float64) + 0.1)
    matrix = noise.transition_matrix(NoiseConfig(kind="symmetric", rate=0.3), LETTERS)
    assert torch.allclose(matrix.diagonal(), torch.full((4,), 0.7, dtype=torch.float64))
    assert matrix[0, 1] == pytest.approx(0.1)
    matrix = noise.transition_matrix(NoiseConfig(kind="asymmetric", rate=0.3), LETTERS)
    assert matrix.tolist()[3] == pytest.approx([0.3, 0, 0, 0.7])
    matrix = noise.transition_matrix(NoiseConfig(kind="pair", rate=0.3), CIFAR10)
    assert matrix.tolist()[9] == pytest.approx([0.3, *[0] * 8, 0.7])
    assert matrix.tolist()[0] == pytest.approx([0.7, 0.3, *[0] * 8])


@pytest.mark.parametrize("kind", ["uniform", "symmetric", "asymmetric", "pair"])
@pytest.mark.parametrize(("rate", "count"), [(0.1, 101), (0.25, 252), (0.5, 504), (1.0, 1008)])
def test_exact_count_hits_exactly_the_rate(kind, rate, count):
    drawn = noise.draw(NoiseConfig(kind=kind, rate=rate), labels_of(1008, 4), LETTERS, 0)
    assert int(drawn.mask.sum()) == count
    wrong = drawn.noisy != drawn.clean
    assert not (wrong & ~drawn.mask).any()
    assert drawn.corruption == wrong.double().mean().item()
    if kind != "uniform":
        assert (wrong == drawn.mask).all()
    else:
        assert 0.6 < wrong.sum() / count < 0.9  # one in four of those hit stays right


def test_bernoulli_counts_vary_around_the_rate():
    config = NoiseConfig(kind="symmetric", rate=0.3, count="bernoulli")
    counts = {int(noise.draw(config, labels_of(1000, 4), LETTERS, seed).mask.sum()) for seed in range(20)}
    assert len(counts) > 5
    assert 285 < np.mean(list(counts)) < 315


def test_default_pairs_of_cifar10_by_name_whatever_the_order():
    classes = tuple(reversed(CIFAR10))
    drawn = noise.draw(NoiseConfig(kind="asymmetric", rate=1.0), torch.arange(10), classes, 0)
    became = {classes[clean]: classes[noisy] for clean, noisy in zip(drawn.clean, drawn.noisy, strict=True)}
    moved = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
    assert became == {name: moved.get(name, name) for name in classes}
    # rate is the share of the images of classes that have a partner
    half = noise.draw(NoiseConfig(kind="asymmetric", rate=0.4), labels_of(1000, 10), classes, 0)
    assert half.corruption == 0.2


def test_which_classes_flip():
    asymmetric = NoiseConfig(kind="asymmetric", rate=0.4)
    assert noise.flips(asymmetric, CIFAR10) == {
        "bird": "airplane", "cat": "dog", "deer": "horse", "dog": "cat", "truck": "automobile"
    }  # fmt: skip
    assert noise.flips(asymmetric, LETTERS) == {"a": "b", "b": "c", "c": "d", "d": "a"}
    chosen = asymmetric.model_copy(update={"pairs": {"d": "a"}})
    assert noise.flips(chosen, LETTERS) == {"d": "a"}
    assert noise.flips(NoiseConfig(kind="uniform", rate=0.4), LETTERS) is None


def test_pairs_of_the_configuration():
    drawn = noise.draw(NoiseConfig(kind="asymmetric", rate=1.0, pairs={"a": "c"}), torch.arange(4), LETTERS, 0)
    assert drawn.noisy.tolist() == [2, 1, 2, 3]
    with pytest.raises(DataError, match="'x' is not a class; classes: a, b, c, d"):
        noise.draw(NoiseConfig(kind="asymmetric", rate=0.1, pairs={"a": "x"}), torch.arange(4), LETTERS, 0)
    with pytest.raises(ValidationError, match="paired with itself"):
        NoiseConfig(kind="asymmetric", rate=0.1, pairs={"a": "a"})


def test_same_key_same_noise_other_keys_other_noise():
    labels = labels_of(500, 4)
    config = NoiseConfig(kind="uniform", rate=0.5, when="per_epoch")
    first = noise.draw(config, labels, LETTERS, 3, 7)
    assert torch.equal(first.noisy, noise.draw(config, labels, LETTERS, 3, 7).noisy)
    for seed, epoch in ((3, 8), (4, 7), (3, None)):
        other = noise.draw(config, labels, LETTERS, seed, epoch)
        assert not torch.equal(first.mask, other.mask)
        assert not torch.equal(first.noisy, other.noisy)


def test_known_draw():
    """Fixes the numbers themselves: they must not change between versions and machines."""
    drawn = noise.draw(NoiseConfig(kind="uniform", rate=0.5), labels_of(12, 4), LETTERS, 0)
    assert drawn.noisy.tolist() == [0, 1, 2, 1, 3, 1, 2, 3, 3, 1, 2, 3]


def test_fixed_hits_stay_and_their_labels_change():
    labels = labels_of(1000, 10)
    config = NoiseConfig(kind="uniform", rate=0.5, when="per_epoch", hit="fixed")
    first, second = (noise.draw(config, labels, CIFAR10, 0, epoch) for epoch in (0, 1))
    assert torch.equal(first.mask, second.mask)
    assert not torch.equal(first.noisy, second.noisy)
    redrawn = config.model_copy(update={"hit": "redrawn"})
    first, second = (noise.draw(redrawn, labels, CIFAR10, 0, epoch) for epoch in (0, 1))
    assert not torch.equal(first.mask, second.mask)


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_a_higher_rate_contains_a_lower_one(count):
    low, high = (
        noise.draw(NoiseConfig(kind="uniform", rate=rate, count=count), labels_of(400, 4), LETTERS, 0)
        for rate in (0.2, 0.4)
    )
    assert not (low.mask & ~high.mask).any()
    assert torch.equal(low.noisy[low.mask], high.noisy[low.mask])


def test_none_leaves_labels_alone():
    labels = labels_of(40, 4)
    drawn = noise.draw(NoiseConfig(kind="none"), labels, LETTERS, 0)
    assert torch.equal(drawn.noisy, labels) and not drawn.mask.any() and drawn.corruption == 0
    assert torch.equal(drawn.transition, torch.eye(4, dtype=torch.float64))


def test_file_round_trip_and_deterministic_bytes(tmp_path):
    config = NoiseConfig(kind="symmetric", rate=0.3)
    drawn = noise.draw(config, labels_of(300, 4), LETTERS, 5)
    contents = set()
    for name in ("a", "b", "c"):
        noise.write_static(tmp_path / name, drawn, config, 5)
        contents.add((tmp_path / name).read_bytes())
    assert len(contents) == 1
    read = noise.read_static(tmp_path / "a")
    for field in ("clean", "noisy", "mask", "transition"):
        assert torch.equal(getattr(read, field), getattr(drawn, field))
    assert read.corruption == drawn.corruption
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}


def test_every_damage_to_the_file_is_found(tmp_path):
    path = tmp_path / "noise.safetensors"
    config = NoiseConfig(kind="uniform", rate=0.3)
    noise.write_static(path, noise.draw(config, labels_of(20, 4), LETTERS, 5), config, 5)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in {*range(0, header, 3), *range(header, len(whole), 11), len(whole) - 1}:
        if whole[position] == 0x20 and position < header:
            continue  # padding after the header
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError, match=r"noise\.safetensors"):
            noise.read_static(path)
    for length in (0, 5, header - 1, header + 10, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"noise\.safetensors: damaged"):
            noise.read_static(path)
    path.unlink()
    with pytest.raises(DataError, match=r"noise\.safetensors: is missing"):
        noise.read_static(path)


# ------------------------------------------------------------------------------------------------------- a matrix

MATRIX = ((0.5, 0.5, 0.0, 0.0), (0.1, 0.6, 0.2, 0.1), (0.0, 0.0, 1.0, 0.0), (0.25, 0.25, 0.5, 0.0))


@pytest.mark.parametrize("epoch", [None, 3])
def test_a_matrix_is_realised(epoch):
    when = "static" if epoch is None else "per_epoch"
    clean = labels_of(40_000, 4)
    exact = noise.draw(NoiseConfig(kind="matrix", rows=MATRIX, when=when), clean, LETTERS, 1, epoch)
    asked = torch.tensor(MATRIX, dtype=torch.float64)
    assert torch.equal(exact.transition, asked)
    # The shares of 10,000 images are whole numbers here.
    assert torch.allclose(noise.realised(clean, exact.noisy, 4), asked, rtol=0, atol=1e-12)
    assert exact.corruption == pytest.approx((0.5 + 0.4 + 0 + 1) / 4)
    assert torch.equal(exact.mask, exact.noisy != clean)
    chance = noise.draw(NoiseConfig(kind="matrix", rows=MATRIX, when=when, count="bernoulli"), clean, LETTERS, 1, epoch)
    found = noise.realised(clean, chance.noisy, 4)
    # Standard error of a frequency over 10,000 images is at most 0.005.
    assert 0 < (found - asked).abs().max() < 0.02
    assert (found[asked == 0] == 0).all()


def test_shares_of_a_matrix_that_are_no_whole_numbers_go_to_the_largest_remainders():
    clean = torch.tensor([0] * 7 + [1] * 3)
    matrix = ((0.6, 0.4), (0.5, 0.5))
    drawn = noise.draw(NoiseConfig(kind="matrix", rows=matrix), clean, ("a", "b"), 0)
    # 4.2 and 2.8 of seven images; 1.5 and 1.5 of three, where the first class is rounded up
    assert [int((drawn.noisy[:7] == label).sum()) for label in (0, 1)] == [4, 3]
    assert [int((drawn.noisy[7:] == label).sum()) for label in (0, 1)] == [2, 1]


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
def test_a_matrix_can_hit_the_same_images_in_every_epoch(count):
    clean = labels_of(4_000, 4)
    config = NoiseConfig(kind="matrix", rows=MATRIX, when="per_epoch", hit="fixed", count=count)
    first, second = (noise.draw(config, clean, LETTERS, 1, epoch) for epoch in (0, 1))
    assert torch.equal(first.mask, second.mask) and not torch.equal(first.noisy, second.noisy)
    redrawn = NoiseConfig(kind="matrix", rows=MATRIX, when="per_epoch", count=count)
    first, second = (noise.draw(redrawn, clean, LETTERS, 1, epoch) for epoch in (0, 1))
    assert not torch.equal(first.mask, second.mask)


def test_realised_shares_by_hand():
    found = noise.realised(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 2, 2]), 3)
    assert found.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": ((0.5, 0.5), (0.5, 0.4))}, "row 2 sums to 0.9; it must sum to 1"),
        ({"rows": ((0.5, 0.5), (1.5, -0.5))}, "row 2 holds 1.5; probabilities lie between 0 and 1"),
        ({"rows": ((0.5, 0.5), (0.1, 0.2, 0.7))}, "row 2 has 3 entries, the matrix 2 rows"),
        ({"rows": ((1.0,),)}, "its number of rows is 1; it needs one for each class"),
        ({"rows": ((1.0, 0.0), (0.0, 1.0))}, "makes no label wrong; use kind: none"),
        ({"rows": ((0.5, 0.5), (0.5, 0.5)), "rate": 0.2}, "kind: matrix says itself which labels become wrong"),
        ({}, "kind: matrix needs either rows"),
        ({"rows": ((0.5, 0.5), (0.5, 0.5)), "path": "m.csv"}, "kind: matrix needs either rows"),
        ({"path": "m.pt"}, "must end with .npy or .csv"),
        ({"kind": "pair", "rate": 0.2, "rows": ((0.5, 0.5), (0.5, 0.5))}, "rows belong to kind: matrix"),
        ({"kind": "pair", "rate": 0.2, "path": "m.csv"}, "path belongs to kind: matrix and kind: file"),
        ({"kind": "pair", "rate": 0.2, "key": "x"}, "key belongs to kind: file"),
        ({"kind": "pair"}, "kind: pair needs a rate above 0: rate: 0.2"),
        ({"rows": ((0.5, 0.5), (0.5, 0.5)), "sha256": "0" * 64}, "sha256 belongs to path"),
        ({"kind": "file"}, "kind: file needs a path"),
        ({"kind": "file", "path": "l.pt"}, "name one with key"),
        ({"kind": "file", "path": "l.npy", "key": "x"}, "a .npy file holds one array; remove key"),
        ({"kind": "file", "path": "l.txt"}, "must end with .npy, .csv or .pt"),
        ({"kind": "file", "path": "l.npy", "when": "per_epoch"}, "kind: file draws no label"),
        ({"kind": "file", "path": "l.npy", "rate": 0.1}, "kind: file says itself which labels become wrong"),
    ],
)
def test_settings_of_a_matrix_and_of_files_that_do_not_fit(settings, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        NoiseConfig(**{"kind": "matrix", **settings})


def test_a_row_may_sum_to_1_within_a_millionth():
    third = 0.3333333
    NoiseConfig(kind="matrix", rows=((third, third, third),) * 3)
    with pytest.raises(ValidationError, match=r"sums to 0\.99999"):
        NoiseConfig(kind="matrix", rows=((0.33333, 0.33333, 0.33333),) * 3)
