"""Means, t intervals, paired t test, sign-flip test, effect size: against hand-worked numbers and slow loops."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from collabench.core.errors import ConfigError, ResultError
from collabench.stats import one_sample, paired, slopes, summary
from collabench.stats.samples import EXACT_PAIRS, hedges_correction, sign_flip, student_t

# Upper 2.5 % points of Student's t, as printed in any table.
T_975 = {1: 12.706, 2: 4.303, 4: 2.776, 7: 2.365, 9: 2.262}

errors = st.floats(0, 100, allow_nan=False).map(lambda value: round(value, 3))
pairs = st.lists(st.tuples(errors, errors), min_size=2, max_size=9)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def sign_flip_by_enumeration(differences):
    """All 2^n assignments, in whole numbers so that ties are exact."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= observed for value in sums) / len(sums)


def test_summary_by_hand():
    # mean 5; squared deviations 9 + 1 + 1 + 1 + 16 = 28; variance 28 / 4 = 7
    result = summary([2, 4, 4, 6, 9])
    half = T_975[4] * math.sqrt(7 / 5)
    assert (result.n, result.mean, result.level) == (5, 5.0, 0.95)
    assert result.sd == pytest.approx(math.sqrt(7))
    assert (result.low, result.high) == (pytest.approx(5 - half, abs=1e-3), pytest.approx(5 + half, abs=1e-3))


def test_one_value_has_a_mean_and_no_spread():
    result = summary([7.25])
    assert (result.n, result.mean, result.sd, result.low, result.high) == (1, 7.25, None, None, None)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-8, 1e9])
def test_equal_values_have_no_interval(value):
    result = summary([value] * 7)
    assert (result.mean, result.sd, result.low, result.high) == (value, 0.0, None, None)


def test_two_values_by_hand():
    # with one degree of freedom, t is a Cauchy variable: p = 1 - 2 arctan(t) / π
    result = paired([3.0, 5.0], [1.0, 1.0])
    assert (result.difference, result.sd) == (3.0, pytest.approx(math.sqrt(2)))
    assert result.t == pytest.approx(3.0)
    assert result.p == pytest.approx(1 - 2 * math.atan(3) / math.pi)
    assert result.high - result.difference == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    assert result.effect_size is None
    assert result.detectable == pytest.approx(11.55 * math.sqrt(2), rel=1e-3)


def test_three_pairs_by_hand():
    # two degrees of freedom: p = 1 - t / √(2 + t²)
    result = paired([2.0, 4.0, 9.0], [1.0, 1.0, 1.0])  # differences 1, 3, 8: mean 4, variance 26 / 2 = 13
    t = 4 / math.sqrt(13 / 3)
    assert result.t == pytest.approx(t)
    assert result.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert result.low == pytest.approx(4 - T_975[2] * math.sqrt(13 / 3), abs=2e-3)
    # J(2) = Γ(1) / (1 · Γ(1/2)) = 1 / √π
    assert result.effect_size == pytest.approx(4 / math.sqrt(13) / math.sqrt(math.pi))


def test_the_level_is_used():
    # two degrees of freedom, 99 %: t = 9.925
    result = paired([2.0, 4.0, 9.0], [1.0, 1.0, 1.0], level=0.99)
    assert result.high - 4 == pytest.approx(9.925 * math.sqrt(13 / 3), abs=2e-3)


def test_single_pair():
    result = paired([3.0], [1.0])
    assert (result.n, result.difference, result.sign_flip_minimum) == (1, 2.0, 1.0)
    assert {result.sd, result.low, result.high, result.t, result.p, result.sign_flip_p, result.effect_size} == {None}
    assert result.detectable is None


@pytest.mark.parametrize("n", [2, 5, 8])
def test_identical_pairs(n):
    values = [0.1 * k for k in range(n)]
    result = paired(values, values)
    assert (result.difference, result.sd) == (0.0, 0.0)
    assert {result.low, result.high, result.t, result.p, result.effect_size, result.detectable} == {None}
    assert result.sign_flip_p == (1.0 if n == 8 else None)


def test_constant_differences_up_to_rounding_are_no_certainty():
    baseline = np.array([0.1, 0.3, 0.7, 0.2, 0.55, 0.9])
    treatment = baseline + 1 / 360
    assert np.ptp(treatment - baseline) > 0  # what rounding leaves would give t near 1e13
    result = paired(treatment, baseline)
    assert result.difference == pytest.approx(1 / 360)
    assert (result.sd, result.t, result.p, result.low) == (0.0, None, None, None)
    assert result.sign_flip_p == result.sign_flip_minimum == 2 / 64


def test_differences_that_cancel_up_to_rounding_are_zero():
    result = paired([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2])
    assert (result.difference, result.sd, result.t) == (0.0, 0.0, None)


@pytest.mark.parametrize(("n", "minimum"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)])
def test_sign_flip_minimum(n, minimum):
    result = one_sample([1.0 + 0.01 * k for k in range(n)])
    assert result.sign_flip_minimum == minimum
    assert result.sign_flip_p == (None if n < 6 else minimum)


def test_sign_flip_needs_more_pairs_at_a_stricter_level():
    differences = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5]
    assert one_sample(differences, level=0.99).sign_flip_p is None
    assert one_sample([*differences, 8.0], level=0.99).sign_flip_p == 2 / 256


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
@settings(max_examples=80, deadline=None)
def test_sign_flip_equals_enumeration_with_ties(counts):
    # errors over 360 images in percent: sums that are equal in truth differ in the last bits
    assert float(sign_flip(np.array(counts) * (100 / 360))) == sign_flip_by_enumeration(counts)


def test_sign_flip_sees_ties_through_the_rounding_of_a_subtraction():
    counts = np.array([3, -1, 2, 2, -3, 1, 1, 2])
    baseline = np.array([41, 37, 52, 49, 61, 44, 50, 39])
    result = paired((baseline + counts) / 360, baseline / 360)
    assert result.sign_flip_p == sign_flip_by_enumeration(counts.tolist())


def test_sign_flip_works_on_the_last_axis():
    rows = np.array([[1, 2, -3, 4, 5, 6], [0, 0, 0, 0, 0, 0], [2, 2, 2, 2, 2, -2]])
    assert sign_flip(rows).tolist() == [sign_flip_by_enumeration(row) for row in rows.tolist()]


def test_random_sign_flips_stand_in_for_many_pairs():
    generator = np.random.default_rng(0)
    small = generator.normal(0.3, 1.0, EXACT_PAIRS)
    exact = float(sign_flip(small))
    padded = float(sign_flip(np.append(small, 0.0)))  # a zero changes no sum: the same p, by random flips
    assert padded == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))
    assert padded == float(sign_flip(np.append(small, 0.0)))
    assert float(sign_flip(np.ones(200))) == pytest.approx(1e-4)


def test_many_pairs():
    generator = np.random.default_rng(1)
    result = one_sample(generator.normal(0.1, 1.0, 2000))
    half = 1.9611 * result.sd / math.sqrt(2000)
    assert (result.low, result.high) == (
        pytest.approx(result.difference - half, abs=1e-4),
        pytest.approx(result.difference + half, abs=1e-4),
    )
    assert result.sign_flip_minimum == 0.0
    assert result.effect_size == pytest.approx(result.difference / result.sd, rel=1e-3)


@pytest.mark.parametrize(("degrees", "factor"), [(2, 0.5642), (3, 0.7236), (4, 0.7979), (9, 0.9139), (29, 0.9739)])
def test_hedges_correction(degrees, factor):
    # Γ by its recursion from Γ(1/2) = √π and Γ(1) = 1
    def gamma(x):
        return math.sqrt(math.pi) if x == 0.5 else 1.0 if x == 1 else (x - 1) * gamma(x - 1)

    by_hand = gamma(degrees / 2) / (math.sqrt(degrees / 2) * gamma((degrees - 1) / 2))
    assert hedges_correction(degrees) == pytest.approx(by_hand, rel=1e-12)
    assert by_hand == pytest.approx(factor, abs=5e-5)
    if degrees > 4:
        assert by_hand == pytest.approx(1 - 3 / (4 * degrees - 1), abs=2e-3)  # the usual approximation


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_swapping_the_two_flips_every_sign(values):
    first, second = (list(column) for column in zip(*values, strict=True))
    forth, back = paired(first, second), paired(second, first)

    def mirrored(left, right):
        if left is None or right is None:
            return left is right
        return left == pytest.approx(-right, abs=1e-9)

    assert mirrored(forth.difference, back.difference)
    assert mirrored(forth.low, back.high) and mirrored(forth.high, back.low)
    assert mirrored(forth.t, back.t) and mirrored(forth.effect_size, back.effect_size)
    assert (forth.p is None and back.p is None) or forth.p == pytest.approx(back.p)
    assert forth.sign_flip_p == back.sign_flip_p
    assert forth.sd == pytest.approx(back.sd)


@given(pairs, st.floats(0.5, 20))
@settings(max_examples=40, deadline=None)
def test_the_unit_does_not_matter(values, factor):
    first, second = (np.array(column) for column in zip(*values, strict=True))
    plain, scaled = paired(first, second), paired(first * factor, second * factor)
    assert (plain.p is None) == (scaled.p is None)
    if plain.p is not None:
        assert scaled.p == pytest.approx(plain.p, rel=1e-6)
        assert scaled.low == pytest.approx(plain.low * factor, rel=1e-6, abs=1e-9)
    assert scaled.sign_flip_p == plain.sign_flip_p


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_the_interval_excludes_zero_exactly_where_p_is_under_the_level(values):
    first, second = (list(column) for column in zip(*values, strict=True))
    result = paired(first, second)
    if result.p is not None and abs(result.p - 0.05) > 1e-9:
        assert (result.low > 0 or result.high < 0) == (result.p < 0.05)


@given(st.lists(errors, min_size=2, max_size=9), st.sampled_from((0.9, 0.95, 0.99)))
@settings(max_examples=60, deadline=None)
def test_it_is_the_t_test_of_scipy(values, level):
    ours = student_t(values, level)
    if ours.sd > 0:
        theirs = stats.ttest_1samp(values, 0.0)
        interval = theirs.confidence_interval(level)
        expected = (theirs.statistic, theirs.pvalue, interval.low, interval.high)
        assert (ours.t, ours.p, ours.low, ours.high) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_batches_equal_single_samples():
    values = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0], [-1.0, 0.5, 0.25]])
    batch = student_t(values, 0.9)
    for index, row in enumerate(values):
        one = summary(row, 0.9)
        assert batch.mean[index] == one.mean and batch.sd[index] == one.sd
        assert (math.isnan(batch.low[index]) and one.low is None) or batch.low[index] == one.low


def test_slopes_by_hand():
    # levels 0, 20, 40: slope = (last - first) / 40
    result = slopes([[5.0, 6.0, 9.0], [4.0, 4.0, 4.0], [9.0, 1.0, 5.0]], [0, 20, 40])
    assert result == pytest.approx([0.1, 0.0, -0.1])
    line = slopes(np.array([[3.0, 7.0, 1.0, 11.0]]) * 0.5 + 2, [3.0, 7.0, 1.0, 11.0])
    assert line == pytest.approx([0.5])


@pytest.mark.parametrize(
    "call",
    [
        lambda: summary([]),
        lambda: summary([1.0, math.nan]),
        lambda: summary([[1.0, 2.0]]),
        lambda: paired([1.0, 2.0], [1.0]),
        lambda: paired([1.0, math.inf], [1.0, 2.0]),
        lambda: slopes([[1.0, 2.0]], [5.0, 5.0]),
        lambda: slopes([[1.0, 2.0]], [5.0]),
        lambda: slopes([[1.0, math.nan]], [5.0, 6.0]),
    ],
)
def test_wrong_samples_are_named(call):
    with pytest.raises(ResultError):
        call()


@pytest.mark.parametrize("level", [95, 1.0, 0.05])
def test_wrong_levels_are_named(level):
    with pytest.raises(ConfigError, match="level"):
        summary([1.0, 2.0], level)
