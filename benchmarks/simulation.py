"""Simulated comparisons, families and plans, where the truth is known: what :mod:`benchmarks.statistics` tabulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabench.stats.agreement import prediction_interval
from collabench.stats.bootstrap import two_way_bootstrap
from collabench.stats.families import holm, simultaneous_level
from collabench.stats.power import detectable_effect, seeds_needed, t_test_power
from collabench.stats.proportions import binomial_limit
from collabench.stats.samples import one_sample, sign_flip, sign_flip_minimum, student_t

SEEDS = (3, 5, 8, 10)
FAMILY = 5
LEVEL = 0.95
CONFIDENCE = 0.999
LARGE_EFFECT = 3.0
CROSSED_IMAGES = 360

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_normal(shape)


def _tied(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.rint(generator.standard_normal(shape))


def _skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_exponential(shape) - 1.0


def _mildly_skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_gamma(16.0, shape) / 4.0 - 4.0


def _two_skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return _skewed(generator, shape) - _skewed(generator, shape)


DIFFERENCES: dict[str, Draw] = {
    "normal": _normal,
    "tied": _tied,
    "two skewed errors": _two_skewed,
    "mildly skewed": _mildly_skewed,
    "skewed": _skewed,
}
"""Kinds of differences, true mean 0, standard deviation near 1 (1.4 for the third)."""

ERRORS: dict[str, Draw] = {"normal": _normal, "tied": _tied, "skewed": _skewed}
"""Kinds of errors of single methods, from which differences to one shared baseline are formed."""


@dataclass(frozen=True)
class Share:
    """A simulated share beside what it should be."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total

    def text(self, expected: float, *, at_most: bool) -> str:
        """In percent, in bold where it lies beyond the binomial limit on the wrong side of ``expected``."""
        shown = f"{100 * self.value:.2f}"
        return f"**{shown}**" if self.breaks(expected, at_most=at_most) else shown

    def breaks(self, expected: float, *, at_most: bool) -> bool:
        if at_most:
            return self.value > binomial_limit(self.total, expected, CONFIDENCE)
        return 1 - self.value > binomial_limit(self.total, 1 - expected, CONFIDENCE)


@dataclass(frozen=True)
class Single:
    """One comparison without an effect: n differences with a true mean of zero."""

    kind: str
    n: int
    covered: Share
    without_interval: Share
    t_rejected: Share
    flip_rejected: Share | None


@dataclass(frozen=True)
class Families:
    """Five comparisons: share of families with at least one false rejection, or with an interval that misses."""

    kind: str
    setting: str
    n: int
    holm_wrong: Share
    intervals_cover: Share


def _generator(seed: int, table: str, *cell: int | str) -> np.random.Generator:
    """Each cell has a stream of its own, so that no table depends on another."""
    name = "/".join(map(str, (table, *cell))).encode()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *name])))


def _share(flags: NDArray[np.bool_] | list[bool]) -> Share:
    return Share(int(np.sum(flags)), len(flags))


def single_comparisons(seed: int, replicates: int) -> Iterator[Single]:
    """Coverage of the t interval, error rates of the t test and of the sign-flip test, without an effect."""
    for kind, draw in DIFFERENCES.items():
        for n in SEEDS:
            differences = draw(_generator(seed, "single", kind, n), (replicates, n))
            student = student_t(differences, LEVEL)
            has = ~np.isnan(student.low)
            flips = sign_flip(differences) if sign_flip_minimum(n) <= 1 - LEVEL else None
            yield Single(
                kind,
                n,
                covered=_share(((student.low <= 0) & (student.high >= 0))[has]),
                without_interval=_share(~has),
                t_rejected=_share(student.p < 1 - LEVEL),
                flip_rejected=None if flips is None else _share(flips < 1 - LEVEL),
            )


def families(seed: int, replicates: int) -> Iterator[Families]:
    """Holm over five t tests and the five Bonferroni intervals: no effect, two effects, one shared baseline."""
    two_effects = np.array([LARGE_EFFECT, LARGE_EFFECT, 0.0, 0.0, 0.0])
    for kind, draw in DIFFERENCES.items():
        for setting, effects in (("no effect", np.zeros(FAMILY)), ("two large effects", two_effects)):
            for n in SEEDS:
                differences = draw(_generator(seed, "family", kind, setting, n), (replicates, FAMILY, n))
                yield _family(kind, setting, differences + effects[:, None], effects)
    for kind, draw in ERRORS.items():
        for n in SEEDS:
            errors = draw(_generator(seed, "family", kind, "shared", n), (replicates, FAMILY + 1, n))
            yield _family(kind, "shared baseline, no effect", errors[:, 1:] - errors[:, :1], np.zeros(FAMILY))


def _family(kind: str, setting: str, differences: Floats, effects: Floats) -> Families:
    student = student_t(differences, LEVEL)
    null = effects == 0
    wrong = []
    for p_values in student.p:
        adjusted = holm(p_values, family=FAMILY)
        false = (p for p, is_null in zip(adjusted, null, strict=True) if is_null and p is not None)
        wrong.append(any(p < 1 - LEVEL for p in false))
    adjusted_student = student_t(differences, simultaneous_level(LEVEL, FAMILY))
    # An interval that does not exist makes no statement and so no false one.
    missed = (adjusted_student.low > effects) | (adjusted_student.high < effects)
    return Families(kind, setting, differences.shape[-1], _share(wrong), _share(~missed.any(axis=-1)))


def prediction_coverage(seed: int, replicates: int) -> Iterator[tuple[str, int, Share]]:
    """How often the prediction interval of n runs holds one more run."""
    for kind, draw in ERRORS.items():
        for n in SEEDS:
            runs = draw(_generator(seed, "prediction", kind, n), (replicates, n + 1))
            inside = []
            for row in runs:
                low, high = prediction_interval(row[:n], level=LEVEL)
                if low is not None and high is not None:
                    inside.append(low <= row[n] <= high)
            yield kind, n, _share(inside)


def power_at_detectable(seed: int, replicates: int) -> Iterator[tuple[int, float, Share]]:
    """How often the t test finds the effect that it should find in 80 % of studies (normal differences)."""
    for n in SEEDS:
        effect = detectable_effect(n, LEVEL)
        student = student_t(_normal(_generator(seed, "power", n), (replicates, n)) + effect, LEVEL)
        yield n, effect, _share((student.p < 1 - LEVEL) & (student.t > 0))


def planned_studies(seed: int, replicates: int) -> Iterator[tuple[int, float, Share]]:
    """How often :func:`seeds_needed`, from a pilot of n seeds, plans a study that has its 80 % power in truth."""
    target = 0.5  # true standard deviation 1
    for n in SEEDS:
        spreads = np.sqrt(_generator(seed, "plan", n).chisquare(n - 1, replicates) / (n - 1))
        planned = [seeds_needed(target, float(sd), n, LEVEL).seeds for sd in spreads]
        # No number of seeds below the limit: the plan says so, which promises nothing.
        powered = {seeds: t_test_power(target, seeds, LEVEL) >= 0.8 for seeds in set(planned) if seeds is not None}
        numbers = [math.inf if seeds is None else seeds for seeds in planned]
        yield n, float(np.median(numbers)), _share([seeds is None or powered[seeds] for seeds in planned])


def crossed(seed: int, replicates: int, images: int = CROSSED_IMAGES) -> Iterator[tuple[int, Share, Share]]:
    """Coverage of the two-way bootstrap and of the t interval over seeds for the difference on *all* images.

    A network of seed s errs on image i where v_i + 0.5 w_i + 0.1 u_s + 0.5 e_si > 1.2: v the image's difficulty for
    both methods, w its difficulty for this method, u the seed's training, e what is particular to this network and
    image; all standard normal. Both methods have the same true error, 16.5 %.
    """
    for n in SEEDS:
        generator = _generator(seed, "crossed", n)
        both, only_seeds = [], []
        for _ in range(replicates):
            difficulty = generator.standard_normal(images)
            correct = []
            for _method in range(2):
                own = 0.5 * generator.standard_normal(images)
                training = 0.1 * generator.standard_normal((n, 1))
                particular = 0.5 * generator.standard_normal((n, images))
                correct.append(difficulty + own + training + particular <= 1.2)
            interval = two_way_bootstrap(*correct, generator=generator, resamples=400, level=LEVEL)
            both.append(interval.low <= 0 <= interval.high)
            over_seeds = one_sample((correct[1].mean(axis=1) - correct[0].mean(axis=1)), LEVEL)
            if over_seeds.low is not None and over_seeds.high is not None:
                only_seeds.append(over_seeds.low <= 0 <= over_seeds.high)
        yield n, _share(both), _share(only_seeds)
