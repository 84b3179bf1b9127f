"""One sample and paired samples: means, t intervals, the paired t test, the exact sign-flip test, effect size.

A sample holds one value per seed. Its spread is therefore that of training randomness on a fixed test set.
:mod:`collabench.stats.bootstrap` covers other test images.

Student's t does not exist for a sample without spread (one value, or values that are equal up to rounding): interval, t
and p are then None. An interval of width zero would claim a certainty that a few equal values do not give: errors are
counts over a few hundred images, so that equal values are often a coincidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its parts when they are used: reading a report needs none
from numpy.typing import ArrayLike, NDArray

from collabench.core.errors import ResultError
from collabench.stats.levels import check_level
from collabench.stats.power import detectable_difference

EXACT_PAIRS = 20
"""The sign-flip test enumerates all assignments of signs up to this many pairs."""

RANDOM_FLIPS = 9_999
"""With more pairs the sign-flip test draws this many assignments, from a fixed seed."""

_FLIPS_AT_ONCE = 1_000

_ROUNDING = 2.0**-40
"""Differences below this share of the values' magnitude are rounding errors of the subtraction."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean of ``n`` values with their sample standard deviation (denominator n - 1) and a t interval of the mean.

    sd: None for n = 1. low, high: None for n = 1 and for values without spread. level: coverage of the interval.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    level: float


@dataclass(frozen=True)
class Paired:
    """Differences, treatment minus baseline, of ``n`` pairs.

    difference, sd: mean and sample standard deviation of the differences (sd None for n = 1).
    low, high: t interval of the mean difference at ``level``, not adjusted for other comparisons.
    t, p: paired t test, two-sided: the one primary test. None, as the interval, where the differences have no spread.
    sign_flip_p: exact two-sided sign-flip test, the sensitivity check; None where n pairs cannot reach 1 - level
        (fewer than six at 95 %). It needs no spread.
    sign_flip_minimum: the smallest p that the sign-flip test can give with n pairs, 2 / 2^n.
    effect_size: difference / sd with Hedges' correction (see :func:`hedges_correction`); None without spread
        and for n = 2.
    detectable: the smallest true difference that n pairs of this spread show at ``level`` with 80 % power; None
    without spread.
    """

    n: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    level: float
    t: float | None
    p: float | None
    sign_flip_p: float | None
    sign_flip_minimum: float
    effect_size: float | None
    detectable: float | None


@dataclass(frozen=True)
class StudentT:
    """Student's one-sample t over the last axis; every field has the shape of the other axes, nan where undefined."""

    mean: Floats
    sd: Floats
    low: Floats
    high: Floats
    t: Floats
    p: Floats


def as_sample(values: ArrayLike, what: str = "values") -> Floats:
    """``values`` as a float64 vector of at least one finite number; anything else is a :class:`ResultError`."""
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ResultError(f"{what}: a list of at least one number is needed, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ResultError(f"{what}: every number must be finite, got {sample.tolist()}")
    return sample


def student_t(values: ArrayLike, level: float = 0.95, magnitude: ArrayLike | None = None) -> StudentT:
    """Mean, sample standard deviation, t interval and two-sided t test against zero, over the last axis.

    With the standard error e = sd / √n and the distribution function F of Student's t with n - 1 degrees of freedom: t
    = mean / e, p = 2 F(-|t|), and the interval mean ± F⁻¹((1 + level) / 2) e. This equals ``scipy.stats.ttest_1samp``
    without its checks of the arguments, which take a millisecond: a report of thousands of runs makes thousands of
    calls.

    values: (..., n).
    magnitude: broadcast to (...,), the size of the numbers that the values were computed from. It decides what counts
    as rounding; the default is the largest absolute value of each sample.
    """
    check_level(level)
    values = np.asarray(values, dtype=np.float64)
    size = np.abs(values).max(axis=-1) if magnitude is None else np.broadcast_to(magnitude, values.shape[:-1])
    mean = values.mean(axis=-1)
    undefined = np.full(mean.shape, np.nan)
    if values.shape[-1] < 2:
        return StudentT(mean, undefined, undefined, undefined, undefined, undefined)
    spread = np.ptp(values, axis=-1) > _ROUNDING * size
    # For equal values the mean is that value and the spread is exactly zero, without rounding errors.
    mean = np.where(spread, mean, np.where(np.abs(mean) <= _ROUNDING * size, 0.0, values[..., 0]))
    sd = np.where(spread, values.std(axis=-1, ddof=1), 0.0)
    n, tail = values.shape[-1], (1 - level) / 2
    error = np.where(spread, np.sqrt(values.var(axis=-1, ddof=1) / n), np.nan)
    t = mean / error
    p = 2 * scipy.special.stdtr(n - 1.0, -np.abs(t))
    low, high = (mean + scipy.special.stdtrit(n - 1.0, share) * error for share in (tail, 1 - tail))
    return StudentT(mean, sd, low, high, t, p)


def summary(values: ArrayLike, level: float = 0.95) -> Summary:
    """Mean, sample standard deviation and t interval of one value per seed."""
    sample = as_sample(values)
    student = student_t(sample, level)
    return Summary(
        n=sample.size,
        mean=float(student.mean),
        sd=_defined(student.sd),
        low=_defined(student.low),
        high=_defined(student.high),
        level=level,
    )


def paired(treatment: ArrayLike, baseline: ArrayLike, level: float = 0.95) -> Paired:
    """Compare two methods over the same seeds: ``treatment[i]`` and ``baseline[i]`` share seed i.

    Raises :class:`ResultError` where the two are not of equal length or a value is not finite.
    """
    treatment, baseline = as_sample(treatment, "treatment"), as_sample(baseline, "baseline")
    if treatment.size != baseline.size:
        raise ResultError(
            f"pairs: as many treatment as baseline values are needed, got {treatment.size} and {baseline.size}"
        )
    return one_sample(
        treatment - baseline, level, magnitude=float(max(np.abs(treatment).max(), np.abs(baseline).max()))
    )


def one_sample(
    differences: ArrayLike, level: float = 0.95, magnitude: float | None = None, *, sensitivity: bool = True
) -> Paired:
    """As :func:`paired`, for values that are compared with zero: differences, or slopes per seed.

    magnitude: the size of the numbers that were subtracted (default: the largest absolute difference). sensitivity:
    also compute the sign-flip test and the detectable difference, which take most of the time and decide nothing.
    """
    sample = as_sample(differences, "differences")
    student = student_t(sample, level, magnitude)
    n, sd = sample.size, _defined(student.sd)
    mean, correction = float(student.mean), hedges_correction(n - 1)
    return Paired(
        n=n,
        difference=mean,
        sd=sd,
        low=_defined(student.low),
        high=_defined(student.high),
        level=level,
        t=_defined(student.t),
        p=_defined(student.p),
        sign_flip_p=float(sign_flip(sample, magnitude)) if sensitivity and sign_flip_minimum(n) <= 1 - level else None,
        sign_flip_minimum=sign_flip_minimum(n),
        effect_size=correction * mean / sd if sd and correction is not None else None,
        detectable=detectable_difference(n, sd, level) if sd and sensitivity else None,
    )


def sign_flip_minimum(n: int) -> float:
    """The smallest two-sided p of the sign-flip test with n pairs: 2 / 2^n (0.0625 with five, 0.03125 with six)."""
    return float(np.ldexp(2.0, -n)) if n > 0 else 1.0


def sign_flip(differences: ArrayLike, magnitude: ArrayLike | None = None) -> Floats:
    """Two-sided p value of the sign-flip (paired permutation) test over the last axis: (..., n) -> (...,).

    p is the share of the 2^n assignments of signs whose absolute sum is at least the observed one. It is exact for n up
    to 20. For larger n, 9,999 random assignments and the observed one are used, which keeps the level. The test assumes
    that treatment and baseline are exchangeable within a pair under the hypothesis.
    magnitude: as for :func:`student_t`.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n = differences.shape[-1]
    size = np.abs(differences).max(axis=-1) if magnitude is None else np.asarray(magnitude, dtype=np.float64)
    # Sums that are mathematically equal differ in their last bits: errors are counts divided by the number of images.
    reach = np.abs(differences.sum(axis=-1)) - n * _ROUNDING * size
    if n > EXACT_PAIRS:
        generator = np.random.Generator(np.random.Philox(key=0))
        reached = np.ones(reach.shape)
        for start in range(0, RANDOM_FLIPS, _FLIPS_AT_ONCE):
            signs = 2.0 * generator.integers(0, 2, (min(_FLIPS_AT_ONCE, RANDOM_FLIPS - start), n)) - 1.0
            reached += (np.abs(differences @ signs.T) >= reach[..., None]).sum(axis=-1)
        return reached / (RANDOM_FLIPS + 1)
    sums = differences[..., :1]  # the first sign is kept: the other half of the assignments has the same absolute sums
    for index in range(1, n):
        value = differences[..., index : index + 1]
        sums = np.concatenate([sums + value, sums - value], axis=-1)
    return np.asarray((np.abs(sums) >= reach[..., None]).mean(axis=-1))


def hedges_correction(degrees: int) -> float | None:
    """Hedges' exact factor J(m) = Γ(m/2) / (√(m/2) Γ((m-1)/2)) that makes a standardised mean unbiased.

    Hedges (1981), "Distribution theory for Glass's estimator of effect size". With ``degrees`` m = n - 1 it applies
    exactly to d_z = mean / sd of the differences, which is the effect size used here: it belongs to the paired t test
    (t = √n d_z) and to its power. It is not comparable with effect sizes of unpaired designs. None with m = 1, where
    d_z has no expectation and nothing can be made unbiased.
    """
    if degrees < 2:
        return None
    half = degrees / 2
    return float(np.exp(scipy.special.gammaln(half) - scipy.special.gammaln(half - 0.5)) / np.sqrt(half))


def slopes(values: ArrayLike, levels: Sequence[float]) -> Floats:
    """Least-squares slope of each seed's values over ``levels``: (seeds, levels) -> (seeds,).

    The claim "grows with the noise" is about these slopes: pass them to :func:`one_sample`, one value per seed. Raises
    ResultError for another shape, for values that are not finite and for fewer than two different levels.
    """
    table: Any = np.asarray(values, dtype=np.float64)
    positions = as_sample(levels, "levels")
    if table.ndim != 2 or table.shape[1] != positions.size:
        raise ResultError(f"slopes: values of shape (seeds, {positions.size}) are needed, got {table.shape}")
    if not np.isfinite(table).all():
        raise ResultError("slopes: every value must be finite")
    if np.unique(positions).size < 2:
        raise ResultError("slopes: at least two different levels are needed")
    centred = positions - positions.mean()
    found: Floats = table @ centred / (centred @ centred)
    return found


def _defined(value: Floats) -> float | None:
    return None if np.isnan(value) else float(value)
