"""The rounds in which a study is trained: the seeds of its tables, then block by block what undecided claims need.

Each round is an ordinary plan: which runs it has is known before it begins. What a later round has follows from the
results of the earlier ones. A kill at any moment leaves results from which the same rounds follow.
"""

from __future__ import annotations

from collections.abc import Callable

from collabench.core.errors import Log
from collabench.core.resources import Resources
from collabench.study.blocks import blocks_of_round, describe, seconds_left
from collabench.study.growth import Round, in_progress
from collabench.study.study import Study
from pipeline import plan


def train(study: Study, resources: Resources, run: Callable[[Study], int], log: Log) -> int:
    """Train the study round by round, until its claims need nothing more or the hours are over.

    run: schedules the jobs of one round; its exit code. Returns the first code that is not 0. Claims that need no
    failed run continue all the same. On a host that has a part of the study, the rounds end when another part's results
    are needed.
    """
    number, worst, begun = 0, 0, set[str]()
    while True:
        number += 1
        study = study.grown()
        blocks = blocks_of_round(study, resources, {job.configuration.id for job in plan.jobs_of_part(study)})
        chosen = plan.with_blocks(study, [block.numbers for block in blocks])
        todo = {job.id for job in plan.jobs_of_part(chosen) if not job.marker.exists()} - begun
        if number > 1 and not todo:
            break
        begun |= todo
        if number > 1:
            log(f"round {number}: {describe(blocks)}")
        plan.choose_study(chosen, resources)
        numbers = tuple(block.numbers for block in blocks)
        with in_progress(study.workspace, Round(number=number, blocks=numbers)):
            code = run(chosen)
        if code and not plan.lacks_failed_runs_only(chosen):
            return code
        worst = worst or code
    waiting = sum(state.open for state in study.claims)
    if waiting:
        log(f"undecided claims that need more seeds: {waiting}; {_why(worst)}")
    return worst


def _why(code: int) -> str:
    if code:
        return "runs that they need have failed"
    if seconds_left() is not None:
        return "no further block of seeds ends within the hours"
    return "they need results of another part"
