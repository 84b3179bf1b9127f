"""The place where published values meet measured ones.

A measured value stands beside a published one only if data set, backbone, recipe, method and noise are the published
ones, that is, if the run's configuration is the one that reproduces the published cell, to the last field of its
identity; and only under the epoch that the paper reports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from collabench.report.content import Published
from collabench.results import Result
from collabench.spec import Configuration
from collabench.stats.agreement import Comparison, agrees_with_spread, agrees_with_value


@dataclass(frozen=True)
class PublishedValue:
    """One published test error.

    configuration: the one that reproduces it. value: percent, None where the sources do not hold it. sd: its published
    spread over ``runs`` runs, if any. protocol: whether the paper reports the last epoch or the best (chosen on test
    data). margin: largest distance in percentage points that counts as agreement, where one is declared. top: 5 for an
    image's class among the five most probable ones.
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
    """Configuration id → the published values that its runs may stand beside."""
    found: dict[str, list[PublishedValue]] = {}
    for value in values:
        found.setdefault(value.configuration.id, []).append(value)
    return found


def stand_beside(published: PublishedValue, results: Iterable[Result]) -> Published:
    """A published value with the runs of its configuration compared with it.

    Raises ValueError if a result belongs to another configuration: it must not stand beside this value.
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
    """The runs' errors (percent) of the kind that is published, in the order of the runs.

    None where a run does not record it: not every epoch was evaluated, or too few classes for a curve of the top-5 error.
    Raises ValueError if a result belongs to another configuration.
    """
    errors = []
    for result in results:
        if result.configuration_id != published.configuration.id:
            raise ValueError(f"{result.run_id} is no run of {published.configuration.id}")
        if published.protocol == "last":
            errors.append(result.last.error if published.top == 1 else result.last.top5_error)
        else:
            errors.append(result.best_error if published.top == 1 else result.best_top5_error)
    known = [100 * error for error in errors if error is not None]
    return known if len(known) == len(errors) else None
