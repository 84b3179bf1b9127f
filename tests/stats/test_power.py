"""Detectable differences and seeds needed: against integrals written out and simulated limits."""

import math
import statistics

import numpy as np
import pytest
from scipy.integrate import quad

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import detectable_difference, one_sample, seeds_needed
from collabench.stats.power import detectable_effect, sd_upper_limit, t_test_power

normal = statistics.NormalDist()
# Upper 2.5 % points of Student's t and lower 20 % points of chi-square, as printed in tables.
T_975 = {2: 4.302653, 4: 2.776445, 7: 2.364624, 9: 2.262157}
CHI2_20 = {1: 0.064185, 2: 0.446287, 4: 1.648777, 7: 3.822322, 9: 5.380053}


def power_by_integral(effect, n):
    """P(Z + √n effect > t √(chi²/m)) over the density of chi² with m = n - 1 degrees."""
    m = n - 1

    def integrand(x):
        density = x ** (m / 2 - 1) * math.exp(-x / 2) / (2 ** (m / 2) * math.gamma(m / 2))
        return density * (1 - normal.cdf(T_975[m] * math.sqrt(x / m) - math.sqrt(n) * effect))

    return quad(integrand, 0, 80, limit=200)[0]


@pytest.mark.parametrize("n", [3, 5, 8, 10])
@pytest.mark.parametrize("effect", [0.3, 1.0, 2.5])
def test_power_equals_the_integral(n, effect):
    assert t_test_power(effect, n, 0.95) == pytest.approx(power_by_integral(effect, n), abs=2e-5)


@pytest.mark.parametrize("n", [3, 5, 8, 10])
def test_detectable_effect_has_the_power(n):
    assert power_by_integral(detectable_effect(n), n) == pytest.approx(0.8, abs=2e-5)


@pytest.mark.parametrize("n", [2, 3, 5, 50, 10_000])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99, 0.999])
def test_detectable_effect_is_found_for_every_size(n, level):
    assert t_test_power(detectable_effect(n, level), n, level) == pytest.approx(0.8, abs=1e-6)


def test_detectable_effect_of_many_seeds_is_the_normal_one():
    by_hand = (normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) / math.sqrt(10_000)
    assert detectable_effect(10_000) == pytest.approx(by_hand, rel=1e-3)


def test_detectable_difference_is_in_the_unit_of_the_values():
    differences = np.array([0.1, 0.4, -0.2, 0.3, 0.5])
    result = one_sample(differences)
    assert result.detectable == pytest.approx(1.68200 * differences.std(ddof=1), rel=1e-4)
    assert detectable_difference(5, 2.0) == pytest.approx(2 * detectable_effect(5))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 10])
def test_upper_limit_of_the_spread(n):
    assert sd_upper_limit(2.0, n) == pytest.approx(2 * math.sqrt((n - 1) / CHI2_20[n - 1]), rel=1e-4)


@pytest.mark.slow
def test_the_upper_limit_holds_in_four_of_five_samples():
    generator = np.random.default_rng(3)
    spreads = generator.normal(0, 1.5, (20_000, 5)).std(axis=1, ddof=1)
    covered = np.mean([sd_upper_limit(sd, 5) >= 1.5 for sd in spreads])
    assert covered == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 20_000))


@pytest.mark.parametrize(("target", "sd", "n"), [(0.5, 1.0, 5), (-0.5, 1.0, 5), (1.0, 0.4, 8), (0.1, 0.9, 3)])
def test_seeds_needed_is_the_first_number_that_is_enough(target, sd, n):
    plan = seeds_needed(target, sd, n)
    upper = sd * math.sqrt((n - 1) / CHI2_20[n - 1])
    assert plan.reason is None
    assert plan.sd_upper == pytest.approx(upper, rel=1e-4)
    powers = [t_test_power(abs(target) / upper, seeds, 0.95) for seeds in range(2, plan.seeds + 1)]
    assert powers[-1] >= 0.8
    assert all(power < 0.8 for power in powers[:-1])
    # the normal approximation, plus two at most for Student's t
    z = normal.inv_cdf(0.975) + normal.inv_cdf(0.8)
    approximate = (z * upper / target) ** 2
    assert approximate <= plan.seeds <= approximate + 4


def test_a_stricter_level_needs_more_seeds():
    assert seeds_needed(0.5, 1.0, 5, level=0.99).seeds > seeds_needed(0.5, 1.0, 5).seeds


def test_a_huge_target_still_needs_two():
    assert seeds_needed(1e6, 1.0, 5).seeds == 2


@pytest.mark.parametrize(
    ("target", "sd", "n", "reason"),
    [
        (0.5, None, 1, "fewer than 2 seeds"),
        (0.5, 0.0, 5, "all 5 differences are equal"),
        (0.0, 1.0, 5, "difference of zero"),
        (1e-4, 1.0, 5, "more than 10,000 seeds"),
    ],
)
def test_no_number_has_a_reason(target, sd, n, reason):
    plan = seeds_needed(target, sd, n)
    assert plan.seeds is None
    assert reason in plan.reason


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ConfigError, lambda: seeds_needed(math.nan, 1.0, 5)),
        (ConfigError, lambda: seeds_needed(0.5, 1.0, 5, power=80)),
        (ConfigError, lambda: seeds_needed(0.5, -1.0, 5)),
        (ResultError, lambda: detectable_effect(1)),
    ],
)
def test_mistakes_are_named(error, call):
    with pytest.raises(error):
        call()
