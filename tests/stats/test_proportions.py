"""Exact binomial limits: against sums of binomial terms."""

import math

import pytest

from collabench.core.errors import ResultError
from collabench.stats.proportions import binomial_limit


def at_least(count, total, share):
    return sum(math.comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(count, total + 1))


@pytest.mark.parametrize("total", [50, 400])
def test_binomial_limit_is_the_smallest_that_holds(total):
    limit = round(binomial_limit(total, 0.05, 0.999) * total)
    assert at_least(limit + 1, total, 0.05) <= 0.001 < at_least(limit, total, 0.05)


@pytest.mark.parametrize("total", [0, -1])
def test_mistakes_are_named(total):
    with pytest.raises(ResultError):
        binomial_limit(total, 0.05, 0.999)
