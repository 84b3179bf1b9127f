"""The application: options that commands share, the entry point and the exit codes."""

from __future__ import annotations

import errno
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collabench.core import arithmetic
from collabench.core.device_errors import is_shortage_of_memory, shortage_of_memory
from collabench.core.errors import CollabenchError
from collabench.core.text import PrintableStream
from collabench.core.version import VERSION

if TYPE_CHECKING:
    from collabench.study.study import Study

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Data sets: list, prepare, checksum.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def complete_profile(context: typer.Context, incomplete: str) -> list[str]:
    """The profiles of the project's ``params.yaml`` that begin with ``incomplete``; none if it cannot be read."""
    from collabench.config.yaml_file import read_yaml

    root = context.params.get("root") or HERE
    with suppress(CollabenchError, AttributeError, KeyError, TypeError):
        profiles = read_yaml(Path(root) / "params.yaml").value["profiles"]
        return [name for name in profiles if name.startswith(incomplete)]
    return []


def print_version(wanted: bool) -> None:
    """Print the version and end, if it is wanted."""
    if wanted:
        print(f"collabench {VERSION}")
        raise typer.Exit


Profile = Annotated[
    str, typer.Option("--profile", "-p", help="A profile of params.yaml.", autocompletion=complete_profile)
]
Root = Annotated[Path, typer.Option("--root", help="The project's folder, where params.yaml lies.")]
Cores = Annotated[str | None, typer.Option("--cores", help="Cores to use; default: what this process may use.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="i/k: only part i of k, for k hosts without a cluster; then import.")
]
Gpus = Annotated[str | None, typer.Option("--gpus", help="GPUs to use: 0,1 or none; default: all visible.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="End with exit code 1 where any byte differs from the accepted report.")
]
Hours = Annotated[
    float | None, typer.Option("--hours", help="Extend undecided claims only by blocks of seeds that end within them.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.name.key=value in place of a value of params.yaml; repeatable."),
]
HERE = Path(".")

#: What typer raises for a mistake in the command line.
_UsageError: Any = typer.BadParameter.__mro__[1]

#: Exit code of a command that was interrupted: 128 plus the number of SIGINT.
_INTERRUPTED = 130


@app.callback()
def everywhere(
    arithmetic_: Annotated[
        str | None,
        typer.Option(
            "--arithmetic",
            help="portable: as the recipes say. native: torch's own in all of them, which gives other run ids.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Re-run three papers on collaborative learning of neural networks and see which of their numbers hold."""
    if arithmetic_ is not None:
        arithmetic.choose(arithmetic_)


def check_hours(hours: float | None) -> None:
    """Raise CollabenchError unless a number of hours is above 0, or None."""
    if hours is not None and not 0 < hours < float("inf"):
        raise CollabenchError(f"--hours {hours:g}: must be a number of hours above 0")


def open_study(root: Path, profile: str, settings: list[str] | None = None) -> Study:
    from collabench.papers.claims import check_papers
    from collabench.study.study import load_study

    study = load_study(root.resolve(), profile, settings=settings or ())
    # checked before anything runs, because the report needs them at the end
    check_papers(study.workspace.papers, study.params)
    return study


def _find_own_methods() -> None:
    """Let methods in the project's folder ``collabench_methods`` be found, by child processes, too.

    The folder is appended to Python's path, so that nothing in it hides a package.
    """
    words = [word for argument in sys.argv[1:] for word in argument.split("=", 1)]
    folder = str(Path(words[words.index("--root") + 1] if "--root" in words[:-1] else ".").resolve())
    if (Path(folder) / "collabench_methods").is_dir() and folder not in sys.path:
        sys.path.append(folder)


def main() -> None:
    """Entry point. A user's mistake gives one line and exit code 2; Ctrl-C gives exit code 130."""
    # before torch is imported: cores are used by processes, not by threads
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _find_own_methods()
    shown = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(PrintableStream, shown)
    try:
        _main()
    finally:
        sys.stdout, sys.stderr = shown


def _call() -> None:
    """Run the command that the command line names, and end with its exit code.

    Raises CollabenchError for a mistake in the command line, of which typer itself would print four lines.
    """
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no command is named: the help is shown
            error.show()
            sys.exit(error.exit_code)
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        called = error.ctx.command_path if error.ctx is not None else f"collabench {command}"
        raise CollabenchError(f"{_refused(error)}; see {called} --help") from None


def _refused(error: Any) -> str:
    """What is wrong with the command line, with the option or argument that is meant."""
    said = str(error.format_message()).rstrip(".?")
    parameter, cause = getattr(error, "param", None), error.__cause__
    if parameter is not None:
        option = parameter.param_type_name == "option"
        name = parameter.opts[0] if option else f"{{{parameter.name}}}"
        if type(error).__name__ == "MissingParameter":
            return f"the {'option' if option else 'argument'} {name} is missing"
        if hasattr(cause, "errors"):  # pydantic's, by which typer reads values
            from collabench.config.wording import must

            first = cause.errors()[0]
            _, several, choices = first["msg"].partition(" is not one of ")
            what = f"must be one of {choices}".rstrip(".").replace("'", "") if several else must(first)
            return f"{name} {first['input']}: {what}"
    said = re.sub(r"^Got unexpected extra arguments?(\(s\))? \((.*)\)$", r"unexpected argument: \2", said)
    said = said.replace(" requires an argument", " needs a value")
    head, asks, near = said.partition(". Did you mean ")
    return head[:1].lower() + head[1:] + (f" (did you mean {near}?)" if asks else "")


def _main() -> None:
    try:
        try:
            arithmetic.chosen()  # a mistake in the environment
            _call()
        finally:
            sys.stdout.flush()
    except (SystemExit, KeyboardInterrupt) as end:
        # typer turns Ctrl-C into this exit without a message
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        print("collabench: interrupted; start again to resume", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except CollabenchError as error:
        print(f"collabench: error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "collabench").partition(".")[0] == "collabench":
            raise
        print(f"collabench: error: the package {error.name} is missing; collabench doctor says more", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError, OSError) as error:  # OSError: a full disk or a read-only folder
        if is_shortage_of_memory(error):
            print(f"collabench: error: {shortage_of_memory(error)}", file=sys.stderr)
            sys.exit(2)
        if not isinstance(error, OSError):
            raise
        if isinstance(error, BrokenPipeError):  # the reader of the output, such as `head`, has stopped reading
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            raise
        print(f"collabench: error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
