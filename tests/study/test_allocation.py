"""What a cluster's job asks for: of finished runs, else of an estimate, else nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from collabench.storage.files import write_json
from collabench.study.allocation import (
    MEMORY_MARGIN,
    SCHEDULER_MEGABYTES,
    STARTUP_MINUTES,
    TIME_MARGIN,
    Allocation,
    allocation,
    cores_of_job,
    needs_of_run,
    without_needs,
)
from collabench.study.jobs import Job
from collabench.study.study import Study
from collabench.study.timing import DatasetShape, Prediction
from tests.support.fabricated import measured_of
from tests.support.studies import study_in

FORM = DatasetShape(shape=(1, 8, 8), classes=10, train_images=60, test_images=40)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_in(tmp_path)


@pytest.fixture
def job(study) -> Job:
    found = next(iter(study.jobs))
    assert len(found.seeds) > 1
    return found


def asked(study: Study, job: Job, device_type: str) -> Allocation | None:
    needs = needs_of_run(study, job.configuration, device_type)
    return needs and allocation(needs, len(job.seeds))


def predict(study: Study, job: Job, **values: object) -> None:
    prediction = Prediction(
        configuration_id=job.configuration.id, device="a processor", workers=2, torch="2", form=FORM,
            train_seconds=590.0,
        evaluate_seconds=10.0, memory_bytes=2_000_000_000, disk_bytes=1, flops=1, timed_batch=2,
    )  # fmt: skip
    write_json(study.workspace.estimate(job.configuration.id), prediction.model_copy(update=values))


def measure(study: Study, job: Job, seconds: list[float], **values: object) -> None:
    for run, train_seconds in zip(job.runs, seconds, strict=False):
        measured = measured_of(run).model_copy(
            update={"train_seconds": train_seconds, "evaluate_seconds": 0.0, "device_type": "cpu"} | values
        )
        write_json(study.workspace.measured_file(run), measured)


def test_without_runs_and_estimate_nothing_is_known(study, job):
    assert asked(study, job, "cpu") is None
    assert without_needs(study, "cpu") == len(study.plan.configurations)


def test_an_estimate_of_one_run_gives_the_time_of_all_runs_of_the_job(study, job):
    predict(study, job)
    bytes_needed = 2_000_000_000 + (60 + 40) * 64
    found = asked(study, job, "cpu")
    assert found.minutes == STARTUP_MINUTES + TIME_MARGIN * 10 * len(job.seeds)
    assert found.megabytes == SCHEDULER_MEGABYTES + int(-(-MEMORY_MARGIN * bytes_needed // 1e6))
    assert without_needs(study, "cpu") == len(study.plan.configurations) - 1


def test_finished_runs_count_more_than_the_estimate_and_the_slowest_decides(study, job):
    predict(study, job)
    measure(study, job, [60.0, 300.0], peak_memory_bytes=1_000_000_000)
    expected = Allocation(STARTUP_MINUTES + 10 * len(job.seeds), SCHEDULER_MEGABYTES + 1500)
    assert asked(study, job, "cpu") == expected


def test_only_the_same_type_of_device_counts_and_a_gpu_s_memory_is_not_the_host_s(study, job):
    predict(study, job)
    measure(study, job, [60.0])
    assert asked(study, job, "cuda") is None
    predict(study, job, device_type="cuda")
    assert asked(study, job, "cuda") == Allocation(STARTUP_MINUTES + 20 * len(job.seeds), None)


def test_a_damaged_estimate_or_measurement_counts_for_nothing(study, job):
    measure(study, job, [60.0])
    for path in (
        study.workspace.measured / job.configuration.id / f"seed-{job.seeds[0]}.json",
        study.workspace.estimate(job.configuration.id),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert asked(study, job, "cpu") is None


def test_a_job_with_a_gpu_asks_for_more_cores_and_for_most_where_images_are_decoded(job):
    configuration = job.configuration
    decoded = configuration.model_copy(
        update={"dataset": configuration.dataset.model_copy(update={"source": "imagenet"})}
    )
    assert [cores_of_job(one, gpu) for gpu in (False, True) for one in (configuration, decoded)] == [1, 1, 2, 8]
