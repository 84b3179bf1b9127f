"""The notebooks of the documentation are executed, and print what is committed."""

from __future__ import annotations

import nbformat
import pytest

from tests.support.notebooks import FOLDER, execute, printed


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_prints_what_is_committed(path, tmp_path):
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    assert all(cell.outputs for cell in committed.cells if cell.cell_type == "code"), "committed with its outputs"
    assert printed(execute(path, tmp_path)) == printed(committed), "renew: python -m tests.support.notebooks"


def test_there_is_a_notebook():
    assert (FOLDER / "python.ipynb").exists()
