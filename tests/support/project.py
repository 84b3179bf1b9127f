"""A copy of this project, and the commands that a user runs in it: ``collabench``, ``dvc``, ``git``."""

from __future__ import annotations

import atexit
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.support import warm

ROOT = Path(__file__).parents[2]

#: What Python runs in a copy of this project.
CODE = ("src", "pipeline")


def environment(folder: Path) -> dict[str, str]:
    """What a command in the project sees: nothing of the test's own settings, nor of a cluster's job around it."""
    hidden = ("COLLABENCH_", "COLUMNS", "PYTEST_", "SLURM_")  # workers of pytest-xdist may have a width of their own
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | {
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def call(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in the project; its output, both streams, in ``stdout``."""
    variables = environment(folder)
    done = subprocess.run(
        warm.command(arguments, variables), cwd=folder, env=variables, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=500,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout[-4000:]
    return done


def collabench(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-c", warm.CODE, *arguments, check=check)


def dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(folder, sys.executable, "-m", "dvc", *arguments, check=check)


def stages(profile: str) -> list[str]:
    """DVC's stages of a profile, as `dvc pull` takes them."""
    return [f"{name}@{profile}" for name in ("datasets", "noise", "train", "report", "measured")]


def git(folder: Path, *arguments: str) -> str:
    return call(folder, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments).stdout


def commit_all(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", message, "--allow-empty")


def copy_project(folder: Path, profile: str = "") -> None:
    """A copy of the tree as it stands, without results and reports, as a git repository. profile: YAML of one more."""
    names = call(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("reports/", "records/", "artifacts/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    add_compiled(folder)
    with (folder / "params.yaml").open("a") as file:
        file.write(profile)
    git(folder, "init", "-q", ".")
    commit_all(folder, "project")


@cache
def compiled() -> Path:
    """A copy of this tree's code with what Python and the library compile from it, for all copies of this process."""
    folder = Path(tempfile.mkdtemp(prefix="collabench-compiled-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info"))
        compileall.compile_dir(folder / name, quiet=2)
    return folder


def add_compiled(folder: Path) -> None:
    """Add the compiled code to a copy, in which each process would compile it again: without write access to it, or
    with PYTHONDONTWRITEBYTECODE."""
    for place in compiled().rglob("__pycache__"):
        shutil.copytree(place, folder / place.relative_to(compiled()), dirs_exist_ok=True)


def use_remote(folder: Path, remote: Mapping[str, str]) -> None:
    """Make a DVC remote the default one of this clone alone. remote: ``url``, and what else `dvc remote modify`
    takes."""
    dvc(folder, "remote", "add", "--local", "--default", "--force", "tested", remote["url"])
    for name, value in remote.items():
        if name != "url":
            dvc(folder, "remote", "modify", "--local", "tested", name, value)


def clone_and_pull(study: Path, profile: str, folder: Path, remote: Mapping[str, str]) -> Path:
    """Push a profile's study as `make share` does; a clone in ``folder`` that has pulled it, and nothing else."""
    use_remote(study, remote)
    collabench(study, "share", "-p", profile)
    commit_all(study, "shared")
    clone = folder / "clone"
    call(folder, "git", "clone", "-q", str(study), str(clone))
    add_compiled(clone)
    use_remote(clone, remote)
    dvc(clone, "pull", *stages(profile))
    return clone


def contents(folder: Path) -> dict[str, bytes]:
    """Name → content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
