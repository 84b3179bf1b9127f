"""git, called such that nothing of a repository that somebody else made is executed.

A repository's own configuration can name programs that even ``git status`` starts: a file system monitor, hooks,
filters of content, a transport that fetches what a partial clone lacks. None of them is started here, and no variable
of the surroundings (``GIT_DIR`` and its like) leads to another repository.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: What belongs to a project: code and configuration.
_PROJECT = ("src", "pipeline", "papers", "params.yaml", "Snakefile")

#: git reads its user's configuration with these, and nothing but them from the surroundings.
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
    """git is not there, or says that something is wrong; the message is what it says."""


def git(folder: Path, *arguments: str, settings: tuple[str, ...] = ()) -> str:
    """What git prints when it is called in a folder. Raises GitError. settings: further ``key=value``."""
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
    """The surroundings without git's variables, and with those that keep it from asking, fetching and writing."""
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
    """commit: the project's; None where it isn't known, and ``why`` then says why. dirty: whether code or
    configuration differ from it."""

    commit: str | None = None
    dirty: bool | None = None
    why: str | None = None


def state_of(project: Path) -> State:
    """The commit that a project's folder is at. A repository around it that doesn't hold the project says nothing
    about it."""
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
    """Settings that turn the content filters off which a repository's configuration defines: each names a program."""
    names = git(folder, "config", "--list", "--name-only", "-z").split("\0")
    keys = {name.rpartition(".")[0] for name in names if name.startswith("filter.")}
    return tuple(
        f"{key}.{what}" for key in sorted(keys) for what in ("clean=", "smudge=", "process=", "required=false")
    )
