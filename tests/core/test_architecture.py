"""The one way of imports, and what the library must not know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "collabench"

#: part → the parts that it may import (beside itself and the standard library's neighbours).
ALLOWED = {
    "errors": set(),
    "strict": set(),
    "seeding": set(),
    "registry": {"strict"},
    "records": {"errors", "strict"},
    "locks": {"errors", "strict", "records"},
    "losses": set(),
    "distributed": {"errors"},
    "stats": {"errors"},
    "models": {"errors", "strict", "registry", "distributed"},
    "methods": {"errors", "strict", "registry", "losses", "models", "distributed"},
    "config": {"errors", "strict", "methods", "models"},
    "data": {"errors", "strict", "seeding", "records", "locks", "config", "distributed"},
    "compatibility": {"errors", "strict", "methods", "models", "config", "spec"},
    "spec": {"errors", "strict", "config", "methods", "compatibility"},
    "papers": {"errors", "strict", "config", "spec"},
    "results": {"errors", "strict", "records", "spec"},
    "workspace": set(),
    "training": {
        "errors", "seeding", "config", "data", "distributed", "methods", "models", "compatibility", "results", "records",
        "spec",
    },
    "surplus": {"errors", "locks", "study"},
    "report": {
        "errors", "strict", "seeding", "records", "config", "data", "spec", "papers", "resources", "results", "stats",
        "workspace",
    },
    "packs": {"errors", "locks", "records", "results", "workspace"},
    "export": {
        "errors", "compatibility", "counting", "data", "methods", "models", "papers", "records", "results", "spec", "stats",
        "study",
    },
    "verify": {"errors", "data", "methods", "packs", "records", "report", "results", "seeding", "spec", "study", "workspace"},
    "study": {
        "errors", "config", "data", "distributed", "locks", "packs", "papers", "records", "results", "spec", "training", "compatibility", "workspace",
    },
    "shards": {"errors", "strict", "compatibility", "counting", "methods", "models", "spec"},
    "allocation": {"errors", "estimate", "records", "results", "spec", "study"},
    "merge": {"errors", "data", "locks", "packs", "records", "results", "spec", "study", "training", "workspace"},
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Parts of collabench that a file imports, and the other top-level packages, as ``external:<name>``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "collabench"
                else [node.module]
            )
        for name in names:
            parts = name.split(".")
            if parts[0] == "collabench":
                found.add(parts[1] if len(parts) > 1 else "")
            else:
                found.add(f"external:{parts[0]}")
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part):
    folder = PACKAGE / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]
    assert files
    for file in files:
        inside = {name for name in imports(file) if not name.startswith("external:")}
        assert inside <= ALLOWED[part] | {part}, f"{file.relative_to(ROOT)} imports {inside - ALLOWED[part] - {part}}"


def test_the_library_knows_neither_snakemake_nor_dvc_nor_the_pipeline():
    for file in PACKAGE.rglob("*.py"):
        assert not imports(file) & {"external:snakemake", "external:dvc", "external:pipeline"}, file


def test_the_library_never_asks_for_the_working_directory():
    for file in PACKAGE.rglob("*.py"):
        if file.name == "cli.py":  # the command line turns the folder that it is called in into a root
            continue
        text = file.read_text()
        assert "getcwd" not in text and "Path.cwd" not in text and "chdir" not in text, file
