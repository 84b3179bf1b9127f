"""Exact limits of a proportion: a network's error over its test images, or the rejection rate of a simulation."""

from __future__ import annotations

import scipy  # loads its parts when they are used: reading a report needs none

from collabench.core.errors import ResultError


def binomial_limit(total: int, share: float, confidence: float) -> float:
    """The largest share that ``total`` trials with true ``share`` exceed with probability of at most 1 - confidence."""
    if total < 1:
        raise ResultError(f"total: a whole number of trials, at least 1, is needed, got {total}")
    return float(scipy.stats.binom.isf(1 - confidence, total, share)) / total
