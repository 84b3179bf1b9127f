"""Exact limits of a proportion: a network's error over its test images, or the rejection rate of a simulation."""

from __future__ import annotations

import scipy  # loads its parts when they are used: reading a report needs none

from collabench.core.errors import ResultError
from collabench.stats.levels import check_level


def proportion_interval(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion. Its coverage is at least ``level`` for every true value."""
    from statsmodels.stats.proportion import proportion_confint  # imports pandas and scipy.stats

    check_level(level)
    _check_counts(count, total)
    low, high = proportion_confint(count, total, alpha=1 - level, method="beta")
    return float(low), float(high)


def binomial_limit(total: int, share: float, confidence: float) -> float:
    """The largest share that ``total`` trials with true ``share`` exceed with probability of at most 1 - confidence."""
    _check_counts(0, total)
    return float(scipy.stats.binom.isf(1 - confidence, total, share)) / total


def _check_counts(count: int, total: int) -> None:
    if total < 1 or not 0 <= count <= total:
        raise ResultError(f"share: 0 <= count <= total with a total of at least 1 is needed, got {count} of {total}")
