"""A project of one's own, from the installed package: what ``collabench init`` writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from collabench.core.errors import CollabenchError
from collabench.methods import OWN
from collabench.storage.files import unwritable

_PACKAGE = Path(__file__).resolve().parents[1]
_OWN = Path(__file__).with_name("new_project")

#: What a project needs beside its own files. They lie in the root of the repository, and an installed package
#: has them in its folder ``workflow`` (setup.py).
WORKFLOW = ("Snakefile", "dvc.yaml", ".dvcignore", "profiles", "pipeline")

_IGNORED = "/.venv\n/artifacts/\n/data/\n.snakemake/\n__pycache__/\n"
_DVC = "[core]\n    analytics = false\n    check_update = false\n    autostage = false\n"
_PAPERS = "Published tables and claims, as YAML files. Without any, a study compares its own methods alone.\n"


def create(folder: Path) -> list[str]:
    """Write a project into ``folder``, which must not exist or must be empty: all of it or nothing.

    Returns the names of its files, relative to the folder. Raises CollabenchError (one line) if the folder holds
    anything, or StorageError if it cannot be written.
    """
    folder = folder.absolute()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CollabenchError(f"{folder}: is not a folder; name one that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise CollabenchError(f"{folder}: is not empty; name a folder that does not exist yet")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as place:
            new = Path(place) / folder.name
            new.mkdir()
            _write(new)
            if folder.is_dir():
                folder.rmdir()  # empty
            os.rename(new, folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _write(folder: Path) -> None:
    source = _workflow()
    for name in WORKFLOW:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, folder / name)
    for name in ("params.yaml", "README.md"):
        shutil.copyfile(_OWN / name, folder / name)
    (folder / OWN).mkdir()
    shutil.copyfile(_OWN / "mine.py.txt", folder / OWN / "mine.py")
    (folder / "params.schema.json").write_bytes(_schema(folder))
    (folder / "dvc.yaml").write_bytes(_stages_without_source((source / "dvc.yaml").read_text("utf-8")).encode())
    for name, text in {".gitignore": _IGNORED, ".dvc/config": _DVC, ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
                       "papers/README.md": _PAPERS}.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text.encode())


def _schema(folder: Path) -> bytes:
    """The schema with the project's own methods, which a process that begins in the folder finds."""
    command = [sys.executable, "-m", "collabench", "schema"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CollabenchError(f"collabench schema: {done.stderr.decode(errors='replace')}")
    shutil.rmtree(folder / OWN / "__pycache__", ignore_errors=True)
    return done.stdout


def _workflow() -> Path:
    """The folder that has the workflow's files."""
    for folder in (_PACKAGE / "workflow", _PACKAGE.parents[1]):
        if all((folder / name).exists() for name in WORKFLOW):
            return folder
    raise CollabenchError(f"{_PACKAGE / 'workflow'}: the workflow's files are missing; install collabench again")


def _stages_without_source(text: str) -> str:
    """The stages of ``dvc.yaml`` with the project's own methods as a dependency in place of the library's source code,
    which an installed package has elsewhere, and without the reports of this project."""
    stages = re.split(r"(?m)^(?=# .*\n(?:#.*\n)*metrics:|metrics:)", text)[0]
    without = stages.replace(", src/collabench", f", {OWN}")
    assert "src/" not in without and yaml.safe_load(without).keys() == {"stages"}
    return without
