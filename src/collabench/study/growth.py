"""How a study grows: further seeds for the claims that are undecided.

What a study needs follows from its claims, its tables and the results on disk alone. There is no file that says how far
it is: after a kill, an import or a pull the same seeds are needed as without. While results are added, a study never
comes to need fewer seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from collabench.config.params import Params
from collabench.config.plan import Growth, Plan
from collabench.core.errors import ResultError
from collabench.core.record import Record
from collabench.papers.claims import load_claims
from collabench.report.looks import ClaimState, claim_states
from collabench.storage.files import read_json, write_json
from collabench.storage.workspace import Workspace

#: Environment variable with the growth that a scheduler has found. Its jobs plan with it: what they would find by
#: themselves changes while other jobs finish.
GROWTH = "COLLABENCH_GROWTH"


def states_of(params: Params, plan: Plan, workspace: Workspace) -> tuple[ClaimState, ...]:
    """How far each claim about errors is, from the results on disk; none if the profile has no sequential design."""
    claims = load_claims(workspace.papers, params)
    grows = plan.profile in claims.designs or plan.profile in claims.replicated
    return claim_states(claims, params, plan, workspace) if grows else ()


def growth_of(states: Sequence[ClaimState], plan: Plan) -> Growth | None:
    """The seeds that these claims have used and need next, in the order of the claims; None without claims."""
    if not states:
        return None
    tables = {len(cell.seeds) for cell in plan.cells}
    return Growth(
        reached=_most((state, state.looks[state.look - 1]) for state in states if state.look),
        blocks=tuple(dict.fromkeys(state.configurations, state.wanted) for state in states if state.open),
        last=_most((state, state.looks[-1]) for state in states),
        edges=tuple(sorted(tables.union(*(state.looks for state in states)))),
    )


def _most(numbers: Iterable[tuple[ClaimState, int]]) -> dict[str, int]:
    most: dict[str, int] = {}
    for state, number in numbers:
        for name in state.configurations:
            most[name] = max(number, most.get(name, 0))
    return most


def only(growth: Growth | None, blocks: Sequence[Mapping[str, int]] = ()) -> Growth | None:
    """The growth with these blocks, in this order, in place of its own."""
    return growth and Growth(growth.reached, tuple(blocks), growth.last, growth.edges)


# ------------------------------------------------------------------------------------------- from process to process


def environment(profile: str, growth: Growth | None) -> dict[str, str]:
    """What a scheduler's jobs find in their environment."""
    if growth is None:
        return {}
    fields = {
        "reached": dict(growth.reached),
        "blocks": [dict(block) for block in growth.blocks],
        "last": dict(growth.last),
        "edges": list(growth.edges),
    }
    return {GROWTH: json.dumps({"profile": profile, **fields}, separators=(",", ":"))}


@contextmanager
def given_to_children(profile: str, growth: Growth | None) -> Iterator[None]:
    """Let processes that start meanwhile plan with this growth."""
    os.environ.update(environment(profile, growth))
    try:
        yield
    finally:
        os.environ.pop(GROWTH, None)


def from_environment(profile: str) -> Growth | None:
    """The growth that this process's scheduler has found for the profile; None if there is none."""
    text = os.environ.get(GROWTH)
    found = json.loads(text) if text else {}
    if found.get("profile") != profile:
        return None
    return Growth(found["reached"], tuple(found["blocks"]), found["last"], tuple(found["edges"]))


# ------------------------------------------------------------------------------------------------- for those who wait


class Round(Record):
    """The round of training that is in progress. blocks: as in :class:`~collabench.config.plan.Growth`."""

    number: int
    blocks: tuple[dict[str, int], ...]


@contextmanager
def in_progress(workspace: Workspace, current: Round) -> Iterator[None]:
    """Let those who wait know of a round while it lasts. Nothing else reads it."""
    write_json(workspace.round, current, durable=False)
    try:
        yield
    finally:
        workspace.round.unlink(missing_ok=True)


def round_in_progress(workspace: Workspace) -> Round | None:
    """The round that is in progress; None between rounds, or if no scheduler tells it."""
    try:
        return read_json(workspace.round, Round) if workspace.round.exists() else None
    except ResultError:
        return None
