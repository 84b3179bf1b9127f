"""The page of a replication, and its section in the overview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas

from collabench.report.formatting import markdown, number
from collabench.report.replication import RepeatedEffect, RepeatedTest, Replication
from collabench.storage.files import write_json

PAGE, JSON = "replication.md", "replication.json"

HOW = """\
Each test that the first studies have decided is made once more, on seeds that they did not use, with as many seeds as
the look that decided had. `papers/replications.yaml` lists the tests and the first effects; it was written before these
runs. The second verdict uses the whole error of a family at its one look.

*Same sign*: both estimates lie on the same side of zero. *In the first interval*: the second estimate lies in the first
95 % interval; if nothing but chance differs, about 83 % do. *As predicted*: it lies in that interval widened by √2; if
nothing but chance differs, about 95 % do. Where a first interval contains zero, as in “no worse” or “too small to
matter”, the sign says little: these effects are counted apart. Estimates that were frozen at an early look overstate
the effect on average, so that second estimates are closer to zero.
"""


def write_replication(folder: Path, replication: Replication | None) -> None:
    """Write the page, as markdown and JSON; nothing if there is no replication."""
    if replication is not None:
        (folder / PAGE).write_bytes(page(replication).encode())
        write_json(folder / JSON, replication)


def overview(replication: Replication | None) -> list[str]:
    """The section of the report's overview; empty if there is no replication."""
    if replication is None:
        return []
    return ["## Do the first studies' effects come back?", *counts(replication), f"Test by test: [{PAGE}]({PAGE})."]


def counts(replication: Replication) -> list[str]:
    """One sentence for each question."""
    tests = replication.tests
    states = [test.state for test in tests]
    told = [
        f"**{states.count('the same')} of {len(tests)} decided tests reach the same verdict again**"
        + "".join(
            f"; {states.count(state)} {words}"
            for state, words in (
                ("undecided", "are undecided this time"),
                ("the other", "reach the other verdict"),
                ("not run", "have not been run"),
            )
            if state in states
        )
        + "."
    ]
    clear = [effect for effect in replication.effects if not effect.first.low <= 0 <= effect.first.high]
    unclear = [effect for effect in replication.effects if effect.first.low <= 0 <= effect.first.high]
    for effects, which in (
        (clear, "whose first interval excludes zero"),
        (unclear, "whose first interval contains it"),
    ):
        if effects:
            noun = "effect" if len(effects) == 1 else "effects"
            told.append(f"Of {len(effects)} {noun} {which}: {_agreeing(effects)}.")
    return told


def _agreeing(effects: Sequence[RepeatedEffect]) -> str:
    sign, inside, predicted = (
        sum(getattr(effect, name) for effect in effects) for name in ("same_sign", "inside", "predicted")
    )
    return f"same sign {sign}, in the first interval {inside}, as predicted {predicted}"


def page(replication: Replication) -> str:
    lines = [f"# Replication, the profile `{replication.profile}`", "[Overview](README.md)", HOW.strip()]
    lines += counts(replication)
    for first in dict.fromkeys(test.first for test in replication.tests):
        tests = [test for test in replication.tests if test.first == first]
        lines.append(f"## Decided by the profile `{first}`")
        for test in tests:
            lines += _test(test)
    return "\n\n".join(lines) + "\n"


def _test(test: RepeatedTest) -> list[str]:
    of = f"{test.compared}, " if test.compared else ""
    lines = [
        f"**{test.statement}** ({of}{', '.join(test.where)}; `{test.claim}`)",
        f"First {test.first_verdict}, now {test.verdict}: {test.state}. {test.seeds} seeds each.",
    ]
    if not test.effects:
        return lines
    answers = ("Same sign", "In the first interval", "As predicted")
    rows = [
        {
            "Compared": effect.compared,
            "First [95 % interval]": _interval(effect.first.estimate, effect.first.low, effect.first.high),
            "Now [95 % interval]": _interval(effect.estimate, effect.low, effect.high),
            **dict(zip(answers, map(_yes, (effect.same_sign, effect.inside, effect.predicted)), strict=True)),
        }
        for effect in test.effects
    ]
    return [*lines, markdown(pandas.DataFrame(rows), words=answers)]


def _interval(estimate: float, low: float, high: float) -> str:
    decimals = 2 if max(abs(low), abs(high)) >= 0.2 else 4
    shown = [number(value, decimals, signed=True) for value in (estimate, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
