"""What is evaluated between the epochs, and what after the last one."""

from __future__ import annotations

import pytest
import torch

from collabench.config.configuration import Run
from collabench.methods import METHODS
from collabench.training.evaluation import evaluation_sample
from tests.support.defaults import configuration, train

EPOCHS = 3


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].Method.trains])
def test_an_epochs_error_is_that_of_what_would_be_deployed(method, monkeypatch):
    """As a run that ends there would have it; the other heads count once, at the end."""
    short = train(Run(configuration(method, epochs=1), 0)).result
    evaluating, predict = [], METHODS[method].Method.predict

    def counted(self, network, images):
        evaluating.append(not network.training)  # dml trains on what it predicts
        return predict(self, network, images)

    monkeypatch.setattr(METHODS[method].Method, "predict", counted)
    long = train(Run(configuration(method, epochs=EPOCHS), 0)).result
    assert len(long.curves.test_error) == EPOCHS
    assert long.curves.test_error[0] == pytest.approx(short.last.error, abs=1e-12)
    assert long.curves.test_error[-1] == pytest.approx(long.last.error, abs=1e-12)
    assert sum(evaluating) == 1  # one batch holds all test images


def test_between_epochs_a_sample_is_evaluated_and_the_last_epoch_in_full():
    run = Run(configuration("individual", epochs=EPOCHS, evaluation_sample=10), 0)
    full, sampled = train(Run(configuration("individual", epochs=EPOCHS), 0)), train(run)
    sample = evaluation_sample(run.configuration.recipe, full.result.test_images)
    assert sample is not None and len(sample) == 10 < full.result.test_images
    assert sampled.result.last == full.result.last and sampled.weights is not None
    for name, weight in sampled.weights.items():
        assert torch.equal(weight, full.weights[name])
    assert all(round(10 * error, 6).is_integer() for error in sampled.result.curves.test_error[:-1])
    assert sampled.result.best_error is None and full.result.best_error is not None
    whole = train(Run(configuration("individual", epochs=EPOCHS, evaluation_sample=10_000), 0)).result
    assert whole.curves == full.result.curves and whole.best_error == full.result.best_error


def test_with_a_validation_split_the_chosen_epoch_is_evaluated_in_full():
    recipe = {"epochs": EPOCHS, "validation_fraction": 0.25}
    full, sampled = (
        train(Run(configuration("individual", **recipe, **more), 0)).result for more in ({}, {"evaluation_sample": 10})
    )
    assert (sampled.selected, sampled.selected_epoch) == (full.selected, full.selected_epoch)
    assert sampled.curves.validation_error == full.curves.validation_error
