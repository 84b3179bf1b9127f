"""What one check of a GPU found."""

from __future__ import annotations

from typing import Literal

from collabench.core.record import Record

#: ``skipped``: the check does not apply here. ``note``: something to know that is no fault.
Verdict = Literal["ok", "FAILED", "note", "skipped"]


class Check(Record):
    """One check. ``part``: its group. ``text``: what was found; where a remedy is known, a failed check names it."""

    part: str
    name: str
    verdict: Verdict
    text: str


def judged(part: str, name: str, good: bool, text: str) -> Check:
    """A check that passed or failed."""
    return Check(part=part, name=name, verdict="ok" if good else "FAILED", text=text)
