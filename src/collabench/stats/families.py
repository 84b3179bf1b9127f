"""Several comparisons at once: Holm's p values and simultaneous intervals over a declared family.

Tables have Holm's p values, verdicts rest on Bonferroni's intervals. ``docs/statistics.md`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # loads its parts when they are used: reading a report needs none

from collabench.core.errors import ConfigError, ResultError
from collabench.stats.levels import check_family, check_level
from collabench.stats.samples import Paired, Summary


def holm(p_values: Sequence[float | None], family: int | None = None) -> list[float | None]:
    """Holm's step-down adjusted p values, in the given order.

    None and nan (not run, or no spread) stay None and are not ranked.
    family: the declared number of hypotheses; the default is the number of p values that exist. In a larger family the
    missing p values count as 1, so that a test which could not be carried out does not make the other tests less
    strict.

    Raises ResultError for a p value outside [0, 1], ConfigError for a family smaller than the number of p values.
    """
    known = [index for index, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    values = [float(p) for p in p_values if p is not None and not math.isnan(p)]
    if any(not 0 <= p <= 1 for p in values):
        raise ResultError(f"p values: numbers between 0 and 1 are needed, got {values}")
    family = len(values) if family is None else family
    adjusted: list[float | None] = [None] * len(p_values)
    if not values:
        return adjusted
    check_family(family)
    if family < len(values):
        raise ConfigError(f"family: {family} hypotheses declared, but {len(values)} tested")
    # As statsmodels' multipletests, to the bit; that one collects garbage in every call and is slow to import.
    ordered = np.array(values + [1.0] * (family - len(values)))
    order = np.argsort(ordered, kind="stable")
    stepped = np.maximum.accumulate(ordered[order] * np.arange(family, 0, -1)).clip(max=1.0)
    for place, corrected in zip(order, stepped, strict=True):
        if place < len(known):
            adjusted[known[place]] = float(corrected)
    return adjusted


def simultaneous_level(level: float, family: int) -> float:
    """Level of each of ``family`` Bonferroni intervals that hold together with probability ``level`` or more."""
    check_level(level)
    check_family(family)
    return 1 - (1 - level) / family


def simultaneous_interval(
    comparison: Paired | Summary, family: int, level: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """The t interval of a comparison, widened to hold simultaneously over a family (see the module's text).

    family: the declared number of hypotheses, those not run included where they were declared. (None, None) where the
    comparison has no interval.
    """
    each = simultaneous_level(level, family)
    if not comparison.sd:
        return None, None
    mean = comparison.difference if isinstance(comparison, Paired) else comparison.mean
    half = half_width(comparison.sd, comparison.n, each)
    return float(mean - half), float(mean + half)


def half_width(sd: float, n: int, level: float) -> float:
    """Half the width of the t interval of a mean of n >= 2 values: t quantile · sd / √n."""
    return float(scipy.stats.t.isf((1 - level) / 2, n - 1)) * sd / float(np.sqrt(n))


def conjunction_p(p_values: Sequence[float | None]) -> float | None:
    """p value of "all of these" (intersection-union): the largest; None where one is unknown.

    Berger (1982), "Multiparameter hypothesis testing and acceptance sampling": each part is tested at the full level.
    """
    known = [p for p in p_values if p is not None and not math.isnan(p)]
    return max(known) if known and len(known) == len(p_values) else None
