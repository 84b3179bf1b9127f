"""The page that the benchmarks write their tables to."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
Rows = tuple[list[str], list[list[str]]]


def write(name: str, table: str, page: Path = PAGE) -> None:
    """Replace the table between ``<!-- measured: name -->`` and ``<!-- end -->`` of the page."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page}: there is no place for the table {name!r}")
    page.write_text(pattern.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text), encoding="utf-8")
