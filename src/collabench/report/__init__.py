"""Reports: tables and figures from results, and the accepted ones in git.

Nothing heavy is imported until a function is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collabench.report.accepted import accept, compare
    from collabench.report.build import ReportFiles, build
    from collabench.report.explain import explain
    from collabench.report.pages.terminal import terminal_summary
    from collabench.report.published import PublishedValue

_MODULES = {
    "accept": "accepted",
    "compare": "accepted",
    "build": "assemble",
    "ReportFiles": "assemble",
    "explain": "provenance",
    "PublishedValue": "published",
    "terminal_summary": "terminal",
}

__all__ = ["PublishedValue", "ReportFiles", "accept", "build", "compare", "explain", "terminal_summary"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"collabench.report.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
