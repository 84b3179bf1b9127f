"""How often does the sequential design decide wrongly, how often rightly, and with how many seeds? Simulated.

``python -m benchmarks.sequential`` writes ``docs/sequential-simulation.md``. The page is determined by the seed and the
number of replicates (and by NumPy's generators, which may change between NumPy's versions). The rules are those of
:mod:`collabench.stats.sequential`, here for many studies at once; a test holds that both decide alike.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.statistics import Share
from collabench.papers.claim_schema import ERROR
from collabench.stats import Design, Hypothesis

SEED = 2021
REPLICATES = 20_000
PAGE = Path("docs/sequential-simulation.md")

FAMILY = 13
PARTS = 4
EFFECT = 0.4
"""Smallest effect of interest, in standard deviations of the paired differences."""
MARGIN = 0.5
"""Margin of "no worse", in the same unit."""
DESIGNS = {
    "8": Design((8,), (1.0,), ERROR),
    "8, 16, 32": Design((8, 16, 32), (0.2, 0.3, 0.5), ERROR),
    "16, 32, 64, 128": Design((16, 32, 64, 128), (0.1, 0.2, 0.3, 0.4), ERROR),
    "8, 16, 32, 64, 128": Design((8, 16, 32, 64, 128), (0.05, 0.1, 0.2, 0.3, 0.35), ERROR),
}
LOWER = Hypothesis("below", smallest_effect=EFFECT)
NO_WORSE = Hypothesis("below", margin=MARGIN)

SUPPORTED, REFUTED, STOPPED, UNDECIDED = 1, 2, 3, 0

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]


# ------------------------------------------------------------------------------------------------------- the draws


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return generator.standard_normal(shape) / np.sqrt(2)


def _tied(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.rint(generator.standard_normal(shape)) / np.sqrt(2 * (1 + 1 / 12))


def _skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return (generator.standard_gamma(2.0, shape) - 2.0) / 2.0


def _skewed_left(generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return -_skewed(generator, shape)


KINDS: dict[str, tuple[Callable[..., Floats], Callable[..., Floats]]] = {
    "normal": (_normal, _normal),
    "tied": (_tied, _tied),
    "skewness +0.5": (_skewed, _normal),
    "skewness −0.5": (_skewed_left, _normal),
}
"""Kind → how the methods' errors and the baseline's are drawn: mean 0, variance 1/2 each, so that the differences have
standard deviation 1 and, to one shared baseline, correlation 1/2."""


def differences(generator: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Floats:
    """(studies, tests, parts, seeds): differences to the study's one baseline, without an effect."""
    method, baseline = KINDS[kind]
    return method(generator, shape) - baseline(generator, (shape[0], 1, 1, shape[-1]))


# ------------------------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True)
class Looked:
    """Mean and sample standard deviation of the first n differences, for each n: (studies, tests, parts)."""

    means: dict[int, Floats]
    sds: dict[int, Floats]

    def shifted(self, effects: Floats | float) -> Looked:
        return Looked({n: mean + effects for n, mean in self.means.items()}, self.sds)


def look_at(values: Floats) -> Looked:
    every = sorted({n for design in DESIGNS.values() for n in design.looks})
    firsts = {n: values[..., :n] for n in every if n <= values.shape[-1]}
    return Looked(
        {n: part.mean(axis=-1) for n, part in firsts.items()},
        {n: part.std(axis=-1, ddof=1) for n, part in firsts.items()},
    )


def _verdict(hypothesis: Hypothesis, mean: Floats, half: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the interval mean ± half supports, and whether it refutes. Both sides' claimed side is below."""
    if hypothesis.margin is not None:
        return mean + half < hypothesis.margin, mean - half > hypothesis.margin
    size = hypothesis.smallest_effect or 0.0
    inside = (mean - half > -size) & (mean + half < size)
    return (mean + half < 0) & ~inside, (mean - half > 0) | inside


def _possible(hypothesis: Hypothesis, mean: Floats, error: Floats, half: Floats, *, support: bool) -> NDArray[np.bool_]:
    """Whether some truth within one standard error of the mean would be supported (else: refuted) by ± half."""
    low, high = mean - error, mean + error
    if hypothesis.margin is not None:
        return low < hypothesis.margin - half if support else high > hypothesis.margin + half
    room = (hypothesis.smallest_effect or 0.0) - half  # middles within ± room lie inside the smallest effect
    if support:
        return low < -np.maximum(half, room)
    return (high > half) | ((room > 0) & (low < room) & (high > -room))


def outcomes(looked: Looked, hypothesis: Hypothesis, design: Design, family: int) -> tuple[Codes, NDArray[np.int64]]:
    """Verdict and number of seeds of every test: (studies, tests) each. All parts of a test are needed."""
    parts = looked.means[design.looks[0]].shape[-1]
    shape = looked.means[design.looks[0]].shape[:-1]
    code, seeds = np.zeros(shape, np.int8), np.zeros(shape, np.int64)
    final = design.looks[-1]
    for look, n in enumerate(design.looks, 1):
        mean, sd = looked.means[n], looked.sds[n]
        spread = sd > 0

        def half(size: int, at: int, look: int, sd: Floats = sd) -> Floats:
            tail = design.error * design.spend[look - 1] / size
            return scipy.stats.t.isf(tail, at - 1) * sd / np.sqrt(at)

        supports, _ = _verdict(hypothesis, mean, half(family, n, look))
        _, refutes = _verdict(hypothesis, mean, half(family * parts, n, look))
        refuted = (refutes & spread).any(axis=-1)
        supported = (supports & spread).all(axis=-1) & ~refuted
        last = len(design.looks)
        error = sd / np.sqrt(n)
        could_support = _possible(hypothesis, mean, error, half(family, final, last), support=True).all(axis=-1)
        could_refute = _possible(hypothesis, mean, error, half(family * parts, final, last), support=False).any(axis=-1)
        futile = ~could_support & ~could_refute & spread.all(axis=-1) & (look < last)
        here = np.select([refuted, supported, futile], [REFUTED, SUPPORTED, STOPPED], UNDECIDED)
        open_ = code == UNDECIDED
        seeds = np.where(open_, n, seeds)
        code = np.where(open_, here, code).astype(np.int8)
    return code, seeds


# -------------------------------------------------------------------------------------------------- wrong verdicts


@dataclass(frozen=True)
class Truth:
    """What is true of every test of a family, and which verdict would be wrong.

    effects: true differences of the parts, in standard deviations. wrong: hypothesis → the wrong verdicts.
    """

    name: str
    effects: tuple[float, ...]
    wrong: tuple[tuple[Hypothesis, tuple[int, ...]], ...]


ONE_PART = (
    Truth("lower, no difference", (0.0,), ((LOWER, (SUPPORTED,)),)),
    Truth("lower, worse by the smallest effect", (EFFECT,), ((LOWER, (SUPPORTED,)),)),
    Truth("lower, better by the smallest effect", (-EFFECT,), ((LOWER, (REFUTED,)),)),
    Truth("lower, better by twice the smallest effect", (-2 * EFFECT,), ((LOWER, (REFUTED,)),)),
    Truth("no worse, at the margin, support wrong", (MARGIN,), ((NO_WORSE, (SUPPORTED,)),)),
    Truth("no worse, at the margin, refutation wrong", (MARGIN,), ((NO_WORSE, (REFUTED,)),)),
    Truth("no worse, worse by twice the margin", (2 * MARGIN,), ((NO_WORSE, (SUPPORTED,)),)),
    Truth("no worse, no difference", (0.0,), ((NO_WORSE, (REFUTED,)),)),
    Truth("lower and no worse, no difference", (0.0,), ((LOWER, (SUPPORTED,)), (NO_WORSE, (REFUTED,)))),
    Truth("lower and no worse, half the margin", (MARGIN / 2,), ((LOWER, (SUPPORTED,)), (NO_WORSE, (REFUTED,)))),
)
SEVERAL_PARTS = (
    Truth("all of four, no differences", (0.0,) * PARTS, ((LOWER, (SUPPORTED,)),)),
    Truth("all of four, one without a difference", (0.0, -3.0, -3.0, -3.0), ((LOWER, (SUPPORTED,)),)),
    Truth("all of four, better by the smallest effect", (-EFFECT,) * PARTS, ((LOWER, (REFUTED,)),)),
)


def wrong_verdicts(seed: int, replicates: int) -> Iterator[tuple[str, str, str, Share]]:
    """(truth, kind, design, share of families with a wrong verdict): every test of the family has the same truth."""
    for truths, parts, studies in ((ONE_PART, 1, replicates), (SEVERAL_PARTS, PARTS, replicates // 4)):
        for kind in KINDS:
            base = _in_blocks(seed, kind, studies, parts)
            for truth in truths:
                shifted = base.shifted(np.array(truth.effects))
                for name, design in DESIGNS.items():
                    bad = np.zeros(studies, bool)
                    for hypothesis, wrong in truth.wrong:
                        code, _ = outcomes(shifted, hypothesis, design, FAMILY)
                        bad |= np.isin(code, wrong).any(axis=1)
                    yield truth.name, kind, name, Share(int(bad.sum()), studies)


def spending_all(seed: int, replicates: int) -> Share:
    """The largest rate for “lower” without a difference if the families spent 5 %."""
    found = []
    for kind in KINDS:
        base = _in_blocks(seed, kind, replicates, 1)
        for design in DESIGNS.values():
            code, _ = outcomes(base, LOWER, Design(design.looks, design.spend, 0.05), FAMILY)
            found.append(Share(int((code == SUPPORTED).any(axis=1).sum()), replicates))
    return max(found, key=lambda share: share.value)


@lru_cache(maxsize=8)
def _in_blocks(seed: int, kind: str, studies: int, parts: int, block: int = 500) -> Looked:
    """Looks at ``studies`` families, drawn in blocks that fit into memory."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, parts, *kind.encode()])))
    most = max(design.looks[-1] for design in DESIGNS.values())
    found = [
        look_at(differences(generator, kind, (min(block, studies - start), FAMILY, parts, most)))
        for start in range(0, studies, block)
    ]
    return Looked(
        {n: np.concatenate([one.means[n] for one in found]) for n in found[0].means},
        {n: np.concatenate([one.sds[n] for one in found]) for n in found[0].sds},
    )


# ------------------------------------------------------------------------------------------------ power and seeds

EFFECTS = (0.0, -0.2, -EFFECT, -0.6, -0.8, -1.0, -1.5, 0.6, 1.0)
"""True differences in standard deviations; below zero is the claimed side."""


@dataclass(frozen=True)
class Power:
    """Of single tests in a family of :data:`FAMILY`: shares of verdicts, mean seeds, and how much support overstates.

    overstated: mean estimate of the supported ones over the true difference.
    """

    effect: float
    supported: float
    refuted: float
    stopped: float
    seeds: float
    overstated: float | None


def power(seed: int, replicates: int, design: Design) -> Iterator[Power]:
    base = _in_blocks(seed, "normal", replicates // 2, 1)
    for effect in EFFECTS:
        shifted = base.shifted(effect)
        code, seeds = outcomes(shifted, LOWER, design, FAMILY)
        at = np.stack([shifted.means[n][..., 0] for n in design.looks])
        estimate = np.take_along_axis(at, np.searchsorted(design.looks, seeds)[None], 0)[0]
        supported = code == SUPPORTED
        yield Power(
            effect,
            float(supported.mean()),
            float((code == REFUTED).mean()),
            float((code == STOPPED).mean()),
            float(seeds.mean()),
            float(estimate[supported].mean() / effect) if effect and supported.sum() >= 100 else None,
        )


#: The rule before: eight seeds, once, an interval at 1 - 0.05 / m, which spends half of the error on either side.
FIXED = Design((8,), (1.0,), 0.025)


# -------------------------------------------------------------------------------------------------------- the page


def page(seed: int = SEED, replicates: int = REPLICATES) -> str:
    """The markdown page."""
    rates = list(wrong_verdicts(seed, replicates))
    worst = max(rates, key=lambda rate: rate[-1].value)
    broken = [rate for rate in rates if rate[-1].breaks(0.05, at_most=True)]
    sections = [
        "# Simulation of the sequential design",
        "Written by a script; don't edit. To write it again:",
        f"```\npython -m benchmarks.sequential --seed {seed} --replicates {replicates}\n```",
        _text(
            f"How often does a family of {FAMILY} claims hold a wrong verdict, when its tests are looked at several "
            f"times? At most 5 % of families should. The largest rate found is {100 * worst[-1].value:.2f} % "
            f"({worst[0]}; {worst[1]}; looks at {worst[2]})."
        ),
        _text(
            "In every family all methods are compared with one baseline of the same seeds, so that the differences are "
            "correlated (1/2). Their standard deviation is 1. The smallest effect of interest is "
            f"{EFFECT:g} standard deviations, the margin of “no worse” {MARGIN:g}. Every test of a family has the "
            "truth that the row names, which is the worst case: each of them can go wrong. All stops for futility are "
            f"obeyed. A family spends an error of {100 * ERROR:g} %. With 5 % the largest rate would be "
            f"{100 * spending_all(seed, replicates).value:.2f} %, because of skewed differences. Tied: errors are "
            "whole numbers of test images, with a standard deviation of one image. Skewness: of the differences."
        ),
        "## Families with a wrong verdict",
        _text(
            f"In percent of {replicates:,} families ({replicates // 4:,} where a claim has {PARTS} parts, all of which "
            "are needed). **Bold**: beyond the binomial limit, which a rate of 5 % crosses once in 1,000 times."
        ),
        *_rate_tables(rates),
        f"Beyond the limit: {'; '.join(f'{t} ({k}; {d})' for t, k, d, _ in broken) or 'nowhere'}.",
        _text(
            "“Lower and no worse” are two claims on one difference, which count as one test. Between no difference and "
            "the margin both can go wrong, on different sides of the interval. There the guarantee of 5 % for the "
            "family rests on the distance between zero and the margin, and on this simulation."
        ),
        "## What is decided, and with how many seeds",
        _text(
            f"Single tests of a family of {FAMILY}, “lower”, normal differences, {FAMILY * (replicates // 2):,} a row. "
            "Difference: the truth in standard deviations; negative is the claimed side. Fixed: eight seeds, one look, "
            "an interval at 1 − 0.05 / m, which was the rule before. Overstated: the mean estimate of the supported "
            "claims over the truth (“–”: fewer than 100 of them)."
        ),
        *(part for name, design in DESIGNS.items() for part in _power_table(seed, replicates, name, design)),
    ]
    return "\n\n".join(sections) + "\n"


def _rate_tables(rates: Sequence[tuple[str, str, str, Share]]) -> Iterator[str]:
    for design in DESIGNS:
        yield f"Looks at {design} seeds:"
        rows = {}
        for truth, kind, name, share in rates:
            if name == design:
                rows.setdefault(truth, {})[kind] = share.text(0.05, at_most=True)
        yield _table(("truth", *KINDS), [[truth, *(row[kind] for kind in KINDS)] for truth, row in rows.items()])


def _power_table(seed: int, replicates: int, name: str, design: Design) -> Iterator[str]:
    yield f"Looks at {name} seeds:"
    rows = []
    for fixed, one in zip(power(seed, replicates, FIXED), power(seed, replicates, design), strict=True):
        shown = [one.supported, one.refuted, one.stopped, 1 - one.supported - one.refuted - one.stopped]
        rows.append(
            [
                f"{one.effect:+.1f}" if one.effect else "0",
                *(f"{100 * abs(share):.1f}" for share in shown),
                f"{one.seeds:.0f}",
                "–" if one.overstated is None else f"{one.overstated:.2f}",
                f"{100 * fixed.supported:.1f}",
                f"{100 * fixed.refuted:.1f}",
            ]
        )
    yield _table(
        (
            "difference", "supported %", "refuted %", "stopped %", "undecided %", "seeds", "overstated",
            "fixed: supported %", "fixed: refuted %",
        ),
        rows,
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _text(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequential", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--replicates", type=int, default=REPLICATES, help="families a rate, at least 200")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    if options.replicates < 200 or options.seed < 0:
        parser.error("--replicates must be at least 200 and --seed at least 0")
    started = time.monotonic()
    text = page(options.seed, options.replicates)
    options.output.write_text(text, encoding="utf-8")
    print(f"{options.output} written in {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
