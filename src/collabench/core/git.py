"""Safe calls of git: no program is run that a repository made by somebody else could name.

A repository's configuration can name programs that even ``git status`` starts: a file system monitor, hooks, content
filters, or a transport that fetches the missing objects of a partial clone. None of them is started here. Environment
variables such as ``GIT_DIR`` are removed, so that they cannot lead to another repository.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Paths that make up a project's code and configuration.
_PROJECT = ("src", "pipeline", "papers", "params.yaml", "Snakefile")

#: git's environment variables that are passed on; with them git finds its user's configuration and its own programs.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH")

_SAFE = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.pager=cat",
    "protocol.allow=never",
    "status.submoduleSummary=false",
    "submodule.recurse=false",
)


class GitError(Exception):
    """git cannot be started, or reported an error. The message is the first line that git printed."""


def git(folder: Path, *arguments: str, settings: tuple[str, ...] = ()) -> str:
    """Run git in a folder and return its standard output. Raises GitError if git fails or cannot be started.

    settings: further entries ``key=value`` of git's configuration.
    """
    options = [word for setting in (*_SAFE, *settings) for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *options, *arguments],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror})") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitError(said[0] if said else f"git {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout.decode(errors="surrogateescape")


def environment() -> dict[str, str]:
    """Return environment variables for git, which keep it from prompting, fetching and writing.

    git's own variables are removed from this process's environment, except :data:`_KEPT`.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


@dataclass(frozen=True)
class State:
    """The version of a project in git.

    commit: the project's commit; None if it is unknown, and ``why`` then gives the reason.
    dirty: whether code or configuration differ from the commit.
    """

    commit: str | None = None
    dirty: bool | None = None
    why: str | None = None


def state_of(project: Path) -> State:
    """Return the commit of a project's folder, and whether the project was changed since.

    If the folder lies in a repository that does not contain the project, that repository's commit is not used.
    """
    try:
        top = git(project, "rev-parse", "--show-toplevel").rstrip("\n")
        commit = git(project, "rev-parse", "--verify", "HEAD").strip()
        if Path(top).resolve() != project.resolve() and not git(project, "ls-tree", "HEAD", "--", "params.yaml"):
            return State(why=f"the repository around it, {top}, does not hold this project")
        changed = git(
            project, "status", "--porcelain", "--ignore-submodules=all", "--", *_PROJECT, settings=_no_filters(project)
        )
        return State(commit, bool(changed))
    except GitError as error:
        return State(why=str(error))


def _no_filters(folder: Path) -> tuple[str, ...]:
    """Return settings that turn off the content filters in a repository's configuration: each could run a program."""
    names = git(folder, "config", "--list", "--name-only", "-z").split("\0")
    keys = {name.rpartition(".")[0] for name in names if name.startswith("filter.")}
    return tuple(
        f"{key}.{what}" for key in sorted(keys) for what in ("clean=", "smudge=", "process=", "required=false")
    )
