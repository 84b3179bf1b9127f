"""Writing the page: data, style and script in one file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from collabench.core.text import counted
from collabench.report.formatting import number, plainly_printable
from collabench.report.html.data import Everything, as_script, page_data
from collabench.report.html.papers import papers_data
from collabench.report.html.static import paper_bars, reproducible, verdict_lines
from collabench.report.standing import SYMBOLS
from collabench.report.verification import hashed_text
from collabench.storage.files import write_atomically

#: The page, and the parts of it that need no script of their own.
TEMPLATES = ("page.html.j2", "macros.html.j2", "verdicts.html.j2", "paper.html.j2", "reproduce.html.j2")

#: In this order they make the page's style and script.
STYLES = ("base.css", "frame.css", "claims.css", "views.css")
SCRIPTS = (
    "core.js",
    "plots.js",
    "claims.js",
    "leaderboard.js",
    "cell.js",
    "cost.js",
    "compare.js",
    "start.js",
)

#: Beginnings of the scripts' lines of comments.
COMMENTS = ("//", "/*", "*")


def render(everything: Everything) -> str:
    """The page as text. The same reports give the same text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "counted": counted, "hashed_text": hashed_text}
    shown = {
        "lead": everything.lead,
        "problems": list(everything.found.problems),
        "symbols": dict(SYMBOLS),
        "verdicts": verdict_lines(everything),
        "bars": paper_bars(everything),
        "papers": papers_data(everything.papers, everything.found.reports),
        "profiles": [reproducible(report) for report in everything.found.reports],
    }
    return environment.get_template(TEMPLATES[0]).render(
        plainly_printable(shown),
        style=shortened("".join(map(_asset, STYLES))),
        script=shortened("".join(map(_asset, SCRIPTS)), COMMENTS),
        data=as_script(page_data(everything)),
    )


def shortened(source: str, comments: tuple[str, ...] = ()) -> str:
    """A script or style without what only its readers need: indentation, empty lines, and lines that begin a comment.

    Right for sources without texts over several lines and without code behind a comment, which a test holds.
    """
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(comments))


def write_page(everything: Everything, path: Path) -> Path:
    """Write the page, whole or not at all; leave it alone if it has these bytes. Raises StorageError if it cannot be
    written."""
    body = render(everything).encode()
    if not path.is_file() or path.read_bytes() != body:
        write_atomically(path, body)
    return path


def _asset(name: str) -> str:
    return (files("collabench.report.html") / "assets" / name).read_text(encoding="utf-8")
