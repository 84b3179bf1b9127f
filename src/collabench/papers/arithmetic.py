"""A paper's own arithmetic: quoted numbers compared with its tables, and values that look like misprints.

Nothing is corrected. The data stay as printed, and the report states what does not agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from collabench.config.configuration import PARTS
from collabench.papers.schema import CellRange, Quote
from collabench.papers.tables import Paper, PublishedCell


@dataclass(frozen=True)
class QuoteCheck:
    """A quoted number and the number that the tables give.

    computed, agrees: None if a required cell is unknown. how: the arithmetic in words.
    """

    name: str
    quote: Quote
    computed: float | None
    agrees: bool | None
    how: str


@dataclass(frozen=True)
class Repeated:
    """A configuration that several cells print with the same metric."""

    cells: tuple[PublishedCell, ...]

    @property
    def same(self) -> bool:
        return len({cell.value for cell in self.cells}) == 1


@dataclass(frozen=True)
class Suspect:
    """A value that looks like a misprint (see :func:`suspects`).

    change: the value minus its baseline. largest: the largest absolute change of the same column in any other row.
    """

    cell: PublishedCell
    baseline: PublishedCell
    change: float
    largest: float
    rows: int


def check_quotes(paper: Paper) -> list[QuoteCheck]:
    """All quoted numbers, in the order of the file."""
    return [_check_quote(paper, name, quote) for name, quote in paper.quotes.items()]


def _check_quote(paper: Paper, name: str, quote: Quote) -> QuoteCheck:
    after, before = _lowest(paper, quote.after), None if quote.before is None else _lowest(paper, quote.before)
    used = [cell for cell in (before, after) if cell is not None]
    if any(cell.value is None for cell in used) or quote.value is None:
        return QuoteCheck(name, quote, None, None, "the values are not in our sources")
    computed, how = _compute(quote, before, after)
    agrees = _equal(computed, quote)
    if not agrees and quote.before is not None:
        others = [
            cell for cell in paper.range(quote.before) if cell.value is not None and cell is not before
            and _equal(_compute(quote, cell, after)[0], quote)
        ]  # fmt: skip
        how += "".join(
            f"; against {_title(paper, cell)} ({cell.value:.2f}) it would be {quote.value:.{quote.decimals}f}"
            for cell in others
        )
    return QuoteCheck(name, quote, computed, agrees, how)


def _compute(quote: Quote, before: PublishedCell | None, after: PublishedCell) -> tuple[float, str]:
    assert after.value is not None
    if before is None:
        return after.value, f"{after.value:.2f}"
    assert before.value is not None
    if quote.relation == "ratio":
        return after.value / before.value, f"{after.value:.2f} / {before.value:.2f}"
    return before.value - after.value, f"{before.value:.2f} − {after.value:.2f}"


def _equal(computed: float, quote: Quote) -> bool:
    """Whether both agree to half a unit of the last quoted decimal, with a tolerance for binary fractions."""
    assert quote.value is not None
    return abs(computed - quote.value) < 0.5 * 10**-quote.decimals + 1e-9 if quote.relation == "ratio" else (
        round(computed, quote.decimals) == round(quote.value, quote.decimals)
    )  # fmt: skip


def _lowest(paper: Paper, cells: CellRange) -> PublishedCell:
    """The cell with the lowest value; an unknown cell if there is one, because the lowest value is then unknown."""
    found = paper.range(cells)
    unknown = [cell for cell in found if cell.value is None]
    return unknown[0] if unknown else min(found, key=lambda cell: cell.value or 0.0)


def _title(paper: Paper, cell: PublishedCell) -> str:
    return paper.tables[cell.table].content.columns[cell.column].title


def repeated(paper: Paper) -> list[Repeated]:
    """Configurations that several tables print, in the order of the files."""
    known: dict[tuple[object, ...], list[PublishedCell]] = {}
    for cell in paper.cells:
        if cell.names.keys() >= set(PARTS) and cell.value is not None:
            known.setdefault((*sorted(cell.names.items()), cell.metric), []).append(cell)
    return [Repeated(tuple(cells)) for cells in known.values() if len(cells) > 1]


def suspects(paper: Paper) -> list[Suspect]:
    """Values that look like misprints.

    Rule: the value's change from its row's baseline has the opposite sign of the change in the same column of every
    other row (at least three, over all of the paper's tables with a baseline), and a larger absolute value than each of
    them.
    """
    changes: dict[str, list[tuple[float, PublishedCell, PublishedCell]]] = {}
    for cell, baseline in _with_baseline(paper):
        assert cell.value is not None and baseline.value is not None
        title = " + ".join(sorted(_title(paper, cell).split(" + ")))
        changes.setdefault(title, []).append((cell.value - baseline.value, cell, baseline))
    found = []
    for column in changes.values():
        for change, cell, baseline in column:
            others = [other for other, other_cell, _ in column if other_cell is not cell]
            if len(others) < 3 or any(other * change >= 0 for other in others):
                continue
            largest = max(others, key=abs)
            if abs(change) > abs(largest):
                found.append(Suspect(cell, baseline, change, largest, len(others)))
    return found


def _with_baseline(paper: Paper) -> Iterable[tuple[PublishedCell, PublishedCell]]:
    for table in paper.tables.values():
        name = table.content.baseline
        for (row, column), cell in table.cells.items():
            if name is not None and column != name and cell.value is not None:
                baseline = table.cells[row, name]
                if baseline.value is not None:
                    yield cell, baseline
