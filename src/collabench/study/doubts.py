"""Labels that trained heads doubt, by confident learning (Northcutt, Jiang & Chuang 2021) as cleanlab computes it.

Confident learning needs, for every image, probabilities by a network that was not trained on it. There are two ways to
them:

``test``
    The stored logits of finished runs on the test images, which no run is trained on. Nothing is trained.
``train``
    Cross-validation: the training images are divided into folds, stratified by label. For each fold the configuration
    is trained on the other folds, and predicts this one.

The probabilities are those of the heads' averaged logits (of one head: of its logits), averaged over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from collabench.config.configuration import Configuration, Run
from collabench.core.errors import ConfigError, DataError, Log, ResultError
from collabench.core.seeding import stream_seed
from collabench.methods import METHODS
from collabench.storage.results import LOGITS, RESULT, load_result
from collabench.study.study import Study

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from collabench import data

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Doubts:
    """What heads think of labels.

    images: uint8 (N, H, W, C), or images in files. labels: int64 (N,). names: of the images' files, or their numbers.
    probabilities: float64 (N, m), by networks that were not trained on the image, as source says. doubted: the
    positions of the labels that confident learning finds, the least probable first.
    """

    configuration: Configuration
    split: Split
    source: str
    classes: tuple[str, ...]
    images: Tensor | data.streaming.StreamedImages
    names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    doubted: np.ndarray


def find_doubts(
    study: Study, configuration_id: str, split: Split, *, seeds: Sequence[int] | None = None, folds: int = 5,
    device: str | None = None, log: Log = print,
) -> Doubts:  # fmt: skip
    """The labels of a split that the heads of a configuration doubt.

    seeds: of the runs (default: those of the plan that are finished; of cross-validation the first one of the plan).
    Raises ConfigError for a configuration that the plan lacks or that cannot be cross-validated, ResultError if no run
    is finished, DataError if a class has fewer images than there are folds.
    """
    if configuration_id not in study.plan.configurations:
        raise ConfigError(
            f"profile {study.workspace.profile} has no configuration {configuration_id!r}; `collabench plan` lists them"
        )
    _confident_learning()  # before anything is trained
    configuration = study.plan.configurations[configuration_id]
    planned = sorted({run.seed for run in study.plan.runs if run.configuration.id == configuration_id})
    if configuration.dataset.split == "per_seed" and (seeds is None or len(seeds) != 1):
        raise ConfigError(f"{configuration.label}: every seed has images of its own (split: per_seed); name one with "
                          "--seed")  # fmt: skip
    if split == "test":
        return _of_test_images(study, configuration, seeds, planned, log)
    return _of_training_images(study, configuration, (seeds or planned)[0], folds, device, log)


def thumbnail(found: Doubts, position: int) -> Image.Image:
    """One of the images."""
    from PIL import Image

    from collabench.data import streaming

    if isinstance(found.images, streaming.StreamedImages):
        return found.images.open(position)
    pixels = found.images[position].numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _of_test_images(
    study: Study, configuration: Configuration, seeds: Sequence[int] | None, planned: Sequence[int], log: Log
) -> Doubts:
    runs = [Run(configuration, seed) for seed in seeds or planned]
    finished = [run for run in runs if (study.workspace.folder(run) / RESULT).exists()]
    if not finished or (seeds and len(finished) < len(runs)):
        missing = next(run for run in runs if run not in finished)
        raise ResultError(f"{configuration.label}, seed {missing.seed}: not run; doubts about test labels need "
                          "finished runs (collabench run)")  # fmt: skip
    from safetensors.torch import load_file

    found = []
    for run in finished:
        load_result(study.workspace.folder(run), run)  # checks the files
        logits = load_file(study.workspace.folder(run) / LOGITS)
        found.append(_softmax(logits.get("averaged", logits["deployed"])))
    dataset = study.inputs.dataset(finished[0], log)
    which = ", ".join(str(run.seed) for run in finished)
    source = f"the stored logits of {len(finished)} finished runs (seeds {which}), which were trained on other images"
    names = _names(study, finished[0], dataset, "test")
    return _doubts(configuration, "test", source, dataset.classes, dataset.test_images, names,
                   dataset.test_labels.numpy(), np.mean(found, axis=0))  # fmt: skip


def _of_training_images(
    study: Study, configuration: Configuration, seed: int, folds: int, device: str | None, log: Log
) -> Doubts:
    from sklearn.model_selection import StratifiedKFold

    from collabench import training
    from collabench.config.data_sections import NoiseConfig
    from collabench.data import streaming
    from collabench.training.device import choose_device

    _check_can_be_divided(configuration)
    run = Run(configuration, seed)
    study.inputs.prepare_for([run], log)
    dataset = study.inputs.dataset(run, log)
    noisy = study.inputs.static_noise(run, log)
    labels = dataset.train_labels if noisy is None else noisy.noisy
    smallest, fewest = min(enumerate(np.bincount(labels.numpy(), minlength=len(dataset.classes))), key=lambda x: x[1])
    if fewest < folds:
        raise DataError(f"{configuration.label}: {fewest} training images have the label "
                        f"{dataset.classes[smallest]!r}, and there are {folds} folds; take fewer "
                        "with --folds")  # fmt: skip
    images = dataset.train_images
    part_of = images.at if isinstance(images, streaming.StreamedImages) else images.__getitem__
    alone = Run(configuration.model_copy(update={"noise": NoiseConfig(kind="none")}), seed)
    divider = StratifiedKFold(folds, shuffle=True, random_state=stream_seed(seed, "split", "folds") % 2**32)
    probabilities = np.zeros((len(labels), len(dataset.classes)))
    for number, (others, held) in enumerate(divider.split(labels, labels), 1):
        log(f"fold {number} of {folds}: training on {len(others):,} images, predicting {len(held):,}")
        seen = replace(
            dataset, train_images=part_of(others), train_labels=labels[others], test_images=part_of(held),
            test_labels=labels[held], _on_device={},
        )  # fmt: skip
        trained = training.train_run(alone, seen, device=choose_device(device or study.profile.device))
        probabilities[held] = _softmax(trained.logits.get("averaged", trained.logits["deployed"]))
    source = f"cross-validation: {folds} trainings with seed {seed}, each on the other folds of the training images"
    names = _names(study, run, dataset, "train")
    return _doubts(configuration, "train", source, dataset.classes, images, names, labels.numpy(), probabilities)


def _check_can_be_divided(configuration: Configuration) -> None:
    """Raise ConfigError if the configuration cannot be trained on a part of its images by itself."""
    method = configuration.names["method"]
    if configuration.requires:
        raise ConfigError(f"{configuration.label}: {method} needs other runs, which saw all training images; choose a "
                          "method that trains alone, or --split test")  # fmt: skip
    if not METHODS[configuration.method.method].Method.trains:
        raise ConfigError(f"{configuration.label}: {method} trains nothing; choose another method, or --split test")
    if configuration.noise.is_drawn_anew:
        raise ConfigError(f"{configuration.label}: its labels are drawn anew every epoch, so that no image has one "
                          "label to doubt; choose noise that is drawn once, or none")  # fmt: skip
    if configuration.recipe.processes > 1:
        raise ConfigError(f"{configuration.label}: its recipe needs {configuration.recipe.processes} processes; choose "
                          "one with processes: 1")  # fmt: skip


def _softmax(logits: Tensor) -> np.ndarray:
    import torch

    return torch.softmax(logits.double(), dim=1).numpy()


def _names(study: Study, run: Run, dataset: data.Dataset, split: Split) -> tuple[str, ...]:
    """The file of every image, or its number where a source has no file for each image."""
    from collabench import data

    workspace = study.workspace
    named = data.names_in_source(run.configuration.dataset, run.data_seed, workspace.downloads, workspace.base_of_data)
    if named is not None:
        return named[split == "test"]
    count = len(dataset.train_labels if split == "train" else dataset.test_labels)
    return tuple(f"{'training' if split == 'train' else 'test'} image {number}" for number in range(count))


def _confident_learning() -> Callable[..., np.ndarray]:
    """cleanlab's function. Raises ConfigError if the package is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cleanlab":
            raise
        raise ConfigError("the package cleanlab is missing: pip install 'collabench[labels]'") from None
    return find_label_issues


def _doubts(
    configuration: Configuration, split: Split, source: str, classes: tuple[str, ...],
    images: Tensor | data.streaming.StreamedImages, names: tuple[str, ...], labels: np.ndarray,
    probabilities: np.ndarray,
) -> Doubts:  # fmt: skip
    find_label_issues = _confident_learning()
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    doubted = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    positions = np.asarray(doubted, dtype=np.int64)
    return Doubts(configuration, split, source, classes, images, names, labels, probabilities, positions)
