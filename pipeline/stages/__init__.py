"""One module per kind of job: ``python -m pipeline.stages.<stage> <profile> [<what>]``, run in the project's root.

A job runs in a fork of the server of jobs where there is one, and in its own process otherwise. So the modules import
what takes long inside their ``main``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from collabench.core.errors import CollabenchError

ROOT = Path(__file__).resolve().parent.parent.parent


def log(text: str) -> None:
    """A line for the log, at once."""
    print(text, flush=True)


def run_stage(stage: Callable[..., int | None], arguments: Sequence[str]) -> int:
    """Run a stage; its exit code. A user's mistake is one line and exit code 2."""
    os.chdir(ROOT)  # a served job begins where its server did
    try:
        return stage(*arguments) or 0
    except (CollabenchError, OSError) as error:  # OSError: a full disk, a folder that must not be written
        print(f"collabench: error: {error}", file=sys.stderr)
        return 2


def start(module: str) -> NoReturn:
    """Run ``main`` of a module on this process's arguments: in a fork of the server of jobs, or here."""
    from collabench.core.processes import end_with_parent
    from collabench.core.server import ask

    end_with_parent()
    code = ask(module, sys.argv[1:])
    if code is None:
        code = import_module(module).main(sys.argv[1:])
    sys.exit(code)
