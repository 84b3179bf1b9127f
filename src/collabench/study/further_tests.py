"""Errors of finished runs on further test sets (:mod:`collabench.data.test_sets`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from collabench.config.configuration import Configuration, Run
from collabench.core.errors import ConfigError, Log, ResultError
from collabench.core.text import counted
from collabench.storage.files import sha256_of
from collabench.storage.results import RESULT, load_result
from collabench.study.runner import Runner
from collabench.study.study import Study

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from collabench import data


@dataclass(frozen=True)
class TestErrors:
    """Test errors of a configuration's deployed heads on one test set.

    name, severity: of the test set; the severity is None where there is none. sha256: of its file of images. errors:
    seed → share of wrong predictions.
    """

    __test__ = False  # not one of pytest's

    name: str
    severity: int | None
    images: int
    sha256: str
    errors: dict[int, float]


def evaluate(
    study: Study, configuration_id: str, folder: Path, *, seeds: Sequence[int] | None = None, log: Log = print
) -> tuple[Configuration, dict[int, float], list[TestErrors]]:
    """The configuration, its errors on its own test split by seed, and those on the test sets in a folder.

    seeds: of the runs (default: the plan's that are finished). Raises ConfigError for a configuration that the plan
    lacks, ResultError if a run is not finished, DataError for test sets that cannot be used.
    """
    from collabench.data.test_sets import find_test_sets, read_test_set
    from collabench.training.device import choose_device

    if configuration_id not in study.plan.configurations:
        raise ConfigError(
            f"profile {study.workspace.profile} has no configuration {configuration_id!r}; `collabench plan` lists them"
        )
    configuration = study.plan.configurations[configuration_id]
    runs = [run for run in study.plan.runs if run.configuration.id == configuration_id]
    chosen = [Run(configuration, seed) for seed in seeds] if seeds else runs
    finished = [run for run in chosen if (study.workspace.folder(run) / RESULT).exists()]
    if not finished or (seeds and len(finished) < len(chosen)):
        missing = next(run for run in chosen if run not in finished)
        raise ResultError(f"{configuration.label}, seed {missing.seed}: not run; only finished runs can be evaluated "
                          "(collabench run)")  # fmt: skip
    files = find_test_sets(folder)
    own = {run.seed: load_result(study.workspace.folder(run), run).last.error for run in finished}
    device, runner = choose_device(study.profile.device), Runner(study)
    networks = [(run, runner.deployed(run).to(device)) for run in finished]
    found = []
    for file, labels in files:
        log(f"{file.name}: evaluating {counted(len(finished), 'run')}")
        checksum = sha256_of(file)
        for test_set in read_test_set(file, labels, study.inputs.dataset(finished[0], log)):
            errors = {}
            for run, network in networks:
                seen = replace(study.inputs.dataset(run, log), test_images=test_set.images,
                               test_labels=test_set.labels, _on_device={})  # fmt: skip
                errors[run.seed] = _error(network, seen, run, device)
            found.append(TestErrors(test_set.name, test_set.severity, len(test_set.labels), checksum, errors))
    return configuration, own, found


def _error(network: torch.nn.Module, dataset: data.Dataset, run: Run, device: torch.device) -> float:
    """The share of test images that a network predicts wrongly."""
    from collabench import data
    from collabench.training.device import computing
    from collabench.training.evaluation import collect_logits, errors

    recipe = run.configuration.recipe

    def predict(images: Tensor) -> Tensor:
        return network(images).unsqueeze(0)

    batches = data.open_evaluation_batches(dataset, "test", recipe.augmentation, recipe.evaluation_batch_size, device)
    logits = collect_logits(predict, batches, lambda: computing(recipe, device))
    return errors(logits, dataset.test_labels.to(device))[0].item()
