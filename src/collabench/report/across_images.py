"""The effect of other test images: the two-way bootstrap over seeds and test images, from the stored logits.

It needs the logits beside the results and the test labels of the prepared data set. Without them nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabench.config.configuration import Run, dataset_key
from collabench.config.plan import Cell
from collabench.core.errors import ResultError
from collabench.core.seeding import numpy_generator
from collabench.report.collect import Collected
from collabench.report.content import LEVEL, AcrossImages, Report, Row, rounded
from collabench.stats import TwoWay, two_way_bootstraps
from collabench.storage.results import LOGITS, RECORD, Result, load_record, open_tensors
from collabench.storage.workspace import Workspace

RESAMPLES = 2000

_ROUNDING = 0.005
"""Logits are stored in half precision. At most this share of the images may change its class by rounding."""

Correct = NDArray[np.bool_]


def add_across_images(report: Report, collected: Collected, workspace: Workspace) -> Report:
    """The report with the bootstrap's intervals added wherever logits and labels exist.

    Raises ResultError if logits do not belong to the result beside them, DataError if the data set is damaged.
    """
    asked = list(_tables(report, collected, workspace))
    found: dict[tuple[str, ...], AcrossImages] = {}
    for shape in sorted({correct.shape for _, correct, _ in asked}):
        same = [one for one in asked if one[1].shape == shape]
        pairs: list[tuple[np.ndarray, np.ndarray | None]] = [(correct, None) for _, correct, _ in same]
        pairs += [(correct, baseline) for _, correct, baseline in same if baseline is not None]
        generator = numpy_generator(0, "bootstrap", "report", *shape)
        intervals = iter(two_way_bootstraps(pairs, generator=generator, resamples=RESAMPLES, level=LEVEL))
        errors = {key: next(intervals) for key, _, _ in same}
        differences = {key: next(intervals) for key, _, baseline in same if baseline is not None}
        found |= {key: _in_percent(error, differences.get(key)) for key, error in errors.items()}
    return report.model_copy(
        update={
            "tables": tuple(
                table.model_copy(
                    update={
                        "conditions": tuple(
                            condition.model_copy(
                                update={
                                    "rows": tuple(
                                        _with(row, found.get((table.name, *condition.names.values(), row.method)))
                                        for row in condition.rows
                                    )
                                }
                            )
                            for condition in table.conditions
                        )
                    }
                )
                for table in report.tables
            )
        }
    )


def _with(row: Row, found: AcrossImages | None) -> Row:
    return row if found is None else row.model_copy(update={"across_images": found})


def _in_percent(error: TwoWay, difference: TwoWay | None) -> AcrossImages:
    values = {
        "seeds": error.seeds,
        "images": error.images,
        "resamples": error.resamples,
        "error_low": 100 * error.low,
        "error_high": 100 * error.high,
        "difference_low": None if difference is None else 100 * difference.low,
        "difference_high": None if difference is None else 100 * difference.high,
    }
    return AcrossImages(**rounded(values))


def _tables(
    report: Report, collected: Collected, workspace: Workspace
) -> Iterator[tuple[tuple[str, ...], Correct, Correct | None]]:
    """Key (table, condition and method), correctness (seeds, images), and the baseline's correctness for the same
    seeds."""
    labels: dict[str, NDArray[np.int64] | None] = {}
    stored: dict[str, Correct | None] = {}
    for key, baseline in (
        ((table.name, *condition.names.values()), condition.baseline)
        for table in report.tables
        for condition in table.conditions
    ):
        if any(cell.configuration.dataset.split == "per_seed" for cell in collected.conditions[key]):
            continue  # every seed has other test images, so that the intervals over seeds are over images, too
        by_method = {cell.configuration.names["method"]: cell for cell in collected.conditions[key]}
        for method, cell in by_method.items():
            rows = _correct(cell, collected, workspace, labels, stored)
            if len(rows) < 2:
                continue
            base = None
            if baseline is not None and baseline != method:
                others = _correct(by_method[baseline], collected, workspace, labels, stored)
                if set(others) == set(rows):
                    base = np.stack([others[seed] for seed in rows])
            yield (*key, method), np.stack(list(rows.values())), base


def _correct(
    cell: Cell,
    collected: Collected,
    workspace: Workspace,
    labels: dict[str, NDArray[np.int64] | None],
    stored: dict[str, Correct | None],
) -> dict[int, Correct]:
    """Seed → which test images the deployed network of that run classifies correctly. Empty unless all runs have
    logits."""
    results = collected.of(cell)
    rows = {}
    for seed, result in results.items():
        if result.run_id not in stored:
            stored[result.run_id] = _correct_of(cell, result, workspace, labels)
        row = stored[result.run_id]
        if row is not None:
            rows[seed] = row
    return rows if len(rows) == len(results) else {}


def _correct_of(
    cell: Cell, result: Result, workspace: Workspace, labels: dict[str, NDArray[np.int64] | None]
) -> Correct | None:
    folder = workspace.folder(Run(cell.configuration, result.seed))
    key = dataset_key(cell.configuration.dataset)
    if key not in labels:
        labels[key] = _labels(key, result, workspace)
    truth = labels[key]
    if truth is None:
        return None
    found = predictions(folder)
    if found is None:
        return None
    path, predicted, ties = found
    if predicted.shape != truth.shape:
        raise ResultError(
            f"{path}: holds predictions for {len(predicted)} test images, there are {len(truth)}; delete {folder} to "
            "train it again"
        )
    correct = np.asarray(predicted == truth)
    # Rounding to float16 keeps the order of logits but can make the two largest equal. Only such images may differ.
    if abs(1 - correct.mean() - result.last.error) > ties / len(truth) + _ROUNDING:
        raise ResultError(f"{path}: its error is not that of the result beside it; delete {folder} to train it again")
    return correct


def predictions(folder: Path) -> tuple[Path, NDArray[np.int64], int] | None:
    """The file that tells what the deployed network of a run predicts, the class (images,) of each test image, and the
    number of images with more than one largest logit. None if neither logits nor a record of them are there.

    Raises ResultError for a damaged file.
    """
    path = folder / LOGITS
    if not path.exists():
        record = load_record(folder)
        if record is None or record.predicted is None:
            return None
        return folder / RECORD, np.asarray(record.predicted, dtype=np.int64), record.ties
    with open_tensors(path) as file:
        logits = file.get_tensor("deployed")
    if logits.ndim != 2:
        raise ResultError(f"{path}: holds logits of shape {logits.shape}; delete {folder} to train it again")
    ties = int(((logits == logits.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return path, logits.astype(np.float32).argmax(axis=1), ties


def _labels(key: str, result: Result, workspace: Workspace) -> NDArray[np.int64] | None:
    """Test labels of the prepared data set; None if it is not here, or if the runs were trained on another one.

    Raises DataError, naming the file, if it is damaged.
    """
    from collabench import data

    folder = workspace.datasets / key
    if not folder.is_dir():
        return None
    dataset = data.load(folder)
    return np.asarray(dataset.test_labels) if dataset.digest == result.dataset_digest else None
