"""The command line in this process, and a finished study to use it on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from collabench import cli
from tests.support.studies import study_in, train_all


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str


@pytest.fixture
def collabench(monkeypatch, capsys) -> Callable[..., Called]:
    """``collabench("plan", "-p", "small", "--root", folder)``, by the command's own entry point."""

    def call(*arguments: object) -> Called:
        monkeypatch.setattr("sys.argv", ["collabench", *map(str, arguments)])
        # Under `python -m pytest` the command would call itself "python -m pytest.collabench".
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)
        capsys.readouterr()
        code, before = 0, dict(os.environ)
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:  # what a command tells the programs that it starts ends with it
            os.environ.clear()
            os.environ.update(before)
        taken = capsys.readouterr()
        assert "Traceback" not in taken.out + taken.err
        return Called(code, taken.out, taken.err)

    return call


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "project"
    train_all(study_in(root))
    return root


@pytest.fixture
def finished(_finished, tmp_path) -> Path:
    """The folder of a study whose runs are all done, for this test alone."""
    root = tmp_path / "project"
    shutil.copytree(_finished, root)
    return root
