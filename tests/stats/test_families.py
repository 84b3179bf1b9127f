"""Holm and simultaneous intervals: against loops written out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import conjunction_p, holm, one_sample, simultaneous_interval, simultaneous_level, summary

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def holm_by_hand(p_values):
    """Holm (1979): the k-th smallest of m times (m - k + 1), never below the one before, at most 1."""
    adjusted, running = {}, 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return [adjusted[index] for index in range(len(p_values))]


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.slow
def test_holm_equals_that_of_statsmodels_to_the_bit():
    for size in (1, 2, 7, 40):
        p_values = np.random.default_rng(size).random(size) ** 3
        p_values[size // 2 :] = p_values[: size - size // 2]  # ties
        assert holm(p_values.tolist()) == multipletests(p_values, method="holm")[1].tolist()


def test_holm_leaves_out_what_was_not_tested():
    assert holm([0.01, None, 0.04, math.nan]) == [pytest.approx(0.02), None, pytest.approx(0.04), None]
    assert holm([None, math.nan]) == [None, None]
    assert holm([]) == []


def test_holm_counts_the_declared_family():
    assert holm([0.01, None, 0.04], family=5) == [pytest.approx(0.05), None, pytest.approx(0.16)]
    assert holm([0.01, 0.04], family=2) == holm([0.01, 0.04])


@given(p_lists)
@settings(max_examples=60, deadline=None)
def test_holm_equals_the_loop_and_never_lowers_p(p_values):
    adjusted = holm(p_values)
    assert adjusted == pytest.approx(holm_by_hand(p_values), abs=1e-15)
    assert all(raw <= new + 1e-15 <= 1 + 2e-15 for raw, new in zip(p_values, adjusted, strict=True))
    by_raw = [new for _, new in sorted(zip(p_values, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)


@given(p_lists, st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_a_larger_family_counts_the_rest_as_p_1(p_values, more):
    assert holm(p_values, family=len(p_values) + more) == pytest.approx(
        holm_by_hand(p_values + [1.0] * more)[: len(p_values)], abs=1e-15
    )


def test_simultaneous_interval_by_hand():
    # differences 1, 3, 8: mean 4, sd √13; two degrees of freedom; family of 5: each at 99 %, t = 9.925
    comparison = one_sample([1.0, 3.0, 8.0])
    low, high = simultaneous_interval(comparison, family=5)
    half = 9.925 * math.sqrt(13 / 3)
    assert (low, high) == (pytest.approx(4 - half, abs=2e-3), pytest.approx(4 + half, abs=2e-3))
    assert simultaneous_level(0.95, 5) == pytest.approx(0.99)
    assert simultaneous_interval(summary([1.0, 3.0, 8.0]), family=5) == (low, high)


def test_a_family_of_one_changes_nothing():
    comparison = one_sample([1.0, 3.0, 8.0, 2.5])
    assert simultaneous_interval(comparison, family=1) == pytest.approx((comparison.low, comparison.high))


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0]])
def test_no_spread_no_simultaneous_interval(values):
    assert simultaneous_interval(one_sample(values), family=3) == (None, None)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_an_interval_that_excludes_zero_implies_a_small_holm_p(seed, size):
    generator = np.random.default_rng(seed)
    comparisons = [one_sample(generator.normal(0.8, 1.0, 6)) for _ in range(size)]
    adjusted = holm([comparison.p for comparison in comparisons])
    excluded = []
    for comparison, p in zip(comparisons, adjusted, strict=True):
        low, high = simultaneous_interval(comparison, family=size)
        excluded.append(low > 0 or high < 0)
        assert not excluded[-1] or p < 0.05
    assert any(excluded) == any(p < 0.05 for p in adjusted)


def test_conjunction_takes_the_largest():
    assert conjunction_p([0.01, 0.2, 0.03]) == 0.2
    assert conjunction_p([0.01, None]) is None
    assert conjunction_p([0.01, math.nan]) is None
    assert conjunction_p([]) is None


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ResultError, lambda: holm([1.2])),
        (ResultError, lambda: holm([-0.1, 0.2])),
        (ConfigError, lambda: holm([0.1, 0.2], family=1)),
        (ConfigError, lambda: simultaneous_level(0.95, 0)),
        (ConfigError, lambda: simultaneous_level(95, 3)),
        (ConfigError, lambda: simultaneous_level(0.95, 2.5)),
    ],
)
def test_mistakes_are_named(error, call):
    with pytest.raises(error):
        call()
