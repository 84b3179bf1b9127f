"""Does the assembly of tests keep its promises? Simulated where the truth is known.

``python -m benchmarks.statistics`` writes ``docs/statistics-simulation.md``. The page is determined by the seed
and the number of replicates (and by NumPy's generators, which may change between NumPy's versions).
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabench.stats.agreement import prediction_interval
from collabench.stats.bootstrap import two_way_bootstrap
from collabench.stats.families import holm, simultaneous_level
from collabench.stats.power import detectable_effect, seeds_needed, t_test_power
from collabench.stats.proportions import binomial_limit
from collabench.stats.samples import one_sample, sign_flip, sign_flip_minimum, student_t

SEED = 2021
REPLICATES = 10_000
PAGE = Path("docs/statistics-simulation.md")

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


def page(seed: int = SEED, replicates: int = REPLICATES) -> str:
    """The markdown page. Slower tables use a part of the replicates, as they say."""
    singles = list(single_comparisons(seed, replicates))
    groups = list(families(seed, replicates // 2))
    predictions = list(prediction_coverage(seed, replicates // 10))
    powers = list(power_at_detectable(seed, replicates))
    plans = list(planned_studies(seed, replicates // 20))
    bootstraps = list(crossed(seed, replicates // 20))
    error = 1 - LEVEL
    by_seeds = tuple(f"n = {n}" for n in SEEDS)
    sections = [
        "# Simulation of the statistics",
        "Written by a script; don't edit. To write it again:",
        f"```\npython -m benchmarks.statistics --seed {seed} --replicates {replicates}\n```",
        _text(
            "Data are drawn where the truth is known and handed to the functions that the reports use. Error rates"
            " should be at most 5 %, coverage at least 95 %. **Bold**: beyond the binomial limit, which a cell that "
            "keeps its"
            f" promise crosses at most once in {1 / (1 - CONFIDENCE):,.0f} times. Shares are in percent; n is the"
            " number of seeds."
        ),
        "Kinds of differences, all with a true mean of zero:",
        "\n".join(
            [
                "- normal: standard deviation 1;",
                "- tied: the same, rounded to whole numbers, as errors that differ by 0, 1 or 2 test images;",
                "- two skewed errors: the difference of two exponential errors. It is symmetric. Whenever two methods'",
                "  errors have the same distribution, their paired difference is symmetric, however skewed the errors;",
                "- mildly skewed: a gamma variable less its mean, skewness 0.5;",
                "- skewed: an exponential variable less its mean, skewness 2. Differences are skewed with a mean of",
                "  zero only where the two methods' errors differ in shape and agree in the mean.",
            ]
        ),
        "## One comparison",
        _text(
            f'{replicates:,} samples a row. Where all differences are equal there is no interval and no t (column "no'
            ' interval"): that counts as not rejected, and coverage is over the intervals that exist. The two-sided'
            " sign-flip test cannot reach 5 % with fewer than six seeds."
        ),
        _table(
            (
                "differences",
                "n",
                "coverage of the t interval",
                "no interval",
                "t test rejects",
                "sign-flip test rejects",
            ),
            [
                (
                    row.kind,
                    str(row.n),
                    row.covered.text(LEVEL, at_most=False),
                    f"{100 * row.without_interval.value:.2f}",
                    row.t_rejected.text(error, at_most=True),
                    "cannot" if row.flip_rejected is None else row.flip_rejected.text(error, at_most=True),
                )
                for row in singles
            ],
        ),
        "\n".join(
            [
                _finding(
                    "the t interval covers too rarely",
                    [(row.kind, row.n) for row in singles if row.covered.breaks(LEVEL, at_most=False)],
                ),
                _finding(
                    "the t test rejects a true hypothesis too often",
                    [(row.kind, row.n) for row in singles if row.t_rejected.breaks(error, at_most=True)],
                ),
                _finding(
                    "the sign-flip test rejects a true hypothesis too often",
                    [
                        (row.kind, row.n)
                        for row in singles
                        if row.flip_rejected is not None and row.flip_rejected.breaks(error, at_most=True)
                    ],
                ),
            ]
        ),
        _text(
            "The sign-flip test assumes symmetric differences, as does the t test with few seeds, so that neither is a"
            " check of the other where the differences themselves are skewed. Tied differences take few values, so that"
            " the t test's error rate jumps with n instead of lying near 5 %."
        ),
        f"## Families of {FAMILY}",
        _text(
            f"{replicates // 2:,} families a cell. First table: families with at least one true hypothesis rejected"
            " after Holm's correction of the t tests. Second table: families in which every Bonferroni interval that "
            "exists"
            f" covers. Two large effects: two of the five differences have a true mean of {LARGE_EFFECT:g}, and"
            " only the others can be rejected wrongly. Shared baseline: five methods without an effect against one "
            "baseline, the"
            " kind being that of each method's errors."
        ),
        "Holm: a false rejection",
        _table(
            ("differences", "setting", *by_seeds),
            _pivot([((row.kind, row.setting), row.holm_wrong.text(error, at_most=True)) for row in groups]),
        ),
        "Simultaneous intervals: all cover",
        _table(
            ("differences", "setting", *by_seeds),
            _pivot([((row.kind, row.setting), row.intervals_cover.text(LEVEL, at_most=False)) for row in groups]),
        ),
        "\n".join(
            [
                _finding(
                    "Holm's procedure errs too often",
                    [
                        (f"{row.kind} ({row.setting})", row.n)
                        for row in groups
                        if row.holm_wrong.breaks(error, at_most=True)
                    ],
                ),
                _finding(
                    "the simultaneous intervals cover too rarely",
                    [
                        (f"{row.kind} ({row.setting})", row.n)
                        for row in groups
                        if row.intervals_cover.breaks(LEVEL, at_most=False)
                    ],
                ),
            ]
        ),
        "## Prediction interval for one more run",
        _text(
            f"{replicates // 10:,} samples a cell, those without an interval left out: how often the interval of n runs"
            " holds one more run of the same kind, as a published single number would be."
        ),
        _table(
            ("errors", *by_seeds),
            _pivot([((kind,), share.text(LEVEL, at_most=False)) for kind, _, share in predictions]),
        ),
        _finding(
            "a number that agrees is called different too often",
            [(kind, n) for kind, n, share in predictions if share.breaks(LEVEL, at_most=False)],
        ),
        "## What n seeds can show",
        _text(
            "Detectable: the true difference, in standard deviations, that the t test should find in 80 % of studies;"
            f" found: how often it did in {replicates:,} studies with normal differences. Planned: from a pilot of"
            " n seeds and a target of half a standard deviation, the median number of seeds that `seeds_needed` asks "
            "for;"
            " enough:"
            f" how many of {replicates // 20:,} plans have 80 % power in truth (80 % of them should)."
        ),
        _table(
            ("n", "detectable", "found", "planned", "enough"),
            [
                (str(n), f"{effect:.2f}", _near(found, 0.8), f"{median:,.0f}", enough.text(0.8, at_most=False))
                for (n, effect, found), (_, median, enough) in zip(powers, plans, strict=True)
            ],
        ),
        "## Other seeds and other test images",
        _text(
            f"{replicates // 20:,} pairs of methods a row, tested on the same {CROSSED_IMAGES} images, with the"
            " same true error over all seeds and images. Coverage of the two-way bootstrap (400 resamples) for the true"
            " difference, and of the t interval over seeds, which makes no statement about other images and must not be"
            " read as one."
        ),
        _table(
            ("n", "two-way bootstrap", "t interval over seeds"),
            [
                (str(n), both.text(LEVEL, at_most=False), seeds.text(LEVEL, at_most=False))
                for n, both, seeds in bootstraps
            ],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _near(share: Share, expected: float) -> str:
    off = share.breaks(expected, at_most=True) or share.breaks(expected, at_most=False)
    return f"**{100 * share.value:.2f}**" if off else f"{100 * share.value:.2f}"


def _text(paragraph: str) -> str:
    return textwrap.fill(paragraph, width=116, break_long_words=False, break_on_hyphens=False)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *rows))


def _pivot(cells: list[tuple[tuple[str, ...], str]]) -> list[tuple[str, ...]]:
    """Cells in the order of SEEDS within each label become one row per label."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for label, cell in cells:
        rows.setdefault(label, []).append(cell)
    return [(*label, *row) for label, row in rows.items()]


def _finding(what: str, where: list[tuple[str, int]]) -> str:
    places: dict[str, list[str]] = {}
    for kind, n in where:
        places.setdefault(kind, []).append(str(n))
    found = "; ".join(f"{kind}, n = {', '.join(seeds)}" for kind, seeds in places.items())
    return f"- {what[0].upper()}{what[1:]}: {found or 'nowhere'}."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--replicates", type=int, default=REPLICATES, help="samples a row of the first table, at least 400"
    )
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    if options.replicates < 400 or options.seed < 0:
        parser.error("--replicates must be at least 400 and --seed at least 0")
    started = time.monotonic()
    text = page(options.seed, options.replicates)
    options.output.write_text(text, encoding="utf-8")
    print(f"{options.output} written in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
