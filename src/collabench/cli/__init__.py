"""The command ``collabench``: one file for each group of commands, imported in the order of ``--help``.

Commands import what they need when they run, so that ``--help`` is quick.
"""
# ruff: noqa: I001

from __future__ import annotations

from collabench.cli.app import main
from collabench.cli import study
from collabench.cli import estimate
from collabench.cli import reproduce
from collabench.cli import report
from collabench.cli import doubts
from collabench.cli import evaluate
from collabench.cli import sharing
from collabench.cli import data
from collabench.cli import machine
from collabench.cli import project

__all__ = [
    "data",
    "doubts",
    "estimate",
    "evaluate",
    "machine",
    "main",
    "project",
    "report",
    "reproduce",
    "sharing",
    "study",
]
