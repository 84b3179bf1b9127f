"""Published values beside measured ones.

A measured value is shown beside a published one only if data set, backbone, recipe, method and noise are the published
ones, that is, if the run's configuration equals the one that reproduces the published cell in every field of its
identity. The measured value is that of the epoch that the paper reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from collabench.config.configuration import Configuration
from collabench.papers.tables import Paper, PublishedCell, load_papers
from collabench.report.content import LEVEL, Published
from collabench.stats import Summary, summary
from collabench.stats.agreement import Comparison, agrees_with_spread, agrees_with_value
from collabench.storage.results import Result

if TYPE_CHECKING:
    from collabench.config.params import Params
    from collabench.report.collect import Collected
    from collabench.storage.workspace import Workspace


@dataclass(frozen=True)
class Own:
    """The paper's own protocol: as many runs as it has (one if it does not say), each at its best epoch.

    seeds: the first of the profile, so that no result decides which runs are shown. error: their mean (percent), which
    is chosen on test data; None if one of the runs is missing or does not record its best epoch.
    """

    seeds: tuple[int, ...]
    error: float | None


@dataclass(frozen=True)
class Measured:
    """A cell with its runs. error: by the paper's rule. last: after the last epoch. None if no run tells.

    own: the paper's own protocol; None if the paper does not report best epochs.
    """

    cell: PublishedCell
    asked: int
    n: int
    error: Summary | None
    last: Summary | None
    published: Published | None
    own: Own | None = None


def read_papers(params: Params, workspace: Workspace) -> dict[str, Paper]:
    """The papers of the project's folder; none without such a folder. Raises ConfigError (one line).

    Whether the parts of a configuration fit each other is not checked: those that ran are known to fit, and the plan
    checks the others.
    """
    if not workspace.papers.is_dir():
        return {}
    return load_papers(workspace.papers, params, known_to_fit=lambda _: True)


def published_values(papers: dict[str, Paper]) -> list[PublishedValue]:
    """The known values that a profile's own tables may show beside runs."""
    return [
        value
        for paper in papers.values()
        for cell in paper.cells
        if cell.value is not None and (value := _value(cell)) is not None
    ]


def _value(cell: PublishedCell) -> PublishedValue | None:
    if cell.configuration is None or cell.metric not in ("top1_error", "top5_error"):
        return None
    protocol = cell.protocol
    return PublishedValue(
        configuration=cell.configuration,
        value=cell.value,
        source=f"{cell.paper} {cell.table}",
        protocol="best" if protocol.epoch == "best" else "last",
        runs=1 if protocol.runs == "unknown" else protocol.runs,
        sd=cell.sd,
        margin=cell.margin,
        top=1 if cell.metric == "top1_error" else 5,
    )


def measure(paper: Paper, collected: Collected) -> dict[tuple[str, str, str], Measured]:
    """(table, row, column) → the paper's cells whose configuration the plan's tables include."""
    asked: dict[str, dict[int, Result | None]] = {}
    for planned in collected.plan.cells:
        found = collected.of(planned)
        asked.setdefault(planned.configuration.id, {}).update({seed: found.get(seed) for seed in planned.seeds})
    measured = {}
    for cell in paper.cells:
        value = _value(cell)
        if value is not None and value.configuration.id in asked:
            seeds = asked[value.configuration.id]
            measured[cell.table, cell.row, cell.column] = _measure(cell, value, dict(sorted(seeds.items())))
    return measured


def _measure(cell: PublishedCell, value: PublishedValue, asked: dict[int, Result | None]) -> Measured:
    results = [result for result in asked.values() if result is not None]
    last = PublishedValue(value.configuration, None, value.source, protocol="last", top=value.top)
    return Measured(
        cell=cell,
        asked=len(asked),
        n=len(results),
        error=_summary(errors_of(value, results)),
        last=_summary(errors_of(last, results)),
        published=stand_beside(value, results) if results else None,
        own=_own(value, asked) if value.protocol == "best" else None,
    )


def _own(value: PublishedValue, asked: dict[int, Result | None]) -> Own:
    seeds = tuple(asked)[: value.runs]
    results = [result for seed in seeds if (result := asked[seed]) is not None]
    errors = errors_of(value, results) if len(results) == value.runs else None
    return Own(seeds, sum(errors) / len(errors) if errors else None)


def _summary(values: list[float] | None) -> Summary | None:
    return summary(values, LEVEL) if values else None


@dataclass(frozen=True)
class PublishedValue:
    """One published test error.

    configuration: the one that reproduces it. value: percent; None if the sources do not tell. sd: its published spread
    over ``runs`` runs, if any. protocol: whether the paper reports the last epoch or the best one (chosen on test
    data). margin: largest difference in percentage points that counts as agreement, if declared. top: 5 if the label
    must be among the five most probable classes.
    """

    configuration: Configuration
    value: float | None
    source: str
    protocol: Literal["last", "best"] = "last"
    runs: int = 1
    sd: float | None = None
    margin: float | None = None
    top: Literal[1, 5] = 1


def by_configuration(values: Iterable[PublishedValue]) -> dict[str, list[PublishedValue]]:
    """Configuration id → the published values that may be shown beside its runs."""
    found: dict[str, list[PublishedValue]] = {}
    for value in values:
        found.setdefault(value.configuration.id, []).append(value)
    return found


def stand_beside(published: PublishedValue, results: Iterable[Result]) -> Published:
    """A published value, compared with the runs of its configuration.

    Raises ValueError if a result belongs to another configuration.
    """
    measured = errors_of(published, results)
    comparison: Comparison | None = None
    if measured and published.value is not None:
        if published.sd is not None and published.runs > 1:
            comparison = agrees_with_spread(
                measured, published.value, published.sd, published.runs, margin=published.margin
            )
        else:
            comparison = agrees_with_value(measured, published.value, published.runs, margin=published.margin)
    return Published(source=published.source, protocol=published.protocol, value=published.value, comparison=comparison)


def errors_of(published: PublishedValue, results: Iterable[Result]) -> list[float] | None:
    """The runs' errors (percent) of the published kind, in the order of the runs.

    None if a run does not record it: not every epoch was evaluated, or there are too few classes for a curve of the
    top-5 error. Raises ValueError if a result belongs to another configuration.
    """
    errors = []
    for result in results:
        if result.configuration_id != published.configuration.id:
            raise ValueError(f"{result.run_id} is not a run of {published.configuration.id}")
        if published.protocol == "last":
            errors.append(result.last.error if published.top == 1 else result.last.top5_error)
        else:
            errors.append(result.best_error if published.top == 1 else result.best_top5_error)
    known = [100 * error for error in errors if error is not None]
    return known if len(known) == len(errors) else None
