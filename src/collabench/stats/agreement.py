"""Agreement of our runs with a published number.

All differences are ours minus published. A published number is one draw of the same randomness as our runs, or the mean
of a few draws. It is therefore compared with a prediction interval: a confidence interval of our mean would reject far
too many published numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy  # loads its parts when they are used: reading a report needs none
from numpy.typing import ArrayLike

from collabench.core.errors import ConfigError
from collabench.stats.levels import check_level, check_positive
from collabench.stats.samples import as_sample, summary

Agreement = Literal["agrees", "differs", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """Our runs beside a published number.

    difference: our mean minus the published number: by how much it differs where the verdict says so.
    low, high: with a single published number, the prediction interval for it from our runs, in the unit of the
    values; with a published spread, Welch's interval of the difference. None where it is undefined.
    p: Welch's two-sided test; None for a single number. equivalence_p: two one-sided tests; None without a margin.
    reason: one line on what the verdict rests on.
    """

    verdict: Agreement
    difference: float
    low: float | None
    high: float | None
    p: float | None
    equivalence_p: float | None
    reason: str


def prediction_interval(
    values: ArrayLike, runs: int = 1, level: float = 0.95
) -> tuple[float, float] | tuple[None, None]:
    """t interval that holds the mean of ``runs`` further runs: mean ± t(n-1) · sd · √(1/runs + 1/n).

    values: one per seed. (None, None) for one value or values without spread.
    """
    if runs < 1:
        raise ConfigError(f"published runs: a whole number, at least 1, is needed, got {runs}")
    ours = summary(values, level)
    if not ours.sd:
        return None, None
    half = float(scipy.stats.t.isf((1 - level) / 2, ours.n - 1)) * ours.sd * math.sqrt(1 / runs + 1 / ours.n)
    return ours.mean - half, ours.mean + half


def agrees_with_value(
    values: ArrayLike, published: float, runs: int = 1, level: float = 0.95, margin: float | None = None
) -> Comparison:
    """Does a published single number lie where one more run of ours would?

    runs: how many runs the published number is the mean of, where the paper says so.
    margin: the largest distance that would still count as agreement. differs: the number lies outside the prediction
    interval. agrees: inside. cannot tell: the interval does not exist (one run, or equal values), or it is inside but
    the half-width exceeds the margin, so that a number that is off by more than the margin would be inside as well.
    Without a margin "agrees" means no more than "not told apart"; the interval beside it shows how much that says.
    """
    _check_published(published, "published value")
    if margin is not None:
        check_positive(margin, "margin")
    low, high = prediction_interval(values, runs, level)
    difference = float(as_sample(values).mean()) - published
    if low is None or high is None:
        return Comparison("cannot tell", difference, None, None, None, None, "our runs show no spread")
    if not low <= published <= high:
        verdict: Agreement = "differs"
        reason = f"outside the {level:.0%} prediction interval of our runs"
    elif margin is not None and (high - low) / 2 > margin:
        verdict, reason = "cannot tell", f"the prediction interval is wider than ± {margin:g}"
    else:
        verdict, reason = "agrees", f"inside the {level:.0%} prediction interval of our runs"
    return Comparison(verdict, difference, low, high, None, None, reason)


def agrees_with_spread(
    values: ArrayLike, mean: float, sd: float, n: int, level: float = 0.95, margin: float | None = None
) -> Comparison:
    """Compare with a published mean, sample standard deviation and number of runs: Welch's test.

    agrees: a margin is stated and two one-sided tests put the difference inside it. differs: Welch's test rejects
    equal means at ``level`` (and the difference is not shown to be inside the margin). cannot tell: neither. Without
    a margin nothing can be shown to agree: a test that does not reject is no evidence of equality.
    """
    check_level(level)
    _check_published(mean, "published mean")
    if not (math.isfinite(sd) and sd >= 0):
        raise ConfigError(f"published standard deviation: a number of at least 0 is needed, got {sd}")
    if n < 2:
        raise ConfigError(f"published number of runs: at least 2 are needed beside a standard deviation, got {n}")
    if margin is not None:
        check_positive(margin, "margin")
    ours = summary(values, level)
    difference = ours.mean - mean
    if ours.sd is None or (ours.sd == 0 and sd == 0):
        return Comparison("cannot tell", difference, None, None, None, None, "no spread to compare with")
    p = _welch(difference, ours.sd, ours.n, sd, n, "two-sided")
    low, high = _welch_interval(difference, ours.sd, ours.n, sd, n, level)
    equivalence_p = None
    if margin is not None:
        equivalence_p = max(
            _welch(difference + margin, ours.sd, ours.n, sd, n, "greater"),
            _welch(difference - margin, ours.sd, ours.n, sd, n, "less"),
        )
    if equivalence_p is not None and equivalence_p < 1 - level:
        verdict: Agreement = "agrees"
        reason = f"the difference is within ± {margin:g} (two one-sided tests)"
    elif p < 1 - level:
        verdict, reason = "differs", "Welch's test"
    elif margin is None:
        verdict, reason = "cannot tell", "Welch's test finds no difference; no margin of agreement is stated"
    else:
        verdict, reason = "cannot tell", f"neither a difference nor agreement within ± {margin:g} is shown"
    return Comparison(verdict, difference, low, high, p, equivalence_p, reason)


def _welch(
    difference: float,
    sd: float,
    n: int,
    other_sd: float,
    other_n: int,
    alternative: Literal["two-sided", "less", "greater"],
) -> float:
    """p value of Welch's test of a difference of two means against zero."""
    test = scipy.stats.ttest_ind_from_stats(
        difference, sd, n, 0.0, other_sd, other_n, equal_var=False, alternative=alternative
    )
    return float(test.pvalue)


def _welch_interval(
    difference: float, sd: float, n: int, other_sd: float, other_n: int, level: float
) -> tuple[float, float]:
    """Interval with Welch's and Satterthwaite's degrees of freedom."""
    ours, theirs = sd**2 / n, other_sd**2 / other_n
    degrees = (ours + theirs) ** 2 / (ours**2 / (n - 1) + theirs**2 / (other_n - 1))
    half = float(scipy.stats.t.isf((1 - level) / 2, degrees)) * math.sqrt(ours + theirs)
    return difference - half, difference + half


def _check_published(value: float, what: str) -> None:
    if not np.isfinite(value):
        raise ConfigError(f"{what}: a finite number is needed, got {value}")
