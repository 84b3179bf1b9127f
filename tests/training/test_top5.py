"""The top-5 error after every epoch, which papers on ImageNet publish at its lowest."""

from __future__ import annotations

import json

import pytest
import torch

from collabench.config.configuration import Run
from collabench.report.published import PublishedValue, errors_of
from collabench.storage.results import TOP5_CLASSES, Result
from collabench.training import train_run
from collabench.training.evaluation import errors, top5_error
from tests.support.synthetic import blobs, configuration_of, settings_of

CPU = torch.device("cpu")


def result_of(classes: int, **recipe: object) -> tuple[Run, Result]:
    run = Run(configuration_of(settings_of("individual"), epochs=4, **recipe), 0)
    return run, train_run(run, blobs(2 * classes, classes, classes=classes), device=CPU).result


def test_top5_error_counts_the_images_whose_label_is_not_among_the_five_largest():
    logits = torch.arange(10.0).repeat(4, 1)
    assert top5_error(logits, torch.tensor([9, 5, 4, 0])) == 0.5
    assert errors(logits[None], torch.tensor([9, 5, 4, 0])).item() == 0.75


def test_the_lowest_over_the_epochs_is_kept_and_stands_beside_a_published_value():
    run, result = result_of(TOP5_CLASSES)
    curve = result.curves.test_top5_error
    assert len(curve) == 4 and len(set(curve)) > 1
    assert curve[-1] == result.last.top5_error
    assert all(top5 <= top1 for top5, top1 in zip(curve, result.curves.test_error, strict=True))
    assert result.best_top5_error == min(curve)
    best = PublishedValue(run.configuration, 20.0, "a table", protocol="best", top=5)
    assert errors_of(best, [result]) == [pytest.approx(100 * min(curve))]


def test_where_an_epoch_was_not_evaluated_there_is_no_lowest():
    run, result = result_of(TOP5_CLASSES, evaluate_every=2)
    assert result.curves.test_top5_error[0] is None and result.best_top5_error is None
    assert errors_of(PublishedValue(run.configuration, 20.0, "a table", protocol="best", top=5), [result]) is None


def test_with_few_classes_the_file_holds_nothing_of_it():
    _, result = result_of(10)
    written = json.loads(result.model_dump_json())
    assert "best_top5_error" not in written and "test_top5_error" not in written["curves"]
    assert json.loads(Result.model_validate_json(json.dumps(written)).model_dump_json()) == written
