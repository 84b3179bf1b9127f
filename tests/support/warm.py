"""Commands in a fork of a process that has imported everything, where the start of Python is not what is tested.

A process of ``collabench``, DVC or Snakemake needs seconds of a processor before it begins, most of them for ``import
torch``. :func:`command` turns the command line of one into that of a small client. The client asks a server of jobs
(``collabench.core.server``) that this test process starts with its first such command, and ends as the command does.
Where the server refuses (another arithmetic or number of threads, or a system without forks), where the project has
methods of its own, and where its library is not this tree's, the client runs the command itself.

Tests that kill processes, or look at them from outside, start them without this.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Environment variable with the path of this server's socket.
WARM = "COLLABENCH_TEST_WARM"

#: The package of a project's own methods.
OWN = "collabench_methods"

#: What ``python -c`` is given for the command line.
CODE = "from collabench.cli import main; main()"

#: Programs that are started as ``python -m NAME``.
NAMES = ("collabench", "dvc", "snakemake")

#: What the commands of the tests import.
MODULES = (
    "collabench.cli.claims", "collabench.cli.data", "collabench.cli.doubts", "collabench.cli.estimate",
    "collabench.cli.evaluate", "collabench.cli.project", "collabench.cli.report", "collabench.cli.reproduce",
    "collabench.cli.sharing", "collabench.cli.study", "collabench.report.build", "collabench.report.pages.terminal",
    "collabench.study.runner", "collabench.study.study", "collabench.study.variants", "collabench.study.cleanup",
    "collabench.study.other_code", "collabench.training", "dvc.cli", "dvc.repo", "dvc.commands.repro",
    "dvc.commands.data_sync", "dvc.commands.status", "dvc_data.index", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "snakemake.api", "snakemake.cli", "snakemake.workflow", "sklearn.datasets",
)  # fmt: skip


def command(arguments: Sequence[str], variables: dict[str, str]) -> list[str]:
    """The command line of a client, if these arguments start one of the programs above; otherwise they as they are.

    variables: the command's environment, to which the server's address is added.
    """
    program = tuple(arguments[:3])
    known = program in {(sys.executable, "-c", CODE), *((sys.executable, "-m", name) for name in NAMES)}
    if not known or not _library_is_this_trees(variables):
        return list(arguments)
    address = _server()
    if address is None:
        return list(arguments)
    variables[WARM] = address
    return [sys.executable, __file__, *("" if part == CODE else part for part in arguments[2:])]


def with_programs(variables: dict[str, str]) -> dict[str, str]:
    """The environment of a shell in which ``collabench``, ``dvc`` and ``snakemake`` are such clients."""
    address = _server() if _library_is_this_trees(variables) else None
    if address is None:
        return variables
    return variables | {WARM: address, "PATH": f"{_programs()}{os.pathsep}{variables['PATH']}"}


@cache
def _programs() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="collabench-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in NAMES:
        text = f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "/{name}" "$@"\n'
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def _library_is_this_trees(variables: Mapping[str, str]) -> bool:
    """Whether a process with this environment would import the library of this tree, or a copy of it."""
    library = Path(variables.get("PYTHONPATH", "").split(os.pathsep)[0]) / "collabench"
    return library == ROOT / "src" / "collabench" or _files(library) == _own_files()


@cache
def _own_files() -> dict[str, bytes]:
    return _files(ROOT / "src" / "collabench")


def _files(library: Path) -> dict[str, bytes]:
    return {str(path.relative_to(library)): path.read_bytes() for path in library.rglob("*.py")}


@cache
def _server() -> str | None:
    """Start the server, which ends with this process; the path of its socket, or None if it cannot be started."""
    from tests.support.project import environment

    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.support.warm import serve_until_the_end; serve_until_the_end()"],
        cwd=ROOT, env=_shared(environment(ROOT)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    return process.stdout.readline().strip() or None


def _shared(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment without what the server need not have in common with a command, which gets it afterwards."""
    others = {name: value for name, value in variables.items() if not name.startswith(("PYTHON", "CUDA_"))}
    return others | {"PYTHONPATH": str(ROOT / "src")}


def serve_until_the_end() -> None:
    """Import everything, serve, and print the socket's path; end when standard input does."""
    import collabench  # noqa: F401  # holds the environment to the arithmetic
    from collabench.core.server import dismiss, serve

    before = dict(os.environ)
    for name in MODULES:
        import_module(name)
    import_module("collabench.study.source_code").read_all()
    os.environ.clear()  # what scikit-learn has set, a client has not
    os.environ.update(before)
    gc.freeze()
    path = serve()
    print(path or "", flush=True)
    sys.stdin.read()
    dismiss(path)


# ---------------------------------------------------------------------------------- in the client and in the fork


def main(arguments: Sequence[str]) -> None:
    """In a fork of the server: become the command. arguments: its folder, environment and words."""
    folder, variables, *words = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(json.loads(variables))
    # The server's were opened for other files: where one was on a disk and this one is a pipe, it cannot be sought in.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    _run(words)


def _run(words: Sequence[str]) -> None:
    if words[0].startswith("/"):  # a program: not called "python -m …" in what it says
        sys.argv = [words[0][1:], *words[1:]]
        main = import_module(f"{words[0][1:]}.cli").main  # in all three
        sys.exit(main())
    if words[0]:
        sys.argv = [words[0], *words[1:]]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *words[1:]]
        import_module("collabench.cli").main()


def _ask() -> None:
    """In the client: let the server run the command, or run it here."""
    address = os.environ.pop(WARM)
    from collabench.core.server import SERVER, ask  # holds the environment to the arithmetic, as in the server

    given = dict(os.environ)
    sys.path[0] = os.getcwd()  # as for `python -m`; this file's folder is there
    if Path(OWN).is_dir():  # found when the library is imported, which the server has done
        _run(sys.argv[1:])
        sys.exit()
    os.environ.clear()
    os.environ.update(_shared(given) | {SERVER: address})
    code = ask("tests.support.warm", [os.getcwd(), json.dumps(given), *sys.argv[1:]])
    os.environ.clear()
    os.environ.update(given)
    if code is None:
        _run(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        _ask()
