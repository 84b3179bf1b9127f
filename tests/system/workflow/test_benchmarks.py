"""Benchmarks import when they measure, so that only a run of each would find a name that has moved."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec

import pytest

from tests.support.project import ROOT

FILES = sorted((ROOT / "benchmarks").glob("*.py"))


def imported(source: str) -> list[tuple[str, str]]:
    """(module, name) of every ``from module import name`` of this project's, also within functions."""
    return [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("benchmarks", "collabench", "tests")
        for alias in node.names
    ]


def exists(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, name) or (hasattr(found, "__path__") and find_spec(f"{module}.{name}") is not None)


def missing(source: str) -> list[str]:
    return [f"{module}.{name}" for module, name in imported(source) if not exists(module, name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_that_a_benchmark_imports_is_there(path):
    assert missing(path.read_text()) == []


def test_a_name_that_has_moved_is_found():
    lines = ("from collabench.data.images import find_images", "from collabench.data import image_files")
    moved = "def measure():\n    " + "\n    ".join(lines)
    assert missing(moved) == ["collabench.data.images.find_images"]
