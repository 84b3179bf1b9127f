"""How far a study's claims are, as ``collabench plan`` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collabench.report.looks import ClaimState
    from collabench.study.blocks import Block
    from collabench.study.study import Study


def claims_of(study: Study) -> list[dict[str, Any]]:
    """One record for each claim and scope of a sequential design: those with a next block of seeds first, in the order
    in which they are trained."""
    from collabench.study.blocks import next_blocks, seconds_of

    if not study.claims:
        return []
    # without torch, which would say what this machine has
    seconds = {name: s for device in ("cuda", "cpu") for name, s in seconds_of(study, device).items()}
    blocks = next_blocks(study, seconds)
    ended = [state for state in study.claims if not state.open]
    return [_record(block.claim, block) for block in blocks] + [_record(state) for state in ended]


def _record(state: ClaimState, block: Block | None = None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "claim": state.claim,
        "scope": state.scope,
        "compared": state.compared,
        "verdict": state.verdict,
        "stopped": state.stopped,
        "look": state.look,
        "looks": list(state.looks),
        "seeds": state.seeds,
    }
    if block is not None:
        record["next"] = {
            "seeds": state.wanted,
            "runs": len(block.runs),
            "process_seconds": block.seconds,
            "chance": state.chance,
        }
    return record


def line_of(claim: dict[str, Any]) -> str:
    """A record as one line: ``a in b: undecided at look 1 of 4 (16 seeds); next look at 32 seeds (…)``."""
    name = f"{claim['claim']} in {claim['scope']}" + (f" ({claim['compared']})" if claim["compared"] else "")
    look, looks = claim["look"], claim["looks"]
    place = f"look {look} of {len(looks)} ({looks[look - 1]} seeds)" if look else f"{claim['seeds']} seeds"
    if claim["verdict"] is not None:
        return f"{name}: {claim['verdict']} at {place}"
    if claim["stopped"]:
        return f"{name}: stopped at {place}; it would need more than {looks[-1]} seeds"
    if "next" not in claim:
        known = look == len(looks)
        return f"{name}: " + (f"inconclusive at {place}, the last" if known else "its runs are in no table")
    further = claim["next"]
    cost = "cost unknown" if further["process_seconds"] is None else _time(further["process_seconds"])
    chance = "" if further["chance"] is None else f", decides with {100 * further['chance']:.0f} %"
    before = f"undecided at {place}" if look else f"before its first look, {place}"
    return f"{name}: {before}; next look at {further['seeds']} seeds (further runs: {further['runs']}, {cost}{chance})"


def summary_of(claims: list[dict[str, Any]]) -> str:
    """How many claims are decided, and what the others need."""
    waiting = [claim["next"] for claim in claims if "next" in claim]
    decided = sum(claim["verdict"] is not None for claim in claims)
    text = f"decided claims: {decided} of {len(claims)}"
    if waiting:
        known = [one["process_seconds"] for one in waiting if one["process_seconds"] is not None]
        text += f"; undecided: {len(waiting)}, further runs: {sum(one['runs'] for one in waiting)}"
        text += f", {_time(sum(known))}" if len(known) == len(waiting) else ""
    return text


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.2f} process hours" if seconds >= 36 else f"{seconds:.0f} process seconds"
