"""Statistical power of a number of seeds: detectable difference and seeds needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import scipy  # loads its parts when they are used: reading a report needs none

from collabench.core.errors import ConfigError, ResultError
from collabench.stats.levels import check_level, check_positive

MOST_SEEDS = 10_000
"""The largest answer of :func:`seeds_needed`. Beyond it the answer is "more than that"."""

SD_LIMIT = 0.80
"""Confidence of the upper limit of the standard deviation that :func:`seeds_needed` plans with."""


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds that decide a comparison, or why there is no such number.

    seeds: None where ``reason`` says why. sd_upper: upper 80 % limit of the standard deviation of the differences.
    """

    seeds: int | None
    sd_upper: float | None
    reason: str | None


def t_test_power(effect: float, n: int, level: float) -> float:
    """Power of the two-sided paired t test: P(T > t quantile), T noncentral with n - 1 degrees, effect · √n.

    effect: true difference / true standard deviation of the differences, not negative. Rejections on the wrong side
    are not counted: they detect nothing.
    """
    return float(scipy.stats.nct.sf(scipy.stats.t.isf((1 - level) / 2, n - 1), n - 1, effect * math.sqrt(n)))


@lru_cache(maxsize=1024)
def detectable_effect(n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The true difference in standard deviations that n >= 2 pairs detect with ``power``."""
    check_level(level)
    _check_power(power, level)
    if n < 2:
        raise ResultError(f"detectable effect: at least 2 pairs are needed, got {n}")
    # statsmodels' TTestPower.solve_power returns its start value without a warning for few seeds and high levels (10.0
    # for n = 2 at 99 %). Therefore the root is searched here.
    high = 1.0
    while t_test_power(high, n, level) < power:
        high *= 2
    return float(scipy.optimize.brentq(lambda effect: t_test_power(effect, n, level) - power, 0.0, high, xtol=1e-10))


def detectable_difference(n: int, sd: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that n pairs detect with ``power``, in the unit of ``sd``.

    The sample's ``sd`` is taken for the true one, so with few seeds this is a rough guide.
    """
    return detectable_effect(n, level, power) * sd


def sd_upper_limit(sd: float, n: int, confidence: float = SD_LIMIT) -> float:
    """Upper limit of the true standard deviation of normal values: sd √((n-1) / χ² quantile at 1 - confidence)."""
    return sd * math.sqrt((n - 1) / scipy.stats.chi2.ppf(1 - confidence, n - 1))


def seeds_needed(
    target_difference: float,
    sd: float | None,
    n: int,
    level: float = 0.95,
    power: float = 0.8,
    most: int = MOST_SEEDS,
) -> SeedsNeeded:
    """Number of seeds with which the paired t test detects ``target_difference`` with ``power``.

    target_difference: the paper's effect or the smallest effect of interest, never the observed difference. A number of
    seeds computed from the observed difference restates its p value, and is too small whenever the difference is large
    by chance.
    sd, n: standard deviation and number of the differences measured so far. The upper 80 % limit of the true standard
    deviation is used, because with few seeds the estimate is too low about half of the time.
    level: coverage of the interval that decides; in a family, its adjusted level.
    """
    check_level(level)
    _check_power(power, level)
    if not math.isfinite(target_difference):
        raise ConfigError(f"target difference: a finite number is needed, got {target_difference}")
    if n < 2 or sd is None:
        return SeedsNeeded(None, None, "the spread is unknown: fewer than 2 seeds")
    if sd == 0:
        return SeedsNeeded(None, None, f"the spread is unknown: all {n} differences are equal")
    check_positive(sd, "sd")
    upper = sd_upper_limit(sd, n)
    if target_difference == 0:
        return SeedsNeeded(None, upper, "no number of seeds shows a difference of zero")
    effect = abs(target_difference) / upper
    if t_test_power(effect, most, level) < power:
        return SeedsNeeded(None, upper, f"more than {most:,} seeds")
    low, high = 1, most  # power(low) is too small, power(high) is enough, and power grows with n
    while high - low > 1:
        middle = (low + high) // 2
        if t_test_power(effect, middle, level) >= power:
            high = middle
        else:
            low = middle
    return SeedsNeeded(high, upper, None)


def _check_power(power: float, level: float) -> None:
    if not 1 - level < power < 1:
        raise ConfigError(f"power: a share between {1 - level:g} and 1 is needed, such as 0.8, got {power}")
