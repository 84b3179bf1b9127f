"""A group-sequential design: looks at a growing number of seeds, at each of which a test may be decided.

All differences are treatment minus baseline. ``docs/statistics.md`` has the rules in words, and why they keep the
family's error. Its symbols are used here: α is the family's error, m the number of its tests, w_k the share of the
error that look k spends, n_k the number of seeds at look k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy  # loads its parts when they are used: reading a report needs none

from collabench.core.errors import ConfigError, ResultError
from collabench.stats.families import conjunction_p, half_width, simultaneous_interval, simultaneous_level
from collabench.stats.hypotheses import Hypothesis
from collabench.stats.levels import check_family
from collabench.stats.samples import Floats, Paired, one_sample
from collabench.stats.verdicts import Verdict, all_parts

PLAIN_LEVEL = 0.95
"""Level of the interval that stands beside the one that decides."""


@dataclass(frozen=True)
class Design:
    """looks: numbers of seeds, rising. spend: the share of the error that each look spends. error: of a family.

    Raises ConfigError unless there is one share above 0 for each look, their sum is at most 1, and 0 < error < 0.25.
    """

    looks: tuple[int, ...]
    spend: tuple[float, ...]
    error: float

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 1 or list(self.looks) != sorted(set(self.looks)):
            raise ConfigError(f"looks: rising numbers of seeds, at least one, are needed, got {list(self.looks)}")
        if len(self.spend) != len(self.looks):
            raise ConfigError(f"spend: {len(self.looks)} shares are needed, one a look, got {len(self.spend)}")
        if not all(share > 0 for share in self.spend) or math.fsum(self.spend) > 1 + 1e-12:
            raise ConfigError(f"spend: shares above 0 that add up to at most 1 are needed, got {list(self.spend)}")
        if not 0 < self.error < 0.25:
            raise ConfigError(f"error: a share between 0 and 0.25 is needed, such as 0.04, got {self.error}")

    def level(self, look: int) -> float:
        """Level of the interval at a look (1 is the first), before it is widened for the family: 1 - 2 α w_k."""
        return 1 - 2 * self.error * self.spend[look - 1]

    def spent(self, look: int) -> float:
        """The error that the looks up to this one have spent."""
        return self.error * math.fsum(self.spend[:look])


def single_look(seeds: int, error: float) -> Design:
    """The design that decides once, with all of its error."""
    return Design((seeds,), (1.0,), error)


@dataclass(frozen=True)
class Part:
    """One comparison: ``differences`` in the order of the seeds, each with the size of the numbers subtracted."""

    differences: Floats
    sizes: Floats

    def first(self, seeds: int, hypothesis: Hypothesis, *, sensitivity: bool = False) -> tuple[Paired, Paired]:
        """The tests of the first ``seeds`` differences against zero, and against the margin if there is one.

        sensitivity: as for :func:`one_sample`. Looks need none.
        """
        values, size = self.differences[:seeds], float(np.max(self.sizes[:seeds]))
        plain = one_sample(values, PLAIN_LEVEL, size, sensitivity=sensitivity)
        if hypothesis.margin is None:
            return plain, plain
        return plain, hypothesis.test(values, PLAIN_LEVEL, size, sensitivity=sensitivity)


@dataclass(frozen=True)
class PartOutcome:
    """A part at a look. test: against zero; against: against the margin, if there is one, else the same.

    interval: the one that decides, at ``level``. verdict: of the part, at the claim's own level.
    """

    test: Paired
    against: Paired
    interval: tuple[float, float] | tuple[None, None]
    level: float
    verdict: Verdict


@dataclass(frozen=True)
class Outcome:
    """Where a test stands: at the look that decided it, or at the last one for which all seeds are there.

    look: 0 while the seeds of the first look are not complete. n: seeds at that look. spent: error spent up to it.
    stopped: for futility. finished: nothing more is to be trained. p: of the look, two-sided, of support (see
    :meth:`Hypothesis.p_of_support`). adjusted_p: over looks and family, min over looks of m p_k / w_k, at most 1, with
    the one-sided p_k of support: it is below the error where support was decided.
    """

    verdict: Verdict
    look: int
    n: int
    spent: float
    stopped: bool
    finished: bool
    p: float | None
    adjusted_p: float | None
    parts: tuple[PartOutcome, ...]


def evaluate_looks(hypothesis: Hypothesis, parts: Sequence[Part], design: Design, family: int) -> Outcome:
    """The looks in their order, up to the first that decides or stops, or the last with complete seeds.

    parts: all are needed (intersection-union); one alone refutes, at a level that is corrected for their number too.
    Every part starts with the first seed and has no gap.
    Raises ResultError without a part, ConfigError for a family below 1.
    """
    check_family(family)
    if not parts:
        raise ResultError("looks: at least one part is needed")
    complete = min(part.differences.size for part in parts)
    outcome = Outcome("inconclusive", 0, 0, 0.0, False, False, None, None, ())
    adjusted: list[float] = []
    for look, n in enumerate(design.looks, 1):
        if n > complete:
            break
        found = [part.first(n, hypothesis) for part in parts]
        results = [_part(hypothesis, *tests, design.level(look), family, len(parts)) for tests in found]
        verdict = all_parts([part.verdict for part, _ in results], [alone for _, alone in results])
        one_sided = conjunction_p([hypothesis.one_sided_p(against) for _, against in found])
        if one_sided is not None:
            adjusted.append(min(1.0, family * one_sided / design.spend[look - 1]))
        last = look == len(design.looks)
        stopped = (
            verdict == "inconclusive"
            and not last
            and is_futile(hypothesis, [test for test, _ in found], design, family)
        )
        outcome = Outcome(
            verdict=verdict,
            look=look,
            n=n,
            spent=design.spent(look),
            stopped=stopped,
            finished=verdict != "inconclusive" or stopped or last,
            p=conjunction_p([hypothesis.p_of_support(against) for _, against in found]),
            adjusted_p=min(adjusted, default=None),
            parts=tuple(part for part, _ in results),
        )
        if outcome.finished:
            break
    return outcome


def _part(
    hypothesis: Hypothesis, test: Paired, against: Paired, level: float, family: int, parts: int
) -> tuple[PartOutcome, Verdict]:
    """The part, and the verdict by which it alone refutes the whole. The interval shown is the one that decided."""
    own, alone = hypothesis.verdicts(test, level, family, parts)
    size = family * parts if alone == "refuted" else family
    shown = PartOutcome(test, against, simultaneous_interval(test, size, level), simultaneous_level(level, size), own)
    return shown, alone


# ----------------------------------------------------------------------------------------------- looking ahead


def segments(hypothesis: Hypothesis, half: float) -> list[tuple[float, float, Verdict]]:
    """Where the middle of an interval of half-width ``half`` gives which verdict: (from, to, verdict), in order."""
    size = hypothesis.smallest_effect or 0.0
    worse = 1.0 if hypothesis.side == "below" else -1.0
    marks = {0.0, size, -size} if hypothesis.margin is None else {worse * hypothesis.margin}
    edges = sorted({mark + sign * half for mark in marks for sign in (-1, 1)})
    reach = 1 + abs(edges[0]) + abs(edges[-1])
    found = []
    for low, high in pairwise([-math.inf, *edges, math.inf]):
        middle = (max(low, -reach) + min(high, reach)) / 2
        found.append((low, high, hypothesis.decide((middle - half, middle + half))))
    return found


def is_futile(hypothesis: Hypothesis, tests: Sequence[Paired], design: Design, family: int) -> bool:
    """Whether the last look would decide nothing at any truth within one standard error of the estimates.

    tests: the parts at a look. The last look's interval is taken to lie around the truth, with today's spread. Without
    a spread nothing is said. The stop is non-binding: to continue would not raise the rate of wrong verdicts.
    """
    last = len(design.looks)
    supportable, refutable = True, False
    for test in tests:
        if not test.sd:
            return False
        error = test.sd / math.sqrt(test.n)
        low, high = test.difference - error, test.difference + error

        def possible(size: int, test: Paired = test, low: float = low, high: float = high) -> set[Verdict]:
            assert test.sd is not None
            half = half_width(test.sd, design.looks[-1], simultaneous_level(design.level(last), size))
            return {verdict for start, end, verdict in segments(hypothesis, half) if start < high and end > low}

        supportable &= "supported" in possible(family)
        refutable |= "refuted" in possible(family * len(tests))
    return not supportable and not refutable


def chance_of_decision(
    hypothesis: Hypothesis, tests: Sequence[Paired], design: Design, look: int, family: int
) -> float:
    """The predictive probability that the look after ``look`` decides, given what the parts show at it.

    With n pairs now, N at the next look and standard deviation s, the next mean lies around the present one with the
    standard error s √((N - n) / (N n)) and n - 1 degrees of freedom: a flat prior, today's spread. Several parts are
    taken to be independent. Raises ResultError if there is no further look.
    """
    if not 1 <= look < len(design.looks):
        raise ResultError(f"chance: a look with another one after it is needed, got {look} of {len(design.looks)}")
    now, then, level = design.looks[look - 1], design.looks[look], design.level(look + 1)
    all_support, none_refutes = 1.0, 1.0
    for test in tests:
        if not test.sd:
            return 0.0
        scale = test.sd * math.sqrt((then - now) / (then * now))

        def chance(wanted: Verdict, size: int, test: Paired = test, scale: float = scale) -> float:
            assert test.sd is not None
            half = half_width(test.sd, then, simultaneous_level(level, size))
            places = [(low, high) for low, high, verdict in segments(hypothesis, half) if verdict == wanted]
            ends = (np.array(places).reshape(-1, 2) - test.difference) / scale
            below = scipy.special.stdtr(now - 1.0, ends)
            return float((below[:, 1] - below[:, 0]).sum())

        all_support *= chance("supported", family)
        none_refutes *= 1 - chance("refuted", family * len(tests))
    return min(1.0, all_support + 1 - none_refutes)
