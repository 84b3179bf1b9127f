"""Exact binomial limits: against sums of binomial terms."""

import math

import pytest

from collabench.core.errors import ResultError
from collabench.stats import proportion_interval
from collabench.stats.proportions import binomial_limit


def at_least(count, total, share):
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count, total + 1))


@pytest.mark.parametrize(("count", "total"), [(1, 10), (5, 20), (36, 360), (359, 360)])
def test_each_limit_leaves_two_and_a_half_percent(count, total):
    low, high = proportion_interval(count, total)
    assert at_least(count, total, low) == pytest.approx(0.025, rel=1e-6)
    assert 1 - at_least(count + 1, total, high) == pytest.approx(0.025, rel=1e-6)


def test_nothing_and_everything():
    # (1 - high)^n = 0.025
    assert proportion_interval(0, 10) == (0.0, pytest.approx(1 - 0.025**0.1))
    assert proportion_interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)


@pytest.mark.parametrize("total", [50, 400])
def test_binomial_limit_is_the_smallest_that_holds(total):
    limit = round(binomial_limit(total, 0.05, 0.999) * total)
    assert at_least(limit + 1, total, 0.05) <= 0.001 < at_least(limit, total, 0.05)


@pytest.mark.parametrize(("count", "total"), [(-1, 10), (11, 10), (0, 0)])
def test_mistakes_are_named(count, total):
    with pytest.raises(ResultError):
        proportion_interval(count, total)
