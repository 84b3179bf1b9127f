"""Agreement with published numbers: against numbers worked out by hand."""

import math

import pytest

from collabench.core.errors import ConfigError
from collabench.stats import agrees_with_spread, agrees_with_value, prediction_interval

OURS = [2.0, 4.0, 4.0, 6.0, 9.0]  # mean 5, variance 7, four degrees of freedom
T_975_4 = 2.776445


def test_prediction_interval_by_hand():
    half = T_975_4 * math.sqrt(7 * (1 + 1 / 5))
    assert prediction_interval(OURS) == pytest.approx((5 - half, 5 + half), abs=1e-4)
    half = T_975_4 * math.sqrt(7 * (1 / 3 + 1 / 5))
    assert prediction_interval(OURS, runs=3) == pytest.approx((5 - half, 5 + half), abs=1e-4)


def test_prediction_interval_needs_spread():
    assert prediction_interval([5.0]) == (None, None)
    assert prediction_interval([5.0, 5.0]) == (None, None)


@pytest.mark.parametrize(
    ("published", "margin", "verdict"),
    [
        (5.0, None, "agrees"),
        (13.0, None, "agrees"),
        (13.1, None, "differs"),
        (-3.1, None, "differs"),
        (5.0, 8.1, "agrees"),
        (5.0, 8.0, "cannot tell"),
        (13.1, 0.1, "differs"),
    ],
)
def test_single_number(published, margin, verdict):
    # the half-width is 2.776 √8.4 = 8.047
    result = agrees_with_value(OURS, published, margin=margin)
    assert result.verdict == verdict
    assert result.difference == pytest.approx(5 - published)
    assert (result.p, result.equivalence_p) == (None, None)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0]])
def test_one_run_cannot_tell(values):
    result = agrees_with_value(values, 9.0)
    assert (result.verdict, result.difference, result.low) == ("cannot tell", -4.0, None)


def test_welch_by_hand():
    # ours 7 / 5 = 1.4, theirs 3 / 3 = 1: t = 3 / √2.4, degrees 2.4² / (1.4² / 4 + 1² / 2) = 5.818
    result = agrees_with_spread(OURS, mean=2.0, sd=math.sqrt(3), n=3)
    degrees = 2.4**2 / (1.4**2 / 4 + 1 / 2)
    t = 3 / math.sqrt(2.4)

    def density(x):
        return (
            math.gamma((degrees + 1) / 2)
            / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
            * (1 + x * x / degrees) ** (-(degrees + 1) / 2)
        )

    step = t / 20_000
    inner = sum(density((k + 0.5) * step) for k in range(20_000)) * step
    assert result.p == pytest.approx(1 - 2 * inner, abs=1e-6)
    assert result.verdict == "cannot tell"
    assert result.difference == pytest.approx(3.0)
    # the interval includes zero as the test does not reject, and is symmetric about 3
    assert result.low < 0 and result.low + result.high == pytest.approx(6.0)
    half_point = sum(density((k + 0.5) * 1e-4) for k in range(round((result.high - 3) / math.sqrt(2.4) / 1e-4))) * 1e-4
    assert half_point == pytest.approx(0.475, abs=1e-4)


def test_equal_sizes_and_spreads_give_the_pooled_test():
    # Welch's degrees are then 2 (n - 1) = 4: t_975 = 2.776, standard error √(2 · 1 / 3)
    ours = [1.0, 2.0, 3.0]
    result = agrees_with_spread(ours, mean=5.0, sd=1.0, n=3)
    half = T_975_4 * math.sqrt(2 / 3)
    assert (result.low, result.high) == (pytest.approx(-3 - half, abs=1e-4), pytest.approx(-3 + half, abs=1e-4))
    assert result.verdict == "differs"


@pytest.mark.parametrize(
    ("mean", "margin", "verdict"),
    [
        (2.0, None, "cannot tell"),
        (2.0, 0.5, "cannot tell"),
        (2.0, 1.7, "cannot tell"),
        (2.0, 1.8, "agrees"),
        (2.5, 2.2, "cannot tell"),
        (5.0, 0.5, "differs"),
        (5.0, 4.7, "differs"),  # differs for certain, and is not shown to be within the margin
        (5.0, 4.8, "agrees"),
    ],
)
def test_two_one_sided_tests(mean, margin, verdict):
    # t_95 with 4 degrees is 2.1318, times √(2/3): 1.7406. The difference must be within margin - 1.7406.
    result = agrees_with_spread([1.0, 2.0, 3.0], mean=mean, sd=1.0, n=3, margin=margin)
    assert result.verdict == verdict
    assert (result.equivalence_p is None) == (margin is None)


def test_agreement_takes_precedence_where_both_are_shown():
    result = agrees_with_spread([5.0, 5.1, 4.9, 5.05, 4.95], mean=4.7, sd=0.1, n=5, margin=1.0)
    assert result.p < 0.05
    assert result.verdict == "agrees"


def test_one_side_without_spread():
    # only the published side varies: one-sample t with n - 1 = 2 degrees, t = 3 / (1 / √3)
    result = agrees_with_spread([8.0, 8.0], mean=5.0, sd=1.0, n=3)
    t = 3 * math.sqrt(3)
    assert result.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert agrees_with_spread([8.0, 8.0], mean=5.0, sd=0.0, n=3).verdict == "cannot tell"
    assert agrees_with_spread([8.0], mean=5.0, sd=1.0, n=3).verdict == "cannot tell"


@pytest.mark.parametrize(
    "call",
    [
        lambda: agrees_with_value(OURS, math.nan),
        lambda: agrees_with_value(OURS, 5.0, margin=0.0),
        lambda: agrees_with_value(OURS, 5.0, runs=0),
        lambda: agrees_with_spread(OURS, 5.0, -1.0, 5),
        lambda: agrees_with_spread(OURS, 5.0, 1.0, 1),
    ],
)
def test_mistakes_are_named(call):
    with pytest.raises(ConfigError):
        call()
