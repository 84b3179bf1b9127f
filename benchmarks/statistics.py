"""Does the assembly of tests keep its promises? Simulated where the truth is known.

``python -m benchmarks.statistics`` writes ``docs/statistics-simulation.md``. The page is determined by the seed
and the number of replicates (and by NumPy's generators, which may change between NumPy's versions).
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from pathlib import Path

from benchmarks.simulation import (
    CONFIDENCE,
    CROSSED_IMAGES,
    FAMILY,
    LARGE_EFFECT,
    LEVEL,
    SEEDS,
    Share,
    crossed,
    families,
    planned_studies,
    power_at_detectable,
    prediction_coverage,
    single_comparisons,
)

SEED = 2021
REPLICATES = 10_000
PAGE = Path("docs/statistics-simulation.md")


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
