"""Two-way bootstrap over seeds and test images: what other training runs *and* other test images would change.

Seeds and images are crossed: every seed's network classifies every image. Both are resampled independently with
replacement and a cell counts as often as its row times its column was drawn: Owen (2007), "The pigeonhole bootstrap".
Its variance is not too small for images and interaction (it counts the interaction up to three times), but with few
seeds the seeds' own part is too small by (S - 1) / S, as for every bootstrap of S values, and percentile intervals do
not widen as Student's t does. It stands beside the t interval over seeds and replaces no test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from collabench.errors import ConfigError, ResultError
from collabench.stats.levels import check_level

_CELLS = 2**23
"""Numbers drawn at once: bounds the memory to about 200 MB."""


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
    check_level(level)
    if resamples < 100:
        raise ConfigError(f"resamples: at least 100 are needed for an interval, got {resamples}")
    correct = _as_table(correct, "correct")
    errors = 1.0 - correct
    if baseline_correct is not None:
        baseline = _as_table(baseline_correct, "baseline_correct")
        if baseline.shape != correct.shape:
            raise ResultError(
                f"two-way bootstrap: two tables of the same shape are needed, got {correct.shape} and {baseline.shape}"
            )
        errors = baseline.astype(np.float64) - correct
    seeds, images = errors.shape
    estimates = np.empty(resamples)
    step = max(1, _CELLS // max(seeds, images))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        by_image = draw_counts(generator, seeds, draws) @ errors
        drawn = draw_counts(generator, images, draws)
        estimates[start : start + draws] = np.einsum("ri,ri->r", by_image, drawn) / (seeds * images)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return TwoWay(
        estimate=float(errors.mean()),
        sd=float(estimates.std(ddof=1)),
        low=float(low),
        high=float(high),
        level=level,
        seeds=seeds,
        images=images,
        resamples=resamples,
    )


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
