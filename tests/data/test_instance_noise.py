"""Labels that depend on the image: the paper's algorithm step by step, its rate, and the same bytes in any order."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import truncnorm

from collabench.config.data_sections import NoiseConfig
from collabench.core.seeding import numpy_generator
from collabench.data import instance_noise, noise

LETTERS = ("a", "b", "c", "d")


def seen_of(count: int, side: int = 6, channels: int = 3) -> noise.Seen:
    pixels = np.random.default_rng(1).integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return noise.Seen(torch.from_numpy(pixels), (0.5,) * channels, (0.25,) * channels)


def labels_of(count: int) -> torch.Tensor:
    return torch.arange(count) % 4


def drawn(rate: float, count: int = 4000, seed: int = 0) -> noise.NoisyLabels:
    config = NoiseConfig(kind="instance", rate=rate)
    return noise.draw(config, labels_of(count), LETTERS, seed, seen=seen_of(count))


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4, 0.5])
def test_the_share_of_wrong_labels_is_the_mean_of_the_truncated_distribution(rate):
    found = drawn(rate, 20_000)
    expected = truncnorm.mean(-rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
    assert abs(found.corruption - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)
    assert torch.equal(found.mask, found.noisy != found.clean)
    assert torch.allclose(found.transition.sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert found.transition.diagonal().mean() == pytest.approx(1 - found.corruption, abs=1e-12)


def test_flip_rates_are_those_of_scipys_truncated_normal():
    chance = np.linspace(0.001, 0.999, 500)
    for rate in (0.05, 0.3, 0.95):
        expected = truncnorm.ppf(chance, -rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1)
        assert np.abs(instance_noise.flip_rates(chance, rate) - expected).max() < 1e-6


def test_the_label_is_drawn_by_the_softmax_of_the_projected_image():
    """The paper's steps, in plain floating-point numbers, for every image by itself."""
    count, seed, rate = 400, 3, 0.6
    seen, labels = seen_of(count), labels_of(400).numpy()
    found = noise.draw(NoiseConfig(kind="instance", rate=rate), torch.from_numpy(labels), LETTERS, seed, seen=seen)
    draws = numpy_generator(seed, "noise", "instance")
    flip, quantile, chance = (draws.random(count) for _ in range(3))
    q = instance_noise.flip_rates(quantile, rate)
    projections = [numpy_generator(seed, "noise", "instance", y).standard_normal((3, 36, 4)) for y in range(4)]
    agreed = 0
    for index in range(count):
        own = int(labels[index])
        image = (seen.images[index].double().numpy() / 255 - 0.5) / 0.25
        score = sum(image[..., c].reshape(-1) @ projections[own][c] for c in range(3))
        score[own] = -np.inf
        p = np.exp(score - score.max())
        p /= p.sum()
        expected = own if flip[index] >= q[index] else int(np.searchsorted(np.cumsum(p), chance[index], side="right"))
        agreed += expected == found.noisy[index]
    assert agreed == count


def test_a_higher_rate_hits_every_image_that_a_lower_one_hits():
    low, high = drawn(0.2), drawn(0.5)
    assert (high.noisy[low.mask] == low.noisy[low.mask]).all() and high.mask.sum() > low.mask.sum()


def test_labels_depend_on_the_image_and_on_the_seed():
    config, labels = NoiseConfig(kind="instance", rate=0.5), labels_of(2000)
    seen = seen_of(2000)
    first = noise.draw(config, labels, LETTERS, 0, seen=seen)
    turned = noise.Seen(255 - seen.images, seen.mean, seen.std)
    other = noise.draw(config, labels, LETTERS, 0, seen=turned)
    both = first.mask & other.mask
    assert torch.equal(first.mask, other.mask), "an image's rate does not depend on its pixels"
    assert (first.noisy != other.noisy)[both].double().mean() > 0.3
    assert not torch.equal(first.noisy, noise.draw(config, labels, LETTERS, 1, seen=seen).noisy)


def test_the_bytes_are_the_same_everywhere_and_in_any_order_of_the_sums(monkeypatch):
    found = drawn(0.4)
    digest = hashlib.sha256(found.noisy.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "64a0afe785600a75ce454bd6dce02bd625e7e2d4a3203aebe866c7f08e436364"
    monkeypatch.setattr(instance_noise, "_AT_ONCE", 7)  # other shapes of the products, which BLAS sums in another order
    assert torch.equal(drawn(0.4).noisy, found.noisy)


def test_projections_are_exact_in_any_order():
    generator = np.random.default_rng(0)
    whole = np.rint(generator.standard_normal((500, 4)) * 2**20)
    pixels = generator.integers(0, 256, (9, 500)).astype(np.float64)
    order = generator.permutation(500)
    assert np.array_equal(pixels @ whole, pixels[:, order] @ whole[order])
    assert (pixels @ whole).tolist() == [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in whole.T] for row in pixels
    ]


def test_the_exponential_is_right_to_the_last_digits():
    values = -np.concatenate([np.linspace(0, 40, 4001), np.geomspace(1e-12, 690, 2000)])
    expected = np.array([math.exp(value) for value in values])
    assert (np.abs(instance_noise.exponential(values) / expected - 1)).max() < 4e-15
    assert instance_noise.exponential(np.array([0.0, -1e6])).tolist()[0] == 1.0


@pytest.mark.parametrize("field", [{"when": "per_epoch"}, {"count": "bernoulli"}, {"rate": 0.0}])
def test_settings_that_it_does_not_have_are_refused(field):
    with pytest.raises(ValidationError, match=r"remove when, count and hit|a rate above 0"):
        NoiseConfig(**{"kind": "instance", "rate": 0.2} | field)
