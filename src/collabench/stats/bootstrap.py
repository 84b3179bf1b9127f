"""Two-way bootstrap over seeds and test images: the effect of other training runs *and* of other test images.

Seeds and images are crossed: every seed's network classifies every image. Both are resampled independently with
replacement, and a cell counts as often as the product of the counts of its row and its column (Owen 2007, "The
pigeonhole bootstrap"). The variance is not underestimated for images and for the interaction (the interaction counts up
to three times). With few seeds the variance over seeds is too small by the factor (S - 1) / S, as in every bootstrap of
S values, and percentile intervals do not widen as Student's t does. This interval is shown beside the t interval over
seeds and replaces no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collabench.core.errors import ConfigError, ResultError
from collabench.stats.levels import check_level

_CELLS = 2**23
"""Counts drawn in one block. This bounds the memory to about 200 MB."""


@dataclass(frozen=True)
class TwoWay:
    """Percentile interval over seeds and test images. Errors and differences are shares, not percent.

    estimate: the observed mean error, or mean difference. sd: standard deviation of the resampled estimates.
    """

    estimate: float
    sd: float
    low: float
    high: float
    level: float
    seeds: int
    images: int
    resamples: int


def two_way_bootstrap(
    correct: ArrayLike,
    baseline_correct: ArrayLike | None = None,
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> TwoWay:
    """Bootstrap the mean error, or the paired difference of mean errors (treatment minus baseline).

    correct, baseline_correct: boolean, (seeds, images), True where the network of that seed classified that image
    correctly; rows and columns mean the same seed and image in both. generator: the named stream "bootstrap".
    """
    pairs = [(correct, baseline_correct)]
    return two_way_bootstraps(pairs, generator=generator, resamples=resamples, level=level)[0]


def two_way_bootstraps(
    pairs: Sequence[tuple[ArrayLike, ArrayLike | None]],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[TwoWay]:
    """As :func:`two_way_bootstrap`, for many tables of one shape that share the draws, because drawing takes most of
    the time."""
    check_level(level)
    if resamples < 100:
        raise ConfigError(f"resamples: at least 100 are needed for an interval, got {resamples}")
    if not pairs:
        return []
    errors = np.stack([_errors(correct, baseline) for correct, baseline in pairs])
    count, seeds, images = errors.shape
    by_image = np.ascontiguousarray(errors.reshape(count * seeds, images).T, dtype=np.float32)
    estimates = np.empty((resamples, count))
    step = max(1, _CELLS // max(seeds, images))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        drawn_seeds = draw_counts(generator, seeds, draws)
        drawn_images = draw_counts(generator, images, draws).astype(np.float32)
        sums = (drawn_images @ by_image).reshape(draws, count, seeds)  # whole numbers below 2^24: exact
        estimates[start : start + draws] = np.einsum("rcs,rs->rc", sums, drawn_seeds) / (seeds * images)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail], axis=0)
    return [
        TwoWay(
            estimate=float(errors[index].mean()),
            sd=float(estimates[:, index].std(ddof=1)),
            low=float(low[index]),
            high=float(high[index]),
            level=level,
            seeds=seeds,
            images=images,
            resamples=resamples,
        )
        for index in range(count)
    ]


def _errors(correct: ArrayLike, baseline_correct: ArrayLike | None) -> NDArray[np.int8]:
    """Errors (0, 1) of one method, or their differences to the baseline's (-1, 0, 1): (seeds, images)."""
    table = _as_table(correct, "correct")
    if baseline_correct is None:
        return (~table).astype(np.int8)
    baseline = _as_table(baseline_correct, "baseline_correct")
    if baseline.shape != table.shape:
        raise ResultError(
            f"two-way bootstrap: two tables of the same shape are needed, got {table.shape} and {baseline.shape}"
        )
    return baseline.astype(np.int8) - table.astype(np.int8)


def draw_counts(generator: np.random.Generator, size: int, draws: int) -> NDArray[np.float64]:
    """How often each of ``size`` items is drawn in ``size`` draws with replacement: (draws, size), rows sum to size.

    These are multinomial counts; counting indices is many times faster than NumPy's sampler for many items.
    """
    picked = generator.integers(0, size, (draws, size)) + np.arange(draws)[:, None] * size
    return np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size).astype(np.float64)


def _as_table(correct: ArrayLike, what: str) -> NDArray[np.bool_]:
    table = np.asarray(correct)
    if table.dtype != np.bool_ or table.ndim != 2 or table.size == 0:
        raise ResultError(
            f"{what}: a boolean table (seeds, images) is needed, got {table.dtype} of shape {table.shape}"
        )
    return table
