"""The library's structure in numbers: ``python -m benchmarks.imports [COMMIT]`` (by default the working tree).

A part is a package or a module directly below ``src/collabench``. An import between parts counts once for each module
that has it and each part that it names, in whatever function it stands. A circle is a set of parts that reach each
other.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = "src/collabench/"


def sources(commit: str | None) -> dict[str, str]:
    """Path below the package → content, at a commit or in the working tree."""
    if commit is None:
        paths = sorted((ROOT / FOLDER).rglob("*.py"))
        return {str(path.relative_to(ROOT / FOLDER)): path.read_text() for path in paths}
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit, FOLDER], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.name.endswith(".py")}
        return {name.removeprefix(FOLDER): file.read().decode() for name, file in files.items() if file is not None}


def part_of(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """The parts that a module imports."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("collabench."))


def structure(files: dict[str, str]) -> tuple[set[str], Counter[tuple[str, str]]]:
    """The parts, and how many modules of one part import another."""
    parts = {part_of(path) for path in files} - {"__init__", "__main__"}
    edges: Counter[tuple[str, str]] = Counter()
    for path, source in files.items():
        own = part_of(path)
        edges.update({(own, other) for other in imported(source) if other in parts and own in parts and other != own})
    return parts, edges


def circles(parts: set[str], edges: Counter[tuple[str, str]]) -> list[set[str]]:
    """Sets of parts that reach each other."""
    reach = {part: {part} for part in parts}
    changed = True
    while changed:
        changed = False
        for first, second in edges:
            if not reach[second] <= reach[first]:
                reach[first] |= reach[second]
                changed = True
    groups = {frozenset(other for other in reach[part] if part in reach[other]) for part in parts}
    return [set(group) for group in groups if len(group) > 1]


def main() -> None:
    files = sources(sys.argv[1] if len(sys.argv) > 1 else None)
    parts, edges = structure(files)
    lines = sorted(len(source.splitlines()) for source in files.values())
    print(f"{len(parts)} parts, {len(files)} files, the longest of {lines[-1]} lines")
    print(f"{edges.total()} imports between parts, {len(edges)} pairs of parts")
    found = circles(parts, edges)
    print(f"{len(found)} circles: " + "; ".join(", ".join(sorted(group)) for group in found) if found else "no circle")


if __name__ == "__main__":
    main()
