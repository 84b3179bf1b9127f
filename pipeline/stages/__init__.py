"""One module per kind of job: ``python -m pipeline.stages.<stage> <profile> [<what>]``, run in the project's root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from collabench.core.errors import CollabenchError

ROOT = Path(__file__).resolve().parent.parent.parent


def log(text: str) -> None:
    """A line for the log, at once."""
    print(text, flush=True)


def run_stage(stage: Callable[..., int | None]) -> None:
    """Run a stage on the command line's arguments; a user's mistake is one line and exit code 2."""
    from collabench.core.processes import end_with_parent

    end_with_parent()
    try:
        sys.exit(stage(*sys.argv[1:]))
    except (CollabenchError, OSError) as error:  # OSError: a full disk, a folder that must not be written
        print(f"collabench: error: {error}", file=sys.stderr)
        sys.exit(2)
