"""One module per kind of job: ``python -m pipeline.stages.<stage> <profile> [<what>]``, run in the project's root.

A job runs in a fork of the server of jobs where there is one, and in its own process otherwise. So the modules import
what takes long inside their ``main``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from collabench.core.device_errors import is_shortage_of_memory, shortage_of_memory
from collabench.core.errors import CollabenchError
from collabench.core.text import printable

ROOT = Path(__file__).resolve().parent.parent.parent

#: How long a DVC's record of what it writes says who started this process.
_RECENT_SECONDS = 60


def log(text: str) -> None:
    """A line for the log, at once. It begins with the program's name, by which ``collabench reproduce`` tells it apart
    from what Snakemake and DVC say."""
    print(f"collabench: {printable(text)}", flush=True)


def run_stage(stage: Callable[..., int | None], arguments: Sequence[str]) -> int:
    """Run a stage; its exit code. A user's mistake is one line and exit code 2."""
    os.chdir(ROOT)  # a served job begins where its server did
    try:
        return stage(*arguments) or 0
    except Exception as error:
        if is_shortage_of_memory(error):
            said = shortage_of_memory(error)
        elif isinstance(error, (CollabenchError, OSError)):  # OSError: a full disk, a folder that must not be written
            said = str(error)
        else:
            raise
        print(f"collabench: error: {said}", file=sys.stderr)
        return 2


def start(module: str) -> NoReturn:
    """Run ``main`` of a module on this process's arguments: in a fork of the server of jobs, or here."""
    from collabench.core.processes import end_with_parent
    from collabench.core.server import ask

    end_with_parent()
    if _dvc_is_gone():
        print("collabench: error: the DVC that started this stage has ended; start it again", file=sys.stderr)
        sys.exit(143)
    code = ask(module, sys.argv[1:])
    if code is None:
        code = import_module(module).main(sys.argv[1:])
    sys.exit(code)


def _dvc_is_gone() -> bool:
    """Whether a DVC started this process, and was killed before the process could ask to end with it.

    DVC records who writes the outputs of a stage before it starts the stage. Such a record may be old, and this
    process started by hand: it counts only for a minute, and only for a process that has lost its parent.
    """
    parent = os.getppid()
    try:
        if parent != 1 and os.getsid(parent) == os.getsid(0):
            return False
        record = ROOT / ".dvc" / "tmp" / "rwlock"
        if time.time() - record.stat().st_mtime > _RECENT_SECONDS:
            return False
        mine = str(ROOT / "artifacts" / sys.argv[1]) + os.sep
        writers = {
            one["pid"] for path, one in json.loads(record.read_bytes())["write"].items() if path.startswith(mine)
        }
        return bool(writers) and not any(_lives(pid) for pid in writers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
