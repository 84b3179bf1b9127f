"""Friedman's test, average ranks, critical differences: against the formula and the published quantiles."""

import math

import numpy as np
import pytest

from collabench.core.errors import ResultError
from collabench.stats import critical_difference, friedman

# q for alpha 0.05 and 2 to 10 methods: Demšar (2006), Table 5 (a).
Q_05 = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


def friedman_by_hand(ranks):
    """12 N / (k (k + 1)) (sum of squared average ranks - k (k + 1)² / 4), without ties."""
    blocks, methods = ranks.shape
    squares = sum(rank**2 for rank in ranks.mean(axis=0))
    return 12 * blocks / (methods * (methods + 1)) * (squares - methods * (methods + 1) ** 2 / 4)


def test_by_hand():
    ranks = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3], [1, 2, 3], [1, 2, 3]])
    result = friedman(ranks * 1.5 + np.arange(6)[:, None] * 10)
    # column sums 7, 12, 17: statistic 12 / (6 · 3 · 4) · (49 + 144 + 289) - 3 · 6 · 4 = 80.33 - 72 = 8.33
    assert result.average_ranks == pytest.approx((7 / 6, 2.0, 17 / 6))
    assert result.statistic == pytest.approx(25 / 3)
    assert result.p == pytest.approx(math.exp(-25 / 6))  # chi-square with two degrees
    assert result.critical_difference == pytest.approx(2.343 * math.sqrt(3 * 4 / 36), abs=1e-3)
    assert (result.blocks, result.methods, result.reason) == (6, 3, None)


def test_random_ranks_equal_the_formula():
    values = np.random.default_rng(0).normal(size=(9, 5))
    ranks = values.argsort(axis=1).argsort(axis=1) + 1
    result = friedman(values)
    assert result.statistic == pytest.approx(friedman_by_hand(ranks))
    assert result.average_ranks == pytest.approx(tuple(ranks.mean(axis=0)))


def test_ties_share_their_rank():
    result = friedman([[1.0, 1.0, 2.0]] * 6)
    assert result.average_ranks == (1.5, 1.5, 3.0)
    # all blocks agree: with the correction for ties the statistic is N (k - 1), its largest value
    assert result.statistic == pytest.approx(12.0)


@pytest.mark.parametrize("methods", Q_05)
def test_critical_difference_has_the_published_quantile(methods):
    blocks = 14
    scale = math.sqrt(methods * (methods + 1) / (6 * blocks))
    assert critical_difference(methods, blocks) / scale == pytest.approx(Q_05[methods], abs=1.1e-3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.arange(15.0).reshape(5, 3), "5 of at least 6 blocks"),
        (np.arange(12.0).reshape(6, 2), "2 of at least 3 methods"),
        (np.ones((7, 3)), "all methods are tied"),
    ],
)
def test_not_computed(values, reason):
    result = friedman(values)
    assert (result.statistic, result.p, result.critical_difference) == (None, None, None)
    assert result.reason.startswith("not computed") and reason in result.reason
    assert len(result.average_ranks) == values.shape[1]


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [[1.0, math.nan, 2.0]] * 6])
def test_mistakes_are_named(values):
    with pytest.raises(ResultError, match="Friedman"):
        friedman(values)
