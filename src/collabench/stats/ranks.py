"""Friedman's test, average ranks and Nemenyi's critical difference over data sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts when they are used: reading a report needs none
from numpy.typing import ArrayLike

from collabench.core.errors import ResultError
from collabench.stats.levels import check_level

FEWEST_BLOCKS = 6


@dataclass(frozen=True)
class Friedman:
    """Average ranks of the methods (1 is the lowest value: the best, for errors) and whether they differ.

    statistic, p: Friedman's chi-square with k - 1 degrees of freedom, corrected for ties. critical_difference:
    Nemenyi's, average ranks that lie closer are not told apart. All None where ``reason`` says why it was not computed;
    the average ranks are given wherever there is a block.
    """

    blocks: int
    methods: int
    average_ranks: tuple[float, ...]
    statistic: float | None
    p: float | None
    critical_difference: float | None
    reason: str | None


def friedman(values: ArrayLike, level: float = 0.95) -> Friedman:
    """Compare methods over blocks: values (blocks, methods), lower is better.

    A block is a data set. Its values are the methods' means over seeds, backbones and noise. Seeds, backbones and noise
    on the same images are not blocks: they share its data and difficulty, so that counting them as blocks would treat
    repetition as evidence from other problems. The test is not computed for fewer than six blocks (the chi-square
    approximation and the diagram would mean little) or fewer than three methods (compare two methods as a pair).
    Demšar (2006), "Statistical comparisons of classifiers over multiple data sets": CD = q √(k (k+1) / (6 N)), where q
    is the upper quantile of the studentised range divided by √2.
    """
    check_level(level)
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or not np.isfinite(table).all():
        raise ResultError(f"Friedman: a table (blocks, methods) of finite numbers is needed, got shape {table.shape}")
    blocks, methods = table.shape
    ranks = scipy.stats.rankdata(table, axis=1)
    average = tuple(float(rank) for rank in ranks.mean(axis=0))
    reason = None
    if blocks < FEWEST_BLOCKS:
        reason = f"not computed: {blocks} of at least {FEWEST_BLOCKS} blocks"
    elif methods < 3:
        reason = f"not computed: {methods} of at least 3 methods"
    elif (ranks == ranks[:, :1]).all():
        reason = "not computed: all methods are tied in every block"
    if reason is not None:
        return Friedman(blocks, methods, average, None, None, None, reason)
    test = scipy.stats.friedmanchisquare(*table.T)
    return Friedman(
        blocks,
        methods,
        average,
        float(test.statistic),
        float(test.pvalue),
        critical_difference(methods, blocks, level),
        None,
    )


def critical_difference(methods: int, blocks: int, level: float = 0.95) -> float:
    """Nemenyi's critical difference of average ranks (Demšar 2006, section 3.2.2)."""
    quantile = scipy.stats.studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * blocks)))
