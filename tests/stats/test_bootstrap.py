"""The two-way bootstrap: against a loop over cells, exact small cases and the known variance."""

import math

import numpy as np
import pytest

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import two_way_bootstrap
from collabench.stats.bootstrap import draw_counts


def generator(seed=0):
    return np.random.Generator(np.random.Philox(key=seed))


def table(seed, shape, share):
    return np.random.default_rng(seed).random(shape) < share


def test_equals_a_loop_over_drawn_cells():
    correct, baseline = table(1, (3, 7), 0.7), table(2, (3, 7), 0.5)
    result = two_way_bootstrap(correct, baseline, generator=generator(), resamples=100)
    draws = generator()
    seeds, images = draw_counts(draws, 3, 100), draw_counts(draws, 7, 100)
    estimates = []
    for resample in range(100):
        total = 0.0
        for s in range(3):
            for i in range(7):
                difference = (not correct[s, i]) - (not baseline[s, i])
                total += seeds[resample, s] * images[resample, i] * difference
        estimates.append(total / 21)
    assert result.sd == pytest.approx(np.std(estimates, ddof=1))
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(estimates, [0.025, 0.975])))


def test_counts_are_resamples():
    counts = draw_counts(generator(), 6, 5000)
    assert (counts.sum(axis=1) == 6).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(6), abs=0.06)
    assert counts.var(axis=0) == pytest.approx(np.full(6, 5 / 6), abs=0.08)  # multinomial: n q (1 - q)


def test_estimates_are_observed_shares():
    correct = np.array([[True, True, False, True], [False, True, False, True]])
    baseline = np.array([[True, True, True, True], [True, True, False, True]])
    assert two_way_bootstrap(correct, generator=generator()).estimate == pytest.approx(3 / 8)
    assert two_way_bootstrap(correct, baseline, generator=generator()).estimate == pytest.approx(2 / 8)


def test_identical_tables_differ_by_nothing():
    correct = table(3, (4, 30), 0.6)
    result = two_way_bootstrap(correct, correct, generator=generator())
    assert (result.estimate, result.sd, result.low, result.high) == (0.0, 0.0, 0.0, 0.0)


def test_variance_is_the_pigeonhole_variance():
    # Owen (2007), for a table with entries of rows, columns and residual: computed exactly by E[w²] and E[w w'].
    errors = 1.0 - table(4, (5, 40), 0.6)
    seeds, images = errors.shape

    def second_moments(size):
        return np.full((size, size), 1 - 1 / size) + np.eye(size)

    moment = np.einsum("si,tj,st,ij->", errors, errors, second_moments(seeds), second_moments(images))
    exact = math.sqrt(moment / errors.size**2 - errors.mean() ** 2)
    result = two_way_bootstrap(errors == 0, generator=generator(), resamples=20_000)
    assert result.sd == pytest.approx(exact, rel=0.02)


def test_only_one_source_of_variation_is_the_ordinary_bootstrap():
    by_image = table(5, (1, 200), 0.8)
    result = two_way_bootstrap(np.repeat(by_image, 6, axis=0), generator=generator(), resamples=10_000)
    share = 1 - by_image.mean()
    assert result.sd == pytest.approx(math.sqrt(share * (1 - share) / 200), rel=0.03)


def test_swapping_the_methods_mirrors_the_interval():
    first, second = table(6, (4, 50), 0.7), table(7, (4, 50), 0.5)
    forth = two_way_bootstrap(first, second, generator=generator(9))
    back = two_way_bootstrap(second, first, generator=generator(9))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.estimate == -back.estimate


def test_the_generator_determines_the_result():
    correct = table(8, (3, 20), 0.5)
    assert two_way_bootstrap(correct, generator=generator(1)) == two_way_bootstrap(correct, generator=generator(1))
    assert two_way_bootstrap(correct, generator=generator(1)) != two_way_bootstrap(correct, generator=generator(2))


def test_many_images_are_drawn_in_parts(monkeypatch):
    correct, baseline = table(9, (3, 500), 0.7), table(10, (3, 500), 0.65)
    whole = two_way_bootstrap(correct, baseline, generator=generator(), resamples=4000)
    monkeypatch.setattr("collabench.stats.bootstrap._CELLS", 500 * 7)
    parts = two_way_bootstrap(correct, baseline, generator=generator(), resamples=4000)
    assert parts.resamples == 4000
    assert parts.sd == pytest.approx(whole.sd, rel=0.05)
    assert parts.low == pytest.approx(whole.low, abs=0.2 * whole.sd)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ResultError, lambda: two_way_bootstrap(np.ones((2, 3)), generator=generator())),
        (ResultError, lambda: two_way_bootstrap(np.ones(3, dtype=bool), generator=generator())),
        (ResultError, lambda: two_way_bootstrap(np.ones((0, 3), dtype=bool), generator=generator())),
        (
            ResultError,
            lambda: two_way_bootstrap(np.ones((2, 3), dtype=bool), np.ones((3, 3), dtype=bool), generator=generator()),
        ),
        (ConfigError, lambda: two_way_bootstrap(np.ones((2, 3), dtype=bool), generator=generator(), resamples=10)),
        (ConfigError, lambda: two_way_bootstrap(np.ones((2, 3), dtype=bool), generator=generator(), level=95)),
    ],
)
def test_mistakes_are_named(error, call):
    with pytest.raises(error):
        call()
