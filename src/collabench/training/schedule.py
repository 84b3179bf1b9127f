"""The learning rate of every batch.

Rates that are computed with powers and cosines are rounded to 12 digits, because the last digit can differ between
mathematical libraries.
"""

from __future__ import annotations

import math

from collabench.config.sections import RecipeConfig

#: One cycle: the share of all batches during which the rate rises, from ``learning_rate / FIRST`` on, and the quotient
#: of the first and the last rate. These are the defaults of torch's ``OneCycleLR``.
RISING, FIRST, LAST = 0.3, 25.0, 1e4


def learning_rate(recipe: RecipeConfig, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a batch.

    epoch, step: counted from 0. steps: batches of an epoch. With W batches of warm-up, batch t of all T has
    ``learning_rate * (t + 1) / (W + 1)`` while t < W. After it, ``cosine`` has ``learning_rate * (1 + cos(pi (t - W) /
    (T - W))) / 2``.
    """
    now, every = epoch * steps + step, recipe.epochs * steps
    warmup = recipe.warmup_epochs * steps
    if now < warmup:
        return _rounded(_base(recipe, epoch) * (now + 1) / (warmup + 1))
    if recipe.schedule == "cosine":
        return _rounded(_between(recipe.learning_rate, 0.0, (now - warmup) / (every - warmup)))
    if recipe.schedule == "one_cycle":
        return _rounded(_one_cycle(recipe.learning_rate, now, every))
    return _base(recipe, epoch)


def _base(recipe: RecipeConfig, epoch: int) -> float:
    """The rate of an epoch by the milestones alone."""
    return recipe.learning_rate * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)


def _one_cycle(highest: float, now: int, every: int) -> float:
    first, peak, end = highest / FIRST, RISING * every - 1, every - 1
    if now <= peak:
        return _between(first, highest, now / peak)
    return _between(highest, first / LAST, (now - peak) / (end - peak))


def _between(begin: float, end: float, share: float) -> float:
    """Along half a cosine from ``begin`` (share 0) to ``end`` (share 1)."""
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * share))


def _rounded(rate: float) -> float:
    return float(f"{rate:.12g}")
