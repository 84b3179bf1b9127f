"""The content of a report, computed from results: summaries, paired comparisons, families, ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from collabench.config.configuration import CONDITION
from collabench.config.data_sections import DatasetConfig
from collabench.config.params import Params
from collabench.config.plan import Cell
from collabench.config.sections import TableConfig
from collabench.report import titles
from collabench.report.collect import Collected
from collabench.report.content import (
    LEVEL,
    BestEpoch,
    Condition,
    Heads,
    Noise,
    Ranks,
    Report,
    Row,
    Selected,
    Table,
    rounded,
)
from collabench.report.published import PublishedValue, by_configuration, stand_beside
from collabench.stats import Friedman, Summary, friedman, holm, paired, summary
from collabench.storage.results import Matrix, Result

#: A configuration, its baseline, and the seeds over which they are compared.
Hypothesis = tuple[str, str, tuple[int, ...]]


def analyse(
    params: Params, collected: Collected, *, partial: bool = False, published: Sequence[PublishedValue] = ()
) -> Report:
    """The content of the report on the collected results."""
    profile = params.profiles[collected.plan.profile]
    declared = {table.name: table for table in profile.tables}
    values = by_configuration(published)
    tables: dict[str, list[Condition]] = {}
    for (table, *_), cells in collected.conditions.items():
        tables.setdefault(table, []).append(_condition(declared.get(table), cells, collected, values))
    _adjust_families(tables)
    report = Report(
        profile=collected.plan.profile,
        description=profile.description,
        partial=partial,
        level=LEVEL,
        runs=len(collected.results) + len(collected.missing),
        missing=collected.missing,
        tables=tuple(
            Table(
                name=name,
                title=(declared[name].title if name in declared else None) or name,
                conditions=tuple(_distinct_titles(conditions)),
                ranks=tuple(_ranks(conditions, {key: _images(value) for key, value in params.datasets.items()})),
            )
            for name, conditions in tables.items()
        ),
    )
    return Report.model_validate_json(json.dumps(rounded(json.loads(report.model_dump_json()))))


# ------------------------------------------------------------------------------------------------ one condition


def _condition(
    table: TableConfig | None,
    cells: list[Cell],
    collected: Collected,
    published: dict[str, list[PublishedValue]],
) -> Condition:
    configuration = cells[0].configuration
    methods = [cell.configuration.names["method"] for cell in cells]
    wanted = "individual" if table is None else table.baseline
    baseline = wanted if wanted in methods else None
    results = {cell.configuration.names["method"]: collected.of(cell) for cell in cells}
    rows = []
    for cell in cells:
        method = cell.configuration.names["method"]
        row = _row(cell, results[method], results[baseline] if baseline not in (None, method) else {})
        compared = tuple(
            stand_beside(value, results[method].values()) for value in published.get(cell.configuration.id, ())
        )
        rows.append(row.model_copy(update={"published": compared}))
    every = [result for found in results.values() for result in found.values()]
    corruption = [100 * result.noise.corruption for result in every]
    parts = titles.scope(configuration)
    return Condition(
        title=", ".join(parts),
        scope=parts,
        names={part: configuration.names[part] for part in CONDITION},
        baseline=baseline,
        family=(table.family or table.name) if table is not None else cells[0].table,
        family_size=0,
        train_images=every[0].train_images if every else None,
        test_images=every[0].test_images if every else None,
        split=configuration.dataset.split,
        noise=Noise(
            kind=configuration.noise.kind,
            when=configuration.noise.when,
            drawn=titles.drawn(configuration.noise),
            flips=every[0].noise.flips if every else None,
            classes=every[0].noise.classes if every else None,
            rate=None if configuration.noise.asked_rate is None else 100 * configuration.noise.asked_rate,
            asked=every[0].noise.asked if every else None,
            realised=_mean_matrix([result.noise.realised for result in every]),
            corruption=float(np.mean(corruption)) if corruption else None,
            corruption_low=min(corruption, default=None),
            corruption_high=max(corruption, default=None),
            labels=configuration.dataset.training_labels,
            test_labels=configuration.dataset.test_labels,
        ),
        rows=tuple(rows),
    )


def _mean_matrix(matrices: list[Matrix | None]) -> Matrix | None:
    """The mean over runs, (m, m); None unless all runs have one."""
    given = [matrix for matrix in matrices if matrix is not None]
    if not given or len(given) < len(matrices):
        return None
    return tuple(tuple(map(float, row)) for row in np.mean(np.array(given), axis=0))


def _row(cell: Cell, results: dict[int, Result], baseline: dict[int, Result]) -> Row:
    empty = Row(
        method=cell.configuration.names["method"],
        configuration_id=cell.configuration.id,
        seeds=tuple(results),
        missing=len(cell.seeds) - len(results),
        readings=cell.configuration.method.readings(),
    )
    if not results:
        return empty
    found = list(results.values())
    common = [seed for seed in results if seed in baseline]
    difference = None
    if common:
        difference = paired(
            [100 * results[seed].last.error for seed in common],
            [100 * baseline[seed].last.error for seed in common],
            LEVEL,
        )
    return empty.model_copy(
        update={
            "error": _summary([100 * result.last.error for result in found]),
            "difference": difference,
            "best": _best(found),
            "selected": _selected(found),
            "heads": _heads(found),
            "top5_error": _summary([_percent(result.last.top5_error) for result in found]),
            "negative_log_likelihood": _summary([result.last.negative_log_likelihood for result in found]),
            "calibration_error": _summary([100 * result.last.calibration_error for result in found]),
            "parameters": found[0].parameters,
            "training_parameters": found[0].training_parameters,
        }
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _summary(values: Sequence[float | None]) -> Summary | None:
    """Summary of the values; None if any is unknown, because a mean over some of the runs would be another quantity."""
    known = [value for value in values if value is not None]
    return summary(known, LEVEL) if known and len(known) == len(values) else None


def _best(results: list[Result]) -> BestEpoch | None:
    errors = [(result.best_error, result.best_epoch) for result in results]
    known = [(100 * error, epoch + 1) for error, epoch in errors if error is not None and epoch is not None]
    if len(known) < len(results):
        return None
    last = [100 * result.last.error for result in results]
    return BestEpoch(
        error=summary([error for error, _ in known], LEVEL),
        optimism=summary([end - error for end, (error, _) in zip(last, known, strict=True)], LEVEL),
        epoch=float(np.mean([epoch for _, epoch in known])),
    )


def _selected(results: list[Result]) -> Selected | None:
    known = [(r.selected.error, r.selected_epoch) for r in results if r.selected and r.selected_epoch is not None]
    if len(known) < len(results):
        return None
    return Selected(
        error=summary([100 * error for error, _ in known], LEVEL),
        epoch=float(np.mean([epoch + 1 for _, epoch in known])),
    )


def _heads(results: list[Result]) -> Heads | None:
    count = len(results[0].heads)
    averaged = [100 * result.averaged_heads.error for result in results if result.averaged_heads is not None]
    if count < 2 or len(averaged) < len(results):
        return None
    errors = 100 * np.array([[head.error for head in result.heads] for result in results])
    return Heads(
        count=count,
        mean=summary(errors.mean(axis=1), LEVEL),
        spread=float(errors.std(axis=1, ddof=1).mean()),
        averaged=summary(averaged, LEVEL),
        gain=paired(averaged, [100 * result.last.error for result in results], LEVEL),
    )


# ------------------------------------------------------------------------------------------- across conditions


def _adjust_families(tables: dict[str, list[Condition]]) -> None:
    """Fill in Holm's adjusted p values and the sizes of the families.

    A family's size counts every comparison that the tables declare, including those with missing runs. A comparison
    that two tables of a family show is one hypothesis.
    """
    hypotheses: dict[str, dict[Hypothesis, float | None]] = {}
    compared = [
        (condition, row, hypothesis)
        for conditions in tables.values()
        for condition in conditions
        for row in condition.rows
        if (hypothesis := _hypothesis(condition, row)) is not None
    ]
    for condition, row, hypothesis in compared:
        p = None if row.difference is None else row.difference.p
        hypotheses.setdefault(condition.family, {})[hypothesis] = p
    adjusted = {
        family: dict(zip(p_values, holm(list(p_values.values()), len(p_values)), strict=True))
        for family, p_values in hypotheses.items()
    }
    for name, conditions in tables.items():
        tables[name] = [
            condition.model_copy(
                update={
                    "family_size": len(hypotheses.get(condition.family, {})),
                    "rows": tuple(
                        row.model_copy(
                            update={"holm_p": _holm_p(adjusted.get(condition.family, {}), _hypothesis(condition, row))}
                        )
                        for row in condition.rows
                    ),
                }
            )
            for condition in conditions
        ]


def _holm_p(adjusted: Mapping[Hypothesis, float | None], hypothesis: Hypothesis | None) -> float | None:
    return None if hypothesis is None else adjusted.get(hypothesis)


def _hypothesis(condition: Condition, row: Row) -> Hypothesis | None:
    """The compared configurations and seeds; None for a row that is not compared."""
    baseline = next((other for other in condition.rows if other.method == condition.baseline), None)
    if baseline is None or row.method == condition.baseline:
        return None
    return row.configuration_id, baseline.configuration_id, row.seeds


def _distinct_titles(conditions: list[Condition]) -> list[Condition]:
    """Add the names of params.yaml to conditions with the same title, which differ in a setting that titles omit."""
    count = [condition.title for condition in conditions]
    return [
        condition.model_copy(update={"title": f"{condition.title} [{' · '.join(condition.names.values())}]"})
        if count.count(condition.title) > 1
        else condition
        for condition in conditions
    ]


def _ranks(conditions: list[Condition], images: Mapping[str, str]) -> list[Ranks]:
    """Friedman's test for each recipe. A block is a data set: the mean over its conditions.

    Conditions on the same images are no further blocks: they share data, split and seeds, so that their ranks are one
    piece of evidence repeated. images: name of a data set → what identifies its images.
    """
    by_recipe: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_recipe.setdefault(condition.names["recipe"], []).append(condition)
    found = []
    for recipe, same in by_recipe.items():
        methods = tuple(row.method for row in same[0].rows)
        blocks: dict[str, list[list[float]]] = {}
        for condition in same:
            means = [row.error.mean for row in condition.rows if row.error and not row.missing]
            blocks.setdefault(images[condition.names["dataset"]], []).append(means)
        if any(len(means) < len(methods) for block in blocks.values() for means in block):
            test = Friedman(len(blocks), len(methods), (), None, None, None, "not computed: runs are missing")
        else:
            test = friedman([np.mean(block, axis=0) for block in blocks.values()], LEVEL)
        found.append(Ranks(recipe=recipe, methods=methods, friedman=test))
    return found


def _images(dataset: DatasetConfig) -> str:
    """What identifies the images that a data set is drawn from, whatever the subset."""
    return f"{dataset.source} {dataset.sha256 or ''}"
