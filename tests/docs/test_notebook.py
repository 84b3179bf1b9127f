"""The notebooks of the documentation are executed, and print what is committed."""

from __future__ import annotations

import ast
import importlib

import nbformat
import pytest

from tests.support.notebooks import FOLDER, execute, printed

PATHS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_notebook_prints_what_is_committed(path, tmp_path):
    committed = nbformat.read(path, as_version=4)
    assert printed(execute(path, tmp_path)) == printed(committed), "renew: python -m tests.support.notebooks"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_notebook_has_its_outputs_and_imports_what_there_is(path):
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs for cell in cells), "committed with its outputs"
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in cells))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "collabench":
            assert hasattr(importlib.import_module("collabench"), node.attr), node.attr
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_there_is_a_notebook():
    assert (FOLDER / "python.ipynb").exists()
