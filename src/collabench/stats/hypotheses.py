"""A claim about a difference: how it is tested, decided and planned for.

All differences are treatment minus baseline. ``docs/statistics.md`` says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from collabench.stats.families import simultaneous_interval
from collabench.stats.power import SeedsNeeded, seeds_needed
from collabench.stats.samples import Paired, one_sample
from collabench.stats.verdicts import Side, Verdict, decide, no_worse


@dataclass(frozen=True)
class Hypothesis:
    """The difference lies on ``side`` and is no smaller than ``smallest_effect``.

    With a ``margin`` instead: it is worse by less than the margin, where ``side`` is the better one.
    """

    side: Side
    smallest_effect: float | None = None
    margin: float | None = None

    def test(
        self, differences: ArrayLike, level: float, magnitude: float | None = None, *, sensitivity: bool = True
    ) -> Paired:
        """The test of the differences against zero, or against the margin (see :func:`one_sample`)."""
        shift = 0.0 if self.margin is None else self.margin if self.side == "below" else -self.margin
        return one_sample(np.asarray(differences) - shift, level, magnitude, sensitivity=sensitivity)

    def decide(self, interval: tuple[float, float] | tuple[None, None]) -> Verdict:
        """The verdict that an interval of the difference gives."""
        low, high = interval
        if self.margin is not None:
            return no_worse(low, high, self.margin, self.side)
        return decide(low, high, self.side, self.smallest_effect)

    def verdicts(self, found: Paired, level: float, family: int, parts: int) -> tuple[Verdict, Verdict]:
        """The verdict on one of several ``parts``, which are all needed, and the one by which it refutes the whole.

        One part alone refutes, so that side is corrected for the number of parts too.
        """
        own, alone = (simultaneous_interval(found, size, level) for size in (family, family * parts))
        return self.decide(own), self.decide(alone)

    def p_of_support(self, test: Paired) -> float | None:
        """Two-sided p, or 1 if the difference lies on the other side, so that a conjunction does not count it as
        support."""
        if test.p is None:
            return None
        return test.p if (test.difference > 0) == (self.side == "above") else 1.0

    def one_sided_p(self, test: Paired) -> float | None:
        """p of support: one-sided, toward the claimed side, or of being better than the margin."""
        if test.p is None:
            return None
        return test.p / 2 if (test.difference > 0) == (self.side == "above") else 1 - test.p / 2

    def planned_effect(self, published: float | None = None) -> float:
        """The effect for which the number of seeds is planned. It is never the observed one.

        It is the published effect if that is on the claimed side, else the smallest effect of interest. With a margin
        it is the margin, which assumes that there is no difference.
        """
        if self.margin is not None:
            return self.margin
        if published and (published > 0) == (self.side == "above"):
            return abs(published)
        assert self.smallest_effect is not None, "checked where the hypothesis is read"
        return self.smallest_effect

    def seeds_needed(self, published: float | None, found: Paired, level: float) -> SeedsNeeded:
        """How many seeds would show the planned effect at ``level``, with the spread of those that were found."""
        return seeds_needed(self.planned_effect(published), found.sd, found.n, level)


def told_apart(holm_p: float | None, level: float = 0.95) -> bool:
    """Whether a comparison in a table differs from its baseline, by Holm's adjusted p."""
    return holm_p is not None and holm_p < round(1 - level, 12)


def equality(equal: bool | None) -> Verdict:
    """The verdict on two things that should be equal; ``None``: it cannot be told."""
    return "inconclusive" if equal is None else "supported" if equal else "refuted"
