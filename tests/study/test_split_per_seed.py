"""Splits that are drawn per seed: one pool on disk, other images for every seed, the same for all methods of a seed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from collabench.config.configuration import Run, dataset_key, member_seed, noise_key
from collabench.config.data_sections import DatasetConfig
from collabench.data import pixel_statistics, split_for_seed
from collabench.data.noise import labels_digest
from collabench.report.build import build_report
from collabench.sharing.verify import verify
from collabench.storage.files import read_json
from collabench.storage.results import LOGITS, RESULT, Result, open_tensors
from collabench.study.study import Study
from collabench.training import train_run
from tests.support.synthetic import blobs
from tests.support.tiny import tiny_study, trained
from tests.support.training_cases import resumed

PER_SEED = ", split: per_seed, test_on_rest: true"


def quiet(line: str) -> None:
    """Says nothing."""


def identities(images: torch.Tensor) -> set[bytes]:
    """The images as what can be compared; every image of digits is another one."""
    return {image.numpy().tobytes() for image in images}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return trained(tiny_study(tmp_path_factory.mktemp("per-seed"), dataset=PER_SEED, methods="individual kd"))


def run_of(study: Study, method: str, seed: int) -> Run:
    return next(run for run in study.plan.runs if run.configuration.names["method"] == method and run.seed == seed)


def test_seeds_have_other_splits_and_methods_of_a_seed_the_same(study):
    seen = {}
    for method in ("individual", "kd"):
        for seed in (0, 1):
            dataset = study.inputs.dataset(run_of(study, method, seed))
            assert dataset.form.train_images == 60 and dataset.form.test_images == 50
            train, test = identities(dataset.train_images), identities(dataset.test_images)
            assert len(train) == 60 and len(test) == 50 and not train & test
            assert torch.bincount(dataset.train_labels, minlength=10).tolist() == [6] * 10
            assert (dataset.mean, dataset.std) == pixel_statistics(dataset.train_images, dataset.train_labels)
            seen[method, seed] = (train, test)
    assert seen["individual", 0] == seen["kd", 0] and seen["individual", 1] == seen["kd", 1]
    assert seen["individual", 0][0] != seen["individual", 1][0] and seen["individual", 0][1] != seen["individual", 1][1]


def test_what_a_run_requires_has_its_split(study):
    """Teachers and members of an ensemble: none has seen a test image of the run that needs it."""
    run = run_of(study, "kd", 1)
    (teacher,) = run.requires()
    expected = identities(study.inputs.dataset(run).train_images)
    for required in (teacher, Run(teacher.configuration, member_seed(1, 3))):
        assert identities(study.inputs.dataset(required).train_images) == expected


def test_the_pool_is_prepared_once_and_noise_belongs_to_the_split(study):
    (folder,) = study.workspace.datasets.iterdir()
    config = run_of(study, "individual", 0).configuration.dataset
    plain, fixed = DatasetConfig(source="digits"), config.model_copy(update={"split": "fixed"})
    assert folder.name == dataset_key(config) == dataset_key(plain) != dataset_key(fixed)
    noise = run_of(study, "individual", 0).configuration.noise
    assert len({noise_key(one, noise) for one in (config, plain, fixed)}) == 3
    for seed in (0, 1):
        run = run_of(study, "individual", seed)
        drawn = study.inputs.static_noise(run, quiet)
        assert torch.equal(drawn.clean, study.inputs.dataset(run).train_labels)
        result = read_json(study.workspace.folder(run) / RESULT, Result)
        assert result.labels == labels_digest(drawn.noisy) and (result.train_images, result.test_images) == (60, 50)


def test_the_recorded_error_is_that_of_the_seeds_own_test_images(study):
    for run in study.plan.runs:
        labels = study.inputs.dataset(run).test_labels.numpy()
        with open_tensors(study.workspace.folder(run) / LOGITS) as file:
            wrong = file.get_tensor("deployed").astype(np.float32).argmax(axis=1) != labels
        result = read_json(study.workspace.folder(run) / RESULT, Result)
        assert wrong.mean() == pytest.approx(result.last.error, abs=0.03)  # logits are rounded


def test_verify_finds_nothing_wrong_and_repeats_runs(study):
    found = verify(study, sample=1, log=quiet)
    assert not found.differences and found.hashed["noise files"] == 2


def test_the_shape_before_and_after_the_pool_is_prepared(study, tmp_path):
    configuration = run_of(study, "individual", 0).configuration
    fresh = tiny_study(tmp_path, dataset=PER_SEED)
    assert fresh.inputs.shape(configuration) == study.inputs.shape(configuration)
    assert study.inputs.shape(configuration).train_images == 60


def test_tables_say_so_and_give_no_interval_over_a_fixed_test_set(study):
    build_report(study.params, study.plan, study.workspace)
    page = (study.workspace.report / "tiny.md").read_text()
    assert "digits, 60 training images, 50 test images, split drawn per seed, 40 % uniform noise" in page
    assert "over splits of the pool and training randomness" in page and "a test set of 50 images for each seed" in page
    assert "other test images, after the last epoch" not in page and "fixed test set of" not in page


def test_an_interrupted_run_ends_with_the_same_bytes(study, tmp_path):
    run = run_of(study, "individual", 1)
    train = partial(
        train_run, run, study.inputs.dataset(run), device=torch.device("cpu"),
        static_noise=study.inputs.static_noise(run, quiet),
    )  # fmt: skip
    again, whole = resumed(train, 2, tmp_path / "run.ckpt"), train()
    assert all(torch.equal(again.weights[name], weights) for name, weights in whole.weights.items())
    assert again.result == whole.result


@pytest.mark.parametrize("test_images", [None, 10])
def test_without_the_rest_training_images_come_from_the_training_split(test_images):
    pool = blobs(train=60, test=40)
    config = DatasetConfig(source="digits", train_images=20, test_images=test_images, split="per_seed")
    splits = [split_for_seed(pool, config, seed) for seed in (0, 1, 0)]
    first, second, again = (identities(split.train_images) for split in splits)
    assert first == again != second and first | second <= identities(pool.train_images)
    assert [len(split.test_labels) for split in splits] == 3 * [test_images or 40]
    assert splits[0].digest == pool.digest
    fixed = config.model_copy(update={"split": "fixed"})
    assert split_for_seed(pool, fixed, 0) is pool


def test_only_entries_that_draw_per_seed_have_other_ids():
    plain = DatasetConfig(source="digits", train_images=20)
    fixed = DatasetConfig(source="digits", train_images=20, split="fixed")
    assert plain.identity() == fixed.identity() and "split" not in plain.identity()
    assert DatasetConfig(source="digits", train_images=20, split="per_seed").identity()["split"] == "per_seed"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "split: per_seed draws which images are used: it belongs to train_images or test_images"),
        ({"train_images": 20, "split_seed": 3}, "split_seed belongs to split: fixed"),
    ],
)
def test_what_would_have_no_effect_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DatasetConfig(source="digits", split="per_seed", **values)
