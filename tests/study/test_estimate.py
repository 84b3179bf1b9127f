"""The cost of a study before it is run."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from collabench.cli.estimate import describe_estimate
from collabench.cli.estimate import estimate as estimate_command
from collabench.core.errors import CollabenchError, ConfigError, RunFailed
from collabench.core.resources import Resources
from collabench.storage.files import write_json
from collabench.storage.results import Measured
from collabench.study.estimate import Cost, Estimate, estimate
from collabench.study.needs import lease_bytes
from collabench.study.study import load_study
from collabench.study.timing import DatasetShape, Prediction, predict_all
from tests.support.params import params_yaml, profile, table
from tests.support.project import ROOT
from tests.support.real import real_params

ONE_CORE = Resources(1, (), 1, "a test")

_PARTS = {"models": "resnet8", "recipes": "short"}
PARAMS = params_yaml(
    {
        "small": profile(
            table("individual kd tree", noise="uniform20", **_PARTS), seeds=3, seeds_per_job=1, device="cpu"
        ),
        "pictures": profile(table("individual", datasets="pictures", **_PARTS)),
    },
    datasets={"digits": "", "pictures": f'{{source: images, path: nowhere, sha256: "{"0" * 64}"}}'},
    noise="clean uniform20",
    models={"resnet8": "{family: cifar_resnet, depth: 8, width: 4}"},
    recipes={"short": "{epochs: 2, batch_size: 64, learning_rate: 0.1}"},
    methods="individual kd tree",
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def invented(study, seconds: dict[str, float]) -> Estimate:
    """An estimate with these seconds a run, by method."""
    form = DatasetShape(shape=(1, 8, 8), classes=10, train_images=100, test_images=10)
    costs = {}
    for name, configuration in study.plan.configurations.items():
        predicted = Prediction(
            configuration_id=name, device="d", workers=1, torch="t", form=form, evaluate_seconds=0.0,
            train_seconds=seconds[configuration.names["method"]], memory_bytes=10, disk_bytes=5, flops=1, timed_batch=2,
        )  # fmt: skip
        costs[name] = Cost(configuration, 3, predicted, 0, None, None)
    return Estimate(study, costs, 1)


def test_sums_by_table_hold_required_runs_once_and_a_budget_buys_seeds_in_run_order(root):
    found = invented(load_study(root, "small"), {"individual": 100.0, "kd": 200.0, "tree": 300.0})
    assert found.seconds == 1800.0
    assert found.of_runs(found.table_runs("one")) == (1800.0, 10, 45)
    # Blocks of one seed: after 600 s the first seed of all methods is there.
    assert found.seeds_within(599 / 3600) == {"one": 0}
    assert found.seeds_within(600.5 / 3600) == {"one": 1}
    assert found.seeds_within(1.0) == {"one": 3}
    assert "2 of 3 seeds: differences of" in describe_estimate(found, 1200.5 / 3600)


@pytest.mark.slow
def test_estimate_times_every_configuration_once_and_compares_with_what_was_measured(root, monkeypatch):
    study = load_study(root, "small")
    found = estimate(study, ONE_CORE)
    assert all(cost.predicted.train_seconds > 0 and cost.runs == 3 for cost in found.costs.values())
    by_method = {cost.configuration.names["method"]: cost.predicted for cost in found.costs.values()}
    assert by_method["tree"].flops > by_method["kd"].flops > by_method["individual"].flops
    assert by_method["tree"].train_seconds > by_method["individual"].train_seconds
    assert found.error() is None

    for name, cost in found.costs.items():
        write_json(
            study.workspace.measured / name / "seed-0.json",
            Measured(
                run_id=f"{name}-s0", train_seconds=2 * cost.predicted.seconds, evaluate_seconds=0.0,
                images_per_second=1.0, device_type="cpu", device="d", threads=1, versions={}, started="", finished="",
            ),
        )  # fmt: skip

    def timed(*_: object) -> list:
        raise AssertionError("everything was timed before")

    monkeypatch.setattr("collabench.study.timing.predict", timed)
    again = estimate(study, ONE_CORE)
    assert {name: cost.predicted for name, cost in again.costs.items()} == {
        name: cost.predicted for name, cost in found.costs.items()
    }
    assert again.error() == pytest.approx(-0.5, abs=1e-6)
    assert again.seconds == pytest.approx(2 * found.seconds)


def test_form_that_nobody_knows_is_refused_in_one_line(root):
    with pytest.raises(ConfigError, match="collabench data prepare -p pictures"):
        estimate(load_study(root, "pictures"), ONE_CORE)
    with pytest.raises(CollabenchError, match="positive number of hours"):
        estimate_command("small", root, "1", "none", budget=-1.0)


@pytest.mark.slow
def test_default_profile_is_predicted_from_a_few_configurations(tmp_path):
    """Whole-study accuracy is printed by the command; a busy machine allows only a wide margin here."""
    measured = ROOT / "artifacts" / "default" / "measured"
    if not measured.is_dir():
        pytest.skip("the default profile has not been run here")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    if (ROOT / "papers").is_dir():
        shutil.copytree(ROOT / "papers", tmp_path / "papers")
    shutil.copytree(measured, tmp_path / "artifacts" / "default" / "measured")
    study = load_study(tmp_path, "default")
    if not {path.name for path in measured.iterdir()} & set(study.plan.configurations):
        pytest.skip("the default profile has not been run here as params.yaml now has it")
    found = estimate(study, ONE_CORE)
    assert sum(cost.measured_runs for cost in found.costs.values()) > 0
    trained = [cost for cost in found.costs.values() if cost.error is not None]
    # Relative costs don't depend on how busy or how fast the machine is.
    ratios = sorted(cost.predicted.seconds / cost.measured_seconds for cost in trained)
    middle = ratios[len(ratios) // 2]
    assert sum(0.6 < ratio / middle < 1.67 for ratio in ratios) >= 0.8 * len(ratios)


def dies(configuration, form: DatasetShape, device: str, workers: int) -> Prediction:
    """In the place of a timing: the process of one configuration is killed, the first time or always."""
    marker = Path(os.environ["COLLABENCH_TEST_DIES"])
    if configuration.names["method"] == "label-smoothing" and (marker.name == "always" or not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return prediction_of(configuration.id, workers, form)


def prediction_of(identifier: str, workers: int, form: DatasetShape) -> Prediction:
    return Prediction(
        configuration_id=identifier, device="none", workers=workers, torch="none", form=form, train_seconds=1.0,
        evaluate_seconds=0.0, memory_bytes=0, disk_bytes=0, flops=0, timed_batch=2,
    )  # fmt: skip


def beside_whom(configuration, form: DatasetShape, device: str, workers: int) -> Prediction:
    """In the place of a timing: its seconds are the number of the process that was to time it."""
    other = Path(os.environ["COLLABENCH_GPU_LEASES"]) / "gpu-3-slot-0.bytes"
    deadline = time.monotonic() + 60
    while not other.exists() and time.monotonic() < deadline:  # until the other GPU is leased, too
        time.sleep(0.05)
    found = prediction_of(configuration.id, workers, form)
    return found.model_copy(update={"train_seconds": float(os.environ["CUDA_VISIBLE_DEVICES"])})


@pytest.mark.slow
def test_on_gpus_every_slot_is_busy_while_a_configuration_is_timed_with_its_lease(root, tmp_path, monkeypatch):
    monkeypatch.setenv("COLLABENCH_GPU_LEASES", str(tmp_path / "leases"))
    study = load_study(root, "small")
    configuration = next(iter(study.plan.configurations.values()))
    form = DatasetShape(shape=(1, 8, 8), classes=10, train_images=100, test_images=10)
    # Two GPUs, each of which has room for one: as many timings as slots, half of them on each.
    two = Resources(8, ("1", "3"), 2, "a test", (2_000_000_000, 2_000_000_000))
    (found,) = predict_all({configuration.id: configuration}, {configuration.id: form}, two, beside_whom)
    assert found.lease_bytes == lease_bytes(configuration, form) > 1_000_000_000
    assert 1.0 < found.train_seconds < 3.0, "the mean over both GPUs"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert len(list((tmp_path / "leases").glob("gpu-[13]-slot-0.lock"))) == 2


def test_memory_that_allows_fewer_processes_makes_more_hours(root):
    found = invented(load_study(root, "small"), {"individual": 100.0, "kd": 200.0, "tree": 300.0})
    narrow = {name: 1 if cost.seconds == 300 else 4 for name, cost in found.costs.items()}
    on_gpu = Estimate(found.study, found.costs, 4, narrow)
    assert on_gpu.clock_seconds(found.study.plan.runs) == 3 * (100 / 4 + 200 / 4 + 300)
    assert found.clock_seconds(found.study.plan.runs) == 1800


def test_an_estimate_says_how_many_runs_fit_beside_each_other_on_the_gpus(root, monkeypatch):
    """Hours on the clock count these, and not the slots."""
    study = load_study(root, "small")
    monkeypatch.setattr("collabench.training.device.choose_device", lambda wanted: torch.device("cuda"))
    monkeypatch.setattr("collabench.training.device.describe", lambda device: "a GPU")

    def timed(configurations, forms, resources):
        assert resources.workers == 4
        need = {"individual": 10, "kd": 40, "tree": 100}
        return [
            prediction_of(name, 4, forms[name]).model_copy(update={"lease_bytes": need[one.names["method"]]})
            for name, one in configurations.items()
        ]

    monkeypatch.setattr("collabench.study.estimate.predict_all", timed)
    found = estimate(study, Resources(4, ("0",), 4, "a test", (80,)))
    methods = {name: cost.configuration.names["method"] for name, cost in found.costs.items()}
    assert {methods[name]: count for name, count in found.beside.items()} == {"individual": 4, "kd": 2, "tree": 1}
    assert found.clock_seconds(study.plan.runs) == 3 * (1 / 4 + 1 / 2 + 1)


@pytest.mark.slow
def test_a_process_that_dies_is_followed_by_another_and_named_if_that_dies_too(tmp_path, monkeypatch):
    from collabench.config.plan import resolve

    parts = {"dataset": "digits", "noise": "clean", "model": "resnet8", "recipe": "digits"}
    params = real_params()
    chosen = [resolve(params, **parts, method=method) for method in ("individual", "label-smoothing")]
    configurations = {one.id: one for one in chosen}
    form = DatasetShape(shape=(1, 8, 8), classes=10, train_images=100, test_images=10)
    arguments = (configurations, dict.fromkeys(configurations, form), Resources(2, (), 1, "asked for"), dies)
    monkeypatch.setenv("COLLABENCH_TEST_DIES", str(tmp_path / "once"))
    assert [found.configuration_id for found in predict_all(*arguments)] == list(configurations)
    monkeypatch.setenv("COLLABENCH_TEST_DIES", str(tmp_path / "always"))
    with pytest.raises(
        RunFailed, match=r"digits · clean · resnet8 · digits · label-smoothing: the process .* died, alone too"
    ):
        predict_all(*arguments)
