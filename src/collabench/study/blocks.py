"""The next blocks of seeds of a study's undecided claims: what each costs, the chance that it decides, their order.

The order is by expected decisions per hour: the chance that a claim's next look decides it, divided by the time of the
runs that the look lacks. Runs that an earlier block trains cost a later one nothing.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from collabench.config.configuration import Configuration, Run
from collabench.config.plan import with_required
from collabench.core.errors import CollabenchError
from collabench.core.resources import Resources
from collabench.report.looks import ClaimState
from collabench.storage.results import RESULT
from collabench.study.allocation import needs_of_run
from collabench.study.needs import lease_for
from collabench.study.study import Study

#: Environment variable with the time, in seconds since 1970, after which no further block begins.
UNTIL = "COLLABENCH_UNTIL"

#: Factor on the time of training: processes start, and data are opened.
TIME_MARGIN = 1.1
#: Seconds that a round takes beside training: the study is loaded, and Snakemake starts.
ROUND_SECONDS = 10.0


@dataclass(frozen=True)
class Block:
    """What the next look of an undecided claim needs.

    runs: those that are neither there nor in an earlier block, with the runs that they require. seconds: of training,
    summed over the processes; None where the time of a configuration is unknown. longest: seconds of the longest run.
    """

    claim: ClaimState
    runs: tuple[Run, ...]
    seconds: float | None
    longest: float

    @property
    def numbers(self) -> dict[str, int]:
        """Configuration id → number of seeds after the block."""
        return dict.fromkeys(self.claim.configurations, self.claim.wanted)

    @property
    def rate(self) -> float:
        """Expected decisions per second of training. A first look comes first: before it no chance can be told."""
        if self.claim.chance is None or not self.runs:
            return math.inf
        return self.claim.chance / self.seconds if self.seconds else 0.0


class Span:
    """How long a round of chosen runs takes on ``workers`` processes, at most: the bound of list scheduling, with a
    margin."""

    def __init__(self, workers: int) -> None:
        self._workers, self._total, self._longest = max(1, workers), 0.0, 0.0

    def add(self, seconds: float, longest: float) -> None:
        """Choose further runs: their seconds, summed, and those of the longest."""
        self._total += seconds
        self._longest = max(self._longest, longest)

    def with_further(self, seconds: float, longest: float) -> float:
        """Seconds on the clock with these further runs."""
        total, longest = self._total + seconds, max(self._longest, longest)
        return ROUND_SECONDS + TIME_MARGIN * (total / self._workers + (1 - 1 / self._workers) * longest)


def seconds_of(study: Study, device_type: str, runs: Iterable[Run] | None = None) -> dict[str, float]:
    """Configuration id → seconds of one run, as measured or else predicted, where either is known.

    runs: the runs in question; the default are those that the undecided claims' next looks need.
    """
    needs = {name: needs_of_run(study, one, device_type) for name, one in _configurations_of(study, runs).items()}
    return {name: found.usual_seconds for name, found in needs.items() if found is not None}


def timed_seconds_of(study: Study, resources: Resources, runs: Iterable[Run] | None = None) -> dict[str, float]:
    """As :func:`seconds_of`, for every configuration: what is not known is timed, about a second each.

    The seconds of a run in whose place several smaller ones could train on a GPU count for all of them.
    """
    from collabench.study.estimate import predictions_of

    known, chosen = seconds_of(study, resources.device, runs), _configurations_of(study, runs)
    unknown = {name: one for name, one in chosen.items() if name not in known}
    found = predictions_of(study, unknown, resources) if unknown else {}
    seconds = known | {name: prediction.seconds for name, prediction in found.items()}
    if not resources.gpu_memory:
        return seconds
    needs = {name: lease_for(study, one) for name, one in chosen.items()}
    beside = {
        name: len(resources.gpus) if need is None else resources.side_by_side(need) for name, need in needs.items()
    }
    return {name: one * resources.workers / beside[name] for name, one in seconds.items()}


def _configurations_of(study: Study, runs: Iterable[Run] | None) -> dict[str, Configuration]:
    if runs is None:
        runs = [run for state in study.claims if state.open for run in _runs_of(study, state)]
    return {run.configuration.id: run.configuration for run in runs}


def blocks_of_round(study: Study, resources: Resources, part: Set[str]) -> list[Block]:
    """The blocks of seeds that the study's claims need now; after $COLLABENCH_UNTIL is set, those that end before.

    part: ids of the configurations that are trained here. While hours are limited, the tables come before any block.
    """
    left = seconds_left()
    if left is None:
        return next_blocks(study, seconds_of(study, resources.device))
    workspace = study.workspace
    due = [run for run in study.plan.due if run.configuration.id in part]
    if any(not (workspace.folder(run) / RESULT).exists() and not workspace.failure(run.id).exists() for run in due):
        return []
    seconds = timed_seconds_of(study, resources)
    here = {name: found if name in part else 0.0 for name, found in seconds.items()}
    return next_blocks(study, here, resources.workers, left)


def first_looks_within(
    study: Study, due: Sequence[Run], seconds: Mapping[str, float], workers: int, left: float
) -> list[Block]:
    """First looks that end within ``left`` seconds on the clock, where the tables as a whole need longer.

    The cheapest comes first, since before a first look no chance can be told. Looks without a run in ``due`` are left
    out.
    seconds: configuration id → seconds of one run. Looks that lack runs of other configurations are left out.
    """
    waiting = [(state, _missing(study, state)) for state in study.claims if state.open and state.look == 0]
    here, span, there, ordered = {run.id for run in due}, Span(workers), set[str](), list[Block]()
    while waiting:
        found = [
            (block.seconds, place, block)
            for place, (state, runs) in enumerate(waiting)
            if _fits(block := _block(state, [run for run in runs if run.id not in there], seconds), span, left)
        ]
        if not found:
            break
        _, place, cheapest = min(found, key=lambda one: (one[0] or 0.0, one[1]))
        span.add(cheapest.seconds or 0.0, cheapest.longest)
        there |= {run.id for run in cheapest.runs}
        if any(run.id in here for run in waiting[place][1]):
            ordered.append(cheapest)
        del waiting[place]
    return ordered


def clock_seconds(runs: Sequence[Run], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds on the clock that these runs take on ``workers`` processes, at most. All of their times are known."""
    times = [seconds[run.configuration.id] for run in runs]
    return Span(workers).with_further(sum(times), max(times, default=0.0))


def next_blocks(study: Study, seconds: Mapping[str, float], workers: int = 1, left: float | None = None) -> list[Block]:
    """The blocks of the study's undecided claims, in the order in which they are trained.

    seconds: configuration id → seconds of one run. left: seconds on the clock; the blocks end within them. None: all.
    """
    waiting = [(state, _missing(study, state)) for state in study.claims if state.open]
    span, there, ordered = Span(workers), set[str](), list[Block]()
    while waiting:
        found = [
            (block, place)
            for place, (state, runs) in enumerate(waiting)
            if _fits(block := _block(state, [run for run in runs if run.id not in there], seconds), span, left)
        ]
        if not found:
            break
        best, place = max(found, key=lambda pair: pair[0].rate)  # the first of equal ones
        span.add(best.seconds or 0.0, best.longest)
        ordered.append(best)
        there |= {run.id for run in best.runs}
        del waiting[place]
    return ordered


def _fits(block: Block, span: Span, left: float | None) -> bool:
    if left is None:
        return True
    return block.seconds is not None and span.with_further(block.seconds, block.longest) <= left


def _block(state: ClaimState, runs: Sequence[Run], seconds: Mapping[str, float]) -> Block:
    known = [seconds.get(run.configuration.id) for run in runs]
    times = [one for one in known if one is not None]
    return Block(state, tuple(runs), sum(times) if len(times) == len(known) else None, max(times, default=0.0))


def _missing(study: Study, state: ClaimState) -> list[Run]:
    return [run for run in _runs_of(study, state) if not (study.workspace.folder(run) / RESULT).exists()]


def _runs_of(study: Study, state: ClaimState) -> list[Run]:
    seeds = study.profile.seed_range(state.wanted)
    return with_required(Run(study.plan.configurations[name], seed) for seed in seeds for name in state.configurations)


def describe(blocks: Sequence[Block]) -> str:
    """``undecided claims: 3, further runs: 24; first song2018-lower-error in digits-clean, look 2 of 4``."""
    if not blocks:
        return "what was left over"
    first = blocks[0].claim
    runs = len({run.id for block in blocks for run in block.runs})
    return (
        f"undecided claims: {len(blocks)}, further runs: {runs}; first {first.claim} in {first.scope}, "
        f"look {first.look + 1} of {len(first.looks)}"
    )


# ----------------------------------------------------------------------------------------------------- hours


def until_in(hours: float) -> dict[str, str]:
    """What the processes of a study that may take this many hours from now find in their environment."""
    return {UNTIL: f"{time.time() + 3600 * hours:.0f}"}


def seconds_left() -> float | None:
    """Seconds until $COLLABENCH_UNTIL; None without it. Raises CollabenchError if it is no number."""
    text = os.environ.get(UNTIL)
    if not text:
        return None
    try:
        return max(0.0, float(text) - time.time())
    except ValueError:
        raise CollabenchError(f"{UNTIL}={text}: must be a time in seconds since 1970") from None
