"""Claims with verdicts that a test writes by hand."""

from __future__ import annotations

from collabench.report.across_profiles import ClaimEverywhere, ScopeTest
from collabench.report.claim_records import PartVerdict, ScopeVerdict

WHERE = ("digits", "clean labels", "ResNet-8", "40 epochs")


def part(low, high, verdict="inconclusive"):
    middle = None if low is None else (low + high) / 2
    return PartVerdict(compared="a against b", n=8, estimate=middle, low=low, high=high, verdict=verdict)


def scope(*parts, verdict="inconclusive", note=None, published=False):
    return ScopeVerdict(
        scope="s", where=WHERE, published=published, declared_after_runs=False, verdict=verdict, parts=parts, note=note
    )


def everywhere(name, *tests, kind="statistical", not_run=()):
    return ClaimEverywhere(
        id=name, paper="p", statement=f"{name}.", source="P", quote="W", reading=None, compared=("A",), hypothesis="",
        unit="points", kind=kind, side="below", bound=0.0, smallest_effect=0.1, not_run=not_run,
        tests=tuple(ScopeTest("small", scope(verdict=verdict), stands, ()) for verdict, stands in tests),
    )  # fmt: skip
