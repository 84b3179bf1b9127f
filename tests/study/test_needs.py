"""What a run leases of a GPU: counted tensors and images with a margin, more after each shortage."""

from __future__ import annotations

import pytest

from collabench.config.dataset_shape import DatasetShape
from collabench.study.needs import CONTEXT_BYTES, MARGIN, lease_bytes, lease_for
from collabench.training.memory import count_memory
from tests.support.studies import study_in


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return study_in(tmp_path_factory.mktemp("needs") / "project")


def test_a_lease_is_the_counted_memory_and_the_images_with_a_margin_and_a_context(study):
    run = study.plan.runs[0]
    form = study.inputs.shape(run.configuration)
    peak = count_memory(run.configuration, form.network_shape(run.configuration.recipe), form.classes).peak
    images = (form.train_images + form.test_images) * 64
    found = lease_bytes(run.configuration, form)
    assert found == pytest.approx(MARGIN * (peak + images) + CONTEXT_BYTES, abs=1)
    assert lease_for(study, run.configuration) == found
    assert [lease_for(study, run.configuration, attempt) for attempt in (1, 2)] == [2 * found, 4 * found]


def test_images_that_are_read_from_files_take_no_memory_of_the_gpu(study):
    configuration = study.plan.runs[0].configuration
    form = DatasetShape(shape=(1, 8, 8), classes=10, train_images=10**9, test_images=10)
    decoded = configuration.model_copy(
        update={"dataset": configuration.dataset.model_copy(update={"source": "images"})}
    )
    assert lease_bytes(decoded, form) < 2 * CONTEXT_BYTES < lease_bytes(configuration, form)


def test_a_run_whose_images_have_an_unknown_shape_leases_a_whole_gpu(study, monkeypatch):
    monkeypatch.setattr(study.inputs, "shape", lambda configuration: None)
    assert lease_for(study, study.plan.runs[0].configuration) is None
