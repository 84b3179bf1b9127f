"""The tables of a report as LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

from pathlib import Path

from collabench.report.content import Condition, Report
from collabench.report.folders import CONTENT, whole_folder
from collabench.report.formatting import Frame
from collabench.report.pages import tables
from collabench.storage.files import read_json

#: Characters of the tables that LaTeX's fonts lack or that are no text there.
_SYMBOLS = {"−": "$-$", "±": r"$\pm$", "–": "--", tables.MARK: "*", "×": r"$\times$", "\u00a0": "~"}


def write_latex(report_folder: Path, target: Path) -> list[Path]:
    """One file for each condition of each table, in a new folder ``target``. Returns the files, in the report's order.

    A file is a ``tabular`` to be read in with ``\\input``; the preamble needs ``\\usepackage{booktabs}``. Raises
    ResultError if there is no report, StorageError if the files cannot be written.
    """
    report = read_json(report_folder / CONTENT, Report)
    names = []
    with whole_folder(target) as folder:
        for table in report.tables:
            for condition in table.conditions:
                name = f"{table.name}-{condition.key}.tex"
                (folder / name).write_text(latex(condition), encoding="utf-8")
                names.append(name)
    return [target / name for name in names]


def latex(condition: Condition) -> str:
    """The condition's short table, with its title as a comment above it."""
    frame: Frame = tables.short_table(condition)
    frame = frame.map(lambda text: text.replace("**", ""))
    body = frame.to_latex(index=False, escape=True, column_format="lrrr")
    for character, symbol in _SYMBOLS.items():
        body = body.replace(character, symbol)
    return f"% {' '.join(condition.title.split())}\n{body}"
