"""Writing the page: data, style and script in one file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from collabench.report.html.data import Everything, as_script, page_data
from collabench.storage.files import write_atomically

TEMPLATE = "page.html.j2"

#: In this order they make the page's style and script.
STYLES = ("base.css", "frame.css", "claims.css", "views.css")
SCRIPTS = (
    "core.js",
    "statistics.js",
    "charts.js",
    "claim.js",
    "claims.js",
    "leaderboard.js",
    "cell.js",
    "cost.js",
    "papers.js",
    "compare.js",
    "reproduce.js",
    "start.js",
)


def render(everything: Everything) -> str:
    """The page as text. The same reports give the same text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_asset(TEMPLATE))
    return template.render(
        lead=everything.lead,
        style="".join(map(_asset, STYLES)),
        script="".join(map(_asset, SCRIPTS)),
        data=as_script(page_data(everything)),
    )


def write_page(everything: Everything, path: Path) -> Path:
    """Write the page, whole or not at all; leave it alone if it has these bytes. Raises StorageError if it cannot be
    written."""
    body = render(everything).encode()
    if not path.is_file() or path.read_bytes() != body:
        write_atomically(path, body)
    return path


def _asset(name: str) -> str:
    return (files("collabench.report.html") / "assets" / name).read_text(encoding="utf-8")
