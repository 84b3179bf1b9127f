"""What is evaluated between the epochs, and what after the last one."""

from __future__ import annotations

import pytest

from collabench.config.configuration import Run
from collabench.methods import METHODS
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
